//! What is promised when a Nacos is in trouble, one part of a test or more for each class of incident, with a real
//! server behind proxies that break the wire. A start of the server takes long: incidents share it, and have a
//! namespace each.

mod common;
#[path = "common/dubbo.rs"]
mod dubbo;
#[path = "common/outage.rs"]
mod outage;
#[path = "incidents_nacos/peers.rs"]
mod peers;
#[path = "common/written.rs"]
mod written;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::SOON;
use diolkos_testkit::{
    Nacos, NacosClient, NacosInstance, eventually,
    nacos::NacosDoor,
    nacos_stub::{Host, NacosStub, Version},
    netns,
};
use outage::{
    SERVICES, host, interface, only_changed, until_followed, until_held, until_not_held,
    until_there,
};
use written::{Bridge, GUARD};

const GROUP: &str = "DEFAULT_GROUP";

/// A namespace with [`SERVICES`] services of two instances each, Nacos' own client that registered them, and the
/// proxies before the server.
struct Registry<'a> {
    server: &'a Nacos,
    client: NacosClient,
    door: NacosDoor,
    namespace: String,
}

impl<'a> Registry<'a> {
    async fn start(server: &'a Nacos, namespace: &str) -> Result<Self> {
        let registry = Self {
            server,
            client: server.client().await?,
            door: server.door().await?,
            namespace: namespace.to_owned(),
        };
        for service in 0..SERVICES {
            registry.add(service).await?;
        }
        Ok(registry)
    }

    async fn put(&self, service: usize, instances: &[NacosInstance]) -> Result<()> {
        let name = interface(service);
        let put = self.client.put(&self.namespace, GROUP, &name, instances);
        put.await
    }

    async fn add(&self, service: usize) -> Result<()> {
        self.put(service, &instances(service)).await
    }

    /// All instances of a service go, and then itself.
    async fn remove(&self, service: usize) -> Result<()> {
        let name = interface(service);
        self.client.delete(&self.namespace, GROUP, &name).await?;
        eventually(SOON, "the service can be deleted", async || {
            let namespace = &self.namespace;
            self.server.delete_service(namespace, GROUP, &name).await
        })
        .await;
        Ok(())
    }

    /// The fields of the document, with more of the connection and a guard.
    fn spec(&self, more: &str, guard: &str) -> String {
        let (url, offset) = (self.door.url(), self.door.grpc_offset());
        let namespace = &self.namespace;
        format!(
            "nacos: {{addresses: ['{url}'], grpcPortOffset: {offset}, namespaces: ['{namespace}'], {more}}}, \
             export: {{endpoints: Inline, host: '{{service|lower}}'}}, {guard}"
        )
    }

    async fn bridge(&self, more: &str, guard: &str) -> Result<Bridge> {
        let bridge = self.start_bridge(more, guard, tempfile::tempdir()?).await?;
        bridge.until_live().await;
        Ok(bridge)
    }

    async fn start_bridge(
        &self,
        more: &str,
        guard: &str,
        out: tempfile::TempDir,
    ) -> Result<Bridge> {
        Bridge::start_registry("nacos", &self.spec(more, guard), out).await
    }
}

fn instances(service: usize) -> [NacosInstance; 2] {
    [1, 2].map(|number| NacosInstance::new(&format!("10.0.{service}.{number}"), 20880))
}

/// Nothing counts as gone for this long after a connection was lost: longer than clients of a restarted server take.
const SETTLE: &str = "settleTime: 5s";

/// Class 2: a registry that is down or half-open.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Hang,
    Refused,
    Stopped,
    Killed,
}

impl Trouble {
    async fn begin(self, registry: &mut Registry<'_>) -> Result<()> {
        let Registry { server, door, .. } = registry;
        match self {
            Self::Hang => door.hang(true),
            Self::Refused => door.outage().await?,
            Self::Stopped => server.stop_process()?,
            Self::Killed => server.kill()?,
        }
        Ok(())
    }

    /// Ends it. The registry has changed: one service came and one went.
    async fn end(self, registry: &mut Registry<'_>) -> Result<()> {
        match self {
            Self::Stopped => registry.server.continue_process()?,
            Self::Killed => registry.server.restart().await?,
            Self::Hang | Self::Refused => {}
        }
        // Its client may have to connect again.
        eventually(2 * SOON, "it can be written to", async || {
            registry.add(SERVICES).await
        })
        .await;
        registry.remove(0).await?;
        registry.door.recover().await
    }
}

