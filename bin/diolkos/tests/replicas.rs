//! Several replicas on a real API server: who writes, and what happens when one is stopped or killed.

#![allow(clippy::print_stdout)] // figures, with --nocapture

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use common::{Diolkos, SOON, diolkos};
use diolkos_testkit::{AuditRecord, Kubernetes, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

const USERS: [&str; 3] = ["one", "two", "three"];
/// In seconds.
const LEASE: &str = "2";
const LEASE_DURATION: Duration = Duration::from_secs(2);
/// What may come on top of a Lease's time: a look at the Leases, and a machine that does other things too.
const SLACK: Duration = Duration::from_secs(3);

/// Registries of files, and an API server with a user for each replica.
struct Rig {
    kubernetes: Kubernetes,
    files: TempDir,
    registries: usize,
}

impl Rig {
    async fn start(registries: usize) -> Result<Self> {
        let mut kubernetes = Kubernetes::builder().without_controller_manager();
        for user in USERS {
            kubernetes = kubernetes.user(user, &["system:masters"]);
        }
        let kubernetes = kubernetes.start().await?;
        kubernetes.install_istio_crds().await?;
        kubernetes
            .kubectl(&["create", "namespace", "diolkos"])
            .await?;
        let rig = Self {
            kubernetes,
            files: tempfile::tempdir()?,
            registries,
        };
        for n in 0..registries {
            std::fs::create_dir(rig.files.path().join(format!("r{n}")))?;
            rig.set(n, 8080)?;
        }
        Ok(rig)
    }

    /// Gives the service of a registry another port.
    fn set(&self, registry: usize, port: u16) -> Result<()> {
        let service = json!({
            "name": format!("s{registry}"),
            "instances": [
                {"address": format!("10.0.{registry}.1"), "port": port},
                {"address": format!("10.0.{registry}.2"), "port": port},
            ],
        });
        let path = self.files.path().join(format!("r{registry}/s.yaml"));
        let new = path.with_extension("new");
        std::fs::write(&new, service.to_string())?;
        std::fs::rename(new, path)?;
        Ok(())
    }

    fn documents(&self) -> String {
        let one = |n| {
            let path = self.files.path().join(format!("r{n}"));
            let document = json!({
                "apiVersion": "diolkos.io/v1alpha1", "kind": "Registry", "metadata": {"name": format!("r{n}")},
                "spec": {"file": {"path": path}, "export": {"host": "{service}.example.internal"}},
            });
            document.to_string()
        };
        (0..self.registries)
            .map(one)
            .collect::<Vec<_>>()
            .join("\n---\n")
    }

    /// A replica with the documents from files.
    async fn replica(&self, user: &str, leases: &str) -> Result<Diolkos> {
        let kubeconfig = self.kubernetes.kubeconfig_of(user).display().to_string();
        let args = arguments(user, &kubeconfig);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let all = [&args[..], &["--leases", leases]].concat();
        Diolkos::run(&self.documents(), &all).await
    }

    /// Registry to the user of the replica that holds it, as `kubectl get lease` has it.
    async fn holders(&self) -> Result<BTreeMap<String, String>> {
        let selector = ["-l", "diolkos.io/lease=registry"];
        let leases = self
            .kubernetes
            .get_json(&[&["get", "leases", "-n", "diolkos"][..], &selector].concat())
            .await?;
        let one = |lease: &Value| {
            let name = lease["metadata"]["annotations"]["diolkos.io/registry"].as_str()?;
            let holder = lease["spec"]["holderIdentity"].as_str()?;
            let user = holder.rsplit_once('-').map_or(holder, |(user, _)| user);
            Some((name.to_owned(), user.to_owned()))
        };
        let leases = leases["items"].as_array().context("no list")?;
        Ok(leases.iter().filter_map(one).collect())
    }

    /// Waits until these replicas hold all registries, none more than its share. Returns how long that took.
    async fn shared_out(&self, users: &[&str]) -> Duration {
        let start = Instant::now();
        let share = self.registries.div_ceil(users.len());
        eventually(SOON, "the registries are shared out", async || {
            let holders = self.holders().await?;
            ensure!(holders.len() == self.registries, "{holders:?}");
            let alive = holders.values().all(|user| users.contains(&&**user));
            ensure!(alive, "{holders:?}");
            for user in users {
                let load = holders.values().filter(|holder| holder == user).count();
                ensure!(load <= share, "{holders:?}");
            }
            Ok(())
        })
        .await;
        start.elapsed()
    }

    /// Writes of objects in the mesh by these users.
    fn writes(&self, users: &[&str]) -> Result<usize> {
        let ours = ["serviceentries", "workloadentries"];
        let requests = self.kubernetes.requests()?;
        let writes = requests
            .iter()
            .filter(|r| r.is_write() && ours.contains(&&*r.resource) && users.contains(&&*r.user));
        Ok(writes.count())
    }

    /// Fails unless the objects of a registry are exactly those for this port.
    async fn objects(&self, registry: usize, port: u16) -> Result<()> {
        let selector = format!("diolkos.io/registry=r{registry}");
        let get = [
            "get",
            "serviceentries,workloadentries",
            "-n",
            "diolkos",
            "-l",
            &selector,
        ];
        let list = self.kubernetes.get_json(&get).await?;
        let items = list["items"].as_array().context("no list")?;
        let entry: Vec<_> = items
            .iter()
            .filter(|o| o["kind"] == "ServiceEntry")
            .collect();
        ensure!(entry.len() == 1, "{items:?}");
        let entry = &entry[0]["spec"];
        ensure!(
            entry["hosts"] == json!([format!("s{registry}.example.internal")]),
            "{entry}"
        );
        ensure!(entry["ports"][0]["number"] == port, "{entry}");
        let mut addresses = BTreeSet::new();
        for object in items.iter().filter(|o| o["kind"] == "WorkloadEntry") {
            let spec = &object["spec"];
            let ports = spec["ports"].as_object().context("no ports")?;
            ensure!(ports.values().all(|p| *p == port), "{spec}");
            addresses.insert(spec["address"].as_str().unwrap_or_default());
        }
        let expected = [1, 2].map(|n| format!("10.0.{registry}.{n}"));
        ensure!(
            addresses == expected.iter().map(String::as_str).collect(),
            "{addresses:?}"
        );
        ensure!(items.len() == 3, "{items:?}");
        Ok(())
    }

    /// Waits until the objects of a registry are those for this port. Returns how long that took.
    async fn written(&self, registry: usize, port: u16) -> Duration {
        let start = Instant::now();
        eventually(SOON, "the objects are as they should be", async || {
            self.objects(registry, port).await
        })
        .await;
        start.elapsed()
    }
}

fn arguments(user: &str, kubeconfig: &str) -> Vec<String> {
    let args = ["--kubeconfig", kubeconfig, "--replica", user];
    let leases = ["--lease-namespace", "diolkos", "--lease-duration", LEASE];
    args.iter()
        .chain(&leases)
        .map(ToString::to_string)
        .collect()
}

async fn synced(replica: &Diolkos, registries: usize) {
    eventually(SOON, "everything is written", async || {
        for n in 0..registries {
            replica.synced(&format!("r{n}")).await?;
        }
        Ok::<_, anyhow::Error>(())
    })
    .await;
}

/// SIGTERM, and waits until it is gone.
async fn terminate(replica: &Diolkos) -> Result<()> {
    let pid = replica.pid().to_string();
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -TERM {pid}")])
        .status()?;
    ensure!(sent.success(), "{sent}");
    eventually(SOON, "the replica stops", async || {
        replica.log().contains("diolkos stops").then_some(())
    })
    .await;
    Ok(())
}

/// Incident class 11: all replicas start at once with everything in place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_11_a_herd_writes_nothing_and_shares_the_work() -> Result<()> {
    let rig = Rig::start(6).await?;
    let first = rig.replica("one", "never").await?;
    synced(&first, 6).await;
    first.program().kill()?;
    drop(first);
    let before = eventually(SOON, "all writes are in the audit log", async || {
        rig.writes(&USERS)
            .map(|n| (n == 18).then_some(n))?
            .context("not yet")
    })
    .await;

    let start = Instant::now();
    let (one, two, three) = tokio::try_join!(
        rig.replica("one", "always"),
        rig.replica("two", "always"),
        rig.replica("three", "always")
    )?;
    rig.shared_out(&USERS).await;
    println!(
        "figure: three replicas shared 6 registries {:?} after their start",
        start.elapsed()
    );
    for replica in [&one, &two, &three] {
        synced(replica, 6).await;
    }
    assert_eq!(rig.writes(&USERS)?, before, "nothing had changed");

    // One is killed.
    two.program().kill()?;
    let took = rig.shared_out(&["one", "three"]).await;
    println!(
        "figure: the rest took over {took:?} after SIGKILL, with Leases of {LEASE_DURATION:?}"
    );
    assert!(took < LEASE_DURATION * 2 + SLACK, "{took:?}");
    assert_eq!(rig.writes(&USERS)?, before, "nothing had changed");

    // One is stopped as it should be.
    let start = Instant::now();
    terminate(&one).await?;
    rig.shared_out(&["three"]).await;
    let took = start.elapsed();
    println!("figure: the last one took over {took:?} after SIGTERM");
    assert!(took < LEASE_DURATION + SLACK, "{took:?}");
    let requests = rig.kubernetes.requests()?;
    let gone = |r: &&AuditRecord| r.user == "one" && r.resource == "leases" && r.verb == "delete";
    assert_eq!(
        requests.iter().filter(gone).count(),
        1,
        "given back, not run out"
    );
    assert_eq!(rig.writes(&USERS)?, before, "nothing had changed");
    for n in 0..6 {
        rig.set(n, 9090)?;
    }
    for n in 0..6 {
        rig.written(n, 9090).await;
    }
    Ok(())
}

