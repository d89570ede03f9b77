//! Incident class 13: a crash between any two writes. Nothing is lost, doubled or left behind.

#![allow(clippy::print_stdout)] // figures, with --nocapture

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, Files, service};
use common::{Diolkos, SOON};
use diolkos_testkit::{HttpFault, Moment, eventually};
use serde_json::{Value, json};

/// Objects by kind and name: labels and spec.
type Objects = BTreeMap<(String, String), (Value, Value)>;

/// A registry that goes to and fro between two states, in a namespace and behind a proxy of its own.
struct Lane {
    files: Files,
    proxy: HttpFault,
    diolkos: Diolkos,
    namespace: String,
}

impl Lane {
    async fn start(cluster: &Cluster, namespace: &str) -> Result<Self> {
        cluster.namespace(namespace).await?;
        let files = Files::new()?;
        files.put("all", &from())?;
        let proxy = cluster.kubernetes.fault_proxy().await?;
        let export = json!({"endpoints": "WorkloadEntry", "namespace": namespace});
        let document = files.registry(namespace, json!({"export": export}));
        let diolkos = cluster.run_through(&proxy, &document.to_string()).await?;
        Ok(Self {
            files,
            proxy,
            diolkos,
            namespace: namespace.to_owned(),
        })
    }

    async fn objects(&self, cluster: &Cluster) -> Result<Objects> {
        let mut objects = Objects::new();
        for kind in cluster::KINDS {
            for mut object in cluster.objects_in(&self.namespace, kind).await? {
                let name = object["metadata"]["name"].as_str().context("name")?;
                let key = (kind.to_owned(), name.to_owned());
                let labels = object["metadata"]["labels"].take();
                objects.insert(key, (labels, object["spec"].take()));
            }
        }
        Ok(objects)
    }

    /// Makes these the services, waits until all of them are written, and gives the objects.
    async fn settled(&self, cluster: &Cluster, services: &[Value]) -> Result<Objects> {
        self.files.put("all", services)?;
        let (hosts, endpoints) = expected(services);
        eventually(2 * SOON, "the clean run is through", async || {
            self.diolkos.synced(&self.namespace).await?;
            let objects = self.objects(cluster).await?;
            let of = |kind: &'static str| objects.iter().filter(move |((of, _), _)| of == kind);
            let found: BTreeSet<String> = of("serviceentries")
                .filter_map(|(_, (_, spec))| spec["hosts"][0].as_str().map(str::to_owned))
                .collect();
            ensure!(found == hosts, "{found:?}");
            let found: BTreeSet<(String, String)> = of("workloadentries")
                .map(|(_, (_, spec))| (spec["address"].to_string(), port_of(spec)))
                .collect();
            ensure!(found == endpoints, "{found:?}");
            Ok(())
        })
        .await;
        self.objects(cluster).await
    }

    /// Changes the registry and kills the bridge at its `n`-th write. Starts it again, and sees that all is right.
    /// False if there were not so many writes.
    async fn crash(
        &self,
        cluster: &Cluster,
        (n, moment): (usize, Moment),
        (to, expected): (&[Value], &Objects),
    ) -> Result<bool> {
        let kill = self.diolkos.program().killer();
        let armed = Arc::new(AtomicBool::new(true));
        let killed = Arc::new(AtomicBool::new(false));
        let (still, told) = (armed.clone(), killed.clone());
        self.proxy.on_nth_write(n, moment, move || {
            if still.load(Ordering::SeqCst) {
                kill().expect("it can be killed");
                told.store(true, Ordering::SeqCst);
            }
        });
        self.files.put("all", to)?;
        let is_right = async || -> Result<()> {
            let now = self.objects(cluster).await?;
            ensure!(now == *expected, "{now:#?}\ninstead of\n{expected:#?}");
            self.diolkos.synced(&self.namespace).await
        };
        eventually(2 * SOON, "the crash, or the end", async || {
            if killed.load(Ordering::SeqCst) {
                return Ok(());
            }
            is_right().await
        })
        .await;
        // If there were fewer writes, the hook waits for those of a later run.
        armed.store(false, Ordering::SeqCst);
        let crashed = killed.load(Ordering::SeqCst);
        if crashed {
            self.diolkos.program().restart()?;
        }
        let what = format!("{moment:?} write {n}: exactly the right objects");
        eventually(2 * SOON, &what, is_right).await;
        Ok(crashed)
    }
}

/// The hosts, and the addresses and ports of the endpoints.
fn expected(services: &[Value]) -> (BTreeSet<String>, BTreeSet<(String, String)>) {
    let name = |s: &Value| format!("{}.test", s["name"].as_str().unwrap_or_default());
    let instances = services.iter().flat_map(|s| s["instances"].as_array());
    let endpoint = |i: &Value| (i["address"].to_string(), i["port"].to_string());
    (
        services.iter().map(name).collect(),
        instances.flatten().map(endpoint).collect(),
    )
}

/// The port of an endpoint that has one.
fn port_of(spec: &Value) -> String {
    let mut ports = spec["ports"].as_object().into_iter().flatten();
    ports
        .next()
        .map(|(_, port)| port.to_string())
        .unwrap_or_default()
}

/// What is there before …
fn from() -> Vec<Value> {
    vec![
        service("keep", &["10.0.1.1"]),
        service("grow", &["10.0.2.1"]),
        service("shrink", &["10.0.3.1", "10.0.3.2"]),
        service("gone", &["10.0.4.1"]),
        json!({"name": "moved", "instances": [{"id": "m", "address": "10.0.5.1", "port": 80}]}),
    ]
}

/// … and after.
fn to() -> Vec<Value> {
    vec![
        service("keep", &["10.0.1.1"]),
        service("grow", &["10.0.2.1", "10.0.2.2"]),
        service("shrink", &["10.0.3.1"]),
        service("new", &["10.0.6.1", "10.0.6.2"]),
        json!({"name": "moved", "instances": [{"id": "m", "address": "10.0.5.1", "port": 81}]}),
    ]
}

async fn crash_everywhere(cluster: &Cluster, moment: Moment) -> Result<usize> {
    let namespace = format!("{moment:?}").to_lowercase();
    let lane = Lane::start(cluster, &namespace).await?;
    let before = lane.settled(cluster, &from()).await?;
    let after = lane.settled(cluster, &to()).await?;
    assert_eq!(lane.settled(cluster, &from()).await?, before);
    let mut crashes = 0;
    for n in 1.. {
        let there = lane.crash(cluster, (n, moment), (&to(), &after)).await?;
        let back = lane.crash(cluster, (n, moment), (&from(), &before)).await?;
        crashes += usize::from(there) + usize::from(back);
        if !there && !back {
            return Ok(crashes);
        }
    }
    unreachable!("the loop has no other end")
}

/// Class 13: SIGKILL before and after each write of a run that creates, changes and deletes objects of both kinds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_13_a_crash_at_every_write() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (before, after) = tokio::try_join!(
        crash_everywhere(&cluster, Moment::Before),
        crash_everywhere(&cluster, Moment::After)
    )?;
    println!("{before} crashes before a write, {after} after one");
    assert!(before >= 16 && after >= 16, "{before} and {after}");
    Ok(())
}
