//! What is promised when a registry says that much is gone: incident classes 1 and 5, and T-3 (what goes one by one).
//! A real Consul, and a real API server but for one test.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/written.rs"]
mod written;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, metric, until_synced};
use common::{Diolkos, SOON, diolkos};
use diolkos_testkit::{Consul, eventually};
use serde_json::json;
use written::Bridge;

const SERVICES: usize = 5;
const INSTANCES: usize = 2 * SERVICES;
/// Longer than any test.
const FOREVER: &str = "10m";

fn name(service: usize) -> String {
    format!("svc-{service}")
}

/// Registers services of two instances each on one node.
async fn fill(consul: &Consul, services: impl Iterator<Item = usize>) -> Result<()> {
    for service in services {
        for instance in 1..=2 {
            register(
                consul,
                &name(service),
                &format!("10.0.{service}.{instance}"),
            )
            .await?;
        }
    }
    Ok(())
}

async fn register(consul: &Consul, service: &str, address: &str) -> Result<()> {
    let entry = json!({
        "Node": "ext", "Address": "10.9.9.9", "SkipNodeUpdate": true,
        "Service": {"ID": format!("{service}-{address}"), "Service": service, "Address": address, "Port": 80},
    });
    consul.catalog_register(&entry).await
}

async fn deregister(consul: &Consul, service: &str, address: &str) -> Result<()> {
    let entry = json!({"Node": "ext", "ServiceID": format!("{service}-{address}")});
    consul.catalog_deregister(&entry).await
}

/// All services go with their node, in one step of the registry.
async fn lose_the_node(consul: &Consul) -> Result<()> {
    consul.catalog_deregister(&json!({"Node": "ext"})).await
}

/// The document of a registry with hosts `SERVICE.NAME`.
fn registry(name: &str, consul: &Consul, endpoints: &str, hold: &str, grace: &str) -> String {
    json!({
        "apiVersion": "diolkos.io/v1alpha1", "kind": "Registry", "metadata": {"name": name},
        "spec": {
            "consul": {"addresses": [consul.http_addr()]},
            "export": {"host": format!("{{service}}.{name}"), "endpoints": endpoints},
            "guard": {"emptyHold": hold, "confirmAfter": 2, "emptyGrace": grace},
        },
    })
    .to_string()
}

/// The same services with workload entries and without.
fn both_ways(consul: &Consul, hold: &str, grace: &str) -> String {
    let modes = [("we", "WorkloadEntry"), ("inline", "Inline")];
    modes
        .map(|(name, endpoints)| registry(name, consul, endpoints, hold, grace))
        .join("\n---\n")
}

async fn until_hosts(cluster: &Cluster, what: &str, count: usize) {
    eventually(SOON, what, async || {
        let hosts = cluster.hosts().await?;
        ensure!(hosts.len() == count, "{hosts:?}");
        Ok(())
    })
    .await;
}

/// Waits until the removals are held back, and sees that this is visible wherever one would look.
async fn until_held(diolkos: &Diolkos, registry: &str) -> Result<()> {
    eventually(SOON, "removals are held back", async || {
        let (status, reason, message) = diolkos.condition(registry, "RemovalsHeld").await?;
        ensure!(status == "True", "{reason}: {message}");
        ensure!(matches!(&*reason, "Shrink" | "Empty"), "{reason}");
        let lost =
            format!("{SERVICES} services and {INSTANCES} instances that the registry lacks stay");
        ensure!(message.contains(&lost), "{message}");
        let release = format!("diolkos registries release {registry}");
        ensure!(message.contains(&release), "{message}");
        Ok(())
    })
    .await;
    let held = format!("diolkos_held_services{{registry=\"{registry}\"}}");
    assert_eq!(metric(diolkos, &held).await?, SERVICES as f64);
    let (code, table, error) = ask(diolkos, &["registries"]);
    assert_eq!(code, 0, "{error}");
    let mut lines = table.lines();
    let column = lines.next().unwrap_or_default().split_whitespace();
    let column = column.clone().position(|c| c == "HELD").context("HELD")?;
    let row = lines
        .find(|line| line.starts_with(registry))
        .context("row")?;
    let cell = row.split_whitespace().nth(column);
    assert_eq!(cell, Some(&*SERVICES.to_string()), "{table}");
    Ok(())
}

async fn until_told(cluster: &Cluster, expected: &[&str]) {
    eventually(SOON, "the Events tell", async || {
        let events = cluster.events("consul").await?;
        ensure!(expected.iter().all(|e| events.contains(*e)), "{events:?}");
        Ok(())
    })
    .await;
}

