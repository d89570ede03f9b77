//! What is promised when an etcd that Dubbo writes into is in trouble, one test or more for each class of incident,
//! with real servers behind a proxy that breaks the wire. A test's name begins with its class.

mod common;
#[path = "common/dubbo.rs"]
mod dubbo;
#[path = "common/outage.rs"]
mod outage;
#[path = "common/written.rs"]
mod written;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::SOON;
use diolkos_testkit::{Etcd, TcpProxy, eventually};
use dubbo::Provider;
use outage::{
    SERVICES, host, interface, only_changed, until_followed, until_held, until_not_held,
    until_there,
};
use written::{Bridge, GUARD};

/// An etcd with [`SERVICES`] interfaces of two providers each, and the proxy before it.
struct Registry {
    server: Etcd,
    proxy: TcpProxy,
}

impl Registry {
    async fn start() -> Result<Self> {
        let server = Etcd::start().await?;
        let registry = Self {
            proxy: TcpProxy::start(server.address(0)).await?,
            server,
        };
        registry.fill().await?;
        Ok(registry)
    }

    async fn fill(&self) -> Result<()> {
        for service in 0..SERVICES {
            add(&self.server, service).await?;
        }
        Ok(())
    }

    async fn add(&self, service: usize) -> Result<()> {
        add(&self.server, service).await
    }

    async fn remove(&self, service: usize) -> Result<()> {
        remove(&self.server, service).await
    }

    async fn bridge(&self, guard: &str) -> Result<Bridge> {
        let bridge = self.start_bridge(guard, tempfile::tempdir()?).await?;
        bridge.until_live().await;
        Ok(bridge)
    }

    async fn start_bridge(&self, guard: &str, out: tempfile::TempDir) -> Result<Bridge> {
        let address = self.proxy.address();
        let spec = format!(
            "etcd: {{addresses: ['http://{address}']}}, export: {{endpoints: Inline}}, {guard}"
        );
        Bridge::start_registry("etcd", &spec, out).await
    }
}

/// Both providers come in one revision.
async fn add(server: &Etcd, service: usize) -> Result<()> {
    let providers = outage::providers(service).map(|provider| (provider.path(), "127.0.0.1"));
    server.put_all(&providers).await
}

/// All providers of an interface go in one revision.
async fn remove(server: &Etcd, service: usize) -> Result<()> {
    let prefix = format!("/dubbo/{}/", interface(service));
    server.delete_prefix(&prefix).await
}

/// Class 2: a registry that is down or half-open.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Hang,
    Refused,
    Stopped,
    Killed,
}

impl Trouble {
    async fn begin(self, registry: &mut Registry) -> Result<()> {
        let Registry { server, proxy } = registry;
        match self {
            Self::Hang => proxy.hang(true),
            Self::Refused => proxy.interrupt().await?,
            Self::Stopped => server.stop_process(0)?,
            Self::Killed => server.kill(0)?,
        }
        Ok(())
    }

    /// Ends it. The registry has changed: one interface came and one went.
    async fn end(self, registry: &mut Registry) -> Result<()> {
        match self {
            Self::Stopped => registry.server.continue_process(0)?,
            Self::Killed => registry.server.restart(0).await?,
            Self::Hang | Self::Refused => {}
        }
        registry.remove(0).await?;
        registry.add(SERVICES).await?;
        registry.proxy.restore().await
    }
}

