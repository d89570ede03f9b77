//! What is promised when ZooKeeper is in trouble, one test or more for each class of incident, with real servers
//! behind a proxy that breaks the wire. A test's name begins with its class.

mod common;
#[path = "common/dubbo.rs"]
mod dubbo;
#[path = "common/outage.rs"]
mod outage;
#[path = "common/written.rs"]
mod written;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::SOON;
use diolkos_testkit::{
    TcpProxy, eventually,
    zookeeper::{Builder, Writer, ZooKeeper},
};
use dubbo::Provider;
use outage::{
    SERVICES, host, interface, only_changed, processor_share, until_followed, until_held,
    until_not_held, until_there,
};
use written::{Bridge, GUARD};

/// The session time-out of the bridge, as the server prints it.
const SESSION: &str = "2000";

/// A ZooKeeper with [`SERVICES`] interfaces of two providers each, and the proxy before it.
struct Registry {
    server: ZooKeeper,
    writer: Writer,
    proxy: TcpProxy,
}

impl Registry {
    async fn start(builder: Builder) -> Result<Self> {
        let server = builder.start().await?;
        let registry = Self {
            writer: server.writer().await?,
            proxy: TcpProxy::start(server.address().parse()?).await?,
            server,
        };
        registry.fill().await?;
        Ok(registry)
    }

    async fn fill(&self) -> Result<()> {
        fill(&self.writer).await
    }

    async fn add(&self, service: usize) -> Result<()> {
        add(&self.writer, service).await
    }

    /// All nodes of an interface go.
    async fn remove(&self, service: usize) -> Result<()> {
        let path = format!("/dubbo/{}", interface(service));
        self.writer.delete_all(&path).await
    }

    /// The providers of an interface go one after the other, each after the bridge saw the one before.
    async fn dwindle(&self, bridge: &Bridge, service: usize) -> Result<()> {
        let [first, second] = outage::providers(service);
        self.writer.delete(&first.path()).await?;
        eventually(SOON, "the first is gone", async || {
            let file = outage::file_of(&bridge.files()?, service)?;
            ensure!(!file.contains(&format!("10.0.{service}.1")), "{file}");
            Ok(())
        })
        .await;
        self.writer.delete(&second.path()).await
    }

    fn spec(&self) -> String {
        self.spec_with("", GUARD)
    }

    /// The fields of the document, with more of the connection (`frameLimit: 64Ki,`) and a guard.
    fn spec_with(&self, more: &str, guard: &str) -> String {
        let address = self.proxy.address();
        format!(
            "zookeeper: {{addresses: ['{address}'], {more} sessionTimeout: 2s}}, \
             export: {{endpoints: Inline}}, {guard}"
        )
    }

    async fn bridge(&self) -> Result<Bridge> {
        self.bridge_with(&self.spec()).await
    }

    async fn bridge_with(&self, spec: &str) -> Result<Bridge> {
        let bridge = Bridge::start_registry("zookeeper", spec, tempfile::tempdir()?).await?;
        bridge.until_live().await;
        Ok(bridge)
    }

    /// The session of the bridge, while it is connected.
    async fn session(&self) -> Result<String> {
        let connections = self.server.four_letter("cons").await?;
        let time_out = format!("to={SESSION},");
        let of_bridge = connections.lines().find(|line| line.contains(&time_out));
        let session = of_bridge.and_then(|line| line.split("sid=").nth(1)?.split(',').next());
        Ok(session.with_context(|| connections.clone())?.to_owned())
    }

    /// Waits until the server has given a session up.
    async fn until_expired(&self, session: &str) {
        eventually(SOON, "the session expires", async || {
            let sessions = self.server.four_letter("dump").await?;
            ensure!(!sessions.contains(session), "{session} is in {sessions}");
            Ok(())
        })
        .await;
    }
}

async fn fill(writer: &Writer) -> Result<()> {
    for service in 0..SERVICES {
        add(writer, service).await?;
    }
    Ok(())
}

