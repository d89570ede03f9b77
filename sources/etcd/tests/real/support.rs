//! A source under its supervisor, and the world as its events tell it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use diolkos_model::Service;
use diolkos_net::TlsConfig;
use diolkos_source_api::{
    Envelope, Event, EventSender, Evidence, Health, HealthReporter, Phase, SourceCx, supervise,
};
use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_source_etcd::{Config, Etcd};
use diolkos_testkit::eventually;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::form_urlencoded::byte_serialize;

/// What the registry is bound to have told by now, when tests wait for it. A source that was denied
/// waits for up to 10 s.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const PULSE: Duration = Duration::from_millis(500);

/// What the events said so far.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// By name, as the engine would have them.
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    /// Services that were said to be gone, by an event of their own.
    pub(crate) removed: Vec<String>,
    /// Services that a complete snapshot did not name any more.
    pub(crate) missing: Vec<String>,
    /// The evidence of each snapshot that came to its end.
    pub(crate) snapshots: Vec<Evidence>,
    /// All upserts, in their order.
    pub(crate) upserts: Vec<String>,
    /// The evidence of the last upsert.
    pub(crate) evidence: Option<Evidence>,
    named: BTreeSet<String>,
}

impl World {
    fn apply(&mut self, event: Event) {
        match event {
            Event::SnapshotStart { .. } => self.named.clear(),
            Event::Upsert { service, evidence } => {
                let name = service.key.name.to_string();
                self.upserts.push(name.clone());
                self.evidence = Some(evidence);
                self.named.insert(name.clone());
                self.services.insert(name, service);
            }
            Event::Remove { key } => {
                let name = key.name.to_string();
                assert!(self.services.remove(&name).is_some(), "{name} is not known");
                self.removed.push(name);
            }
            Event::SnapshotEnd { evidence, .. } => {
                if evidence.is_complete() {
                    let named = &self.named;
                    let gone = self
                        .services
                        .extract_if(.., |name, _| !named.contains(name));
                    self.missing.extend(gone.map(|(name, _)| name));
                }
                self.snapshots.push(evidence);
            }
        }
    }

    /// The number of instances of each service.
    pub(crate) fn counts(&self) -> BTreeMap<&str, usize> {
        let services = self.services.iter();
        services
            .map(|(name, s)| (&**name, s.instances.len()))
            .collect()
    }
}

/// A running source. It ends with this.
pub(crate) struct Running {
    world: Arc<Mutex<World>>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) resync: mpsc::Sender<()>,
    _cancel: DropGuard,
}

impl Running {
    /// Starts a source.
    pub(crate) fn start(config: Config) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Envelope>(16);
        let (resync, resyncs) = mpsc::channel(4);
        let (reporter, health) = HealthReporter::new();
        let cancel = CancellationToken::new();
        let cx = SourceCx {
            events: EventSender::new("etcd".into(), sender),
            health: reporter,
            resync: resyncs,
            cancel: cancel.clone(),
        };
        let world = Arc::new(Mutex::new(World::default()));
        let applied = world.clone();
        tokio::spawn(async move {
            while let Some(envelope) = receiver.recv().await {
                let mut world = applied.lock().expect("an event was wrong before");
                world.apply(envelope.event);
            }
        });
        let source = Etcd::new(config).pulse(PULSE);
        tokio::spawn(async move { supervise("etcd", source, cx).await });
        Self {
            world,
            health,
            resync,
            _cancel: cancel.drop_guard(),
        }
    }

    /// Starts a source and waits for its first snapshot.
    pub(crate) async fn synced(config: Config) -> Self {
        let running = Self::start(config);
        let first = |world: &World| !world.snapshots.is_empty();
        running.until("the first snapshot ends", first).await;
        running
    }

    /// What was said so far.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("an event was wrong")
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&World) -> bool) {
        eventually(SOON, what, async || {
            let world = self.world();
            let health = self.health.borrow();
            let counts = world.counts();
            so(&world)
                .then_some(())
                .ok_or_else(|| format!("{counts:?}, snapshots {:?}, {health:?}", world.snapshots))
        })
        .await;
    }

    /// Waits until these are all services, with so many instances each.
    pub(crate) async fn shows(&self, what: &str, expected: &[(&str, usize)]) {
        let expected: BTreeMap<&str, usize> = expected.iter().copied().collect();
        self.until(what, |world| world.counts() == expected).await;
    }

    /// Waits until the health is so; returns its detail.
    pub(crate) async fn phase(&self, phase: Phase) -> String {
        eventually(SOON, phase.as_str(), async || {
            let health = self.health.borrow();
            let so = (health.phase == phase).then(|| health.detail.to_string());
            so.ok_or_else(|| format!("{health:?}"))
        })
        .await
    }
}

/// The settings for these members: both ways to register, everything selected.
pub(crate) fn config(endpoints: Vec<String>) -> Config {
    Config {
        endpoints,
        user: None,
        tls: TlsConfig::default(),
        prefix: "/dubbo".to_owned(),
        applications: "/services".to_owned(),
        dubbo: Options {
            registry: "etcd".into(),
            variants: Variants::Labels,
            discovery: Discovery::Both,
            dubbo_protocol: "dubbo".into(),
            aeraki: false,
        },
        select: Arc::new(|_| true),
    }
}

/// The key of a provider on a host of that number.
pub(crate) fn provider(interface: &str, host: u32) -> String {
    let ip = std::net::Ipv4Addr::from(0x0a14_0000 + host);
    let url = format!("dubbo://{ip}:20880/{interface}?interface={interface}&side=provider&pid=7");
    let url: String = byte_serialize(url.as_bytes()).collect();
    format!("/dubbo/{interface}/providers/{url}")
}

/// The key and the record of an application's instance.
pub(crate) fn instance(application: &str, host: u8) -> (String, String) {
    instance_of(
        application,
        host,
        json!({"dubbo.metadata.storage-type": "local"}),
    )
}

/// The key and the record of an instance whose metadata is in the registry, under a revision.
pub(crate) fn instance_of_revision(
    application: &str,
    host: u8,
    revision: &str,
) -> (String, String) {
    let metadata = json!({
        "dubbo.metadata.storage-type": "remote",
        "dubbo.metadata.revision": revision,
    });
    instance_of(application, host, metadata)
}

fn instance_of(application: &str, host: u8, mut metadata: Value) -> (String, String) {
    let id = format!("10.30.0.{host}:20880");
    metadata["dubbo.endpoints"] = json!([{"port": 20880, "protocol": "dubbo"}])
        .to_string()
        .into();
    let record = json!({
        "name": application,
        "id": id,
        "address": format!("10.30.0.{host}"),
        "port": 20880,
        "payload": {"metadata": metadata},
    });
    (format!("/services/{application}/{id}"), record.to_string())
}