/// Incident class 12: the holder is stopped for longer than its Lease lasts, and wakes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_12_a_holder_that_slept_writes_nothing() -> Result<()> {
    let rig = Rig::start(2).await?;
    let one = rig.replica("one", "always").await?;
    rig.shared_out(&["one"]).await;
    let two = rig.replica("two", "always").await?;
    rig.shared_out(&["one", "two"]).await;
    for n in 0..2 {
        rig.written(n, 8080).await;
    }
    let holders = rig.holders().await?;
    let held = holders
        .values()
        .position(|user| user == "one")
        .context("it has one")?;
    let registry = format!("r{held}");

    one.program().stop_process()?;
    let before = rig.writes(&["one"])?;
    rig.set(held, 8081)?;
    let took = rig.written(held, 8081).await;
    println!(
        "figure: a change was written {took:?} after SIGSTOP of the holder, with Leases of {LEASE_DURATION:?}"
    );
    assert!(took < LEASE_DURATION + SLACK, "{took:?}");
    assert_eq!(rig.holders().await?[&registry], "two");

    // It wakes up with a change before its eyes and the belief that it may write.
    rig.set(held, 8082)?;
    one.program().continue_process()?;
    rig.written(held, 8082).await;
    eventually(
        SOON,
        "it has seen who holds the Lease, and the change",
        async || {
            let all = one.get("/api/v1/registries").await?;
            let status = &all[held];
            let holder = status["holder"]["identity"].as_str().context("no holder")?;
            ensure!(
                holder.starts_with("two-") || status["holder"]["ours"] == true,
                "{status}"
            );
            let services = one
                .get(&format!("/api/v1/services?registry={registry}"))
                .await?;
            ensure!(services[0]["ports"] == json!([8082]), "{services}");
            one.synced(&registry).await
        },
    )
    .await;
    assert_eq!(rig.writes(&["one"])?, before, "it slept beyond its Lease");

    // Then it gets its share back, and both go on.
    rig.shared_out(&["one", "two"]).await;
    for (n, port) in [(0, 8083), (1, 8084)] {
        rig.set(n, port)?;
        rig.written(n, port).await;
    }
    drop(two);
    Ok(())
}

