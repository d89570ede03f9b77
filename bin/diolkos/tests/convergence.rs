//! Whatever happens between a registry and the mesh: when the trouble is over, the mesh holds exactly what the
//! registry's state gives, and no endpoint of a live instance was ever taken away.
//!
//! Random sequences of changes in a real registry, of faults on the way from it and on the way to a real API server
//! or a directory, and of restarts. Each runs in this process, and several run at once; they share the servers, but
//! no names. What has happened is judged without the bridge: all that has ended in the registry is counted before
//! the registry is told, and all that vanishes from the mesh is counted by a watch of its own, or after every write
//! to the directory. Nothing may vanish more often than it has ended.
//!
//! What is drawn depends on a seed alone, what it leads to also on time. A sequence that fails is made as small as
//! it can be made within a few minutes, and printed with its seed.
//!
//! - `DIOLKOS_SEQUENCES`: how many of each registry (its own number, see the tests).
//! - `DIOLKOS_SEED`: the seed of the first (1); the others follow it. `DIOLKOS_SEED=$(date +%s)` draws others.
//! - `DIOLKOS_PARALLEL`: how many of each registry run at once (as above).

#![allow(clippy::print_stderr)] // how long it took, and what it found, for whoever runs it

#[path = "convergence/bridge.rs"]
mod bridge;
#[path = "convergence/consul.rs"]
mod consul;
#[path = "convergence/dubbo.rs"]
mod dubbo;
#[path = "convergence/etcd.rs"]
mod etcd;
#[path = "convergence/eureka.rs"]
mod eureka;
#[path = "convergence/mesh.rs"]
mod mesh;
#[path = "convergence/nacos.rs"]
mod nacos;
#[path = "convergence/play.rs"]
mod play;
#[path = "common/dubbo.rs"]
mod provider;
#[path = "convergence/registry.rs"]
mod registry;
#[path = "convergence/sequence.rs"]
mod sequence;
#[path = "convergence/troubles.rs"]
mod troubles;
#[path = "convergence/truth.rs"]
mod truth;
#[path = "convergence/zookeeper.rs"]
mod zookeeper;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use consul::Consul;
use diolkos_testkit::Kubernetes;
use dubbo::Dubbo;
use etcd::Etcd;
use eureka::Eureka;
use mesh::Watches;
use nacos::{Nacos, Nacoses};
use play::{Servers, Tally, play};
use proptest::strategy::ValueTree;
use registry::Registry;
use sequence::Sequence;
use serde_json::json;
use tokio::task::JoinSet;
use zookeeper::ZooKeeper;

/// How long a failing sequence is made smaller.
const SHRINK: Duration = Duration::from_secs(180);
/// How often a smaller sequence is tried, at once: much depends on the load.
const TRIES: usize = 8;
/// One in so many sequences has the Kubernetes sink.
const KUBERNETES: u64 = 3;

