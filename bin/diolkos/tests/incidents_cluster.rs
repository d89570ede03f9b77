//! What is promised when the API server or the disk is in trouble, or a registry for long: incident classes 2, 14, 15,
//! 22 and 23. A proxy stands between Diolkos and a real API server.

#![allow(clippy::print_stdout)] // figures, with --nocapture

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/written.rs"]
mod written;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, Files, NAMESPACE, metric, service, until_synced};
use common::{Diolkos, SOON};
use diolkos_testkit::{Consul, Fault, HttpFault, On, Reply, SmallDisk, TcpProxy, eventually};
use serde_json::{Value, json};
use written::{Bridge, register};

/// Class 2, with the wire cut and every new connection refused for this long.
const OUTAGE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_long_outage_costs_nothing() -> Result<()> {
    let consul = Consul::start().await?;
    for service in 0..10 {
        register(&consul, &format!("svc-{service}"), service).await?;
    }
    let target = consul.http_addr().replace("http://", "").parse()?;
    let mut proxy = TcpProxy::start(target).await?;
    let settings = format!("{{addresses: ['http://{}']}}", proxy.address());
    let bridge = Bridge::synced(&settings).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);

    proxy.refuse(true).await?;
    proxy.cut();
    bridge.until_phase(SOON, "Unreachable").await?;
    let series = "diolkos_source_last_contact_timestamp_seconds{registry=\"consul\"}";
    let contact = metric(&bridge.diolkos, series).await?;
    let (at, before) = (Instant::now(), bridge.diolkos.program().cpu()?);
    tokio::time::sleep(OUTAGE).await;
    let used = bridge.diolkos.program().cpu()? - before;
    let share = used.as_secs_f64() / at.elapsed().as_secs_f64();
    println!("{:.2} % of a processor during the outage", 100.0 * share);
    assert!(share < 0.01, "{:.2} % of a processor", 100.0 * share);
    bridge.ready().await?;
    let (status, reason, message) = bridge.diolkos.condition("consul", "Stale").await?;
    assert_eq!((&*status, &*reason), ("True", "Unreachable"), "{message}");
    assert_eq!(metric(&bridge.diolkos, series).await?, contact);
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes);

    proxy.refuse(false).await?;
    eventually(2 * SOON, "it goes on", async || bridge.live(2).await).await;
    let (status, ..) = bridge.diolkos.condition("consul", "Stale").await?;
    assert_eq!(status, "False");
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes);
    Ok(())
}

/// Class 14, and a bridge behind a proxy with these services.
struct Troubled {
    cluster: Cluster,
    proxy: HttpFault,
    files: Files,
    diolkos: Diolkos,
}

impl Troubled {
    async fn start(services: &[Value]) -> Result<Self> {
        let cluster = Cluster::start().await?;
        let proxy = cluster.kubernetes.fault_proxy().await?;
        let files = Files::new()?;
        files.put("all", services)?;
        let document = files.registry("files", json!({}));
        let diolkos = cluster.run_through(&proxy, &document.to_string()).await?;
        until_synced(&diolkos, "files").await;
        Ok(Self {
            cluster,
            proxy,
            files,
            diolkos,
        })
    }

    /// Tries to write this object.
    fn tries(&self, name: &str) -> usize {
        self.proxy.count(|r| r.is_write() && r.path.contains(name))
    }

    async fn until_port(&self, host: &str, port: u16) {
        let what = format!("{host} has port {port}");
        eventually(SOON, &what, async || {
            let entry = self.cluster.object("serviceentries", host).await?;
            ensure!(entry["spec"]["ports"][0]["number"] == port, "{entry}");
            Ok(())
        })
        .await;
    }

    async fn until_failing(&self, reason: &str, named: &str) {
        let what = format!("the condition names {named}");
        eventually(SOON, &what, async || {
            let (status, why, message) = self.diolkos.condition("files", "Synced").await?;
            ensure!(status == "False" && why == reason, "{why}: {message}");
            ensure!(message.contains(named), "{message}");
            Ok(())
        })
        .await;
    }
}

