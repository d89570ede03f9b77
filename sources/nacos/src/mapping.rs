//! From what a Nacos says to services.

use bytes::Bytes;
use diolkos_model::{Service, ServiceKey};
use diolkos_nacos::{Host, Name, ServiceInfo};
use diolkos_source_dubbo::{Change, Place};

use crate::Config;

/// All that one namespace of Nacos holds, and the services that it makes.
#[derive(Debug)]
pub struct Directory {
    services: Vec<Service>,
}

impl Directory {
    /// A directory of a namespace with nothing in it.
    #[must_use]
    pub fn new(_config: &Config, _namespace: &str) -> Self {
        Self {
            services: Vec::new(),
        }
    }

    /// Whether a service of this name is read at all.
    #[must_use]
    pub fn takes(&self, _name: &Name) -> bool {
        true
    }

    /// What Nacos says of a service, all of it. `health`: its hosts with their true health, where
    /// that had to be asked for since the service is under its protection threshold
    /// ([`ServiceInfo::protected`]) and the answer is there.
    pub fn set(&mut self, _info: &ServiceInfo, _health: Option<&[Host]>) {}

    /// A service is gone.
    pub fn remove(&mut self, _name: &Name) {}

    /// Metadata of Dubbo in Nacos' configuration that is to be read, and told by
    /// [`Directory::set_data`], now and whenever it changes. Each is named once:
    /// [`Place::Revision`], and [`Place::Definitions`], which is all [`Place::Definition`]s of an
    /// interface. Names are as Nacos writes them (`___` for the `$` of a nested class).
    pub fn wanted(&mut self) -> Vec<Place> {
        Vec::new()
    }

    /// What an item of the configuration holds; `None` if there is none (any more). Every
    /// [`Place::Rule`] and [`Place::Mapping`] is to be told, and what [`Directory::wanted`] names.
    pub fn set_data(&mut self, _place: &Place, _data: Option<Bytes>) {}

    /// The services that are different since this was last called, each once.
    pub fn take_changes(&mut self) -> Vec<Change> {
        Vec::new()
    }

    /// All services. Those are no changes any more after this.
    pub fn snapshot(&mut self) -> Vec<Service> {
        self.services.clone()
    }

    /// Whether the namespace has anything of Dubbo, so that rules, mappings and metadata in its
    /// configuration count.
    #[must_use]
    pub fn needs_metadata(&self) -> bool {
        false
    }

    /// How many services are under their protection threshold.
    #[must_use]
    pub fn protected(&self) -> usize {
        0
    }

    /// Whether instances of a service of Nacos may count for this service of ours: what cannot be
    /// read of the one casts doubt on the other.
    #[must_use]
    pub fn concerns(&self, _name: &Name, _key: &ServiceKey) -> bool {
        true
    }

    /// Whether the configuration (mappings, metadata) may name instances of this service: an
    /// interface of Dubbo, where registrations of applications are read.
    #[must_use]
    pub fn rests_on_metadata(&self, _key: &ServiceKey) -> bool {
        true
    }
}
