//! A desired state put together by hand, for tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use diolkos_istio::{Object, ObjectKey};
use diolkos_model::{Address, ContentHash, Health, Instance, Locality, Port, Service, ServiceKey};
use diolkos_plan::{Endpoints, Policy, RegistryState, Template, plan};

use crate::{Desired, Planned};

/// A registry with everything in it.
#[derive(Clone, Debug)]
struct Registry {
    state: RegistryState,
    policy: Arc<Policy>,
}

/// Registries and services, changed one by one and published as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shop {
    generation: u64,
    registries: BTreeMap<Arc<str>, Registry>,
    services: BTreeMap<ServiceKey, Arc<Planned>>,
    kept: Arc<BTreeSet<ObjectKey>>,
}

impl Shop {
    /// Adds a registry whose objects go to `namespace`, with a complete snapshot seen.
    pub(crate) fn registry(&mut self, name: &str, namespace: &str, endpoints: Endpoints) {
        let registry = Registry {
            state: RegistryState {
                complete: true,
                waits: false,
            },
            policy: Arc::new(policy(name, namespace, endpoints)),
        };
        self.registries.insert(name.into(), registry);
    }

    /// Whether a complete snapshot of the registry was seen.
    pub(crate) fn complete(&mut self, registry: &str, complete: bool) {
        self.state(registry).complete = complete;
    }

    /// Whether its services are left out for now.
    #[cfg(test)]
    pub(crate) fn waits(&mut self, registry: &str, waits: bool) {
        self.state(registry).waits = waits;
    }

    fn state(&mut self, registry: &str) -> &mut RegistryState {
        let known = self.registries.get_mut(registry);
        &mut known
            .unwrap_or_else(|| panic!("there is no registry {registry}"))
            .state
    }

    /// Adds or changes a service that has one instance for each id, all on one port.
    pub(crate) fn put(&mut self, registry: &str, name: &str, ids: &[&str], port: u32) {
        let key = key(registry, name);
        let instances = ids.iter().map(|id| instance(id, port)).collect();
        let service = Arc::new(Service::new(key.clone(), [].into(), instances));
        let policy = &self.registries[registry].policy;
        self.services.insert(key, planned(policy, service));
    }

    /// Removes a service.
    pub(crate) fn remove(&mut self, registry: &str, name: &str) {
        self.services.remove(&key(registry, name));
    }

    /// The state as it is now, as the next generation.
    pub(crate) fn publish(&mut self) -> Arc<Desired> {
        self.generation += 1;
        let registries = self.registries.iter();
        Arc::new(Desired {
            generation: self.generation,
            registries: registries.map(|(k, r)| (k.clone(), r.state)).collect(),
            services: self.services.clone(),
            kept: self.kept.clone(),
        })
    }

    /// The objects of a service, workload entries first.
    pub(crate) fn objects(&self, registry: &str, name: &str) -> Vec<Object> {
        let mut objects = self
            .services
            .get(&key(registry, name))
            .map_or_else(Vec::new, |planned| planned.build());
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects
    }

    /// Names and hashes of the objects of all services.
    pub(crate) fn hashes(&self) -> BTreeMap<ObjectKey, ContentHash> {
        let planned = self.services.values();
        planned
            .flat_map(|planned| planned.objects().to_vec())
            .collect()
    }
}

#[cfg(feature = "conformance")]
impl Shop {
    /// Removes a registry from the configuration, and its services.
    pub(crate) fn unconfigure(&mut self, registry: &str) {
        self.registries.remove(registry);
        self.services.retain(|key, _| &*key.registry != registry);
    }

    /// The same state as after a restart: equal, but nothing in it is the same allocation.
    pub(crate) fn replan(&mut self) {
        for planned in self.services.values_mut() {
            *planned = self::planned(planned.policy(), planned.service().clone());
        }
    }

    /// These objects, and no others, are kept as they are.
    pub(crate) fn keep(&mut self, objects: BTreeSet<ObjectKey>) {
        self.kept = Arc::new(objects);
    }

    /// The objects of all services.
    pub(crate) fn all(&self) -> Vec<Object> {
        let planned = self.services.values();
        planned.flat_map(|planned| planned.build()).collect()
    }
}

fn key(registry: &str, name: &str) -> ServiceKey {
    ServiceKey {
        registry: registry.into(),
        namespace: "".into(),
        group: "".into(),
        name: name.into(),
    }
}

/// The address follows from the id.
fn instance(id: &str, port: u32) -> Instance {
    let ContentHash(bits) = ContentHash::of(id.as_bytes());
    let [.., a, b, c] = bits.to_be_bytes();
    Instance {
        id: id.into(),
        address: Address::Ip(Ipv4Addr::new(10, a, b, c).into()),
        ports: [Port {
            name: "".into(),
            number: port,
            protocol: None,
        }]
        .into(),
        health: Health::Healthy,
        weight: None,
        locality: Locality::default(),
        version: None,
        labels: [].into(),
    }
}

fn planned(policy: &Arc<Policy>, service: Arc<Service>) -> Arc<Planned> {
    let plan = plan(policy, &service);
    assert_eq!(plan.refusal(), None, "the plan refuses {}", service.key);
    Arc::new(Planned::new(service, policy.clone(), &plan))
}

/// Hosts are the services' names below `example`, the same for all registries.
fn policy(registry: &str, namespace: &str, endpoints: Endpoints) -> Policy {
    let host = Template::parse("{service}.example")
        .unwrap_or_else(|error| panic!("the host template: {error}"));
    Policy {
        endpoints,
        ..Policy::new(registry, Template::literal(namespace), host)
    }
}
