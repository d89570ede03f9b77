//! Whatever happens between a registry and the mesh: when the trouble is over, the mesh holds exactly what the
//! registry's state gives, and no endpoint of a live instance was ever taken away.
//!
//! Random sequences of changes in a real Consul, of faults on the way from it and on the way to a real API server or
//! a directory, and of restarts. Each runs in this process, and several run at once; they share the servers, but
//! no names. What has happened is judged without the bridge: all that has ended in the registry is counted before
//! Consul is told, and all that vanishes from the mesh is counted by a watch of its own, or after every write to
//! the directory. Nothing may vanish more often than it has ended.
//!
//! What is drawn depends on a seed alone, what it leads to also on time. A sequence that fails is made as small as
//! it can be made within a few minutes, and printed with its seed.
//!
//! - `DIOLKOS_SEQUENCES`: how many (200).
//! - `DIOLKOS_SEED`: the seed of the first; the others follow it. By default another one each time.
//! - `DIOLKOS_PARALLEL`: how many run at once (16).

#[path = "convergence/bridge.rs"]
mod bridge;
#[path = "convergence/mesh.rs"]
mod mesh;
#[path = "convergence/play.rs"]
mod play;
#[path = "convergence/registry.rs"]
mod registry;
#[path = "convergence/sequence.rs"]
mod sequence;

use std::{
    env,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use diolkos_testkit::{Consul, Kubernetes};
use mesh::Watches;
use play::{Servers, play};
use proptest::strategy::ValueTree;
use sequence::Sequence;
use tokio::task::JoinSet;

/// How long a failing sequence is made smaller.
const SHRINK: Duration = Duration::from_secs(180);
/// One in so many sequences has the Kubernetes sink.
const KUBERNETES: u64 = 3;

fn setting(name: &str, default: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// A sequence that fails, and how.
struct Failure {
    seed: u64,
    sequence: Sequence,
    report: String,
}

fn has_kubernetes(seed: u64) -> bool {
    seed.is_multiple_of(KUBERNETES)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_converges_and_nothing_that_lives_is_ever_removed() -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let first = setting("DIOLKOS_SEED", now.as_secs())?;
    let count = setting("DIOLKOS_SEQUENCES", 200)?;
    let parallel = setting("DIOLKOS_PARALLEL", 16)?;
    let (consul, kubernetes) = tokio::try_join!(
        Consul::start(),
        Kubernetes::builder().without_controller_manager().start()
    )?;
    kubernetes.install_istio_crds().await?;
    let namespace = ["create", "namespace", diolkos_api::DEFAULT_NAMESPACE];
    kubernetes.kubectl(&namespace).await?;
    let door = kubernetes.fault_proxy().await?;
    let watches = Watches::default();
    watches.start(&door);
    let servers = Arc::new(Servers {
        consul: Arc::new(consul),
        kubernetes,
        watches,
        count: AtomicUsize::new(0),
    });
    let seeds = (0..count).map(|index| first.wrapping_add(index));
    let Some(failure) = all(&servers, seeds, parallel).await? else {
        return Ok(());
    };
    let Failure { seed, report, .. } = &failure;
    let sequence = &failure.sequence;
    eprintln!("the sequence of DIOLKOS_SEED={seed} fails; making it smaller …");
    let smallest = shrink(&servers, *seed).await;
    panic!(
        "DIOLKOS_SEED={seed} DIOLKOS_SEQUENCES=1 fails.\n\nAs drawn:\n{sequence}\nHow:\n{report}\n{smallest}"
    );
}

/// Plays the sequences of all seeds, up to the first failure.
async fn all(
    servers: &Arc<Servers>,
    mut seeds: impl Iterator<Item = u64>,
    parallel: u64,
) -> Result<Option<Failure>> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    let mut played = 0;
    loop {
        while (running.len() as u64) < parallel
            && let Some(seed) = seeds.next()
        {
            let (servers, sequence) = (servers.clone(), Sequence::draw(seed).current());
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
        "{played} sequences in {:.0} s",
        began.elapsed().as_secs_f32()
    );
    Ok(None)
}

/// Makes a sequence smaller as long as it fails and there is time. What was tried and did not fail may fail at
/// another time: what is left is small, not smallest.
async fn shrink(servers: &Servers, seed: u64) -> String {
    let end = Instant::now() + SHRINK;
    let mut tree = Sequence::draw(seed);
    let mut smallest = None;
    let mut smaller = true;
    while smaller && Instant::now() < end {
        let sequence = tree.current();
        smaller = match play(servers, &sequence, has_kubernetes(seed)).await {
            Err(report) => {
                smallest = Some((sequence, report));
                tree.simplify()
            }
            Ok(()) => tree.complicate(),
        };
    }
    match smallest {
        Some((sequence, report)) => format!("Made smaller:\n{sequence}\nHow:\n{report}"),
        None => "Alone it does not fail: it depends on time, or on the load of the others.".into(),
    }
}