/// Two services at this port.
fn two(port: u16) -> Vec<Value> {
    let one = |name: &str, address: &str| json!({"name": name, "instances": [{"address": address, "port": port}]});
    vec![one("bad", "10.0.0.1"), one("good", "10.0.0.2")]
}

/// How long failing writes are watched.
const WATCHED: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_14_the_api_server_refuses_writes() -> Result<()> {
    let trouble = Troubled::start(&two(80)).await?;
    let (proxy, files) = (&trouble.proxy, &trouble.files);

    // One object fails again and again: it is named, it is tried less and less often, and the other one goes on.
    let reply = Reply::kubernetes(500, "InternalError");
    let rule = proxy.rule(On::writes().path("/bad.test"), Fault::Reply(reply));
    files.put("all", &two(81))?;
    trouble.until_port("good.test", 81).await;
    trouble.until_failing("WriteFailed", "bad.test").await;
    tokio::time::sleep(WATCHED).await;
    // After 0.5, 1, 2, 4 s and so on.
    assert!((2..=8).contains(&rule.hits()), "{} tries", rule.hits());
    assert_eq!(trouble.tries("/good.test"), 2, "created and changed");
    rule.end();
    trouble.until_port("bad.test", 81).await;
    until_synced(&trouble.diolkos, "files").await;

    // Too many requests: everything waits, as long as it is asked to.
    let wait = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too many requests",
        "reason": "TooManyRequests", "code": 429, "details": {"retryAfterSeconds": 3},
    });
    let reply = Reply::status(429).header("content-type", "application/json");
    let reply = reply.header("Retry-After", "3").body(wait.to_string());
    let before = trouble.tries(".test");
    let rule = proxy.rule(On::writes().first(1), Fault::Reply(reply));
    let at = Instant::now();
    files.put("all", &two(82))?;
    for host in ["bad.test", "good.test"] {
        trouble.until_port(host, 82).await;
    }
    assert_eq!(rule.hits(), 1);
    assert!(at.elapsed() >= Duration::from_secs(3), "{:?}", at.elapsed());
    let tries = trouble.tries(".test") - before;
    // The two were sent at once, before the answer was there.
    assert!((2..=4).contains(&tries), "{tries} tries");

    // Conflicts are looked at and tried again.
    let reply = Reply::kubernetes(409, "Conflict");
    let rule = proxy.rule(On::writes().path("/bad.test").first(3), Fault::Reply(reply));
    files.put("all", &two(83))?;
    for host in ["bad.test", "good.test"] {
        trouble.until_port(host, 83).await;
    }
    assert_eq!(rule.hits(), 3);
    until_synced(&trouble.diolkos, "files").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_14_the_watch_expires() -> Result<()> {
    let trouble = Troubled::start(&two(80)).await?;
    let (versions, writes) = (trouble.cluster.versions().await?, trouble.cluster.writes()?);
    let expired = Fault::Reply(Reply::kubernetes(410, "Expired"));
    let watches = On::reads().path("watch=").path("serviceentries").first(3);
    let rule = trouble.proxy.rule(watches, expired);
    trouble.proxy.cut();
    eventually(2 * SOON, "the watch has expired", async || rule.hits() == 3).await;
    until_synced(&trouble.diolkos, "files").await;
    assert_eq!(trouble.cluster.versions().await?, versions);
    assert_eq!(
        trouble.cluster.writes()?,
        writes,
        "reading anew writes nothing"
    );

    // And it sees again what others do.
    let delete = ["delete", "serviceentry", "good.test", "-n", NAMESPACE];
    trouble.cluster.kubernetes.kubectl(&delete).await?;
    trouble.until_port("good.test", 80).await;
    Ok(())
}

