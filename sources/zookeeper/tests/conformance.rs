//! The suite that every source passes, on real servers behind a proxy that breaks the wire: one that
//! knows persistent watches, and one that does not.

mod dubbo;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use diolkos_source_api::conformance::{Fixture, Outage, Wanted, WantedInstance};
use diolkos_source_zookeeper::ZooKeeper;
use diolkos_testkit::{TcpProxy, zookeeper};

struct Server {
    proxy: TcpProxy,
    writer: zookeeper::Writer,
    _server: zookeeper::ZooKeeper,
    /// The nodes of providers, by interface.
    registered: BTreeMap<String, Vec<String>>,
}

impl Server {
    async fn start(builder: zookeeper::Builder) -> Result<Self> {
        let server = builder.start().await?;
        Ok(Self {
            proxy: TcpProxy::start(server.address().parse()?).await?,
            writer: server.writer().await?,
            _server: server,
            registered: BTreeMap::new(),
        })
    }
}

/// The node of an instance, which says all there is to say of it.
fn node(interface: &str, instance: &WantedInstance) -> String {
    let mut more = format!("&disabled={}", !instance.healthy);
    if let Some(version) = &instance.version {
        more += &format!("&version={version}");
    }
    if let Some(weight) = instance.weight {
        more += &format!("&weight={weight}");
    }
    let address = format!("{}:{}", instance.ip, instance.port);
    let name = dubbo::provider(interface, &address, &more);
    format!("/dubbo/{interface}/providers/{name}")
}

fn nodes(service: &Wanted) -> Vec<String> {
    let instances = service.instances.iter();
    instances.map(|one| node(&service.name, one)).collect()
}

impl Fixture for Server {
    type Source = ZooKeeper;

    fn source(&self, registry: Arc<str>) -> ZooKeeper {
        let address = self.proxy.address().to_string();
        ZooKeeper::new(dubbo::config(registry, vec![address]))
    }

    fn budget(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn put(&mut self, service: &Wanted) -> Result<()> {
        let now = nodes(service);
        let before = self.registered.insert(service.name.clone(), now.clone());
        let before = before.unwrap_or_default();
        for node in now.iter().filter(|node| !before.contains(node)) {
            self.writer.create(node, "10.20.255.255").await?;
        }
        for node in before.iter().filter(|node| !now.contains(node)) {
            self.writer.delete(node).await?;
        }
        Ok(())
    }

    async fn put_all(&mut self, services: &[Wanted]) -> Result<()> {
        let new = services
            .iter()
            .filter(|service| !self.registered.contains_key(&service.name));
        let new: Vec<(String, &str)> = new
            .flat_map(nodes)
            .map(|node| (node, "10.20.255.255"))
            .collect();
        self.writer.create_many(&new).await?;
        for service in services {
            if !self.registered.contains_key(&service.name) {
                self.registered.insert(service.name.clone(), nodes(service));
            }
            self.put(service).await?;
        }
        Ok(())
    }

    async fn delete(&mut self, name: &str) -> Result<()> {
        self.registered.remove(name);
        self.writer.delete_all(&format!("/dubbo/{name}")).await
    }

    async fn outage(&mut self, kind: Outage) -> Result<()> {
        match kind {
            Outage::Cut => self.proxy.interrupt().await,
            Outage::Hang => {
                self.proxy.hang(true);
                Ok(())
            }
        }
    }

    async fn recover(&mut self) -> Result<()> {
        self.proxy.restore().await
    }

    async fn hide(&mut self, name: &str) -> Result<()> {
        self.writer.hide(&format!("/dubbo/{name}/providers")).await
    }

    async fn unhide(&mut self, name: &str) -> Result<()> {
        let list = format!("/dubbo/{name}/providers");
        self.writer.unhide(&list).await
    }
}

async fn server() -> Result<Server> {
    Server::start(zookeeper::ZooKeeper::builder()).await
}

async fn old_server() -> Result<Server> {
    Server::start(zookeeper::ZooKeeper::builder().old()).await
}

diolkos_source_api::conformance_tests!(server, cut, hang, hide);

/// ZooKeeper 3.5, where each read leaves a watch that fires once.
mod old {
    diolkos_source_api::conformance_tests!(super::old_server, cut, hang, hide);
}
