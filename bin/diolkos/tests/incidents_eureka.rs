//! What is promised when a Eureka is in trouble, one test or more for each class of incident, with real servers behind
//! proxies that break connections and answers. A test's name begins with its class.

mod common;
#[path = "common/dubbo.rs"]
mod dubbo;
#[path = "common/outage.rs"]
mod outage;
#[path = "common/written.rs"]
mod written;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use common::SOON;
use diolkos_testkit::{
    Eureka, Fault, HttpFault, On, Reply, TcpProxy, eureka::instance, eventually,
};
use outage::{
    SERVICES, host, interface, only_changed, until_followed, until_held, until_not_held,
    until_there,
};
use serde_json::{Value, json};
use written::{Bridge, Files, GUARD};

/// Nothing counts as gone for so long after a connection was lost.
const SETTLE: Duration = Duration::from_secs(4);
/// A guard that waits for long enough to be seen.
const SLOW_GUARD: &str = "guard: {emptyHold: 6s, confirmAfter: 2, emptyGrace: 0s}";
const APPS: &str = "/eureka/apps";
const DELTA: &str = "/eureka/apps/delta";

/// A Eureka with [`SERVICES`] applications of two instances each, and the proxies before it.
struct Registry {
    server: Eureka,
    /// Breaks answers.
    http: HttpFault,
    /// Breaks connections; the bridge goes through both.
    wire: TcpProxy,
}

impl Registry {
    async fn start() -> Result<Self> {
        let registry = Self::of(Eureka::start().await?).await?;
        for service in 0..SERVICES {
            registry.add(service).await?;
        }
        Ok(registry)
    }

    async fn of(server: Eureka) -> Result<Self> {
        let http = HttpFault::start(&server.origin()).await?;
        Ok(Self {
            wire: TcpProxy::start(http.address()).await?,
            http,
            server,
        })
    }

    async fn add(&self, service: usize) -> Result<()> {
        for number in [1, 2] {
            self.add_one(service, number).await?;
        }
        Ok(())
    }

    async fn add_one(&self, service: usize, number: u8) -> Result<()> {
        let app = interface(service);
        let ip = format!("10.0.{service}.{number}");
        let record = instance(&app, &ip, 20880);
        self.server.register(&app, &record).await
    }

    async fn remove(&self, service: usize) -> Result<()> {
        for number in [1, 2] {
            self.remove_one(service, number).await?;
        }
        Ok(())
    }

    async fn remove_one(&self, service: usize, number: u8) -> Result<()> {
        self.server
            .deregister(&interface(service), &id(service, number))
            .await
    }

    fn url(&self) -> String {
        format!("http://{}/eureka", self.wire.address())
    }

    async fn bridge(&self, guard: &str) -> Result<Bridge> {
        let bridge = start_bridge(&[self], guard, tempfile::tempdir()?).await?;
        bridge.until_live().await;
        Ok(bridge)
    }

    /// Waits until there were so many more polls.
    async fn polls(&self, more: usize) {
        let polls = || self.http.count(|r| r.path == DELTA && r.told.is_some());
        let before = polls();
        eventually(3 * SOON, "polls", async || {
            let now = polls() - before;
            ensure!(now >= more, "{now}");
            Ok(())
        })
        .await;
    }

    /// How often everything was read.
    fn reads(&self) -> usize {
        self.http.count(|r| r.path == APPS)
    }
}

/// A bridge that knows these servers, into a directory that may hold what an earlier one wrote.
async fn start_bridge(peers: &[&Registry], guard: &str, out: tempfile::TempDir) -> Result<Bridge> {
    let urls: Vec<String> = peers.iter().map(|peer| peer.url()).collect();
    let spec = format!(
        "eureka: {{addresses: ['{}'], pollInterval: 500ms, settleTime: {}s}}, \
         export: {{endpoints: Inline}}, {guard}",
        urls.join("', '"),
        SETTLE.as_secs()
    );
    Bridge::start_registry("eureka", &spec, out).await
}

fn id(service: usize, number: u8) -> String {
    format!("10.0.{service}.{number}:{}:20880", interface(service))
}

fn on(path: &'static str) -> On {
    On::reads().test(move |_, asked| asked == path)
}

fn json_reply(body: &Value) -> Fault {
    let reply = Reply::status(200).header("content-type", "application/json");
    Fault::Reply(reply.body(body.to_string()))
}

/// An answer without instances that tells this hash.
fn nothing(hash: &str) -> Value {
    json!({"applications": {"versions__delta": "1", "apps__hashcode": hash, "application": []}})
}