async fn until_not_held(diolkos: &Diolkos, registry: &str) {
    eventually(SOON, "nothing is held back any more", async || {
        let (status, _, message) = diolkos.condition(registry, "RemovalsHeld").await?;
        ensure!(status == "False", "{message}");
        Ok(())
    })
    .await;
}

/// The command line of a running `diolkos`.
fn ask(running: &Diolkos, args: &[&str]) -> (i32, String, String) {
    let server = format!("http://{}", running.address());
    diolkos(&[args, &["--server", &server]].concat())
}

/// Class 1, with all its ends: the services come back, an operator releases, the registry goes on saying so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_01_the_registry_answers_200_and_empty() -> Result<()> {
    let (consul, cluster) = tokio::try_join!(Consul::start(), Cluster::with_registries())?;
    fill(&consul, 0..SERVICES).await?;
    let document = |hold: &str| registry("consul", &consul, "WorkloadEntry", hold, "0s");
    cluster.kubernetes.apply(&document(FOREVER)).await?;
    let kubeconfig = cluster.kubernetes.kubeconfig().display().to_string();
    let diolkos = Diolkos::run_in_cluster(&["--kubeconfig", &kubeconfig]).await?;
    until_hosts(&cluster, "everything is there", SERVICES).await;
    until_synced(&diolkos, "consul").await;
    let (before, writes) = (cluster.versions().await?, cluster.writes()?);

    // A -dev agent comes back with nothing: the first snapshot of a new connection is empty.
    consul.restart().await?;
    until_held(&diolkos, "consul").await?;
    fill(&consul, 0..SERVICES).await?;
    until_not_held(&diolkos, "consul").await;
    until_synced(&diolkos, "consul").await;
    assert_eq!(cluster.versions().await?, before, "not one object changed");
    assert_eq!(cluster.writes()?, writes);

    // The connection stays, and the answer is empty from one moment to the next.
    lose_the_node(&consul).await?;
    until_held(&diolkos, "consul").await?;
    assert_eq!(cluster.versions().await?, before);
    let (code, said, error) = ask(&diolkos, &["registries", "release", "consul"]);
    assert_eq!(code, 0, "{said}{error}");
    until_hosts(&cluster, "released on the command line", 0).await;
    until_not_held(&diolkos, "consul").await;

    fill(&consul, 0..SERVICES).await?;
    until_hosts(&cluster, "everything is there again", SERVICES).await;
    until_synced(&diolkos, "consul").await;
    lose_the_node(&consul).await?;
    until_held(&diolkos, "consul").await?;
    // Events tell of changes of the status, which is not written for what lasts a moment.
    until_told(&cluster, &["RemovalsHeld"]).await;
    let annotate = "annotate registry.diolkos.io consul diolkos.io/release=now";
    let annotate: Vec<&str> = annotate.split(' ').collect();
    cluster.kubernetes.kubectl(&annotate).await?;
    until_hosts(&cluster, "released by the annotation", 0).await;
    until_told(&cluster, &["RemovalsHeld", "RemovalsReleased"]).await;

    // Nobody does anything: the registry confirms it in half of the hold, at the next snapshot.
    fill(&consul, 0..SERVICES).await?;
    until_hosts(&cluster, "everything is there once more", SERVICES).await;
    cluster.kubernetes.apply(&document("6s")).await?;
    until_synced(&diolkos, "consul").await;
    let at = Instant::now();
    consul.restart().await?;
    until_held(&diolkos, "consul").await?;
    until_hosts(&cluster, "the hold has ended", 0).await;
    let took = at.elapsed();
    assert!(took >= Duration::from_secs(3), "confirmed within {took:?}");
    until_not_held(&diolkos, "consul").await;
    assert!(cluster.objects("workloadentries").await?.is_empty());
    Ok(())
}

