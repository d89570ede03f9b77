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
use diolkos_source_nacos::{Config, Groups, Nacos, Services, Transport};
use diolkos_testkit::{Nacos as Server, NacosClient, NacosInstance, eventually, nacos::NacosDoor};

/// What the registry is bound to have told by now, when tests wait for it.
pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const GROUP: &str = "DEFAULT_GROUP";

/// What the events said so far.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// By `NAMESPACE/GROUP/NAME`, as the engine would have them.
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    /// Services that were said to be gone, by an event of their own.
    pub(crate) removed: Vec<String>,
    /// Services that a complete snapshot did not name any more.
    pub(crate) missing: Vec<String>,
    /// The evidence of each snapshot that came to its end.
    pub(crate) snapshots: Vec<Evidence>,
    /// The evidence of the last word on each service.
    pub(crate) evidence: BTreeMap<String, Evidence>,
    named: BTreeSet<String>,
}

impl testing::World for World {
    fn apply(&mut self, event: Event) {
        match event {
            Event::SnapshotStart { .. } => self.named.clear(),
            Event::Upsert { service, evidence } => {
                let name = name(&service);
                self.named.insert(name.clone());
                self.evidence.insert(name.clone(), evidence);
                self.services.insert(name, service);
            }
            Event::Remove { key } => {
                let name = format!("{}/{}/{}", key.namespace, key.group, key.name);
                self.services.remove(&name);
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
        format!("{:?}, snapshots {:?}", self.ports(), self.snapshots)
    }
}

fn name(service: &Service) -> String {
    let key = &service.key;
    format!("{}/{}/{}", key.namespace, key.group, key.name)
}

impl World {
    /// The ports of the healthy instances of each service.
    pub(crate) fn ports(&self) -> BTreeMap<&str, Vec<u32>> {
        let ports = |service: &Service| {
            let healthy = service.instances.iter().filter(|i| i.health.is_healthy());
            healthy.map(|i| i.ports[0].number).collect()
        };
        let services = self.services.iter();
        services.map(|(name, s)| (&**name, ports(s))).collect()
    }

    /// How many complete snapshots there were.
    pub(crate) fn complete(&self) -> usize {
        self.snapshots.iter().filter(|e| e.is_complete()).count()
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
    /// Starts a source and waits for its first snapshot.
    pub(crate) async fn synced(config: Config) -> Self {
        let source = Nacos::new(config);
        let running = Self(testing::Running::start("nacos", source, World::default()));
        running.0.synced(SOON).await;
        running
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&World) -> bool) {
        self.within(SOON, what, so).await;
    }

    /// Waits until these are all services, with healthy instances on these ports.
    pub(crate) async fn shows(&self, what: &str, expected: &[(&str, &[u32])]) {
        let expected = expected.iter().map(|(name, ports)| (*name, ports.to_vec()));
        let expected: BTreeMap<&str, Vec<u32>> = expected.collect();
        self.until(what, |world| world.ports() == expected).await;
    }

    /// Waits until the health is so; returns its detail.
    pub(crate) async fn health(&self, phase: Phase, detail: &str) -> String {
        eventually(SOON, detail, async || {
            let health = self.health.borrow();
            let so = health.phase == phase && health.detail.contains(detail);
            let so = so.then(|| health.detail.to_string());
            so.ok_or_else(|| format!("{health:?}"))
        })
        .await
    }
}

/// The settings for one namespace behind a door: the usual group, everything selected.
pub(crate) fn config(door: &NacosDoor, namespace: &str) -> Config {
    Config {
        registry: "nacos".into(),
        client: diolkos_nacos::Config {
            addresses: vec![door.url()],
            grpc_offset: door.grpc_offset(),
            auth: None,
            tls: TlsConfig::default(),
        },
        namespaces: vec![namespace.to_owned()],
        groups: Groups::Named(vec![GROUP.to_owned()]),
        clusters: Vec::new(),
        transport: Transport::Auto,
        services: Services::All,
        dubbo: Options {
            registry: "nacos".into(),
            variants: Variants::Labels,
            discovery: Discovery::Both,
            dubbo_protocol: "dubbo".into(),
            aeraki: false,
        },
        settle: Duration::ZERO,
        select: Arc::new(|_| true),
    }
}

/// From now on the service has these instances. Nacos' own client gives up when a busy machine makes
/// its server slow, so it is told again.
pub(crate) async fn put(
    client: &NacosClient,
    (namespace, group, service): (&str, &str, &str),
    instances: &[NacosInstance],
) {
    eventually(SOON, "Nacos' client registers", async || {
        client.put(namespace, group, service, instances).await
    })
    .await;
}

/// Takes out a service with its instances. Else it stays for a minute, without instances.
pub(crate) async fn delete(server: &Server, client: &NacosClient, namespace: &str, service: &str) {
    put(client, (namespace, GROUP, service), &[]).await;
    eventually(SOON, "an empty service can be deleted", async || {
        server.delete_service(namespace, GROUP, service).await
    })
    .await;
}
