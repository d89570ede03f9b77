//! The suite that every source passes, on a real etcd behind a proxy that breaks the wire.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use diolkos_net::TlsConfig;
use diolkos_source_api::conformance::{Fixture, Outage, Wanted, WantedInstance};
use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_source_etcd::{Config, Etcd};
use diolkos_testkit::TcpProxy;
use url::form_urlencoded::byte_serialize;

/// How soon the source notices that nothing answers, in about three of these.
const PULSE: Duration = Duration::from_secs(1);

struct Server {
    proxy: TcpProxy,
    etcd: diolkos_testkit::Etcd,
    /// The keys that are written, by service.
    written: BTreeMap<String, Vec<String>>,
}

async fn server() -> Result<Server> {
    let etcd = diolkos_testkit::Etcd::start().await?;
    Ok(Server {
        proxy: TcpProxy::start(etcd.address(0)).await?,
        etcd,
        written: BTreeMap::new(),
    })
}

fn key(service: &str, instance: &WantedInstance) -> String {
    let WantedInstance {
        id,
        ip,
        port,
        version,
        healthy,
        weight,
    } = instance;
    let mut url =
        format!("dubbo://{ip}:{port}/{service}?interface={service}&side=provider&id={id}");
    if let Some(version) = version {
        url += &format!("&version={version}");
    }
    if let Some(weight) = weight {
        url += &format!("&weight={weight}");
    }
    if !healthy {
        url += "&disabled=true";
    }
    let url: String = byte_serialize(url.as_bytes()).collect();
    format!("/dubbo/{service}/providers/{url}")
}

impl Fixture for Server {
    type Source = Etcd;

    fn source(&self, registry: Arc<str>) -> Etcd {
        let config = Config {
            endpoints: vec![format!("http://{}", self.proxy.address())],
            user: None,
            tls: TlsConfig::default(),
            prefix: "/dubbo".to_owned(),
            applications: "/services".to_owned(),
            dubbo: Options {
                registry,
                variants: Variants::Labels,
                discovery: Discovery::Both,
                dubbo_protocol: "dubbo".into(),
                aeraki: false,
            },
            select: Arc::new(|_| true),
        };
        Etcd::new(config).pulse(PULSE)
    }

    fn budget(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn put(&mut self, service: &Wanted) -> Result<()> {
        self.put_all(std::slice::from_ref(service)).await
    }

    async fn put_all(&mut self, services: &[Wanted]) -> Result<()> {
        let mut pairs = Vec::new();
        let mut stale = Vec::new();
        for Wanted { name, instances } in services {
            let keys: Vec<String> = instances.iter().map(|i| key(name, i)).collect();
            let before = self.written.insert(name.clone(), keys.clone());
            let before = before.into_iter().flatten();
            stale.extend(before.filter(|key| !keys.contains(key)));
            pairs.extend(keys.into_iter().map(|key| (key, "")));
        }
        self.etcd.put_all(&pairs).await?;
        for key in stale {
            self.etcd.delete(&key).await?;
        }
        Ok(())
    }

    async fn delete(&mut self, name: &str) -> Result<()> {
        for key in self.written.remove(name).into_iter().flatten() {
            self.etcd.delete(&key).await?;
        }
        Ok(())
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
}

diolkos_source_api::conformance_tests!(server, cut, hang);