/// A webhook that nobody answers for, asked about one namespace only.
fn dead_webhook() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "dead"},
        "webhooks": [{
            "name": "dead.example.org", "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 1,
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "closed"}},
            "rules": [{
                "apiGroups": ["networking.istio.io"], "apiVersions": ["*"], "resources": ["*"],
                "operations": ["CREATE", "UPDATE", "DELETE"],
            }],
        }],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_14_a_webhook_is_down() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.namespace("closed").await?;
    cluster
        .kubernetes
        .apply(&dead_webhook().to_string())
        .await?;
    let files = Files::new()?;
    let services = |good: &str, bad: &str| {
        let one = |namespace: &str, address: &str| json!({"name": format!("web-{namespace}"), "namespace": namespace, "instances": [{"address": address, "port": 80}]});
        [one(NAMESPACE, good), one("closed", bad)]
    };
    files.put("all", &services("10.0.0.1", "10.0.1.1"))?;
    let document = files.registry("files", json!({"export": {"namespace": "{namespace}"}}));
    let diolkos = cluster.run(&document.to_string()).await?;
    let until = async |namespace: &str, address: &str| {
        eventually(
            2 * SOON,
            &format!("{namespace} has {address}"),
            async || {
                let entries = cluster.objects_in(namespace, "serviceentries").await?;
                let found = entries.first().context("nothing there")?;
                ensure!(
                    found["spec"]["endpoints"][0]["address"] == address,
                    "{found}"
                );
                Ok(())
            },
        )
        .await;
    };
    // The webhook may not be asked yet by the first request after it was made, so a change comes next.
    until(NAMESPACE, "10.0.0.1").await;
    files.put("all", &services("10.0.0.2", "10.0.1.2"))?;
    until(NAMESPACE, "10.0.0.2").await;
    eventually(SOON, "the condition names the object", async || {
        let (status, reason, message) = diolkos.condition("files", "Synced").await?;
        ensure!(
            status == "False" && reason == "WriteFailed",
            "{reason}: {message}"
        );
        let names = message.contains("web-closed.test") && message.contains("webhook");
        ensure!(names, "{message}");
        Ok(())
    })
    .await;
    files.put("all", &services("10.0.0.3", "10.0.1.3"))?;
    until(NAMESPACE, "10.0.0.3").await;
    let delete = ["delete", "validatingwebhookconfiguration", "dead"];
    cluster.kubernetes.kubectl(&delete).await?;
    until("closed", "10.0.1.3").await;
    until_synced(&diolkos, "files").await;
    Ok(())
}

/// Class 14: a slow API server and a long queue. What goes does not wait at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_14_removals_overtake() -> Result<()> {
    const MANY: usize = 400;
    let many: Vec<Value> = (0..MANY)
        .map(|n| service(&format!("new-{n}"), &["10.1.0.1"]))
        .collect();
    let trouble = Troubled::start(&[service("old", &["10.0.0.1"])]).await?;
    let slow = Fault::Delay(Duration::from_secs(1));
    trouble.proxy.rule(On::writes(), slow);
    trouble.files.put("many", &many)?;
    eventually(SOON, "writes have begun", async || {
        trouble.tries("/new-") > 0
    })
    .await;
    trouble.files.remove("all")?;
    eventually(SOON, "the removal is sent", async || {
        trouble.tries("/old.test") > 1
    })
    .await;
    let sent = trouble.tries("/new-");
    println!("the removal overtook {} of {MANY} writes", MANY - sent);
    assert!(sent < MANY, "all others were sent before");
    trouble.proxy.clear();
    eventually(3 * SOON, "everything is right", async || {
        let hosts = trouble.cluster.hosts().await?;
        ensure!(
            hosts.len() == MANY && !hosts.contains("old.test"),
            "{}",
            hosts.len()
        );
        trouble.diolkos.synced("files").await
    })
    .await;
    Ok(())
}

