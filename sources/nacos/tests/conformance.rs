//! The suite that every source passes, on a real Nacos behind proxies that break the wire: over gRPC,
//! and polling by HTTP. The cases share the server, which starts slowly, and have a namespace each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use diolkos_net::TlsConfig;
use diolkos_source_api::{
    conformance::{Fixture, Outage, Wanted, WantedInstance},
    conformance_suite,
};
use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_source_nacos::{Config, Groups, Nacos, Services, Transport};
use diolkos_testkit::{
    Nacos as Server, NacosClient, NacosInstance, eventually,
    nacos::{NacosDoor, NacosService},
    netns,
};

const GROUP: &str = "DEFAULT_GROUP";
/// For Nacos to take what it is told.
const PATIENCE: Duration = Duration::from_secs(30);
/// Cases at the same time.
const PARALLEL: usize = 8;

struct Case<'a> {
    server: &'a Server,
    client: &'a NacosClient,
    door: NacosDoor,
    namespace: String,
    transport: Transport,
}

impl<'a> Case<'a> {
    async fn new(
        server: &'a Server,
        client: &'a NacosClient,
        transport: Transport,
    ) -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            server,
            client,
            door: server.door().await?,
            namespace: format!("case-{number}"),
            transport,
        })
    }
}

fn instance(wanted: &WantedInstance) -> NacosInstance {
    let WantedInstance {
        id,
        ip,
        port,
        version,
        healthy,
        weight,
    } = wanted;
    let mut instance = NacosInstance::new(&ip.to_string(), *port).metadata("id", id);
    instance.healthy = *healthy;
    if let Some(version) = version {
        instance = instance.metadata("version", version);
    }
    if let Some(weight) = weight {
        instance.weight = f64::from(*weight);
    }
    instance
}

impl Fixture for Case<'_> {
    type Source = Nacos;

    fn source(&self, registry: Arc<str>) -> Nacos {
        Nacos::new(Config {
            registry: registry.clone(),
            client: diolkos_nacos::Config {
                addresses: vec![self.door.url()],
                grpc_offset: self.door.grpc_offset(),
                auth: None,
                tls: TlsConfig::default(),
            },
            namespaces: vec![self.namespace.clone()],
            groups: Groups::Named(vec![GROUP.to_owned()]),
            clusters: Vec::new(),
            transport: self.transport,
            services: Services::All,
            dubbo: Options {
                registry,
                variants: Variants::Labels,
                discovery: Discovery::Both,
                dubbo_protocol: "dubbo".into(),
                aeraki: false,
            },
            settle: Duration::ZERO,
            select: Arc::new(|_| true),
        })
    }

    fn budget(&self) -> Duration {
        Duration::from_secs(20)
    }

    async fn put(&mut self, service: &Wanted) -> Result<()> {
        self.put_all(std::slice::from_ref(service)).await
    }

    async fn put_all(&mut self, services: &[Wanted]) -> Result<()> {
        let instances: Vec<Vec<NacosInstance>> = services
            .iter()
            .map(|service| service.instances.iter().map(instance).collect())
            .collect();
        let services: Vec<NacosService<'_>> = services
            .iter()
            .zip(&instances)
            .map(|(service, instances)| {
                let (namespace, name) = (&*self.namespace, &*service.name);
                (namespace, GROUP, name, &**instances)
            })
            .collect();
        // It gives up when a busy machine makes the server slow.
        eventually(PATIENCE, "Nacos' client registers", async || {
            self.client.put_all(&services).await
        })
        .await;
        Ok(())
    }

    async fn delete(&mut self, name: &str) -> Result<()> {
        let namespace = &self.namespace;
        eventually(PATIENCE, "the service is deleted", async || {
            self.client.delete(namespace, GROUP, name).await?;
            // Else it stays for a minute, without instances.
            self.server.delete_service(namespace, GROUP, name).await
        })
        .await;
        Ok(())
    }

    async fn outage(&mut self, kind: Outage) -> Result<()> {
        match kind {
            Outage::Cut => self.door.outage().await,
            Outage::Hang => {
                self.door.hang(true);
                Ok(())
            }
        }
    }

    async fn recover(&mut self) -> Result<()> {
        self.door.recover().await
    }
}

#[test]
fn the_suite_passes_over_grpc_and_by_http() -> Result<()> {
    netns::isolated(async {
        let server = Server::start().await?;
        let client = server.client().await?;
        let suite = async |transport| {
            let case = || Case::new(&server, &client, transport);
            let passed = conformance_suite!(case, PARALLEL, cut, hang).await;
            passed.with_context(|| format!("{transport:?}"))
        };
        tokio::try_join!(suite(Transport::Grpc), suite(Transport::Http))?;
        Ok(())
    })
}
