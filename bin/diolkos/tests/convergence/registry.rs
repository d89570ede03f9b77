//! The registry's side: what is true, and what has ever ended there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, ensure};
use diolkos_model::Service;
use diolkos_source_api::{Event, EventSender, HealthReporter, Source, SourceCx};
use diolkos_source_consul::{Config, Consul as ConsulSource};
use diolkos_testkit::Consul;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::sequence::{INSTANCES, Place, SERVICES, Shape, Status};

/// Instances are on few nodes, so that the source compares what it knows with inventories of them.
const NODES: u8 = 2;

/// How often instances and services have ended in the registry. Counted before the registry is told, so that nobody
/// can see an end that is not counted.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// By address: the instance was there and healthy, and is not any more.
    pub(crate) instances: BTreeMap<String, u32>,
    /// By name: it had healthy instances, and has none any more.
    pub(crate) services: BTreeMap<String, u32>,
}

/// Shared with who watches the mesh.
pub(crate) type SharedEnds = Arc<Mutex<Ends>>;

/// Locks, also after a panic of another holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An instance as it is registered.
#[derive(Clone, Debug)]
struct Instance {
    shape: Shape,
    check: Status,
    maintenance: bool,
}

impl Instance {
    fn is_live(&self) -> bool {
        self.check != Status::Critical && !self.maintenance
    }
}

/// The part of one Consul that belongs to one sequence.
pub(crate) struct Registry {
    consul: Arc<Consul>,
    /// Tells sequences apart: part of all names.
    number: usize,
    instances: BTreeMap<Place, Instance>,
    pub(crate) ends: SharedEnds,
}

impl Registry {
    pub(crate) fn new(consul: Arc<Consul>, number: usize) -> Self {
        Self {
            consul,
            number,
            instances: BTreeMap::new(),
            ends: SharedEnds::default(),
        }
    }

    /// Begins the names of all services.
    pub(crate) fn prefix(&self) -> String {
        format!("q{}-", self.number)
    }

    /// The name of a service.
    pub(crate) fn name(&self, service: u8) -> String {
        format!("{}{}", self.prefix(), char::from(b'a' + service))
    }

    fn id(&self, (service, instance): Place) -> String {
        format!("{}-{instance}", self.name(service))
    }

    fn address(&self, (service, instance): Place) -> String {
        let [_, _, high, low] = (self.number as u32).to_be_bytes();
        format!("10.{high}.{low}.{}", service * 16 + instance + 1)
    }

    /// The addresses of a service's instances, healthy or not.
    pub(crate) fn addresses(&self, service: u8) -> BTreeSet<String> {
        let places = self.instances.keys().filter(|(of, _)| *of == service);
        places.map(|place| self.address(*place)).collect()
    }

    /// The addresses of all healthy instances.
    pub(crate) fn live(&self) -> BTreeSet<String> {
        let live = self.instances.iter().filter(|(_, i)| i.is_live());
        live.map(|(place, _)| self.address(*place)).collect()
    }

    /// Takes over a change, and counts what ends by it.
    fn change(&mut self, place: Place, now: Option<Instance>) {
        let live = |registry: &Self| {
            let of_service = |(p, i): &(&Place, &Instance)| p.0 == place.0 && i.is_live();
            let count = registry.instances.iter().filter(of_service).count();
            let this = registry.instances.get(&place);
            (this.is_some_and(Instance::is_live), count)
        };
        let before = live(self);
        match now {
            Some(now) => self.instances.insert(place, now),
            None => self.instances.remove(&place),
        };
        let after = live(self);
        let mut ends = lock(&self.ends);
        if before.0 && !after.0 {
            *ends.instances.entry(self.address(place)).or_default() += 1;
        }
        if before.1 > 0 && after.1 == 0 {
            *ends.services.entry(self.name(place.0)).or_default() += 1;
        }
    }