async fn add(writer: &Writer, service: usize) -> Result<()> {
    for provider in outage::providers(service) {
        writer.create(&provider.path(), "127.0.0.1").await?;
    }
    Ok(())
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
        let Registry { server, proxy, .. } = registry;
        match self {
            Self::Hang => proxy.hang(true),
            Self::Refused => proxy.interrupt().await?,
            Self::Stopped => server.stop_process()?,
            Self::Killed => server.kill()?,
        }
        Ok(())
    }

    /// Ends it. The registry has changed: one interface came and one went.
    async fn end(self, registry: &mut Registry) -> Result<()> {
        match self {
            Self::Stopped => registry.server.continue_process()?,
            Self::Killed => registry.server.restart().await?,
            Self::Hang | Self::Refused => {}
        }
        eventually(SOON, "it can be written to", async || {
            registry.writer.exists("/dubbo").await
        })
        .await;
        registry.remove(0).await?;
        registry.add(SERVICES).await?;
        registry.proxy.restore().await
    }
}

async fn an_outage_changes_nothing(trouble: Trouble) -> Result<()> {
    let mut registry = Registry::start(ZooKeeper::builder()).await?;
    let bridge = registry.bridge().await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    assert_eq!(files.len(), SERVICES);

    trouble.begin(&mut registry).await?;
    outage::is_visible_and_harmless(&bridge, &files, writes).await?;

    trouble.end(&mut registry).await?;
    until_followed(&bridge, 2, &[SERVICES], &[0]).await;
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
async fn class_02_a_registry_that_is_paused_for_longer_than_the_session() -> Result<()> {
    an_outage_changes_nothing(Trouble::Stopped).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_is_down() -> Result<()> {
    an_outage_changes_nothing(Trouble::Killed).await
}

/// Class 6: a short disconnect goes on with the session, a long one with a new one, and neither writes anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_06_short_disconnects_and_expired_sessions_write_nothing() -> Result<()> {
    let mut registry = Registry::start(ZooKeeper::builder()).await?;
    let bridge = registry.bridge().await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let first = registry.session().await?;

    registry.proxy.cut();
    until_followed(&bridge, 2, &[], &[]).await;
    assert_eq!(registry.session().await?, first, "the session goes on");
    assert_eq!(bridge.writes().await?, writes);

    registry.proxy.refuse(true).await?;
    registry.proxy.cut();
    registry.until_expired(&first).await;
    assert_eq!(bridge.files()?, files);
    registry.proxy.refuse(false).await?;
    until_followed(&bridge, 3, &[], &[]).await;
    assert_ne!(registry.session().await?, first, "the session is new");
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes, "nothing had changed");

    // The new session has its watches.
    registry.remove(0).await?;
    registry.add(SERVICES).await?;
    until_followed(&bridge, 3, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    // One came and one went, with both providers at once or one after the other.
    let made = bridge.writes().await? - writes;
    assert!((2.0..=4.0).contains(&made), "{made} writes");
    Ok(())
}

/// Class 6, from the other side: the bridge does not run for longer than its session lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_06_the_bridge_is_paused_for_longer_than_the_session() -> Result<()> {
    let registry = Registry::start(ZooKeeper::builder()).await?;
    let bridge = registry.bridge().await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let session = registry.session().await?;
    bridge.diolkos.program().stop_process()?;
    registry.until_expired(&session).await;
    registry.remove(0).await?;
    registry.add(SERVICES).await?;
    bridge.diolkos.program().continue_process()?;
    until_followed(&bridge, 2, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    assert_eq!(bridge.writes().await?, writes + 2.0);
    Ok(())
}

/// Class 7: what comes and goes while nobody can see it, in a session that goes on and in one that does not.
async fn what_happens_while_away_is_found(builder: Builder) -> Result<()> {
    let mut registry = Registry::start(builder).await?;
    let bridge = registry.bridge().await?;
    let (files, mut writes) = (bridge.files()?, bridge.writes().await?);
    let mut epoch = 1;
    for (came, expires) in [(SERVICES, false), (SERVICES + 1, true)] {
        let went = came - SERVICES;
        let session = registry.session().await?;
        registry.proxy.refuse(true).await?;
        registry.proxy.cut();
        // It comes and goes, in a place where a watch is and in one where there is none.
        let blinks = Provider::new(&interface(5), "10.9.0.1:20880").path();
        registry.writer.create(&blinks, "").await?;
        registry.writer.delete(&blinks).await?;
        registry.add(99).await?;
        registry.remove(99).await?;
        // It goes and comes.
        registry.remove(4).await?;
        registry.add(4).await?;
        registry.remove(went).await?;
        registry.add(came).await?;
        if expires {
            registry.until_expired(&session).await;
        }
        registry.proxy.refuse(false).await?;
        epoch += 1;
        until_followed(&bridge, epoch, &[came], &[went]).await;
        writes += 2.0;
        assert_eq!(bridge.writes().await?, writes, "one came and one went");
        assert!(!bridge.has_host(&host(99))?);
    }
    only_changed(&bridge, &files, &[0, 1])?;
    // All places are still watched, also those that were made anew.
    let more = Provider::new(&interface(4), "10.9.0.2:20880").path();
    registry.writer.create(&more, "").await?;
    until_there(&bridge, "10.9.0.2").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_07_what_happens_while_away_is_found_with_recursive_watches() -> Result<()> {
    what_happens_while_away_is_found(ZooKeeper::builder()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_07_what_happens_while_away_is_found_with_watches_that_fire_once() -> Result<()> {
    what_happens_while_away_is_found(ZooKeeper::builder().old()).await
}

/// Class 10: one of two providers comes and goes all the time.
async fn a_provider_that_flaps(builder: Builder) -> Result<()> {
    let registry = Registry::start(builder).await?;
    let bridge = registry.bridge().await?;
    let [_, second] = outage::providers(0).map(|provider| provider.path());
    let writer = &registry.writer;
    outage::a_flapping_provider_costs_little(&bridge, async |comes| {
        if comes {
            writer.create(&second, "127.0.0.1").await
        } else {
            writer.delete(&second).await
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_10_a_provider_that_flaps_costs_one_write_a_window() -> Result<()> {
    a_provider_that_flaps(ZooKeeper::builder()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_10_a_provider_that_flaps_where_watches_fire_once() -> Result<()> {
    a_provider_that_flaps(ZooKeeper::builder().old()).await
}

/// Waits until it is said that `what` cannot be read.
async fn until_troubled(bridge: &Bridge, what: &str) {
    eventually(SOON, "it is said what cannot be read", async || {
        let status = bridge.status().await?;
        let detail = status["detail"].as_str().context("no detail")?;
        ensure!(detail.contains(what), "{status}");
        Ok(())
    })
    .await;
}

async fn until_complete(bridge: &Bridge) {
    eventually(2 * SOON, "all can be read", async || {
        let (status, reason, message) = bridge.condition("Complete").await?;
        ensure!(status == "True", "{reason}: {message}");
        Ok(())
    })
    .await;
}

/// Class 3: one interface that may not be read keeps what it has, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_03_an_interface_that_may_not_be_read_costs_itself_only() -> Result<()> {
    let registry = Registry::start(ZooKeeper::builder()).await?;
    let bridge = registry.bridge().await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let hidden = format!("/dubbo/{}/providers", interface(0));
    registry.writer.hide(&hidden).await?;
    let [first, _] = outage::providers(0);
    registry.writer.delete(&first.path()).await?;
    registry.proxy.cut();
    until_troubled(&bridge, &hidden).await;
    registry.add(SERVICES).await?;
    until_followed(&bridge, 2, &[SERVICES], &[]).await;
    registry.dwindle(&bridge, 1).await?;
    until_followed(&bridge, 2, &[], &[1]).await;
    only_changed(&bridge, &files, &[1])?;
    // The new one may come with one provider or two, and the old one went in two steps.
    let made = bridge.writes().await? - writes;
    assert!((3.0..=4.0).contains(&made), "{made} writes");
    // Several providers at once are held until it is confirmed, as ever.
    registry.remove(2).await?;
    until_followed(&bridge, 2, &[], &[2]).await;
    only_changed(&bridge, &files, &[1, 2])?;

    // The same for a process that finds it so.
    let now = bridge.files()?;
    let out = bridge.stop();
    let bridge = Bridge::start_registry("zookeeper", &registry.spec(), out).await?;
    until_troubled(&bridge, &hidden).await;
    registry.add(SERVICES + 1).await?;
    until_followed(&bridge, 1, &[SERVICES + 1], &[]).await;
    only_changed(&bridge, &now, &[])?;
    registry.remove(3).await?;
    until_followed(&bridge, 1, &[], &[3]).await;
    only_changed(&bridge, &now, &[3])?;
    let (status, _, message) = bridge.condition("Complete").await?;
    assert!(status == "False" && message.contains(&hidden), "{message}");

    registry.writer.unhide(&hidden).await?;
    until_complete(&bridge).await;
    eventually(SOON, "what was hidden is seen", async || {
        let file = outage::file_of(&bridge.files()?, 0)?;
        ensure!(!file.contains("10.0.0.1"), "{file}");
        bridge.live(1).await
    })
    .await;
    Ok(())
}

/// Class 3: so does one whose list is too large to be accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_03_a_list_that_is_too_large_costs_its_own_interface_only() -> Result<()> {
    let registry = Registry::start(ZooKeeper::builder()).await?;
    let spec = registry.spec_with("frameLimit: 64Ki,", GUARD);
    let bridge = registry.bridge_with(&spec).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let many: Vec<_> = (0..400)
        .map(|n| format!("10.8.{}.{}:20880", n / 200, n % 200 + 1))
        .map(|address| (Provider::new(&interface(0), &address).path(), ""))
        .collect();
    registry.writer.create_many(&many).await?;
    until_troubled(&bridge, "jute.maxbuffer").await;
    // What was read on the way to that size may be there.
    let grown = bridge.writes().await?;
    registry.add(SERVICES).await?;
    registry.dwindle(&bridge, 1).await?;
    until_followed(&bridge, 1, &[SERVICES], &[1]).await;
    only_changed(&bridge, &files, &[0, 1])?;
    let now = outage::file_of(&bridge.files()?, 0)?;
    assert!(
        now.contains("10.0.0.1") && now.contains("10.0.0.2"),
        "{now}"
    );
    assert!(grown >= writes);

    for (path, _) in &many {
        registry.writer.delete(path).await?;
    }
    until_complete(&bridge).await;
    eventually(2 * SOON, "the service is as before", async || {
        let file = outage::file_of(&bridge.files()?, 0)?;
        ensure!(file == outage::file_of(&files, 0)?, "{file}");
        bridge.live(1).await
    })
    .await;
    Ok(())
}

/// Class 1: the root is deleted with all below it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_01_the_root_is_deleted() -> Result<()> {
    let mut registry = Registry::start(ZooKeeper::builder()).await?;
    let guard = "guard: {emptyHold: 6s, confirmAfter: 2, emptyGrace: 0s}";
    let bridge = registry.bridge_with(&registry.spec_with("", guard)).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);

    // While the bridge is away: its next snapshot is empty.
    registry.proxy.refuse(true).await?;
    registry.proxy.cut();
    registry.writer.delete_all("/dubbo").await?;
    registry.proxy.refuse(false).await?;
    until_held(&bridge).await;
    registry.fill().await?;
    until_not_held(&bridge).await;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes, "it came back in time");

    // While the bridge watches, and sleeps for a moment: all events come at once, in the same session.
    let session = registry.session().await?;
    bridge.diolkos.program().stop_process()?;
    registry.writer.delete_all("/dubbo").await?;
    bridge.diolkos.program().continue_process()?;
    let at = Instant::now();
    until_held(&bridge).await;
    assert_eq!(registry.session().await?, session);
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

    // A root that comes back is followed again.
    registry.fill().await?;
    let all: Vec<usize> = (0..SERVICES).collect();
    until_followed(&bridge, 2, &all, &[]).await;
    Ok(())
}

/// Class 5: another server with an older history, as after a restore. It refuses who has seen more than itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_05_a_server_with_an_older_history() -> Result<()> {
    let registry = Registry::start(ZooKeeper::builder()).await?;
    // One more transaction each, so that the history is longer than that of the other one.
    for number in 0..100 {
        let path = format!("/history/{number}");
        registry.writer.create(&path, "").await?;
    }
    registry.remove(0).await?;
    registry.add(0).await?;
    let bridge = registry.bridge().await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);

    let restored = Registry::start(ZooKeeper::builder()).await?;
    registry.proxy.redirect(restored.server.address().parse()?);
    registry.proxy.cut();
    eventually(2 * SOON, "the restored server is followed", async || {
        let sessions = restored.session().await?;
        bridge.live(2).await.context(sessions)
    })
    .await;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes, "it holds the same");
    restored.remove(0).await?;
    until_followed(&bridge, 2, &[], &[0]).await;
    Ok(())
}

/// P4, and a light form of class 13: a process that is killed and started again writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_13_a_restart_writes_nothing() -> Result<()> {
    let registry = Registry::start(ZooKeeper::builder()).await?;
    let bridge = registry.bridge().await?;
    let files = bridge.files()?;
    bridge.diolkos.program().restart()?;
    bridge.until_live().await;
    assert_eq!(bridge.writes().await?, 0.0);
    assert_eq!(bridge.files()?, files);
    Ok(())
}

/// The leader of an ensemble is killed while providers come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_the_leader_of_an_ensemble_is_killed_under_load() -> Result<()> {
    let ensemble = ZooKeeper::ensemble(3).await?;
    let writer = ensemble.writer().await?;
    fill(&writer).await?;
    let addresses: Vec<String> = ensemble.addresses();
    let spec = format!(
        "zookeeper: {{addresses: ['{}'], sessionTimeout: 2s}}, export: {{endpoints: Inline}}, {GUARD}",
        addresses.join("', '")
    );
    let bridge = Bridge::start_registry("zookeeper", &spec, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    let files = bridge.files()?;

    let mut added = 0;
    let mut load = async |changes: usize| {
        for _ in 0..changes {
            added += 1;
            let provider = Provider::new(&interface(0), &format!("10.7.0.{added}:20880")).path();
            eventually(2 * SOON, "the ensemble takes changes", async || {
                // The change before the election may have been made, and its answer lost.
                if writer.exists(&provider).await? {
                    return Ok(());
                }
                writer.create(&provider, "").await
            })
            .await;
        }
        format!("10.7.0.{added}")
    };
    for _ in 0..2 {
        let seen = load(20).await;
        eventually(SOON, "changes are followed", async || {
            bridge.has_host(&seen)
        })
        .await;
        let leader = ensemble.leader().await?;
        ensemble[leader].kill()?;
        let last = load(20).await;
        until_there(&bridge, &last).await;
        ensemble[leader].restart().await?;
    }
    only_changed(&bridge, &files, &[0])?;
    let all = outage::file_of(&bridge.files()?, 0)?;
    for number in 1..=80 {
        assert!(
            all.contains(&format!("\"10.7.0.{number}\"")),
            "10.7.0.{number} is not in {all}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_bridge_costs_nothing() -> Result<()> {
    let registry = Registry::start(ZooKeeper::builder()).await?;
    let bridge = registry.bridge().await?;
    let share = processor_share(&bridge.diolkos).await?;
    assert!(share < 0.01, "{:.2} % of a processor", 100.0 * share);
    Ok(())
}