async fn an_outage_changes_nothing(server: &Nacos, trouble: Trouble) -> Result<()> {
    let mut registry = Registry::start(server, &format!("{trouble:?}").to_lowercase()).await?;
    let bridge = registry.bridge(SETTLE, GUARD).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    assert_eq!(files.len(), SERVICES);

    trouble.begin(&mut registry).await?;
    outage::is_visible_and_harmless(&bridge, &files, writes).await?;

    trouble.end(&mut registry).await?;
    until_followed(&bridge, 2, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    let made = bridge.writes().await? - writes;
    // The one that went may have been seen without instances before.
    assert!((2.0..=3.0).contains(&made), "{trouble:?}: {made} writes");
    Ok(())
}

#[test]
fn class_02_a_registry_that_is_away() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::start().await?;
        tokio::try_join!(
            Box::pin(an_outage_changes_nothing(&server, Trouble::Hang)),
            Box::pin(an_outage_changes_nothing(&server, Trouble::Refused)),
        )?;
        Box::pin(an_outage_changes_nothing(&server, Trouble::Stopped)).await?;
        Box::pin(an_outage_changes_nothing(&server, Trouble::Killed)).await
    })
}

/// Class 1: a server that was restarted has lost everything, and its clients register again one after the other: by
/// themselves, late, or not at all.
async fn a_restart_that_loses_everything(server: &Nacos) -> Result<()> {
    let registry = Registry::start(server, "restarted").await?;
    let guard = "guard: {emptyHold: 6s, confirmAfter: 2, emptyGrace: 0s}";
    let bridge = registry.bridge(SETTLE, guard).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);

    server.restart().await?;
    until_followed(&bridge, 2, &[], &[]).await;
    until_registered(&registry).await;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes, "they came back in time");

    // Clients that take longer than anybody would wait for.
    registry.client.stop_process()?;
    server.restart().await?;
    until_held(&bridge).await;
    assert_eq!(bridge.files()?, files);
    registry.client.continue_process()?;
    until_not_held(&bridge).await;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, writes, "they came back in time");

    // Those that are gone for good go, as every hold has an end.
    registry.client.kill()?;
    server.restart().await?;
    until_held(&bridge).await;
    assert_eq!(bridge.files()?, files);
    eventually(3 * SOON, "the hold has ended", async || {
        let left = bridge.files()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    until_not_held(&bridge).await;
    Ok(())
}

async fn until_registered(registry: &Registry<'_>) {
    eventually(2 * SOON, "clients are back", async || {
        let names = registry.server.services(&registry.namespace, GROUP).await?;
        ensure!(names.len() == SERVICES, "{names:?}");
        Ok(())
    })
    .await;
}

/// P1, P4: a process that is started again writes nothing, also while the registry is away, and finds out what
/// happened meanwhile when it is back.
async fn a_restart_writes_nothing(server: &Nacos) -> Result<()> {
    let mut registry = Registry::start(server, "again").await?;
    let bridge = registry.bridge(SETTLE, GUARD).await?;
    let files = bridge.files()?;
    bridge.diolkos.program().restart()?;
    bridge.until_live().await;
    assert_eq!(bridge.writes().await?, 0.0);
    assert_eq!(bridge.files()?, files);

    registry.door.outage().await?;
    bridge.diolkos.program().restart()?;
    eventually(SOON, "it answers", async || bridge.status().await).await;
    bridge.until_phase(SOON, "Unreachable").await?;
    // Longer than the guard's holds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, 0.0);
    registry.remove(0).await?;
    registry.door.recover().await?;
    until_followed(&bridge, 1, &[], &[0]).await;
    only_changed(&bridge, &files, &[0])
}

#[test]
fn class_01_restarts() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::start().await?;
        Box::pin(a_restart_writes_nothing(&server)).await?;
        Box::pin(a_restart_that_loses_everything(&server)).await
    })
}

/// Class 7: what comes and goes while nobody can see it.
async fn what_happens_while_away_is_found(server: &Nacos) -> Result<()> {
    let mut registry = Registry::start(server, "away").await?;
    let bridge = registry.bridge("settleTime: 0s", GUARD).await?;
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    registry.door.outage().await?;
    let name = interface(5);
    let third = NacosInstance::new("10.9.0.1", 20880);
    let [one, two] = instances(5);
    registry.put(5, &[one, two, third]).await?;
    registry.add(5).await?;
    registry.add(99).await?;
    registry.remove(99).await?;
    registry.client.delete("away", GROUP, &name).await?;
    registry.add(5).await?;
    registry.remove(0).await?;
    registry.add(SERVICES).await?;
    registry.door.recover().await?;
    until_followed(&bridge, 2, &[SERVICES], &[0]).await;
    only_changed(&bridge, &files, &[0])?;
    assert!(!bridge.has_host(&host(99))?);
    let made = bridge.writes().await? - writes;
    assert!((2.0..=3.0).contains(&made), "{made} writes");
    // All is subscribed again.
    registry
        .put(4, &[NacosInstance::new("10.9.0.2", 20880)])
        .await?;
    until_there(&bridge, "10.9.0.2").await;
    Ok(())
}

