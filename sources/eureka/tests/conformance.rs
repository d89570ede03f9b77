//! The suite that every source passes, on real Eureka servers behind proxies that break the wire.
//!
//! A server takes seconds to start, so the cases take turns on a few.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use diolkos_source_api::conformance::{Fixture, Outage, Wanted, WantedInstance};
use diolkos_source_eureka::{Config, TlsConfig};
use diolkos_testkit::{Eureka, TcpProxy, eureka::instance};
use futures::future::try_join_all;
use serde_json::{Value, json};

/// Cases that run at the same time, each on a server of its own.
const PARALLEL: usize = 3;

/// Servers that no case works on.
type Pool = Arc<Mutex<Vec<Eureka>>>;

/// A server that is empty at the start.
struct Registry {
    proxy: TcpProxy,
    /// Always there; goes back to the pool.
    eureka: Option<Eureka>,
    pool: Pool,
    /// The ids that are registered, by service.
    registered: BTreeMap<String, Vec<String>>,
}

async fn registry(pool: Pool) -> Result<Registry> {
    let free = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let eureka = match free {
        Some(eureka) => eureka,
        None => start().await?,
    };
    clear(&eureka).await?;
    let address = ([127, 0, 0, 1], eureka.port()).into();
    Ok(Registry {
        proxy: TcpProxy::start(address).await?,
        eureka: Some(eureka),
        pool,
        registered: BTreeMap::new(),
    })
}

/// A server that answers from no cache: what was said to it is read from it at once. It repeats
/// changes for a short time only, so that one case's are not read over and over in the next.
async fn start() -> Result<Eureka> {
    let server = |name: &str| format!("eureka.server.{name}");
    let builder = Eureka::builder();
    builder
        .property(&server("use-read-only-response-cache"), "false")
        .property(&server("retention-time-in-m-s-in-delta-queue"), "20000")
        .property(&server("delta-retention-timer-interval-in-ms"), "2000")
        .start()
        .await
}

/// Removes what an earlier case left. The server goes on telling of these removals.
async fn clear(eureka: &Eureka) -> Result<()> {
    let apps = eureka.get("/apps").await?;
    let apps = apps["applications"]["application"].as_array();
    for app in apps.into_iter().flatten() {
        let name = app["name"].as_str().context("an application's name")?;
        for instance in app["instance"].as_array().into_iter().flatten() {
            let id = instance["instanceId"].as_str().context("an id")?;
            eureka.deregister(name, id).await?;
        }
    }
    Ok(())
}

impl Drop for Registry {
    fn drop(&mut self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.extend(self.eureka.take());
    }
}

fn record(service: &str, wanted: &WantedInstance) -> Value {
    let mut record = instance(service, &wanted.ip.to_string(), wanted.port);
    record["instanceId"] = json!(wanted.id);
    if !wanted.healthy {
        record["status"] = json!("DOWN");
    }
    if let Some(version) = &wanted.version {
        record["metadata"]["version"] = json!(version);
    }
    if let Some(weight) = wanted.weight {
        record["metadata"]["weight"] = json!(weight.to_string());
    }
    record
}

impl Registry {
    fn eureka(&self) -> Result<&Eureka> {
        self.eureka.as_ref().context("the server")
    }
}

impl Fixture for Registry {
    type Source = diolkos_source_eureka::Eureka;

    fn source(&self, registry: Arc<str>) -> Self::Source {
        diolkos_source_eureka::Eureka::new(Config {
            registry,
            addresses: vec![format!("http://{}/eureka", self.proxy.address())],
            region: "".into(),
            statuses: ["UP".to_owned()].into(),
            user: None,
            tls: TlsConfig::default(),
            poll: Duration::from_millis(200),
            settle: Duration::ZERO,
            select: Arc::new(|_| true),
        })
    }

    fn budget(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn notices(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn put(&mut self, service: &Wanted) -> Result<()> {
        let Wanted { name, instances } = service;
        let eureka = self.eureka()?;
        for wanted in instances {
            eureka.register(name, &record(name, wanted)).await?;
        }
        let ids: Vec<String> = instances.iter().map(|i| i.id.clone()).collect();
        let before = self.registered.insert(name.clone(), ids.clone());
        for id in before.into_iter().flatten() {
            if !ids.contains(&id) {
                self.eureka()?.deregister(&name.to_uppercase(), &id).await?;
            }
        }
        Ok(())
    }

    async fn put_all(&mut self, services: &[Wanted]) -> Result<()> {
        // Those of other names do not need to wait for each other.
        let (known, new): (Vec<_>, Vec<_>) = services
            .iter()
            .partition(|service| self.registered.contains_key(&service.name));
        for service in known {
            self.put(service).await?;
        }
        for some in new.chunks(16) {
            let eureka = self.eureka()?;
            let put = async |service: &Wanted| -> Result<()> {
                for wanted in &service.instances {
                    let record = record(&service.name, wanted);
                    eureka.register(&service.name, &record).await?;
                }
                Ok(())
            };
            try_join_all(some.iter().map(|service| put(service))).await?;
            for service in some {
                let ids = service.instances.iter().map(|i| i.id.clone()).collect();
                self.registered.insert(service.name.clone(), ids);
            }
        }
        Ok(())
    }

    async fn delete(&mut self, name: &str) -> Result<()> {
        for id in self.registered.remove(name).into_iter().flatten() {
            self.eureka()?.deregister(&name.to_uppercase(), &id).await?;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_conforms() -> Result<()> {
    let pool = Pool::default();
    let fixture = || registry(pool.clone());
    diolkos_source_api::conformance_suite!(fixture, PARALLEL, hang, cut).await
}