/// Class 1: the answer is empty because of what the token may see. That is never believed, however often it is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_01_the_token_sees_nothing_any_more() -> Result<()> {
    let consul = Consul::builder().acl().start().await?;
    fill(&consul, 0..SERVICES).await?;
    let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let token = consul.create_token("reader", rules).await?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, token)?;
    let settings = format!(
        "{{addresses: ['{}'], token: {{file: '{}'}}}}",
        consul.http_addr(),
        file.path().display()
    );
    let bridge = Bridge::synced(&settings).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    assert_eq!(files.len(), SERVICES);

    let policy = consul.get("/v1/acl/policy/name/reader").await?;
    let id = policy["ID"].as_str().context("the policy has no ID")?;
    let allow = async |rules: &str| {
        let policy = json!({"ID": id, "Name": "reader", "Rules": rules});
        let path = format!("/v1/acl/policy/{id}");
        consul.put(&path, Some(&policy)).await
    };
    // Consul answers a waiting query with the rights that its token had when it was asked, and only when something
    // changes.
    let mut changes = 0;
    let mut change = async || {
        changes += 1;
        register(&consul, "new", &format!("10.0.200.{changes}")).await
    };
    allow("").await?;
    change().await?;
    // The guard of this bridge would let go after a second.
    let doubted = async |bridge: &Bridge, condition: &str, expected: &str| {
        eventually(SOON, condition, async || {
            let (status, reason, message) = bridge.diolkos.condition("consul", condition).await?;
            ensure!(
                status == expected && reason == "PartialAnswer",
                "{reason}: {message}"
            );
            Ok(())
        })
        .await;
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            assert_eq!(bridge.files()?, files, "{condition}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bridge.ready().await
    };
    doubted(&bridge, "RemovalsHeld", "True").await?;
    assert_eq!(bridge.writes().await?, writes);

    let bridge = Bridge::start(&settings, bridge.stop()).await?;
    doubted(&bridge, "Complete", "False").await?;
    assert_eq!(bridge.writes().await?, 0.0);

    allow(rules).await?;
    eventually(SOON, "it sees everything again", async || {
        change().await?;
        ensure!(bridge.has("new")?, "the new service is not there");
        bridge.live(1).await
    })
    .await;
    let mut kept = bridge.files()?;
    kept.retain(|file, _| files.contains_key(file));
    assert_eq!(kept, files);
    eventually(SOON, "the answers are complete", async || {
        let (status, _, message) = bridge.diolkos.condition("consul", "Complete").await?;
        ensure!(status == "True", "{message}");
        Ok(())
    })
    .await;
    Ok(())
}

/// Class 1 after a restart of the bridge: what the mesh holds is its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_01_the_registry_is_empty_when_the_bridge_starts() -> Result<()> {
    let (consul, cluster) = tokio::try_join!(Consul::start(), Cluster::start())?;
    fill(&consul, 0..SERVICES).await?;
    let synced = async |diolkos: &Diolkos| {
        until_synced(diolkos, "we").await;
        until_synced(diolkos, "inline").await;
    };
    let diolkos = cluster.run(&both_ways(&consul, FOREVER, "0s")).await?;
    synced(&diolkos).await;
    until_hosts(&cluster, "everything is there", 2 * SERVICES).await;
    let (before, writes) = (cluster.versions().await?, cluster.writes()?);
    assert_eq!(before.len(), 2 * SERVICES + INSTANCES);

    drop(diolkos);
    consul.restart().await?;
    let diolkos = cluster.run(&both_ways(&consul, FOREVER, "0s")).await?;
    for registry in ["we", "inline"] {
        until_held(&diolkos, registry).await?;
    }
    fill(&consul, 0..SERVICES).await?;
    for registry in ["we", "inline"] {
        until_not_held(&diolkos, registry).await;
    }
    synced(&diolkos).await;
    assert_eq!(
        cluster.versions().await?,
        before,
        "they are the same objects"
    );
    assert_eq!(cluster.writes()?, writes);

    drop(diolkos);
    consul.restart().await?;
    let at = Instant::now();
    let diolkos = cluster.run(&both_ways(&consul, "8s", "0s")).await?;
    for registry in ["we", "inline"] {
        until_held(&diolkos, registry).await?;
    }
    until_hosts(&cluster, "the holds have ended", 0).await;
    let took = at.elapsed();
    assert!(took >= Duration::from_secs(4), "confirmed within {took:?}");
    assert!(cluster.objects("workloadentries").await?.is_empty());
    Ok(())
}

/// T-3: what is deregistered one by one is gone at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long a service without instances stays.
const GRACE: Duration = Duration::from_secs(12);

