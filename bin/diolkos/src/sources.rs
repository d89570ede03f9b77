//! Wiring of sources: the one place that knows every registry. A new one is one arm here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use diolkos_api::{
    CheckedRegistry, Consistency, ConsulSettings, DubboSettings, EtcdSettings, EurekaSettings,
    NacosAuth, NacosServices, NacosSettings, NacosTransport, SourceSettings, ZooKeeperSettings,
};
use diolkos_console::Sources;
use diolkos_source_api::{Envelope, EventSender, HealthReporter, Source, SourceCx, supervise};
use diolkos_source_consul::{Config, Consul};
use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_source_etcd::Etcd;
use diolkos_source_eureka::Eureka;
use diolkos_source_file::FileSource;
use diolkos_source_nacos::Nacos;
use diolkos_source_zookeeper::ZooKeeper;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::secrets::Secrets;

/// Starts and stops sources as the configuration says.
pub(crate) struct Supervisor {
    events: mpsc::Sender<Envelope>,
    secrets: Secrets,
    sources: Sources,
    running: BTreeMap<Arc<str>, Running>,
    resyncs: Resyncs,
}

/// Where to ask each source for a complete snapshot.
#[derive(Clone, Default)]
pub(crate) struct Resyncs(Arc<Mutex<BTreeMap<Arc<str>, mpsc::Sender<()>>>>);

impl Resyncs {
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<Arc<str>, mpsc::Sender<()>>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes the engine's wishes on to the sources. Ends with the engine.
    pub(crate) async fn forward(self, mut asked: mpsc::Receiver<Arc<str>>) {
        while let Some(registry) = asked.recv().await {
            let sender = self.change(|all| all.get(&registry).cloned());
            // Full: it was asked and has not begun. Closed: it is about to be replaced.
            if let Some(Err(error)) = sender.map(|sender| sender.try_send(())) {
                tracing::debug!(%registry, %error, "the source does not take the request for a snapshot");
            }
        }
    }
}

