//! What is promised when registry data is wrong, hostile or too much: incident classes 16 to 20 and 26. A registry of
//! files, a real API server, and istiod where it matters what it makes of it.

#![allow(clippy::print_stdout)] // figures, with --nocapture

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, Files, metric, service, until_synced};
use common::{Diolkos, SOON};
use diolkos_testkit::{Istiod, eventually};
use serde_json::{Value, json};

/// The rules behind what was decided on each instance of a service.
async fn decisions(diolkos: &Diolkos, query: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let found = diolkos
        .get(&format!("/api/v1/explain?host={query}"))
        .await?;
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for decision in found[0]["decisions"].as_array().context("no decisions")? {
        let subject = decision["subject"]["instance"]
            .as_str()
            .unwrap_or("service");
        let reason = decision["reason"].as_str().context("no reason")?;
        all.entry(subject.to_owned())
            .or_default()
            .push(reason.to_owned());
    }
    Ok(all)
}

/// The refusal of a service of a registry, as `diolkos status` has it.
async fn refusal(diolkos: &Diolkos, registry: &str, service: &str) -> Result<Option<String>> {
    let services = diolkos
        .get(&format!("/api/v1/services?registry={registry}"))
        .await?;
    let key = format!("{registry}/{service}");
    let mut services = services.as_array().into_iter().flatten();
    let found = services
        .find(|s| s["service"] == key)
        .with_context(|| format!("no service {key}"))?;
    Ok(found["refusal"].as_str().map(str::to_owned))
}

/// One instance that the mesh must not get, and the rule that leaves it out.
struct Poison {
    address: String,
    port: u32,
    reason: &'static str,
}

fn poison(address: impl Into<String>, port: u32, reason: &'static str) -> Poison {
    let address = address.into();
    Poison {
        address,
        port,
        reason,
    }
}

/// A service of these instances, with ids by their place.
fn poisoned(name: &str, poisons: &[Poison], good: &[&str]) -> Value {
    let bad = poisons
        .iter()
        .enumerate()
        .map(|(n, p)| json!({"id": format!("bad-{n}"), "address": p.address, "port": p.port}));
    let good = good
        .iter()
        .map(|address| json!({"id": format!("good-{address}"), "address": address, "port": 80}));
    json!({"name": name, "instances": bad.chain(good).collect::<Vec<_>>()})
}

/// Sees that each of them is left out, for its reason, and counted.
async fn left_out(diolkos: &Diolkos, registry: &str, host: &str, poisons: &[Poison]) -> Result<()> {
    let decisions = decisions(diolkos, host).await?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (n, poison) in poisons.iter().enumerate() {
        let found = decisions.get(&format!("bad-{n}"));
        let reasons = found.with_context(|| format!("nothing on {:?}", poison.address))?;
        ensure!(
            reasons.iter().any(|r| r == poison.reason),
            "{:?}: {reasons:?}, not {}",
            poison.address,
            poison.reason
        );
        *counts.entry(poison.reason).or_default() += 1;
    }
    for (reason, count) in counts {
        let series =
            format!("diolkos_dropped_instances{{registry=\"{registry}\",reason=\"{reason}\"}}");
        let counted = metric(diolkos, &series).await?;
        ensure!(counted >= count as f64, "{series} {counted}, not {count}");
    }
    Ok(())
}