async fn until_addresses(cluster: &Cluster, what: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|a| (*a).to_owned()).collect();
    eventually(AT_ONCE, what, async || {
        let found = cluster.addresses().await?;
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
    .await;
}

/// Waits until the service has no endpoints and says since when.
async fn until_empty(cluster: &Cluster, service: &str) -> Vec<String> {
    let mut since = Vec::new();
    for registry in ["we", "inline"] {
        let host = format!("{service}.{registry}");
        let found = eventually(SOON, "the host stays", async || {
            let entry = cluster.object("serviceentries", &host).await?;
            ensure!(
                entry["spec"]["endpoints"]
                    .as_array()
                    .is_none_or(Vec::is_empty)
            );
            let since = &entry["metadata"]["annotations"]["diolkos.io/empty-since"];
            since.as_str().map(str::to_owned).context("no annotation")
        });
        since.push(found.await);
    }
    since
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t_03_the_last_instance_leaves() -> Result<()> {
    let (consul, cluster) = tokio::try_join!(Consul::start(), Cluster::start())?;
    for (service, address) in [
        ("web", "10.0.1.1"),
        ("web", "10.0.1.2"),
        ("solo", "10.0.2.1"),
        ("late", "10.0.3.1"),
    ] {
        register(&consul, service, address).await?;
    }
    let documents = both_ways(&consul, "2s", &format!("{}s", GRACE.as_secs()));
    let diolkos = cluster.run(&documents).await?;
    until_hosts(&cluster, "everything is there", 6).await;
    for registry in ["we", "inline"] {
        until_synced(&diolkos, registry).await;
    }

    deregister(&consul, "web", "10.0.1.2").await?;
    until_addresses(
        &cluster,
        "one of two",
        &["10.0.1.1", "10.0.2.1", "10.0.3.1"],
    )
    .await;
    let at = Instant::now();
    deregister(&consul, "solo", "10.0.2.1").await?;
    until_addresses(&cluster, "the last one", &["10.0.1.1", "10.0.3.1"]).await;
    until_empty(&cluster, "solo").await;
    until_hosts(&cluster, "the grace is over", 4).await;
    let took = at.elapsed();
    assert!(took >= GRACE, "the hosts went after {took:?}");

    // The bridge is away while the grace ends.
    deregister(&consul, "late", "10.0.3.1").await?;
    let at = SystemTime::now();
    until_addresses(&cluster, "the last one", &["10.0.1.1"]).await;
    let since = until_empty(&cluster, "late").await;
    drop(diolkos);
    let writes = cluster.writes()?;
    let diolkos = cluster.run(&documents).await?;
    for registry in ["we", "inline"] {
        until_synced(&diolkos, registry).await;
    }
    drop(diolkos);
    if at.elapsed()? < GRACE {
        assert_eq!(until_empty(&cluster, "late").await, since);
        assert_eq!(cluster.writes()?, writes, "a restart begins no new grace");
    }
    let left = (GRACE + Duration::from_secs(1)).saturating_sub(at.elapsed()?);
    tokio::time::sleep(left).await;
    let at = Instant::now();
    let _diolkos = cluster.run(&documents).await?;
    until_hosts(&cluster, "the grace ran on", 2).await;
    let took = at.elapsed();
    assert!(took < GRACE, "the hosts went {took:?} after the start");
    assert_eq!(cluster.writes()?, writes + 2, "two hosts went");
    Ok(())
}

/// Class 5: the registry comes back with what it knew long ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_05_the_registry_is_restored_from_an_old_backup() -> Result<()> {
    const OLD: usize = 10;
    const ALL: usize = 30;
    let (consul, cluster) =
        tokio::try_join!(Consul::builder().persistent().start(), Cluster::start())?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/snapshot", consul.http_addr());
    fill(&consul, 0..OLD).await?;
    let backup = http.get(&url).send().await?.error_for_status()?;
    let backup = backup.bytes().await?;
    fill(&consul, OLD..ALL).await?;
    let document = registry("consul", &consul, "Inline", "10s", "0s");
    let diolkos = cluster.run(&document).await?;
    until_hosts(&cluster, "everything is there", ALL).await;
    until_synced(&diolkos, "consul").await;
    let (before, writes) = (cluster.versions().await?, cluster.writes()?);

    let at = Instant::now();
    let restored = http.put(&url).body(backup).send().await?;
    restored.error_for_status()?;
    eventually(SOON, "removals are held back", async || {
        let (status, reason, message) = diolkos.condition("consul", "RemovalsHeld").await?;
        ensure!(
            status == "True" && ["Shrink", "Empty"].contains(&&*reason),
            "{reason}: {message}"
        );
        let lost = format!("{} services", ALL - OLD);
        ensure!(message.contains(&lost), "{message}");
        Ok(())
    })
    .await;
    assert_eq!(cluster.versions().await?, before);
    until_hosts(&cluster, "it is confirmed", OLD).await;
    let took = at.elapsed();
    assert!(took >= Duration::from_secs(5), "confirmed within {took:?}");
    until_synced(&diolkos, "consul").await;
    let expected: BTreeSet<String> = (0..OLD).map(|s| format!("{}.consul", name(s))).collect();
    assert_eq!(cluster.hosts().await?, expected);
    assert_eq!(cluster.writes()?, writes + ALL - OLD);
    let kept: Vec<_> = cluster.versions().await?.into_iter().collect();
    assert!(
        kept.iter()
            .all(|(key, version)| before.get(key) == Some(version))
    );
    Ok(())
}