/// Class 15: people edit and delete, once each and then without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_15_hands_in_the_objects() -> Result<()> {
    const OBJECTS: usize = 8;
    let services: Vec<Value> = (0..OBJECTS)
        .map(|n| service(&format!("s{n}"), &["10.0.0.1", "10.0.0.2"]))
        .collect();
    let trouble = Troubled::start(&services).await?;
    let cluster = &trouble.cluster;
    let specs = cluster.specs().await?;
    let before = cluster.writes()?;
    let edit = r#"{"spec":{"endpoints":[{"address":"10.6.6.6"}]}}"#;
    let patch = async |host: &str| {
        let args = [
            "patch",
            "serviceentry",
            host,
            "-n",
            NAMESPACE,
            "--type=merge",
            "-p",
            edit,
        ];
        cluster.kubernetes.kubectl(&args).await
    };
    for n in 0..OBJECTS {
        let host = format!("s{n}.test");
        if n % 2 == 0 {
            patch(&host).await?;
        } else {
            let delete = ["delete", "serviceentry", &host, "-n", NAMESPACE];
            cluster.kubernetes.kubectl(&delete).await?;
        }
    }
    let restored = async || -> Result<()> {
        let now = cluster.specs().await?;
        ensure!(now == specs, "{now:#?}");
        trouble.diolkos.synced("files").await
    };
    eventually(SOON, "all are restored", restored).await;
    let writes = cluster.writes()? - before;
    println!("{writes} writes for {OBJECTS} objects");
    assert!(writes <= 2 * OBJECTS, "{writes} writes for {OBJECTS} edits");

    // Somebody does it for ten seconds, again and again.
    let (at, before, mut edits) = (Instant::now(), cluster.writes()?, 0);
    while at.elapsed() < Duration::from_secs(10) {
        patch("s0.test").await?;
        edits += 1;
    }
    let writes = cluster.writes()? - before;
    println!("{writes} writes against {edits} edits");
    // Repairs come after 0, 1, 2, 4 s and so on; each takes two writes at most.
    assert!(writes <= 12, "{writes} writes against {edits} edits");
    assert!(edits > writes, "{writes} writes against {edits} edits");
    trouble.until_failing("Contested", "s0.test").await;
    eventually(3 * SOON, "it is restored in the end", restored).await;
    Ok(())
}

