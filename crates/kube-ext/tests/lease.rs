//! Leases and Events against a real API server.

#![allow(clippy::print_stdout)] // figures, with --nocapture

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use diolkos_kube_ext::{
    About, EventKind, EventRecorder, LeaseSettings, Leases, Notice, client, start_leases,
};
use diolkos_testkit::{AuditRecord, Kubernetes, eventually};
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(20);
const DURATION: Duration = Duration::from_secs(2);
const REGISTRIES: [&str; 4] = ["a", "b", "c", "odd_name"];

async fn start() -> Result<Kubernetes> {
    let kubernetes = Kubernetes::builder().without_controller_manager();
    kubernetes.start().await
}

struct Replica {
    leases: Leases,
    /// To serve others, and to serve none any more when it goes.
    serves: watch::Sender<BTreeSet<Arc<str>>>,
}

impl Replica {
    async fn start(kubernetes: &Kubernetes, name: &str) -> Result<Self> {
        let client = client(Some(kubernetes.kubeconfig())).await?;
        let settings = LeaseSettings::new("default".into(), name.into(), DURATION);
        let (serves, registries) = watch::channel(REGISTRIES.map(Into::into).into());
        let leases = start_leases(client, settings, registries);
        Ok(Self { leases, serves })
    }

    /// The registries that it may write now.
    fn writes(&self) -> BTreeSet<String> {
        let now = tokio::time::Instant::now();
        let terms = self.leases.terms().borrow().clone();
        let valid = terms.iter().filter(|(_, until)| **until > now);
        valid.map(|(name, _)| name.to_string()).collect()
    }

    async fn writes_so_many(&self, count: usize) {
        eventually(SOON, "the Leases are shared out", async || {
            let writes = self.writes();
            ensure!(writes.len() == count, "{writes:?}");
            Ok(())
        })
        .await;
    }
}