/// Class 16: what no proxy could use, next to instances that are good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_16_poison_instances_cost_themselves_only() -> Result<()> {
    let poisons = [
        poison("backend.example.org", 80, "AddressNotIp"),
        poison("unix:///etc/passwd", 80, "AddressNotIp"),
        poison("10.0.0.300", 80, "AddressNotIp"),
        poison("10.0.0.1:80", 80, "AddressNotIp"),
        poison("10.0.0.1\n10.0.0.2", 80, "AddressNotIp"),
        poison("10.0.0.1\u{0}", 80, "AddressNotIp"),
        poison("\u{1b}[31m10.0.0.1", 80, "AddressNotIp"),
        poison("fe80::1%eth0", 80, "AddressNotIp"),
        poison("x".repeat(300), 80, "AddressNotIp"),
        poison("0.0.0.0", 80, "AddressDenied"),
        poison("::", 80, "AddressDenied"),
        poison("::ffff:0.0.0.0", 80, "AddressDenied"),
        poison("fe80::1", 80, "AddressDenied"),
        poison("255.255.255.255", 80, "AddressDenied"),
        poison("10.0.0.7", 0, "NoPort"),
        poison("10.0.0.8", 65_536, "NoPort"),
        poison("10.0.0.9", u32::MAX, "NoPort"),
    ];
    let cluster = Cluster::start().await?;
    let files = Files::new()?;
    let good = ["10.0.1.1", "::ffff:10.0.1.2", "fd00::1"];
    files.put("web", &[poisoned("web", &poisons, &good)])?;
    files.put("calm", &[service("calm", &["10.0.2.1"])])?;
    let document = files.registry("files", json!({}));
    let diolkos = cluster.run(&document.to_string()).await?;
    let served: BTreeSet<String> = ["10.0.1.1", "10.0.1.2", "10.0.2.1", "fd00::1"]
        .map(str::to_owned)
        .into();
    eventually(SOON, "the siblings are served", async || {
        let found = cluster.addresses().await?;
        ensure!(found == served, "{found:?}");
        diolkos.synced("files").await
    })
    .await;
    left_out(&diolkos, "files", "web.test", &poisons).await?;

    // Nothing but poison: a host without endpoints, of which calls fail instead of going elsewhere.
    files.put("bad", &[poisoned("bad", &poisons, &[])])?;
    eventually(SOON, "the host is there", async || {
        let entry = cluster.object("serviceentries", "bad.test").await?;
        ensure!(
            entry["spec"]["endpoints"]
                .as_array()
                .is_none_or(Vec::is_empty)
        );
        diolkos.synced("files").await
    })
    .await;
    left_out(&diolkos, "files", "bad.test", &poisons).await?;
    assert_eq!(cluster.addresses().await?, served);
    Ok(())
}

/// Class 17: labels that steer the mesh are not for registries to set. Seen where istiod has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_17_hostile_metadata() -> Result<()> {
    let cluster = Cluster::start().await?;
    let istiod = Istiod::start(&cluster.kubernetes).await?;
    let denied = [
        "istio.io/rev",
        "security.istio.io/tlsMode",
        "topology.istio.io/network",
        "topology.istio.io/subzone",
        "service.istio.io/canonical-name",
        "service.istio.io/canonical-revision",
        "networking.istio.io/tunnel",
        "sidecar.istio.io/inject",
        "gateway.istio.io/managed",
        "ISTIO.IO/rev",
        "istio.io./rev",
        "kubernetes.io/hostname",
        "topology.kubernetes.io/region",
        "app.kubernetes.io/managed-by",
        "node.k8s.io/x",
        "diolkos.io/registry",
    ];
    let altered = [
        ("long", "x".repeat(200)),
        ("html", "<script>alert(1)</script>".to_owned()),
        ("lines", "a\nb".to_owned()),
    ];
    let mut labels: BTreeMap<String, String> = altered
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    labels.extend(denied.map(|key| (key.to_owned(), "hostile".to_owned())));
    labels.insert("team".to_owned(), "shop".to_owned());
    let instance = json!({"id": "bad", "address": "10.0.0.1", "port": 80, "labels": labels});
    let files = Files::new()?;
    files.put("web", &[json!({"name": "web", "instances": [instance]})])?;
    let export = json!({"endpoints": "WorkloadEntry"});
    let document = files.registry("files", json!({"export": export}));
    let diolkos = cluster.run(&document.to_string()).await?;
    let seen = eventually(2 * SOON, "istiod has the endpoint", async || {
        let found = istiod.endpoints("web.test").await?;
        let endpoint = found.into_iter().next().context("no endpoint")?;
        Ok::<_, anyhow::Error>(endpoint.labels)
    })
    .await;
    assert_eq!(seen.get("team").map(String::as_str), Some("shop"));
    let hostile: Vec<_> = seen.iter().filter(|(_, v)| *v == "hostile").collect();
    assert!(hostile.is_empty(), "{hostile:?}");
    for (key, _) in &altered {
        let value = seen.get(*key).with_context(|| format!("no {key}"))?;
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(value.len() <= 63 && value.chars().all(safe), "{value}");
    }
    let decisions = decisions(&diolkos, "web.test").await?;
    let count = |reason: &str| decisions["bad"].iter().filter(|r| *r == reason).count();
    assert_eq!(count("LabelDenied"), denied.len(), "{decisions:?}");
    assert_eq!(count("LabelAltered"), altered.len(), "{decisions:?}");
    Ok(())
}