/// Promise P6: two that both write end in the same objects, and at rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_give_the_same_objects_and_come_to_rest() -> Result<()> {
    let rig = Rig::start(3).await?;
    let (one, two) = tokio::try_join!(rig.replica("one", "never"), rig.replica("two", "never"))?;
    for port in [8080, 9090] {
        for n in 0..3 {
            rig.set(n, port)?;
        }
        for n in 0..3 {
            rig.written(n, port).await;
        }
        for replica in [&one, &two] {
            synced(replica, 3).await;
        }
        let (mut writes, mut since) = (rig.writes(&USERS)?, Instant::now());
        eventually(SOON, "nobody writes for three seconds", async || {
            let now = rig.writes(&USERS)?;
            if now != writes {
                (writes, since) = (now, Instant::now());
            }
            let rest = since.elapsed();
            ensure!(
                rest > Duration::from_secs(3),
                "{writes} writes, rest for {rest:?}"
            );
            Ok(())
        })
        .await;
        for n in 0..3 {
            rig.objects(n, port).await?;
        }
        println!("figure: two writers made {writes} writes up to port {port}");
    }
    // 9 new objects, then 3 changed, 6 new and 6 gone. At worst both write each, and once more where they met.
    let writes = rig.writes(&USERS)?;
    assert!(writes <= 2 * 2 * (9 + 15), "{writes} writes");
    Ok(())
}