/// Class 22: what is kept on a disk that is full, and on one that is read-only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_22_the_disk_of_the_state_is_full_or_read_only() -> Result<()> {
    let disk = SmallDisk::new(1 << 20).await?;
    let (files, folder) = (Files::new()?, tempfile::tempdir()?);
    let (path, away) = (files.path().to_owned(), folder.path().join("away"));
    let document = files.registry("files", json!({})).to_string();
    let state = disk.path().join("state").display().to_string();
    let saved = disk.outside().join("state");
    let start = async |out: &str| -> Result<Diolkos> {
        let target = format!("directory:{}", folder.path().join(out).display());
        Diolkos::run_on(&disk, &document, &["--to", &target, "--state", &state]).await
    };
    let until = async |out: &str, what: &str, names: &[&str]| {
        let expected: BTreeSet<String> = names.iter().map(|n| format!("{n}.test")).collect();
        eventually(2 * SOON, what, async || {
            let found = hosts_in(&folder.path().join(out))?;
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .await;
    };
    let one = |name: &str| service(name, &["10.0.0.1"]);
    let warned = async |diolkos: &Diolkos| {
        eventually(SOON, "a warning is logged", async || {
            let log = diolkos.log();
            let warning = "cannot keep the last good services, the files stay as they were";
            ensure!(log.contains(warning), "{log}");
            let (status, page) = diolkos.page("/readyz").await?;
            ensure!(status == 200, "{page}");
            Ok(())
        })
        .await;
    };

    files.put("all", &[one("a"), one("b")])?;
    let diolkos = start("first").await?;
    until("first", "the first services", &["a", "b"]).await;
    let good = eventually(SOON, "they are kept", async || {
        let content = contents(&saved)?;
        ensure!(!content.is_empty(), "no file yet");
        Ok(content)
    })
    .await;
    disk.fill()?;
    files.put("all", &[one("a"), one("b"), one("c")])?;
    until("first", "it goes on", &["a", "b", "c"]).await;
    warned(&diolkos).await;
    assert_eq!(contents(&saved)?, good, "full: what was kept is as it was");

    // Killed, and the registry is down when it comes back.
    diolkos.program().kill()?;
    drop(diolkos);
    std::fs::rename(&path, &away)?;
    let diolkos = start("second").await?;
    until(
        "second",
        "the last good services that were kept",
        &["a", "b"],
    )
    .await;
    disk.free()?;
    std::fs::rename(&away, &path)?;
    until("second", "the registry is back", &["a", "b", "c"]).await;
    let good = eventually(2 * SOON, "room again", async || {
        let content = contents(&saved)?;
        ensure!(content != good && !content.is_empty(), "not kept yet");
        Ok(content)
    })
    .await;

    // It comes back on a disk that can only be read.
    diolkos.program().kill()?;
    drop(diolkos);
    disk.read_only(true)?;
    let diolkos = start("third").await?;
    files.put("all", &[one("a"), one("b"), one("c"), one("d")])?;
    until("third", "it goes on", &["a", "b", "c", "d"]).await;
    warned(&diolkos).await;
    assert_eq!(
        contents(&saved)?,
        good,
        "read-only: what was kept is as it was"
    );
    diolkos.program().kill()?;
    drop(diolkos);
    std::fs::rename(&path, &away)?;
    let _diolkos = start("fourth").await?;
    until(
        "fourth",
        "the last good services that were kept",
        &["a", "b", "c"],
    )
    .await;
    std::fs::rename(&away, &path)?;
    Ok(())
}

/// The hosts of the service entries in a directory.
fn hosts_in(out: &Path) -> Result<BTreeSet<String>> {
    let mut hosts = BTreeSet::new();
    for content in contents(out)?.into_values() {
        let content = String::from_utf8(content)?;
        let mut lines = content.lines().skip_while(|line| line.trim() != "hosts:");
        let host = lines.nth(1).context("no host")?;
        hosts.insert(host.trim_start_matches(['-', ' ']).to_owned());
    }
    Ok(hosts)
}

/// The visible files of a directory but for the lock of `--state`; none if it is not there.
fn contents(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && !name.starts_with('.') && name != "lock" {
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// Class 23: how long the churn goes on.
const CHURN: Duration = Duration::from_secs(60);
/// Services that change all at once.
const CHURNING: u16 = 1_000;
/// How much resident memory may grow, in bytes.
const PLATEAU: u64 = 20 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_23_churn_while_the_api_server_is_away() -> Result<()> {
    let all = |port: u16| -> Vec<Value> {
        let one = |n: u16| json!({"name": format!("s{n}"), "instances": [{"address": format!("10.0.{}.{}", n / 250, n % 250 + 1), "port": port}]});
        (0..CHURNING).map(one).collect()
    };
    let trouble = Troubled::start(&all(1_000)).await?;
    let upserts = async || {
        metric(
            &trouble.diolkos,
            "diolkos_events_total{registry=\"files\",event=\"upsert\"}",
        )
        .await
    };
    // Once more with the API server, so that the memory of a change is part of the measure.
    let mut port = 1_001;
    trouble.files.put("all", &all(port))?;
    trouble.until_port("s999.test", port).await;
    until_synced(&trouble.diolkos, "files").await;
    let memory = || trouble.diolkos.program().memory();

    trouble.cluster.kubernetes.kill()?;
    let (at, begun, before) = (Instant::now(), upserts().await?, memory()?);
    let (mut said, mut most) = (begun, before);
    while at.elapsed() < CHURN {
        port += 1;
        trouble.files.put("all", &all(port))?;
        eventually(SOON, "the change is seen", async || {
            let now = upserts().await?;
            ensure!(now >= said + f64::from(CHURNING), "{now}");
            said = now;
            Ok(())
        })
        .await;
        most = most.max(memory()?);
    }
    let rate = (said - begun) / at.elapsed().as_secs_f64();
    let grown = most.saturating_sub(before);
    println!(
        "{rate:.0} changes a second; {} MB, {} kB more at most",
        before >> 20,
        grown >> 10
    );
    assert!(rate > 100.0, "{rate:.0} changes a second");
    assert!(grown < PLATEAU, "{} MB more", grown >> 20);

    let writes = trouble.cluster.writes()?;
    trouble.cluster.kubernetes.restart().await?;
    let at = Instant::now();
    // Each object is tried again within a minute, however long the API server was away.
    eventually(6 * SOON, "everything is written", async || {
        let entries = trouble.cluster.objects("serviceentries").await?;
        let right = |e: &&Value| e["spec"]["ports"][0]["number"] == port;
        let right = entries.iter().filter(right).count();
        ensure!(right == usize::from(CHURNING), "{right} are right");
        trouble.diolkos.synced("files").await
    })
    .await;
    let writes = trouble.cluster.writes()? - writes;
    println!("everything is written {:?} after its return", at.elapsed());
    assert_eq!(writes, usize::from(CHURNING), "one write an object");
    Ok(())
}