/// Waits until an instance's address is, or is not, in the mesh.
async fn until_address(bridge: &Bridge, address: &str, there: bool) {
    let quoted = format!("\"{address}\"");
    eventually(2 * SOON, address, async || {
        ensure!(bridge.has_host(&quoted)? == there, "{address}: not {there}");
        bridge.live(1).await
    })
    .await;
}

/// Fails unless everything is as it was.
async fn unchanged(bridge: &Bridge, files: &Files, writes: f64) -> Result<()> {
    ensure!(bridge.files()? == *files, "files have changed");
    ensure!(bridge.writes().await? == writes, "something was written");
    Ok(())
}

/// Fails unless a service came and one went since, with both instances at once or one after the other.
async fn one_came_and_one_went(bridge: &Bridge, writes: f64) -> Result<()> {
    let made = bridge.writes().await? - writes;
    ensure!((2.0..=4.0).contains(&made), "{made} writes");
    Ok(())
}

/// Class 2: a registry that is down or half-open.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Hang,
    HalfOpen,
    Refused,
    Stopped,
}

impl Trouble {
    async fn begin(self, registry: &mut Registry) -> Result<()> {
        let Registry { server, http, wire } = registry;
        match self {
            Self::Hang => wire.hang(true),
            Self::HalfOpen => drop(http.rule(On::every(), Fault::HalfOpen)),
            Self::Refused => wire.interrupt().await?,
            Self::Stopped => server.stop_process()?,
        }
        Ok(())
    }