struct Running {
    /// What the source was started with: another setting means another source.
    settings: SourceSettings,
    selection: String,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// # Errors
    /// If there can be no private folder for Secrets.
    pub(crate) fn new(
        events: mpsc::Sender<Envelope>,
        client: Option<diolkos_kube_ext::Client>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            events,
            secrets: Secrets::new(client)?,
            sources: Sources::new(),
            running: BTreeMap::new(),
            resyncs: Resyncs::default(),
        })
    }

    /// Where to ask for complete snapshots.
    pub(crate) fn resyncs(&self) -> Resyncs {
        self.resyncs.clone()
    }

    /// The health of the sources.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Runs exactly these registries. A source whose own settings did not change goes on.
    pub(crate) fn configure(&mut self, registries: &[CheckedRegistry]) {
        let mut before = std::mem::take(&mut self.running);
        for registry in registries {
            let name = registry.policy.registry.clone();
            let selection = format!("{:?}", registry.policy.select);
            let running = match before.remove(&name) {
                Some(same) if same.settings == registry.source && same.selection == selection => {
                    same
                }
                Some(other) => {
                    other.cancel.cancel();
                    self.start(registry, selection, Some(other.task))
                }
                None => self.start(registry, selection, None),
            };
            self.running.insert(name, running);
        }
        for (name, running) in before {
            running.cancel.cancel();
            self.sources.remove(&name);
            self.resyncs.change(|all| all.remove(&name));
        }
    }

    /// Ends all sources and waits for them.
    pub(crate) async fn stop(self) {
        for running in self.running.values() {
            running.cancel.cancel();
        }
        for (name, running) in self.running {
            if let Err(error) = tokio::time::timeout(Duration::from_secs(2), running.task).await {
                tracing::warn!(registry = %name, %error, "the source does not end");
            }
        }
    }

    /// Starts a source once `before` has ended: the events of two sources of one registry must not
    /// mix, or the end of one's snapshot could be taken for the end of the other's.
    fn start(
        &self,
        registry: &CheckedRegistry,
        selection: String,
        before: Option<JoinHandle<()>>,
    ) -> Running {
        let name = registry.policy.registry.clone();
        let (health, health_out) = HealthReporter::new();
        let (resync_in, resync) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let cx = SourceCx {
            events: EventSender::new(name.clone(), self.events.clone()),
            health,
            resync,
            cancel: cancel.clone(),
        };
        self.sources.insert(name.clone(), health_out);
        self.resyncs
            .change(|all| all.insert(name.clone(), resync_in));
        let task = match &registry.source {
            SourceSettings::Consul(settings) => spawn(
                name,
                Consul::new(self.consul(registry, settings)),
                cx,
                before,
            ),
            SourceSettings::Etcd(settings) => {
                spawn(name, Etcd::new(self.etcd(registry, settings)), cx, before)
            }
            SourceSettings::Eureka(settings) => spawn(
                name,
                Eureka::new(self.eureka(registry, settings)),
                cx,
                before,
            ),
            SourceSettings::Nacos(settings) => {
                spawn(name, Nacos::new(self.nacos(registry, settings)), cx, before)
            }
            SourceSettings::ZooKeeper(settings) => spawn(
                name,
                ZooKeeper::new(self.zookeeper(registry, settings)),
                cx,
                before,
            ),
            SourceSettings::File(settings) => spawn(
                name.clone(),
                FileSource::new(name, settings.path.clone()),
                cx,
                before,
            ),
        };
        Running {
            settings: registry.source.clone(),
            selection,
            cancel,
            task,
        }
    }

    fn consul(&self, registry: &CheckedRegistry, settings: &ConsulSettings) -> Config {
        let ConsulSettings {
            addresses,
            datacenters,
            namespace,
            partition,
            consistency,
            token,
            tls,
        } = settings;
        let select = registry.policy.select.clone();
        Config {
            datacenters: datacenters.clone(),
            namespace: namespace.clone(),
            partition: partition.clone(),
            consistency: match consistency {
                Consistency::Stale => diolkos_source_consul::Consistency::Stale,
                Consistency::Default => diolkos_source_consul::Consistency::Default,
                Consistency::Consistent => diolkos_source_consul::Consistency::Consistent,
            },
            token_file: token
                .as_ref()
                .map(|credential| self.secrets.file(credential)),
            tls: self.secrets.tls(tls),
            select: Arc::new(move |name, _| select.takes_name(name)),
            ..Config::new(registry.policy.registry.clone(), addresses.clone())
        }
    }

    fn etcd(
        &self,
        registry: &CheckedRegistry,
        settings: &EtcdSettings,
    ) -> diolkos_source_etcd::Config {
        let EtcdSettings {
            addresses,
            prefix,
            applications,
            auth,
            tls,
            dubbo,
        } = settings;
        let select = registry.policy.select.clone();
        diolkos_source_etcd::Config {
            endpoints: addresses.clone(),
            user: auth.as_ref().map(|login| diolkos_source_etcd::User {
                name: login.username.clone(),
                password_file: self.secrets.file(&login.password),
            }),
            tls: self.secrets.tls(tls),
            prefix: prefix.clone(),
            applications: applications.clone(),
            dubbo: options(registry, dubbo),
            select: Arc::new(move |name| select.takes_name(name)),
        }
    }

    fn eureka(
        &self,
        registry: &CheckedRegistry,
        settings: &EurekaSettings,
    ) -> diolkos_source_eureka::Config {
        let EurekaSettings {
            addresses,
            region,
            statuses,
            auth,
            tls,
            poll_interval,
            settle_time,
        } = settings;
        let select = registry.policy.select.clone();
        diolkos_source_eureka::Config {
            registry: registry.policy.registry.clone(),
            addresses: addresses.clone(),
            region: region.clone(),
            statuses: statuses.clone(),
            user: auth.as_ref().map(|login| diolkos_source_eureka::User {
                name: login.username.clone(),
                password_file: self.secrets.file(&login.password),
            }),
            tls: self.secrets.tls(tls),
            poll: *poll_interval,
            settle: *settle_time,
            select: Arc::new(move |name| select.takes_name(name)),
        }
    }

    fn nacos(
        &self,
        registry: &CheckedRegistry,
        settings: &NacosSettings,
    ) -> diolkos_source_nacos::Config {
        use diolkos_source_nacos::{Config, Groups, Services, Transport};
        let NacosSettings {
            addresses,
            namespaces,
            groups,
            clusters,
            transport,
            grpc_port_offset,
            services,
            auth,
            tls,
            settle_time,
            dubbo,
        } = settings;
        let select = registry.policy.select.clone();
        Config {
            registry: registry.policy.registry.clone(),
            client: diolkos_nacos::Config {
                addresses: addresses.clone(),
                grpc_offset: *grpc_port_offset,
                auth: auth.as_ref().map(|auth| self.nacos_auth(auth)),
                tls: self.secrets.tls(tls),
            },
            namespaces: namespaces.clone(),
            groups: groups.clone().map_or(Groups::All, Groups::Named),
            clusters: clusters.clone(),
            transport: match transport {
                NacosTransport::Auto => Transport::Auto,
                NacosTransport::Grpc => Transport::Grpc,
                NacosTransport::Http => Transport::Http,
            },
            services: match services {
                NacosServices::All => Services::All,
                NacosServices::Dubbo => Services::Dubbo,
                NacosServices::Other => Services::Other,
            },
            dubbo: options(registry, dubbo),
            settle: *settle_time,
            select: Arc::new(move |name| select.takes_name(name)),
        }
    }

    fn nacos_auth(&self, auth: &NacosAuth) -> diolkos_nacos::Auth {
        match auth {
            NacosAuth::Login(login) => diolkos_nacos::Auth::Password {
                username: login.username.clone(),
                password_file: self.secrets.file(&login.password),
            },
            NacosAuth::Keys {
                access_key,
                secret_key,
            } => diolkos_nacos::Auth::Keys {
                access_key: access_key.clone(),
                secret_key_file: self.secrets.file(secret_key),
            },
        }
    }

    fn zookeeper(
        &self,
        registry: &CheckedRegistry,
        settings: &ZooKeeperSettings,
    ) -> diolkos_source_zookeeper::Config {
        let ZooKeeperSettings {
            addresses,
            chroot,
            root,
            applications,
            auth,
            tls,
            session_timeout,
            frame_limit,
            dubbo,
        } = settings;
        let select = registry.policy.select.clone();
        diolkos_source_zookeeper::Config {
            client: diolkos_zk::Config {
                servers: addresses.clone(),
                chroot: chroot.clone(),
                session_timeout: *session_timeout,
                // Below a third, or trying a server that is stopped could cost the session.
                connect_timeout: CONNECT_TIMEOUT.min(*session_timeout / 4),
                digest: auth.as_ref().map(|login| diolkos_zk::Digest {
                    username: login.username.clone(),
                    password_file: self.secrets.file(&login.password),
                }),
                tls: tls.as_ref().map(|tls| self.secrets.tls(tls)),
                frame_limit: *frame_limit,
            },
            root: root.clone(),
            applications: applications.clone(),
            dubbo: options(registry, dubbo),
            select: Arc::new(move |name| select.takes_name(name)),
        }
    }
}

/// How long one server of an ensemble may take at most before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn options(registry: &CheckedRegistry, settings: &DubboSettings) -> Options {
    let DubboSettings {
        discovery,
        variants,
        protocol,
        aeraki,
    } = settings;
    Options {
        registry: registry.policy.registry.clone(),
        variants: match variants {
            diolkos_api::Variants::Labels => Variants::Labels,
            diolkos_api::Variants::Hosts => Variants::Hosts,
        },
        discovery: match discovery {
            diolkos_api::Discovery::Interface => Discovery::Interface,
            diolkos_api::Discovery::Application => Discovery::Application,
            diolkos_api::Discovery::Both => Discovery::Both,
        },
        dubbo_protocol: protocol.clone(),
        aeraki: *aeraki,
    }
}

fn spawn<S: Source>(
    name: Arc<str>,
    source: S,
    cx: SourceCx,
    before: Option<JoinHandle<()>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Some(before) = before
            && let Err(error) = before.await
        {
            tracing::error!(registry = %name, %error, "the source panicked");
        }
        supervise(&name, source, cx).await;
    })
}
