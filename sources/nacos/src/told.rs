//! What the engine was told of one namespace.

use std::collections::{HashMap, HashSet};

use diolkos_model::{Service, ServiceKey};

/// The services of a namespace that the engine knows.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// With the number of their instances.
    services: HashMap<ServiceKey, usize>,
    /// Those that went since the last complete snapshot. The guard may want to hear it again.
    gone: HashSet<ServiceKey>,
    /// Instances of all of them.
    instances: usize,
}

impl Told {
    /// The engine knows this service now.
    pub(crate) fn tell(&mut self, service: &Service) {
        let count = service.instances.len();
        self.gone.remove(&service.key);
        let before = self.services.insert(service.key.clone(), count);
        self.instances = self.instances + count - before.unwrap_or(0);
    }

    /// The engine is told that this service is gone. Returns whether that is news.
    pub(crate) fn untell(&mut self, key: &ServiceKey) -> bool {
        let Some(instances) = self.services.remove(key) else {
            return false;
        };
        self.instances -= instances;
        self.gone.insert(key.clone());
        true
    }

    /// What a snapshot that names these lacks of all that the engine was told, in any order.
    pub(crate) fn lacking(&self, named: &HashSet<ServiceKey>) -> Vec<ServiceKey> {
        let all = self.services.keys().chain(&self.gone);
        all.filter(|key| !named.contains(key)).cloned().collect()
    }

    /// After a complete snapshot that named these: the engine knows no others.
    pub(crate) fn keep(&mut self, named: &HashSet<ServiceKey>) {
        self.services.retain(|key, _| named.contains(key));
        self.gone.clear();
        self.instances = self.services.values().sum();
    }

    /// How many services and instances the engine knows.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.services.len(), self.instances)
    }
}
