//! A source under its supervisor, and the world as its events tell it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use diolkos_model::Service;
use diolkos_net::TlsConfig;
use diolkos_source_api::{Event, Evidence, Phase, testing};
use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_source_etcd::{Config, Etcd};
use diolkos_testkit::eventually;
use serde_json::{Value, json};
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

impl testing::World for World {
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

    fn snapshots(&self) -> &[Evidence] {
        &self.snapshots
    }

    fn summary(&self) -> String {
        format!("{:?}, snapshots {:?}", self.counts(), self.snapshots)
    }
}

impl World {
    /// The number of instances of each service.
    pub(crate) fn counts(&self) -> BTreeMap<&str, usize> {
        let services = self.services.iter();
        services
            .map(|(name, s)| (&**name, s.instances.len()))
            .collect()
    }
}

/// A running source. It ends with this.
pub(crate) struct Running(testing::Running<World>);

impl Deref for Running {
    type Target = testing::Running<World>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel.cancel();
    }
}

impl Running {
    /// Starts a source.
    pub(crate) fn start(config: Config) -> Self {
        let source = Etcd::new(config).pulse(PULSE);
        Self(testing::Running::start("etcd", source, World::default()))
    }

    /// Starts a source and waits for its first snapshot.
    pub(crate) async fn synced(config: Config) -> Self {
        let running = Self::start(config);
        running.0.synced(SOON).await;
        running
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&World) -> bool) {
        self.within(SOON, what, so).await;
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