/// The holder of each registry as `kubectl get lease` shows it.
async fn holders(kubernetes: &Kubernetes) -> Result<Vec<(String, String)>> {
    let columns = "custom-columns=N:.metadata.name,H:.spec.holderIdentity";
    let args = ["get", "lease", "-l", "diolkos.io/lease=registry"];
    let table = kubernetes
        .kubectl(&[&args[..], &["-o", columns, "--no-headers"]].concat())
        .await?;
    let row = |line: &str| {
        let (name, holder) = line.split_once(' ').context("two columns")?;
        Ok((name.to_owned(), holder.trim().to_owned()))
    };
    table.lines().map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_shared_out_handed_over_and_given_back() -> Result<()> {
    let kubernetes = start().await?;
    let one = Replica::start(&kubernetes, "one").await?;
    one.writes_so_many(4).await;
    let there = holders(&kubernetes).await?;
    assert!(there.iter().all(|(_, holder)| holder == "one"), "{there:?}");
    assert!(
        there.contains(&("diolkos-a".into(), "one".into())),
        "{there:?}"
    );
    assert!(
        there
            .iter()
            .any(|(name, _)| name.starts_with("diolkos-odd-name-")),
        "{there:?}"
    );

    // A second one gets its half, and never do both write the same.
    let two = Replica::start(&kubernetes, "two").await?;
    eventually(SOON, "each has its half", async || {
        let (one, two) = (one.writes(), two.writes());
        assert!(one.is_disjoint(&two), "{one:?} {two:?}");
        ensure!(one.len() == 2 && two.len() == 2, "{one:?} {two:?}");
        Ok(())
    })
    .await;
    let view = two.leases.view().borrow().clone();
    assert_eq!(view.replicas.len(), 2, "{view:?}");
    assert!(
        view.registries.values().all(|h| h.since.is_some()),
        "{view:?}"
    );
    assert_eq!(view.error, None);

    // A clean stop.
    let stopped = Instant::now();
    one.leases.release().await;
    two.writes_so_many(4).await;
    let took = stopped.elapsed();
    println!("figure: taken over {took:?} after a clean stop, with Leases of {DURATION:?}");
    assert!(took < DURATION, "{took:?}");
    let left = kubernetes.kubectl(&["get", "lease", "-o", "name"]).await?;
    assert!(!left.contains("replica-one"), "{left}");

    // Registries that nobody serves any more lose their Leases.
    two.serves.send(["a".into()].into())?;
    eventually(SOON, "one Lease of a registry is left", async || {
        let holders = holders(&kubernetes).await?;
        ensure!(holders.len() == 1, "{holders:?}");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terms_end_while_the_api_server_does_not_answer_and_come_back() -> Result<()> {
    let kubernetes = start().await?;
    let one = Replica::start(&kubernetes, "one").await?;
    one.writes_so_many(4).await;
    kubernetes.stop_process()?;
    let stopped = Instant::now();
    one.writes_so_many(0).await;
    let took = stopped.elapsed();
    assert!(took < DURATION, "{took:?}");
    eventually(SOON, "the reason is told", async || {
        one.leases.view().borrow().error.clone()
    })
    .await;
    kubernetes.continue_process()?;
    one.writes_so_many(4).await;
    let view = one.leases.view().borrow().clone();
    assert!(
        view.registries.values().all(|h| h.transitions == 0),
        "{view:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_goes_without_a_word_is_replaced() -> Result<()> {
    let kubernetes = start().await?;
    let one = Replica::start(&kubernetes, "one").await?;
    one.writes_so_many(4).await;
    let two = Replica::start(&kubernetes, "two").await?;
    two.writes_so_many(2).await;
    let gone = Instant::now();
    drop(one);
    two.writes_so_many(4).await;
    let took = gone.elapsed();
    println!("figure: taken over {took:?} after a holder vanished, with Leases of {DURATION:?}");
    assert!(
        took > Duration::from_secs(1) && took < 2 * DURATION,
        "{took:?}"
    );
    eventually(SOON, "its own Lease is tidied up", async || {
        let left = kubernetes.kubectl(&["get", "lease", "-o", "name"]).await?;
        ensure!(!left.contains("replica-one"), "{left}");
        Ok(())
    })
    .await;
    Ok(())
}

const STORAGE_CLASS: &str = r#"{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
  "metadata": {"name": "thing"}, "provisioner": "example.org/none"}"#;

fn notice(about: &About, note: &str) -> Notice {
    Notice {
        about: about.clone(),
        kind: EventKind::Warning,
        reason: "RemovalsHeld",
        action: "Hold",
        note: note.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_show_below_their_object_and_are_counted() -> Result<()> {
    let kubernetes = start().await?;
    let client = client(Some(kubernetes.kubeconfig())).await?;
    let recorder = EventRecorder::start(client, "one", Duration::from_secs(1));
    // A cluster-scoped object, as a Registry is, and one with a namespace.
    kubernetes.apply(STORAGE_CLASS).await?;
    kubernetes
        .kubectl(&["create", "configmap", "-n", "kube-system", "thing"])
        .await?;
    let kinds = [
        ("storage.k8s.io/v1", "StorageClass", None),
        ("v1", "ConfigMap", Some("kube-system")),
    ];
    for (api_version, kind, namespace) in kinds {
        let args = [kind, "thing", "-n", namespace.unwrap_or("default")];
        let object = kubernetes.get_json(&[&["get"][..], &args].concat()).await?;
        let about = About {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: "thing".into(),
            uid: object["metadata"]["uid"].as_str().map(Into::into),
        };
        let shown = async |expected: &str| {
            let describe = [&["describe"][..], &args].concat();
            eventually(SOON, "kubectl describe shows the Event", async || {
                let text = kubernetes.kubectl(&describe).await?;
                ensure!(text.contains(expected), "{text}");
                ensure!(text.contains("RemovalsHeld"), "{text}");
                Ok(())
            })
            .await;
        };
        recorder.record(notice(&about, "1 instance is held"));
        shown("1 instance is held").await;
        for _ in 0..9 {
            recorder.record(notice(&about, "1 instance is held"));
        }
        shown("(x10 over ").await;
        recorder.record(notice(&about, "2 instances are held"));
        shown("2 instances are held").await;
    }
    // Three requests for each object, or four where the second was sent before all nine were counted.
    let requests = kubernetes.requests()?;
    let ours = |r: &&AuditRecord| r.resource == "events" && r.user_agent.starts_with("diolkos/");
    let sent = requests.iter().filter(ours);
    let sent: Vec<_> = sent.map(|r| (r.verb.as_str(), r.code)).collect();
    assert!((6..=8).contains(&sent.len()), "{sent:?}");
    assert!(sent.iter().all(|(_, code)| *code < 300), "{sent:?}");
    Ok(())
}