async fn an_outage_changes_nothing(trouble: Trouble) -> Result<()> {
    let mut registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    assert_eq!(files.len(), SERVICES);

    trouble.begin(&mut registry).await?;
    outage::is_visible_and_harmless(&bridge, &files, writes).await?;

    trouble.end(&mut registry).await?;
    until_followed(&bridge, 1, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    assert_eq!(bridge.writes().await?, writes + 2.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_hangs() -> Result<()> {
    an_outage_changes_nothing(Trouble::Hang).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_refuses_connections() -> Result<()> {
    an_outage_changes_nothing(Trouble::Refused).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_is_paused() -> Result<()> {
    an_outage_changes_nothing(Trouble::Stopped).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_is_down() -> Result<()> {
    an_outage_changes_nothing(Trouble::Killed).await
}

/// Classes 6 and 7: what comes and goes while nobody can see it is found, also when etcd has forgotten how it came
/// to its state, and what is as before is not written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_07_what_happens_while_away_is_found() -> Result<()> {
    let mut registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let (files, mut writes) = (bridge.files()?, bridge.writes().await?);

    registry.proxy.cut();
    until_followed(&bridge, 2, &[], &[]).await;
    assert_eq!(bridge.writes().await?, writes, "nothing had changed");

    for (came, compacts) in [(SERVICES, false), (SERVICES + 1, true)] {
        let went = came - SERVICES;
        registry.proxy.refuse(true).await?;
        registry.proxy.cut();
        let blinks = Provider::new(&interface(5), "10.9.0.1:20880").path();
        registry.server.put(&blinks, "").await?;
        registry.server.delete(&blinks).await?;
        registry.add(99).await?;
        registry.remove(99).await?;
        registry.remove(4).await?;
        registry.add(4).await?;
        registry.remove(went).await?;
        registry.add(came).await?;
        if compacts {
            registry.server.compact().await?;
        }
        registry.proxy.refuse(false).await?;
        until_followed(&bridge, 3, &[came], &[went]).await;
        writes += 2.0;
        assert_eq!(bridge.writes().await?, writes, "one came and one went");
        assert!(!bridge.has_host(&host(99))?);
    }
    only_changed(&bridge, &files, &[0, 1])?;
    let more = Provider::new(&interface(4), "10.9.0.2:20880").path();
    registry.server.put(&more, "").await?;
    until_there(&bridge, "10.9.0.2").await;
    Ok(())
}

/// A provider that is killed goes when its lease ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_06_a_lease_that_ends_takes_its_provider() -> Result<()> {
    let registry = Registry::start().await?;
    let lease = registry.server.grant(2).await?;
    let mortal = Provider::new(&interface(0), "10.9.0.1:20880").path();
    registry.server.put_leased(&mortal, "", lease).await?;
    let bridge = registry.bridge(GUARD).await?;
    let files = bridge.files()?;
    eventually(SOON, "the provider is gone", async || {
        let file = outage::file_of(&bridge.files()?, 0)?;
        ensure!(!file.contains("10.9.0.1"), "{file}");
        bridge.live(1).await
    })
    .await;
    only_changed(&bridge, &files, &[0])?;
    let file = outage::file_of(&bridge.files()?, 0)?;
    assert!(
        file.contains("10.0.0.1") && file.contains("10.0.0.2"),
        "{file}"
    );
    Ok(())
}

/// Class 10: one of two providers comes and goes all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_10_a_provider_that_flaps_costs_one_write_a_window() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let [_, second] = outage::providers(0).map(|provider| provider.path());
    outage::a_flapping_provider_costs_little(&bridge, async |comes| {
        if comes {
            registry.server.put(&second, "127.0.0.1").await
        } else {
            registry.server.delete(&second).await
        }
    })
    .await
}

/// Class 1: the whole prefix is deleted in one revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_01_the_prefix_is_deleted() -> Result<()> {
    let registry = Registry::start().await?;
    let guard = "guard: {emptyHold: 6s, confirmAfter: 2, emptyGrace: 0s}";
    let bridge = registry.bridge(guard).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);

    registry.server.delete_prefix("/dubbo/").await?;
    until_held(&bridge).await;
    assert_eq!(bridge.files()?, files);
    registry.fill().await?;
    until_not_held(&bridge).await;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes, "it came back in time");

    // The same for a process that finds it so; the hold ends when the registry has confirmed it.
    registry.server.delete_prefix("/dubbo/").await?;
    until_held(&bridge).await;
    let bridge = registry.start_bridge(guard, bridge.stop()).await?;
    let at = Instant::now();
    until_held(&bridge).await;
    assert_eq!(bridge.files()?, files);
    eventually(2 * SOON, "the hold has ended", async || {
        let left = bridge.files()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    let took = at.elapsed();
    assert!(took >= Duration::from_secs(3), "confirmed within {took:?}");
    until_not_held(&bridge).await;
    Ok(())
}

/// Class 5: etcd comes back as it was long ago, with a lower revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_05_an_old_state_is_restored() -> Result<()> {
    let registry = Registry::start().await?;
    for _ in 0..20 {
        registry.server.put("/history", "").await?;
    }
    let guard = "guard: {emptyHold: 6s, confirmAfter: 2, emptyGrace: 0s}";
    let bridge = registry.bridge(guard).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    // Then there was one service only, of another name than all of today.
    let old = Registry::start().await?;
    old.server.delete_prefix("/dubbo/").await?;
    old.add(SERVICES).await?;
    assert!(old.server.revision().await? < registry.server.revision().await?);

    registry.proxy.redirect(old.server.address(0));
    registry.proxy.cut();
    until_held(&bridge).await;
    only_changed(&bridge, &files, &[])?;
    // What it has is believed.
    until_there(&bridge, &host(SERVICES)).await;
    only_changed(&bridge, &files, &[])?;
    assert_eq!(bridge.writes().await?, writes + 1.0);

    // And what it lacks when it goes on saying so.
    let gone: Vec<usize> = (0..SERVICES).collect();
    until_followed(&bridge, 2, &[SERVICES], &gone).await;
    until_not_held(&bridge).await;

    // Changes are followed from the revision that it has now.
    old.add(0).await?;
    until_followed(&bridge, 2, &[0, SERVICES], &[]).await;
    Ok(())
}

/// Class 3: while a prefix may not be read, what comes is believed and nothing goes: what is missing in one place may
/// be in the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_03_a_prefix_that_may_not_be_read_takes_nothing_away() -> Result<()> {
    let server = Etcd::builder().auth().start().await?;
    for service in 0..SERVICES {
        add(&server, service).await?;
    }
    // Not `/services/`.
    server.add_reader("reader", "secret", &["/dubbo/"]).await?;
    let password = tempfile::NamedTempFile::new()?;
    std::fs::write(&password, "secret")?;
    let spec = format!(
        "etcd: {{addresses: ['{}'], auth: {{username: reader, password: {{file: '{}'}}}}}}, \
         export: {{endpoints: Inline}}, {GUARD}",
        server.endpoint(0),
        password.path().display()
    );
    let bridge = Bridge::start_registry("etcd", &spec, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    assert_eq!(files.len(), SERVICES);
    eventually(SOON, "it is said what cannot be read", async || {
        let (status, reason, message) = bridge.condition("Complete").await?;
        ensure!(
            status == "False" && message.contains("/services"),
            "{reason}: {message}"
        );
        Ok(())
    })
    .await;
    let [first, _] = outage::providers(0).map(|provider| provider.path());
    server.delete(&first).await?;
    add(&server, SERVICES).await?;
    until_followed(&bridge, 1, &[SERVICES], &[]).await;
    only_changed(&bridge, &files, &[])?;
    assert_eq!(bridge.writes().await?, writes + 1.0);

    // All may be read: what is gone goes.
    server.allow("reader", "/services/").await?;
    eventually(2 * SOON, "the first is gone", async || {
        let file = outage::file_of(&bridge.files()?, 0)?;
        ensure!(!file.contains("10.0.0.1"), "{file}");
        bridge.live(1).await
    })
    .await;
    only_changed(&bridge, &files, &[0])?;

    // Nothing may be read: that is an outage, not an empty registry.
    let (now, writes) = (bridge.files()?, bridge.writes().await?);
    server.forbid("reader", "/dubbo/").await?;
    let denied = bridge.until_phase(2 * SOON, "Denied").await?;
    assert_eq!(denied["services"], SERVICES + 1);
    assert_eq!(bridge.files()?, now);
    assert_eq!(bridge.writes().await?, writes);
    Ok(())
}

/// P4, and a light form of class 13: a process that is killed and started again writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_13_a_restart_writes_nothing() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let files = bridge.files()?;
    bridge.diolkos.program().restart()?;
    bridge.until_live().await;
    assert_eq!(bridge.writes().await?, 0.0);
    assert_eq!(bridge.files()?, files);
    Ok(())
}