/// Class 18: hosts that belong to others. istiod's registry is the judge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_18_host_hijack() -> Result<()> {
    let cluster = Cluster::start().await?;
    let istiod = Istiod::start(&cluster.kubernetes).await?;
    let web = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    cluster.kubernetes.apply(&web.to_string()).await?;
    eventually(SOON, "istiod knows the Service", async || {
        let hosts = istiod.hosts().await?;
        let there = hosts.iter().any(|h| h == "web.default.svc.cluster.local");
        ensure!(there, "{hosts:?}");
        Ok(())
    })
    .await;
    let before = registryz(&istiod).await?;

    let hijacks = [
        ("kubernetes.default.svc", "HostDenied"),
        ("kubernetes.default.svc.cluster.local", "HostDenied"),
        ("KUBERNETES.default.SVC.cluster.Local", "HostDenied"),
        ("web.default.svc.cluster.local.", "HostDenied"),
        ("web.default.svc.", "HostDenied"),
        ("istiod.istio-system.svc", "HostDenied"),
        ("anything.svc.cluster.local", "HostDenied"),
        ("svc.cluster.local", "HostDenied"),
        ("*.svc.cluster.local", "HostDenied"),
        ("*", "HostDenied"),
        ("...", "HostDenied"),
        ("kubernetes.default", "HostOfService"),
        ("web.default", "HostOfService"),
        ("Web.Default.", "HostOfService"),
    ];
    let services: Vec<Value> = hijacks
        .iter()
        .map(|(host, _)| *host)
        // A Service in default wins over them in the mesh, but not where it would have been before.
        .chain(["honest.example.org", "a.tenant.test", "a.other.test"])
        .map(|host| service(host, &["10.6.6.6"]))
        .collect();
    let files = Files::new()?;
    files.put("all", &services)?;
    let registry = |name: &str, spec: Value| {
        let mut spec = spec;
        spec["export"] = json!({"host": "{service}"});
        files.registry(name, spec).to_string()
    };
    // One that may claim what is not denied, and a tenant who may claim what is his.
    let open = registry(
        "open",
        json!({"select": {"exclude": {"services": ["a.*"]}}}),
    );
    let tenant =
        json!({"grant": {"hosts": ["tenant.test"]}, "select": {"include": {"services": ["a.*"]}}});
    let tenant = registry("tenant", tenant);
    let diolkos = cluster.run(&[open, tenant].join("\n---\n")).await?;
    let honest: BTreeSet<String> = ["a.tenant.test", "honest.example.org"]
        .map(str::to_owned)
        .into();
    eventually(2 * SOON, "the honest hosts are there", async || {
        let hosts = cluster.hosts().await?;
        ensure!(hosts == honest, "{hosts:?}");
        let known = istiod.hosts().await?;
        ensure!(honest.iter().all(|h| known.contains(h)), "{known:?}");
        Ok(())
    })
    .await;
    let cases = hijacks
        .iter()
        .map(|(host, reason)| ("open", *host, *reason));
    for (registry, host, reason) in cases.chain([("tenant", "a.other.test", "HostDenied")]) {
        let refusal = refusal(&diolkos, registry, host).await?;
        let refusal = refusal.with_context(|| format!("{host} is carried over"))?;
        assert!(refusal.starts_with(reason), "{host}: {refusal}");
    }
    for reason in ["HostDenied", "HostOfService"] {
        let expected = hijacks.iter().filter(|(_, r)| *r == reason).count();
        let series = format!("diolkos_refused_services{{registry=\"open\",reason=\"{reason}\"}}");
        assert_eq!(
            metric(&diolkos, &series).await?,
            expected as f64,
            "{series}"
        );
    }
    let (status, _, message) = diolkos.condition("open", "ServicesRefused").await?;
    assert_eq!(status, "True", "{message}");
    let mut after = registryz(&istiod).await?;
    for host in &honest {
        assert!(after.remove(host).is_some(), "{host}");
    }
    assert_eq!(after, before, "istiod has the services that it had");
    Ok(())
}

/// The services that istiod has, by host.
async fn registryz(istiod: &Istiod) -> Result<BTreeMap<String, Value>> {
    let all = istiod.debug("/debug/registryz").await?;
    let one = |service: &Value| {
        let host = service["hostname"].as_str()?.to_owned();
        Some((host, service.clone()))
    };
    let all = all.as_array().context("no list")?;
    Ok(all.iter().filter_map(one).collect())
}

