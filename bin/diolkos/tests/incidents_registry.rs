//! What is promised when a registry is in trouble, one test or more for each class of incident, with a
//! real Consul behind a proxy that breaks the wire. A test's name begins with its class.

mod common;
#[path = "common/written.rs"]
mod written;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{Diolkos, SOON};
use diolkos_testkit::{Consul, Fault, HttpFault, Kubernetes, On, Reply, eventually};
use serde_json::{Value, json};
use written::{Bridge, deregister, register};

const SERVICES: usize = 12;

fn name(index: usize) -> String {
    format!("svc-{index:02}")
}

/// A Consul with [`SERVICES`] services, and the proxy before it.
struct Registry {
    consul: Consul,
    proxy: HttpFault,
}

impl Registry {
    async fn start() -> Result<Self> {
        let consul = Consul::start().await?;
        for index in 0..SERVICES {
            register(&consul, &name(index), index).await?;
        }
        let proxy = HttpFault::start(&consul.http_addr()).await?;
        Ok(Self { consul, proxy })
    }

    fn settings(&self) -> String {
        format!("{{addresses: ['{}']}}", self.proxy.url())
    }
}

/// Class 2: a registry that is down, half-open or slow.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Hang,
    HalfOpen,
    Reset,
    Stopped,
    Killed,
}

impl Trouble {
    async fn begin(self, registry: &Registry) -> Result<()> {
        let fault = match self {
            Self::Hang => Fault::Hang,
            Self::HalfOpen => Fault::HalfOpen,
            Self::Reset => Fault::Reset,
            Self::Stopped => return registry.consul.stop_process(),
            Self::Killed => return registry.consul.kill(),
        };
        registry.proxy.rule(On::every(), fault);
        registry.proxy.cut();
        Ok(())
    }

    /// Ends it, after the registry was changed if it can be: one service came and one went.
    async fn end(self, registry: &Registry) -> Result<()> {
        let Registry { consul, proxy } = registry;
        match self {
            Self::Stopped => consul.continue_process()?,
            // It comes back with what it knew before.
            Self::Killed => consul.restart().await?,
            Self::Hang | Self::HalfOpen | Self::Reset => {}
        }
        if self == Self::Killed {
            for index in 1..SERVICES {
                register(consul, &name(index), index).await?;
            }
        } else {
            deregister(consul, &name(0)).await?;
        }
        register(consul, "new", 200).await?;
        proxy.clear();
        Ok(())
    }
}

/// How long the processor time is measured.
const MEASURED: Duration = Duration::from_secs(10);

/// The share of one processor that a program uses while nobody asks it anything.
async fn processor_share(diolkos: &Diolkos) -> Result<f64> {
    let (before, at) = (diolkos.program().cpu()?, Instant::now());
    tokio::time::sleep(MEASURED).await;
    let used = diolkos.program().cpu()? - before;
    Ok(used.as_secs_f64() / at.elapsed().as_secs_f64())
}