    /// Three instances of each service but the last one.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        for service in 0..SERVICES - 1 {
            for instance in 0..INSTANCES - 1 {
                let shape = Shape {
                    port: 8080,
                    version: 1,
                    weight: 1,
                };
                self.register((service, instance), &shape).await?;
            }
        }
        Ok(())
    }

    /// An instance comes, or changes and keeps its checks.
    pub(crate) async fn register(&mut self, place: Place, shape: &Shape) -> Result<()> {
        let mut instance = self.instances.get(&place).cloned().unwrap_or(Instance {
            shape: shape.clone(),
            check: Status::Passing,
            maintenance: false,
        });
        instance.shape = shape.clone();
        self.change(place, Some(instance));
        let Shape {
            port,
            version,
            weight,
        } = shape;
        self.tell(
            place,
            json!({"Service": {
                "ID": self.id(place), "Service": self.name(place.0), "Address": self.address(place),
                "Port": port, "Tags": [format!("v{version}")],
                "Weights": {"Passing": weight, "Warning": 1},
            }}),
        )
        .await
    }

    /// One of a service's instances changes a little.
    pub(crate) async fn touch(&mut self, service: u8) -> Result<()> {
        let mut of_service = self.instances.iter().filter(|(p, _)| p.0 == service);
        let Some((place, instance)) = of_service.next() else {
            return Ok(());
        };
        let (place, mut shape) = (*place, instance.shape.clone());
        shape.version += 1;
        self.register(place, &shape).await
    }

    /// An instance goes, if it is there.
    pub(crate) async fn deregister(&mut self, place: Place) -> Result<()> {
        if !self.instances.contains_key(&place) {
            return Ok(());
        }
        self.change(place, None);
        let entry = json!({"Node": node(place), "ServiceID": self.id(place)});
        self.consul.catalog_deregister(&entry).await
    }

    /// All instances of a service go.
    pub(crate) async fn deregister_service(&mut self, service: u8) -> Result<()> {
        for instance in 0..INSTANCES {
            self.deregister((service, instance)).await?;
        }
        Ok(())
    }

    /// A check changes, if the instance is there.
    pub(crate) async fn check(&mut self, place: Place, status: Status) -> Result<()> {
        let Some(mut instance) = self.instances.get(&place).cloned() else {
            return Ok(());
        };
        instance.check = status;
        self.change(place, Some(instance));
        let id = self.id(place);
        let check = json!({"CheckID": format!("{id}-check"), "Name": "check", "ServiceID": id, "Status": status.as_str()});
        self.tell(place, json!({"Check": check})).await
    }

    /// Maintenance begins or ends, if the instance is there.
    pub(crate) async fn maintain(&mut self, place: Place, on: bool) -> Result<()> {
        let Some(mut instance) = self.instances.get(&place).cloned() else {
            return Ok(());
        };
        if instance.maintenance == on {
            return Ok(());
        }
        instance.maintenance = on;
        self.change(place, Some(instance));
        let id = self.id(place);
        let check = format!("_service_maintenance:{id}");
        if on {
            let check = json!({"CheckID": check, "Name": "maintenance", "ServiceID": id, "Status": "critical"});
            return self.tell(place, json!({"Check": check})).await;
        }
        let entry = json!({"Node": node(place), "CheckID": check});
        self.consul.catalog_deregister(&entry).await
    }

    async fn tell(&self, place: Place, mut entry: Value) -> Result<()> {
        entry["Node"] = json!(node(place));
        entry["Address"] = json!("10.255.0.1");
        entry["SkipNodeUpdate"] = json!(true);
        self.consul.catalog_register(&entry).await
    }

    /// Takes everything of the sequence out of Consul.
    pub(crate) async fn clear(&mut self) -> Result<()> {
        for service in 0..SERVICES {
            self.deregister_service(service).await?;
        }
        Ok(())
    }

    /// Reads the registry as it is now, past all proxies.
    pub(crate) async fn services(&self, registry: &Arc<str>) -> Result<Vec<Service>> {
        let (sender, mut events) = mpsc::channel(64);
        let (health, _watch) = HealthReporter::new();
        let (_resync, resync) = mpsc::channel(1);
        let prefix = self.prefix();
        let config = Config {
            select: Arc::new(move |name, _| name.starts_with(&prefix)),
            ..Config::new(registry.clone(), vec![self.consul.http_addr()])
        };
        let mut cx = SourceCx {
            events: EventSender::new(registry.clone(), sender),
            health,
            resync,
            cancel: CancellationToken::new(),
        };
        let mut source = ConsulSource::new(config);
        let mut services = Vec::new();
        let read = async {
            while let Some(envelope) = events.recv().await {
                match envelope.event {
                    Event::Upsert { service, .. } => services.push(Arc::unwrap_or_clone(service)),
                    Event::SnapshotEnd { evidence, .. } => {
                        ensure!(evidence.is_complete(), "{evidence:?}");
                        return Ok(());
                    }
                    Event::SnapshotStart { .. } | Event::Remove { .. } => {}
                }
            }
            anyhow::bail!("no snapshot")
        };
        tokio::select! {
            read = read => read?,
            ended = source.run(1, &mut cx) => ended.context("reading Consul")?,
        }
        Ok(services)
    }
}

/// The nodes of all sequences' instances.
pub(crate) fn nodes() -> impl Iterator<Item = String> {
    (0..NODES).map(|number| format!("ext-{number}"))
}

fn node((_, instance): Place) -> String {
    format!("ext-{}", instance % NODES)
}