/// Class 19: about how many endpoints one service entry holds.
const SHARD: usize = 1_000;
/// The most that Istio takes.
const MOST: usize = 4_096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_19_oversized_services() -> Result<()> {
    const SIZES: [(&str, usize); 2] = [("large", 5_000), ("huge", 20_000)];
    let cluster = Cluster::start().await?;
    let files = Files::new()?;
    let instances = |count: usize, port: u16| -> Vec<Value> {
        let address = |n: usize| format!("10.{}.{}.{}", n / 62_500, n / 250 % 250, n % 250 + 1);
        let one = |n: usize| {
            let port = if n == 0 { port } else { 80 };
            json!({"address": address(n), "ports": [{"name": "http", "port": port}]})
        };
        (0..count).map(one).collect()
    };
    let put = |port: u16| -> Result<()> {
        for (name, size) in SIZES {
            let service = json!({"name": name, "instances": instances(size, port)});
            files.put(name, &[service])?;
        }
        files.put("calm", &[service("calm", &["10.200.0.1"])])
    };
    put(80)?;
    let at = Instant::now();
    let document = files.registry("files", json!({}));
    let diolkos = cluster.run(&document.to_string()).await?;
    let shards = async || -> Result<BTreeMap<String, Vec<usize>>> {
        let mut shards: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for entry in cluster.objects("serviceentries").await? {
            let host = entry["spec"]["hosts"][0].as_str().context("no host")?;
            let size = entry["spec"]["endpoints"].as_array().map_or(0, Vec::len);
            shards.entry(host.to_owned()).or_default().push(size);
        }
        Ok(shards)
    };
    let found = eventually(Duration::from_secs(90), "all is written", async || {
        diolkos.synced("files").await?;
        let found = shards().await?;
        for (name, size) in SIZES {
            let there = found.get(&format!("{name}.test")).context(name)?;
            ensure!(there.iter().sum::<usize>() == size, "{name}: {there:?}");
        }
        Ok(found)
    })
    .await;
    println!("{SIZES:?} are written after {:?}", at.elapsed());
    assert!(found.contains_key("calm.test"));
    let all = || found.values().flatten();
    assert!(all().all(|size| *size <= MOST), "{found:?}");
    for (name, size) in SIZES {
        assert_eq!(found[&format!("{name}.test")].len(), size / SHARD);
    }
    let written = cluster.writes()?;
    assert_eq!(written, all().count(), "one write a shard");

    // Nobody tries anything again.
    let attempts = cluster.requests(|_| true)?;
    assert_eq!(attempts, written, "none was refused");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.requests(|_| true)?, attempts);

    // A change of one instance moves one shard.
    let mut changed = instances(20_000, 80);
    changed[0]["weight"] = json!(7);
    let service = json!({"name": "huge", "instances": changed});
    files.put("huge", &[service])?;
    eventually(2 * SOON, "the change is written", async || {
        let entries = cluster.objects("serviceentries").await?;
        let weights = entries
            .iter()
            .flat_map(|e| e["spec"]["endpoints"].as_array());
        let changed = weights.flatten().filter(|e| e["weight"] == 7).count();
        ensure!(changed == 1, "{changed}");
        diolkos.synced("files").await
    })
    .await;
    let more = cluster.writes()? - written;
    assert_eq!(more, 1, "one shard");
    Ok(())
}

/// Class 20: addresses behind which something else listens than a service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_20_addresses_that_are_not_the_registrys() -> Result<()> {
    let denied = |address: &str| poison(address, 80, "AddressDenied");
    let never = [
        "169.254.169.254",
        "169.254.170.2",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "fe80::a9fe:a9fe",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:127.0.0.1",
    ];
    // The API server's address, pods of another tenant, the world.
    let not_granted = ["10.96.0.1", "10.2.0.1", "192.168.0.1", "8.8.8.8", "fd00::1"];
    let open: Vec<Poison> = never.iter().map(|a| denied(a)).collect();
    let all = never.iter().chain(&not_granted);
    let granted: Vec<Poison> = all.map(|a| denied(a)).collect();
    let cluster = Cluster::start().await?;
    let (free, bound) = (Files::new()?, Files::new()?);
    free.put(
        "free",
        &[poisoned("free", &open, &["8.8.8.8", "10.96.0.1"])],
    )?;
    bound.put("bound", &[poisoned("bound", &granted, &["10.1.0.1"])])?;
    let free = free.registry("free", json!({}));
    // The link-local range is granted, and denied all the same.
    let grant = json!({"grant": {"cidrs": ["10.1.0.0/16", "169.254.0.0/16"]}});
    let bound = bound.registry("bound", grant);
    let documents = [free.to_string(), bound.to_string()].join("\n---\n");
    let diolkos = cluster.run(&documents).await?;
    let served: BTreeSet<String> = ["8.8.8.8", "10.96.0.1", "10.1.0.1"]
        .map(str::to_owned)
        .into();
    eventually(SOON, "what is allowed is served", async || {
        let found = cluster.addresses().await?;
        ensure!(found == served, "{found:?}");
        diolkos.synced("free").await?;
        diolkos.synced("bound").await
    })
    .await;
    left_out(&diolkos, "free", "free.test", &open).await?;
    left_out(&diolkos, "bound", "bound.test", &granted).await
}