/// The last instance goes: the host stays without endpoints for a while, and then goes as well.
async fn the_last_instance_leaves_the_host_for_a_while(server: &Nacos) -> Result<()> {
    let registry = Registry::start(server, "empty").await?;
    let guard = "guard: {emptyHold: 1s, confirmAfter: 2, emptyGrace: 5s}";
    let bridge = registry.bridge("settleTime: 0s", guard).await?;
    let files = bridge.files()?;
    let [first, _] = instances(0);
    registry.put(0, &[first]).await?;
    eventually(SOON, "the first one left", async || {
        let file = outage::file_of(&bridge.files()?, 0)?;
        ensure!(!file.contains("10.0.0.2"), "{file}");
        Ok(())
    })
    .await;
    registry
        .client
        .delete("empty", GROUP, &interface(0))
        .await?;
    eventually(SOON, "the last one left", async || {
        let file = outage::file_of(&bridge.files()?, 0)?;
        ensure!(!file.contains("10.0.0.1"), "{file}");
        Ok(())
    })
    .await;
    let empty = Instant::now();
    until_followed(&bridge, 1, &[], &[0]).await;
    let stayed = empty.elapsed();
    assert!(stayed > Duration::from_secs(3), "only for {stayed:?}");
    only_changed(&bridge, &files, &[0])
}

/// Class 10: one of two instances comes and goes all the time.
async fn an_instance_that_flaps(server: &Nacos) -> Result<()> {
    let registry = Registry::start(server, "flaps").await?;
    let bridge = registry.bridge("settleTime: 0s", GUARD).await?;
    let both = instances(0);
    outage::a_flapping_provider_costs_little(&bridge, async |comes| {
        let count = if comes { 2 } else { 1 };
        registry.put(0, &both[..count]).await
    })
    .await
}

async fn an_idle_bridge_costs_little(server: &Nacos) -> Result<()> {
    let registry = Registry::start(server, "idle").await?;
    let bridge = registry.bridge("settleTime: 0s", GUARD).await?;
    let share = outage::processor_share(&bridge.diolkos).await?;
    assert!(share < 0.02, "{:.2} % of a processor", 100.0 * share);
    Ok(())
}

#[test]
fn class_07_changes() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::start().await?;
        tokio::try_join!(
            Box::pin(what_happens_while_away_is_found(&server)),
            Box::pin(the_last_instance_leaves_the_host_for_a_while(&server)),
        )?;
        Box::pin(an_instance_that_flaps(&server)).await?;
        Box::pin(an_idle_bridge_costs_little(&server)).await
    })
}

/// The right to read the namespace, as a form.
const RIGHT: [(&str, &str); 3] = [
    ("role", "reader-role"),
    ("resource", "access:*:*"),
    ("action", "r"),
];

/// Class 27: tokens end all the time, which costs nothing; access that is taken away changes nothing.
#[test]
fn class_27_access() -> Result<()> {
    netns::isolated(async {
        let life = Duration::from_secs(12);
        let server = Nacos::builder().auth().token_life(life).start().await?;
        server.add_reader("reader", "secret", &["access"]).await?;
        let login = [("username", "reader"), ("password", "secret")];
        // A server that has just started takes seconds for a login.
        for _ in 0..10 {
            eventually(3 * SOON, "the reader may log in", async || {
                server.post("/v1/auth/login", &login).await
            })
            .await;
        }
        let registry = Registry::start(&server, "access").await?;
        let password = tempfile::NamedTempFile::new()?;
        std::fs::write(password.path(), "secret\n")?;
        let file = password.path().display();
        let auth =
            format!("settleTime: 0s, auth: {{username: reader, password: {{file: '{file}'}}}}");
        let bridge = registry
            .start_bridge(&auth, GUARD, tempfile::tempdir()?)
            .await?;
        // Servers hear of new users late, and who was denied waits.
        eventually(3 * SOON, "the reader may read", async || {
            bridge.live(1).await
        })
        .await;
        let (files, writes) = (bridge.files()?, bridge.writes().await?);
        assert_eq!(files.len(), SERVICES);
        tokio::time::sleep(life).await;
        // Its own client loses its token as well, and takes a while for another.
        let add = async || registry.add(SERVICES).await;
        eventually(3 * SOON, "an instance comes", add).await;
        until_followed(&bridge, 1, &[SERVICES], &[]).await;

        server.delete("/v1/auth/permissions", &RIGHT).await?;
        bridge.until_phase(3 * SOON, "Denied").await?;
        let (status, reason, message) = bridge.condition("Connected").await?;
        ensure!((&*status, &*reason) == ("False", "Denied"), "{reason}");
        ensure!(!message.contains("secret"), "{message}");
        only_changed(&bridge, &files, &[])?;
        assert_eq!(bridge.writes().await?, writes + 1.0);
        server.post("/v1/auth/permissions", &RIGHT).await?;
        let add = async || registry.add(SERVICES + 1).await;
        eventually(3 * SOON, "another one comes", add).await;
        eventually(3 * SOON, "it goes on", async || {
            let host = host(SERVICES + 1);
            ensure!(bridge.has_host(&host)?, "{host} is not there");
            bridge.live(2).await
        })
        .await;
        only_changed(&bridge, &files, &[])
    })
}