    /// Ends it. The registry has changed: one application came and one went.
    async fn end(self, registry: &mut Registry) -> Result<()> {
        if self == Self::Stopped {
            registry.server.continue_process()?;
        }
        registry.remove(0).await?;
        registry.add(SERVICES).await?;
        registry.http.clear();
        registry.wire.restore().await
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
async fn class_02_a_registry_that_is_half_open() -> Result<()> {
    an_outage_changes_nothing(Trouble::HalfOpen).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_refuses_connections() -> Result<()> {
    an_outage_changes_nothing(Trouble::Refused).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_registry_that_is_paused() -> Result<()> {
    an_outage_changes_nothing(Trouble::Stopped).await
}

/// M6 too: a registry that is down at the start keeps nobody from being ready, and takes nothing away. Nor does one
/// that answers with errors, or refuses, as a server does that has just started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_02_a_restart_with_the_registry_down_removes_nothing() -> Result<()> {
    let mut registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let files = bridge.files()?;
    registry.wire.interrupt().await?;
    let bridge = start_bridge(&[&registry], GUARD, bridge.stop()).await?;
    bridge.until_phase(SOON, "Unreachable").await?;
    bridge.ready().await?;
    unchanged(&bridge, &files, 0.0).await?;

    let answers = |code| {
        let reply = Reply::status(code).body("not now");
        registry.http.clear();
        registry.http.rule(On::every(), Fault::Reply(reply))
    };
    answers(500);
    registry.wire.restore().await?;
    for (code, phase) in [(500, "Unreachable"), (403, "Denied")] {
        let rule = answers(code);
        eventually(4 * SOON, phase, async || {
            let (status, _, message) = bridge.condition("Connected").await?;
            let said = status == "False" && message.contains(&code.to_string());
            ensure!(said && rule.hits() > 0, "{message}");
            Ok(())
        })
        .await;
        assert_eq!(bridge.status().await?["phase"], phase);
        unchanged(&bridge, &files, 0.0).await?;
    }

    registry.http.clear();
    eventually(4 * SOON, "the registry is followed", async || {
        bridge.live(1).await
    })
    .await;
    unchanged(&bridge, &files, 0.0).await
}

/// Class 1: 200 with no applications, and with the hash of none, for a moment and for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_01_an_empty_answer() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(SLOW_GUARD).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let lie = || {
        registry.http.rule(on(APPS), json_reply(&nothing("")));
        registry.http.rule(on(DELTA), json_reply(&nothing("")));
    };
    lie();
    until_held(&bridge).await;
    unchanged(&bridge, &files, writes).await?;
    registry.http.clear();
    until_not_held(&bridge).await;
    unchanged(&bridge, &files, writes).await?;

    // The same for a process that finds it so; the hold ends when the registry has confirmed it.
    lie();
    until_held(&bridge).await;
    let bridge = start_bridge(&[&registry], SLOW_GUARD, bridge.stop()).await?;
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

/// Class 1: a Eureka keeps nothing over a restart. What its clients bring back in time is not written; the rest is
/// not believed to be gone at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_01_a_server_that_is_killed_comes_back_empty() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(SLOW_GUARD).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    registry.server.kill()?;
    outage::is_visible_and_harmless(&bridge, &files, writes).await?;
    registry.server.restart().await?;
    eventually(2 * SOON, "the empty server is read", async || {
        let (status, reason, message) = bridge.condition("Complete").await?;
        ensure!(
            status == "False" && message.contains("may not know all"),
            "{reason}: {message}"
        );
        Ok(())
    })
    .await;
    assert_eq!(bridge.files()?, files, "an empty server is believed");
    // All come back but one, and a new one.
    for service in 1..=SERVICES {
        registry.add(service).await?;
    }
    until_followed(&bridge, 2, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    one_came_and_one_went(&bridge, writes).await?;

    // Nobody comes back.
    let files = bridge.files()?;
    registry.server.restart().await?;
    let at = Instant::now();
    until_held(&bridge).await;
    assert_eq!(bridge.files()?, files);
    eventually(3 * SOON, "the hold has ended", async || {
        let left = bridge.files()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    let took = at.elapsed();
    assert!(took >= Duration::from_secs(3), "confirmed within {took:?}");
    Ok(())
}

/// Class 3: an answer that holds less than it says, and answers that break off anywhere, take nothing away for as long
/// as it lasts, and what came meanwhile is followed afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_03_torn_answers_take_nothing_away() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);

    let mut torn = registry.server.get("/apps").await?;
    let hash = torn["applications"]["apps__hashcode"].clone();
    assert_eq!(hash, format!("UP_{}_", 2 * SERVICES));
    let all = torn["applications"]["application"].as_array_mut();
    all.context("applications")?.truncate(2);
    // Changes would tell what is missing: there are none any more, as after three minutes.
    let other = nothing("UP_999_");
    let changes = registry.http.rule(on(DELTA), json_reply(&other));
    let whole = registry.http.rule(on(APPS), json_reply(&torn));
    eventually(2 * SOON, "it is said that something lacks", async || {
        let status = bridge.status().await?;
        let detail = status["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("than it says"), "{detail}");
        Ok(())
    })
    .await;
    // For longer than the guard holds anything.
    registry.polls(8).await;
    unchanged(&bridge, &files, writes).await?;
    changes.end();
    whole.end();
    until_not_held(&bridge).await;

    for (path, length) in [
        (DELTA, 0),
        (DELTA, 40),
        (APPS, 1),
        (APPS, 700),
        (APPS, 3_000),
    ] {
        let cut = registry.http.rule(on(path), Fault::Cut(length));
        if path == APPS {
            // So that everything is read.
            registry.wire.cut();
        }
        eventually(2 * SOON, "an answer breaks off", async || {
            ensure!(cut.hits() > 0, "{path} at {length}");
            Ok(())
        })
        .await;
        unchanged(&bridge, &files, writes).await?;
        cut.end();
    }
    registry.remove(0).await?;
    registry.add(SERVICES).await?;
    until_followed(&bridge, 2, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    one_came_and_one_went(&bridge, writes).await?;
    Ok(())
}

/// Class 9: changes that were missed are found by the hash, and everything is read then; that it goes on does not mean
/// that everything is read all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_09_a_hash_that_does_not_fit_reads_everything() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let before = registry.server.get("/apps/delta").await?;
    let hash = |delta: &Value| delta["applications"]["apps__hashcode"].clone();
    let unaware = registry.http.rule(on(DELTA), json_reply(&before));
    registry.remove(0).await?;
    registry.add_one(SERVICES, 1).await?;
    let now = eventually(SOON, "the server tells the new counts", async || {
        let now = registry.server.get("/apps/delta").await?;
        ensure!(hash(&now) != hash(&before), "{now}");
        Ok(hash(&now))
    })
    .await;
    unchanged(&bridge, &files, writes).await?;
    let reads = registry.reads();
    let missed = nothing(now.as_str().context("a hash")?);
    registry.http.rule(on(DELTA), json_reply(&missed));
    unaware.end();
    until_followed(&bridge, 1, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    assert_eq!(bridge.writes().await?, writes + 2.0);
    registry.polls(8).await;
    let read = registry.reads() - reads;
    assert!((1..=4).contains(&read), "everything was read {read} times");
    assert_eq!(bridge.status().await?["epoch"], 1, "the connection stays");
    Ok(())
}

/// Class 9: every other answer comes from a cache that is older. What is newer stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_09_caches_of_different_age_do_not_make_the_mesh_flap() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let old = registry.server.get("/apps/delta").await?;
    let turn = AtomicUsize::new(0);
    let every_other = On::reads().test(move |_, path| {
        path == DELTA && turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2)
    });
    registry.http.rule(every_other, json_reply(&old));
    let app = interface(0);
    registry
        .server
        .set_status(&app, &id(0, 2), "OUT_OF_SERVICE")
        .await?;
    registry.remove_one(1, 2).await?;
    registry.add_one(2, 3).await?;
    until_address(&bridge, "10.0.0.2", false).await;
    until_address(&bridge, "10.0.1.2", false).await;
    until_address(&bridge, "10.0.2.3", true).await;
    let settled = bridge.writes().await?;
    assert!(settled - writes <= 3.0, "{} writes", settled - writes);
    let now = bridge.files()?;
    let reads = registry.reads();
    registry.polls(16).await;
    unchanged(&bridge, &now, settled).await?;
    only_changed(&bridge, &files, &[0, 1, 2])?;
    let read = registry.reads() - reads;
    assert!(read <= 16, "everything was read {read} times in 16 polls");
    Ok(())
}

/// Class 9, M2: two peers that disagree. One of them is believed, until it is lost; then what the other one lacks
/// stays for some time, and for longer than that if it is much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_09_two_peers_that_disagree() -> Result<()> {
    let (mut first, second) = tokio::try_join!(Registry::start(), async {
        Registry::of(Eureka::start().await?).await
    })?;
    // It lacks two services and an instance of a third, and has one more service.
    for service in (0..4).chain([SERVICES]) {
        second.add(service).await?;
    }
    second.remove_one(3, 2).await?;
    let bridge = start_bridge(&[&first, &second], GUARD, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    assert_eq!(files.len(), SERVICES);
    first.polls(8).await;
    unchanged(&bridge, &files, writes).await?;
    assert_eq!(second.http.count(|_| true), 0, "two peers are asked");

    // What the second one has more of is believed at once.
    first.wire.interrupt().await?;
    until_there(&bridge, &host(SERVICES)).await;
    only_changed(&bridge, &files, &[])?;
    assert_eq!(bridge.writes().await?, writes + 1.0);
    let (status, _, message) = bridge.condition("Complete").await?;
    assert!(status == "False", "{message}");

    // And what it lacks when it has settled.
    until_followed(&bridge, 2, &[3, SERVICES], &[4, 5]).await;
    until_address(&bridge, "10.0.3.2", false).await;
    only_changed(&bridge, &files, &[3, 4, 5])?;
    let writes = bridge.writes().await?;

    // The first one is there again, and nobody goes back to it.
    first.wire.restore().await?;
    let now = bridge.files()?;
    second.polls(8).await;
    unchanged(&bridge, &now, writes).await?;
    assert_eq!(first.wire.open(), 0);
    Ok(())
}

/// Class 9: two peers that know each other, one of which is killed: the other one goes on, and nothing is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_09_a_fail_over_to_a_peer_that_knows_the_same_writes_nothing() -> Result<()> {
    let mut peers = Eureka::builder().peers(2).await?.into_iter();
    let mut peer = async || Registry::of(peers.next().context("a peer")?).await;
    let (first, second) = (peer().await?, peer().await?);
    for service in 0..SERVICES {
        first.add(service).await?;
    }
    let hash = format!("UP_{}_", 2 * SERVICES);
    eventually(SOON, "the second one knows all", async || {
        let all = second.server.get("/apps").await?;
        ensure!(all["applications"]["apps__hashcode"] == hash, "{all}");
        Ok(())
    })
    .await;
    let bridge = start_bridge(&[&first, &second], GUARD, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    first.server.kill()?;
    until_followed(&bridge, 2, &[0], &[]).await;
    until_complete(&bridge).await;
    unchanged(&bridge, &files, writes).await?;
    second.add(SERVICES).await?;
    second.remove(0).await?;
    until_followed(&bridge, 2, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    one_came_and_one_went(&bridge, writes).await?;
    Ok(())
}

async fn until_complete(bridge: &Bridge) {
    eventually(2 * SOON, "the snapshot is complete", async || {
        let (status, reason, message) = bridge.condition("Complete").await?;
        ensure!(status == "True", "{reason}: {message}");
        Ok(())
    })
    .await;
}

/// Class 10: one of two instances comes and goes all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_10_an_instance_that_flaps_costs_one_write_a_window() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    outage::a_flapping_provider_costs_little(&bridge, async |comes| {
        if comes {
            registry.add_one(0, 2).await
        } else {
            registry.remove_one(0, 2).await
        }
    })
    .await
}

/// P4, and a light form of class 13: a process that is killed and started again writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_13_a_restart_writes_nothing() -> Result<()> {
    let registry = Registry::start().await?;
    let bridge = registry.bridge(GUARD).await?;
    let files = bridge.files()?;
    bridge.diolkos.program().restart()?;
    bridge.until_live().await;
    unchanged(&bridge, &files, 0.0).await
}