fn setting(name: &str, default: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// A sequence that fails, and how.
struct Failure<S> {
    seed: u64,
    sequence: Sequence<S>,
    report: String,
}

fn has_kubernetes(seed: u64) -> bool {
    seed.is_multiple_of(KUBERNETES)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_converges_and_nothing_that_lives_is_ever_removed() -> Result<()> {
    // All sequences are one client to it.
    let limits = json!({"limits": {"http_max_conns_per_client": 10_000}});
    let server = diolkos_testkit::Consul::builder().config(limits);
    converges::<Consul>(server.start(), (200, 32)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_converges_with_zookeeper() -> Result<()> {
    converges::<Dubbo<ZooKeeper>>(Box::pin(ZooKeeper::stores()), (100, 48)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_converges_with_etcd() -> Result<()> {
    converges::<Dubbo<Etcd>>(Etcd::stores(), (100, 48)).await
}

/// In a network namespace, as all that has a Nacos.
#[test]
fn the_mesh_converges_with_nacos() -> Result<()> {
    diolkos_testkit::netns::isolated(async {
        Box::pin(converges::<Nacos>(Box::pin(Nacoses::start()), (48, 32))).await
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_converges_with_eureka() -> Result<()> {
    converges::<Eureka>(eureka::Servers::start(), (48, 24)).await
}

/// Plays sequences with a registry; this many, and so many of them at once, if not told otherwise.
async fn converges<R: Registry>(
    start: impl Future<Output = Result<R::Servers>>,
    (count, parallel): (u64, u64),
) -> Result<()> {
    // The same each time, so that who changes something meets what they changed, and not somebody else's luck.
    let first = setting("DIOLKOS_SEED", 1)?;
    let count = setting("DIOLKOS_SEQUENCES", count)?;
    let parallel = setting("DIOLKOS_PARALLEL", parallel)?;
    let kubernetes = Kubernetes::builder().without_controller_manager();
    let (registry, kubernetes) = tokio::try_join!(start, kubernetes.start())?;
    kubernetes.install_istio_crds().await?;
    let namespace = ["create", "namespace", diolkos_api::DEFAULT_NAMESPACE];
    kubernetes.kubectl(&namespace).await?;
    let door = kubernetes.fault_proxy().await?;
    let watches = Watches::default();
    watches.start(&door);
    let servers = Arc::new(Servers::<R> {
        registry: Arc::new(registry),
        kubernetes,
        watches,
        count: AtomicUsize::new(0),
        tally: Tally::default(),
    });
    let seeds = (0..count).map(|index| first.wrapping_add(index));
    let Some(failure) = all(&servers, seeds, parallel).await? else {
        return something_happened(&servers.tally, count);
    };
    let Failure { seed, report, .. } = &failure;
    let sequence = &failure.sequence;
    eprintln!("the sequence of DIOLKOS_SEED={seed} fails; making it smaller …");
    let smallest = shrink(&servers, *seed).await;
    panic!(
        "DIOLKOS_SEED={seed} DIOLKOS_SEQUENCES=1 fails.\n\nAs drawn:\n{sequence}\nHow:\n{report}\n{smallest}"
    );
}

/// Many sequences have something of everything.
fn something_happened(tally: &Tally, sequences: u64) -> Result<()> {
    eprintln!("{tally:?}");
    let all = [&tally.broken, &tally.lies, &tally.removals];
    let happened = all.iter().all(|count| count.load(Ordering::SeqCst) > 0);
    ensure!(
        happened || sequences < 50,
        "this run shows nothing: {tally:?}"
    );
    Ok(())
}

/// Plays the sequences of all seeds, up to the first failure.
async fn all<R: Registry>(
    servers: &Arc<Servers<R>>,
    mut seeds: impl Iterator<Item = u64>,
    parallel: u64,
) -> Result<Option<Failure<R::Step>>> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    let mut played = 0;
    loop {
        while (running.len() as u64) < parallel
            && let Some(seed) = seeds.next()
        {
            let (servers, sequence) = (servers.clone(), Sequence::draw(seed, R::steps()).current());
            running.spawn(async move {
                let result = play(&servers, &sequence, has_kubernetes(seed)).await;
                result.map_err(|report| Failure {
                    seed,
                    sequence,
                    report,
                })
            });
        }
        match running.join_next().await {
            None => break,
            Some(ended) => match ended? {
                Ok(()) => played += 1,
                Err(failure) => return Ok(Some(failure)),
            },
        }
    }
    ensure!(played > 0, "no sequence was played");
    eprintln!(
        "{played} sequences of {} in {:.0} s",
        R::FIELD,
        began.elapsed().as_secs_f32()
    );
    Ok(None)
}

/// Makes a sequence smaller as long as it fails and there is time. What was tried and did not fail may fail at
/// another time: what is left is small, not smallest.
async fn shrink<R: Registry>(servers: &Arc<Servers<R>>, seed: u64) -> String {
    let end = Instant::now() + SHRINK;
    let mut tree = Sequence::draw(seed, R::steps());
    let mut smallest = None;
    let mut smaller = tree.simplify();
    while smaller && Instant::now() < end {
        let sequence = tree.current();
        smaller = match fails(servers, &sequence, has_kubernetes(seed)).await {
            Some(report) => {
                smallest = Some((sequence, report));
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    match smallest {
        Some((sequence, report)) => format!("Made smaller:\n{sequence}\nHow:\n{report}"),
        None => "Nothing smaller failed.".into(),
    }
}

/// How a sequence fails, if it does in one of some tries at once.
async fn fails<R: Registry>(
    servers: &Arc<Servers<R>>,
    sequence: &Sequence<R::Step>,
    kubernetes: bool,
) -> Option<String> {
    let mut tries = JoinSet::new();
    for _ in 0..TRIES {
        let (servers, sequence) = (servers.clone(), sequence.clone());
        tries.spawn(async move { play(&servers, &sequence, kubernetes).await });
    }
    let mut failure = None;
    while failure.is_none()
        && let Some(played) = tries.join_next().await
    {
        failure = match played {
            Ok(played) => played.err(),
            Err(panic) => Some(panic.to_string()),
        };
    }
    tries.shutdown().await;
    if let Err(error) = servers.sweep().await {
        eprintln!("what failed sequences left behind stays: {error:#}");
    }
    failure
}
