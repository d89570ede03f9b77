//! The suite that every source passes, on a real agent behind a proxy that breaks the wire.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use diolkos_source_api::conformance::{Fixture, Outage, Wanted, WantedInstance};
use diolkos_source_consul::{Config, Consul};
use diolkos_testkit::TcpProxy;
use serde_json::{Value, json};

/// How long waiting queries stay open; an outage in which nothing answers is noticed after that.
const WAIT: Duration = Duration::from_secs(2);

struct Agent {
    proxy: TcpProxy,
    consul: diolkos_testkit::Consul,
    /// The ids that are registered, by service.
    registered: BTreeMap<String, Vec<String>>,
}

async fn agent() -> Result<Agent> {
    let consul = diolkos_testkit::Consul::start().await?;
    let address = ([127, 0, 0, 1], consul.http_port()).into();
    Ok(Agent {
        proxy: TcpProxy::start(address).await?,
        consul,
        registered: BTreeMap::new(),
    })
}

const NODE: &str = "conformance";

fn entry(service: &str, instance: &WantedInstance) -> Value {
    let status = if instance.healthy {
        "passing"
    } else {
        "critical"
    };
    let mut entry = json!({
        "Node": NODE,
        "Address": "10.20.255.255",
        "Service": {
            "ID": instance.id,
            "Service": service,
            "Address": instance.ip,
            "Port": instance.port,
        },
        "Check": {
            "CheckID": format!("check-{}", instance.id),
            "Name": "check",
            "ServiceID": instance.id,
            "Status": status,
        },
    });
    if let Some(version) = &instance.version {
        entry["Service"]["Meta"] = json!({"version": version});
    }
    if let Some(weight) = instance.weight {
        entry["Service"]["Weights"] = json!({"Passing": weight, "Warning": 1});
    }
    entry
}

impl Agent {
    async fn deregister(&self, id: &str) -> Result<()> {
        let entry = json!({"Node": NODE, "ServiceID": id});
        self.consul.catalog_deregister(&entry).await
    }
}

impl Fixture for Agent {
    type Source = Consul;

    fn source(&self, registry: Arc<str>) -> Consul {
        let address = format!("http://{}", self.proxy.address());
        let mut config = Config::new(registry, vec![address]);
        config.wait = WAIT;
        Consul::new(config)
    }

    fn budget(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn notices(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn put(&mut self, service: &Wanted) -> Result<()> {
        let Wanted { name, instances } = service;
        for instance in instances {
            let entry = entry(name, instance);
            self.consul.catalog_register(&entry).await?;
        }
        let ids: Vec<String> = instances.iter().map(|i| i.id.clone()).collect();
        let before = self.registered.insert(name.clone(), ids.clone());
        for id in before.into_iter().flatten() {
            if !ids.contains(&id) {
                self.deregister(&id).await?;
            }
        }
        Ok(())
    }

    async fn delete(&mut self, name: &str) -> Result<()> {
        for id in self.registered.remove(name).into_iter().flatten() {
            self.deregister(&id).await?;
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

diolkos_source_api::conformance_tests!(agent, cut, hang);