/// With the documents of the cluster Leases are the default; the status names the holder, and only it writes that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_registry_names_its_holder_who_writes_it() -> Result<()> {
    let rig = Rig::start(2).await?;
    let (code, crds, error) = diolkos(&["crds"]);
    assert_eq!(code, 0, "{error}");
    rig.kubernetes.apply(&crds).await?;
    let wait = ["wait", "--for=condition=Established", "crd", "--all"];
    rig.kubernetes.kubectl(&wait).await?;
    rig.kubernetes.apply(&rig.documents()).await?;
    let replica = async |user: &str| {
        let kubeconfig = rig.kubernetes.kubeconfig_of(user).display().to_string();
        let args = arguments(user, &kubeconfig);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Diolkos::run_in_cluster(&args).await
    };
    let (one, _two) = tokio::try_join!(replica("one"), replica("two"))?;
    rig.shared_out(&["one", "two"]).await;
    for (registry, user) in rig.holders().await? {
        eventually(SOON, "the status names the holder", async || {
            let resource = rig
                .kubernetes
                .get_json(&["get", "registry", &registry])
                .await?;
            let holder = resource["status"]["holder"].as_str().context("no holder")?;
            ensure!(holder.starts_with(&format!("{user}-")), "{holder}");
            Ok(())
        })
        .await;
    }
    let server = format!("http://{}", one.address());
    let (code, table, error) = diolkos(&["registries", "--server", &server]);
    assert_eq!(code, 0, "{error}");
    let first = table.lines().next().unwrap_or_default();
    assert!(
        first.ends_with("HOLDER") && table.contains("one-") && table.contains("two-"),
        "{table}"
    );

    // Who does not hold it does not write its status.
    let statuses = |user: &str, registry: &str| -> Result<usize> {
        let requests = rig.kubernetes.requests()?;
        let of = requests.iter().filter(|r| {
            r.resource == "registries" && r.is_write() && r.user == user && r.name == registry
        });
        Ok(of.count())
    };
    let holders = rig.holders().await?;
    for (n, (registry, user)) in holders.iter().enumerate() {
        let other = if user == "one" { "two" } else { "one" };
        let (own, others) = (statuses(user, registry)?, statuses(other, registry)?);
        std::fs::remove_file(rig.files.path().join(format!("r{n}/s.yaml")))?;
        eventually(SOON, "the status follows", async || {
            ensure!(statuses(user, registry)? > own);
            Ok(())
        })
        .await;
        assert_eq!(statuses(other, registry)?, others, "{registry} is {user}'s");
    }

    // A registry that is deleted takes its objects with it, and its Lease.
    rig.set(0, 8080)?;
    rig.written(0, 8080).await;
    rig.kubernetes
        .kubectl(&["delete", "registry", "r0"])
        .await?;
    eventually(SOON, "its objects and its Lease are gone", async || {
        let get = [
            "get",
            "serviceentries,workloadentries,leases",
            "-n",
            "diolkos",
            "-o",
            "name",
        ];
        let left = rig.kubernetes.kubectl(&get).await?;
        ensure!(!left.contains("r0") && !left.contains("s0"), "{left}");
        Ok(())
    })
    .await;
    Ok(())
}