/// The leader of three members is killed while providers come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_the_leader_of_a_cluster_is_killed_under_load() -> Result<()> {
    let cluster = Etcd::cluster(3).await?;
    for service in 0..SERVICES {
        add(&cluster, service).await?;
    }
    let spec = format!(
        "etcd: {{addresses: ['{}']}}, export: {{endpoints: Inline}}, {GUARD}",
        cluster.endpoints().join("', '")
    );
    let bridge = Bridge::start_registry("etcd", &spec, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    let files = bridge.files()?;
    let mut added = 0;
    let mut load = async |changes: usize| {
        for _ in 0..changes {
            added += 1;
            let provider = Provider::new(&interface(0), &format!("10.7.0.{added}:20880")).path();
            eventually(2 * SOON, "the cluster takes changes", async || {
                cluster.put(&provider, "").await
            })
            .await;
        }
        format!("\"10.7.0.{added}\"")
    };
    for _ in 0..2 {
        let seen = load(20).await;
        until_there(&bridge, &seen).await;
        let leader = cluster.leader().await?;
        cluster.kill(leader)?;
        let last = load(20).await;
        until_there(&bridge, &last).await;
        cluster.restart(leader).await?;
    }
    only_changed(&bridge, &files, &[0])?;
    let all = outage::file_of(&bridge.files()?, 0)?;
    for number in 1..=80 {
        let address = format!("\"10.7.0.{number}\"");
        assert!(all.contains(&address), "{address} is not in {all}");
    }
    Ok(())
}