/// Class 26: two sources claim one host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_26_two_registries_claim_one_host() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (high, low) = (Files::new()?, Files::new()?);
    high.put("web", &[service("web", &["10.1.0.1"])])?;
    high.put("own", &[service("high", &["10.1.0.2"])])?;
    low.put("web", &[service("web", &["10.2.0.1"])])?;
    low.put("own", &[service("low", &["10.2.0.2"])])?;
    // By its name the loser would win.
    let documents = [
        high.registry("z-high", json!({"priority": 10})).to_string(),
        low.registry("a-low", json!({})).to_string(),
    ]
    .join("\n---\n");
    let owner = async || -> Result<(String, String)> {
        let entry = cluster.object("serviceentries", "web.test").await?;
        let registry = entry["metadata"]["labels"]["diolkos.io/registry"].as_str();
        let endpoints = entry["spec"]["endpoints"].as_array().context("endpoints")?;
        ensure!(endpoints.len() == 1, "{entry}");
        let address = endpoints[0]["address"].as_str().context("address")?;
        Ok((registry.context("registry")?.to_owned(), address.to_owned()))
    };
    let until = async |diolkos: &Diolkos, registry: &str, address: &str| {
        eventually(SOON, &format!("{registry} has the host"), async || {
            let found = owner().await?;
            ensure!(
                found == (registry.to_owned(), address.to_owned()),
                "{found:?}"
            );
            diolkos.synced("z-high").await?;
            diolkos.synced("a-low").await
        })
        .await;
    };
    let reported = async |diolkos: &Diolkos| -> Result<()> {
        let refusal = refusal(diolkos, "a-low", "web").await?;
        let refusal = refusal.context("it is carried over")?;
        let names = refusal.starts_with("HostTaken") && refusal.contains("z-high/web");
        ensure!(names, "{refusal}");
        let (status, _, message) = diolkos.condition("a-low", "ServicesRefused").await?;
        ensure!(
            status == "True" && message.contains("1 HostTaken"),
            "{message}"
        );
        let series = "diolkos_refused_services{registry=\"a-low\",reason=\"HostTaken\"}";
        ensure!(metric(diolkos, series).await? == 1.0);
        let (status, _, message) = diolkos.condition("z-high", "ServicesRefused").await?;
        ensure!(status == "False", "{message}");
        Ok(())
    };
    let mut diolkos = cluster.run(&documents).await?;
    until(&diolkos, "z-high", "10.1.0.1").await;
    reported(&diolkos).await?;
    let (versions, writes) = (cluster.versions().await?, cluster.writes()?);
    assert_eq!(versions.len(), 3, "{versions:?}");
    // Whichever of the two answers first.
    for _ in 0..5 {
        drop(diolkos);
        diolkos = cluster.run(&documents).await?;
        until(&diolkos, "z-high", "10.1.0.1").await;
        eventually(SOON, "the loser is reported", async || {
            reported(&diolkos).await
        })
        .await;
        assert_eq!(cluster.versions().await?, versions);
    }
    assert_eq!(cluster.writes()?, writes, "nothing flaps over restarts");

    high.remove("web")?;
    until(&diolkos, "a-low", "10.2.0.1").await;
    let service = refusal(&diolkos, "a-low", "web").await?;
    assert_eq!(service, None);
    high.put("web", &[cluster::service("web", &["10.1.0.1"])])?;
    until(&diolkos, "z-high", "10.1.0.1").await;
    let more = cluster.writes()? - writes;
    assert!((2..=4).contains(&more), "{more} writes for two changes");
    until_synced(&diolkos, "z-high").await;
    Ok(())
}