async fn an_outage_changes_nothing(trouble: Trouble) -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = Bridge::synced(&registry.settings()).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    assert_eq!(files.len(), SERVICES);

    trouble.begin(&registry).await?;
    // A paused Consul is noticed when the waiting query is overdue: 60 s, a sixteenth more, and 10 s.
    let noticed = Duration::from_secs(90);
    let lost = bridge.until_phase(noticed, "Unreachable").await?;
    let contact = lost["lastContact"].clone();
    assert!(contact.is_string(), "{lost}");
    let (status, reason, message) = bridge.diolkos.condition("consul", "Connected").await?;
    assert_eq!((&*status, &*reason), ("False", "Unreachable"));
    assert!(message.contains("the mesh stays as it is"), "{message}");

    let share = processor_share(&bridge.diolkos).await?;
    assert!(
        share < 0.01,
        "{trouble:?}: {:.2} % of a processor",
        100.0 * share
    );
    let status = bridge.status().await?;
    assert_eq!(status["lastContact"], contact, "an attempt is no contact");
    assert_eq!(status["phase"], "Unreachable");
    assert_eq!(status["services"], SERVICES);
    assert_eq!(bridge.metric("diolkos_source_up").await?, 0.0);
    bridge.ready().await?;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes);

    trouble.end(&registry).await?;
    eventually(Duration::from_secs(60), "it goes on", async || {
        bridge.live(2).await?;
        ensure!(bridge.has("new")?, "the new service is not there");
        ensure!(!bridge.has(&name(0))?, "the old service is still there");
        Ok(())
    })
    .await;
    // One file came, one went, and the others were not touched.
    let mut kept = bridge.files()?;
    kept.retain(|file, _| files.contains_key(file));
    assert_eq!(kept.len(), SERVICES - 1);
    assert!(kept.iter().all(|(file, now)| files[file] == *now));
    assert_eq!(bridge.writes().await?, writes + 2.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_hangs() -> Result<()> {
    an_outage_changes_nothing(Trouble::Hang).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_is_half_open() -> Result<()> {
    an_outage_changes_nothing(Trouble::HalfOpen).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_resets_every_connection() -> Result<()> {
    an_outage_changes_nothing(Trouble::Reset).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_is_paused() -> Result<()> {
    an_outage_changes_nothing(Trouble::Stopped).await
}

/// And comes back with the same services, since its clients register again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_is_down() -> Result<()> {
    an_outage_changes_nothing(Trouble::Killed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_is_slow() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = Bridge::synced(&registry.settings()).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let slow = Fault::Delay(Duration::from_secs(2));
    let slow = registry.proxy.rule(On::every(), slow);

    register(&registry.consul, "new", 200).await?;
    deregister(&registry.consul, &name(0)).await?;
    eventually(Duration::from_secs(60), "changes come late", async || {
        ensure!(bridge.has("new")?, "the new service is not there");
        ensure!(!bridge.has(&name(0))?, "the old service is still there");
        Ok(())
    })
    .await;
    assert!(slow.hits() > 0);
    let share = processor_share(&bridge.diolkos).await?;
    assert!(share < 0.01, "{:.2} % of a processor", 100.0 * share);
    bridge.live(1).await?;
    bridge.ready().await?;
    let status = bridge.status().await?;
    assert_eq!(status["epoch"], 1, "slow is not lost");
    let mut kept = bridge.files()?;
    kept.retain(|file, _| files.contains_key(file));
    assert_eq!(kept.len(), SERVICES - 1);
    assert!(kept.iter().all(|(file, now)| files[file] == *now));
    // The new service has two instances, which may be found one after the other.
    let made = bridge.writes().await? - writes;
    assert!((2.0..=4.0).contains(&made), "{made} writes");
    Ok(())
}

/// Class 3: a snapshot breaks off at its k-th request for a service, for every k.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_03_a_snapshot_that_breaks_off_removes_nothing() -> Result<()> {
    let registry = Registry::start().await?;
    let settings = registry.settings();
    let bridge = Bridge::synced(&settings).await?;
    let files = bridge.files()?;
    assert_eq!(files.len(), SERVICES);
    let mut out = bridge.stop();

    let services = || On::reads().path("/v1/health/service/");
    let catalog = || On::reads().path("/v1/catalog/services");
    let breaks = |k: usize| {
        if k == 0 {
            catalog().nth(1)
        } else {
            services().nth(k)
        }
    };
    for k in 0..=SERVICES {
        // The first snapshot of a process that finds the objects of the one before it.
        let first = registry.proxy.rule(breaks(k), Fault::Cut(20));
        let bridge = Bridge::start(&settings, out).await?;
        let recovers = async |rule: &diolkos_testkit::fault::Rule, epoch: u64| {
            eventually(
                SOON,
                &format!("recovery after a break at {k}"),
                async || {
                    ensure!(rule.hits() == 1, "{} hits", rule.hits());
                    bridge.live(epoch).await
                },
            )
            .await;
        };
        recovers(&first, 2).await;
        assert_eq!(bridge.writes().await?, 0.0, "first snapshot, {k}");
        assert_eq!(bridge.files()?, files, "first snapshot, {k}");

        // Then that of a new connection, in other ways.
        let fault = match k % 3 {
            0 => Fault::Cut(20),
            1 => Fault::Reset,
            _ => Fault::Reply(Reply::status(500).body("No cluster leader")),
        };
        let again = registry.proxy.rule(breaks(k), fault);
        let epoch = bridge.status().await?["epoch"].as_u64().context("epoch")?;
        registry.proxy.cut();
        recovers(&again, epoch + 2).await;
        assert_eq!(bridge.writes().await?, 0.0, "a later snapshot, {k}");
        assert_eq!(bridge.files()?, files, "a later snapshot, {k}");
        registry.proxy.clear();
        out = bridge.stop();
    }

    // A whole one does remove.
    deregister(&registry.consul, &name(0)).await?;
    let bridge = Bridge::start(&settings, out).await?;
    eventually(SOON, "what is gone is removed", async || {
        bridge.live(1).await?;
        ensure!(!bridge.has(&name(0))?, "it is still there");
        Ok(())
    })
    .await;
    assert_eq!(bridge.files()?.len(), SERVICES - 1);
    Ok(())
}

/// Class 3, for long: no snapshot ever ends, and the registry has changed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_03_snapshots_that_never_end_remove_nothing() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = Bridge::synced(&registry.settings()).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let last = format!("/v1/health/service/{}", name(SERVICES - 1));
    let cut = registry.proxy.rule(On::reads().path(&last), Fault::Cut(20));
    registry.proxy.cut();
    deregister(&registry.consul, &name(0)).await?;
    eventually(SOON, "some snapshots broke off", async || cut.hits() >= 4).await;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes);
    bridge.ready().await?;
    cut.end();
    eventually(SOON, "it recovers", async || {
        bridge.live(5).await?;
        ensure!(!bridge.has(&name(0))?, "it is still there");
        Ok(())
    })
    .await;
    assert_eq!(bridge.writes().await?, writes + 1.0);
    Ok(())
}

/// Changes of one instance's health, this far apart.
const FLAP: (u32, Duration) = (100, Duration::from_millis(100));

/// Class 10: one of two instances goes up and down, ten times a second for ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_10_a_flapping_instance_costs_one_write_a_window() -> Result<()> {
    let (consul, kubernetes) = tokio::try_join!(
        Consul::start(),
        Kubernetes::builder().without_controller_manager().start()
    )?;
    kubernetes.install_istio_crds().await?;
    kubernetes
        .kubectl(&["create", "namespace", "diolkos"])
        .await?;
    for (id, service) in [("web-1", "web"), ("web-2", "web"), ("calm-1", "calm")] {
        consul.register(&checked(id, service)).await?;
    }
    let proxy = kubernetes.fault_proxy().await?;
    let document = format!(
        "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: consul}}, spec: {{\
          consul: {{addresses: ['{}']}}, export: {{endpoints: Inline}}}}}}",
        consul.http_addr()
    );
    let config = kubernetes.kubeconfig_through(&proxy)?;
    let diolkos = Diolkos::run(&document, &["--kubeconfig", &config.display().to_string()]).await?;
    let spec = async || -> Result<Value> {
        let path =
            "/apis/networking.istio.io/v1/namespaces/diolkos/serviceentries/web.service.consul";
        Ok(kubernetes.get(path).await?["spec"].clone())
    };
    let before = eventually(SOON, "both endpoints are there", async || {
        diolkos.synced("consul").await?;
        let spec = spec().await?;
        let endpoints = spec["endpoints"].as_array().map_or(0, Vec::len);
        ensure!(endpoints == 2, "{spec}");
        Ok(spec)
    })
    .await;

    let writes = |object: &str| {
        proxy.count(|r| {
            r.is_write() && r.path.contains("networking.istio.io") && r.path.contains(object)
        })
    };
    let (web, all, plans) = (writes("/web."), writes(""), plans(&diolkos).await?);
    let at = Instant::now();
    let mut tick = tokio::time::interval(FLAP.1);
    for change in 0..FLAP.0 {
        tick.tick().await;
        // The last one is a pass.
        if change % 2 == 0 {
            consul.fail("web-1-ttl").await?;
        } else {
            consul.pass("web-1-ttl").await?;
        }
    }
    eventually(SOON, "the final state is right", async || {
        let now = spec().await?;
        ensure!(now == before, "{now}");
        diolkos.synced("consul").await
    })
    .await;
    let took = at.elapsed();
    let (web, all) = (writes("/web.") - web, writes("") - all);
    let plans = self::plans(&diolkos).await? - plans;
    assert!(web <= plans, "{web} writes in {plans} windows of {took:?}");
    assert!((2..=FLAP.0 as usize).contains(&web), "{web} writes");
    assert_eq!(all, web, "no other object is written");
    Ok(())
}

fn checked(id: &str, service: &str) -> Value {
    let address = format!("10.0.0.{}", id.len() + usize::from(id.ends_with('2')));
    json!({
        "ID": id, "Name": service, "Address": address, "Port": 80,
        "Checks": [{"CheckID": format!("{id}-ttl"), "TTL": "10m", "Status": "passing"}],
    })
}

/// How often the engine published: the windows in which something changed.
async fn plans(diolkos: &Diolkos) -> Result<usize> {
    let (_, page) = diolkos.page("/metrics").await?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("diolkos_plans_total "));
    Ok(line.context("no diolkos_plans_total")?.parse()?)
}
