//! What Dubbo writes into registries, as services.
//!
//! Pure: no I/O, no clock. A source tells a [`Catalog`] what the registry's nodes hold, and the
//! catalogue tells which services that makes. The sources of ZooKeeper and etcd share the layout
//! of paths ([`Place`]).

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use diolkos_model::{Service, ServiceKey};

/// How services are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the `Registry` document.
    pub registry: Arc<str>,
    /// What groups and versions of an interface become.
    pub variants: Variants,
    /// Which of Dubbo's two ways to register are read.
    pub discovery: Discovery,
    /// The protocol that ports of Dubbo's own protocol get, usually `dubbo`: the mesh's port is
    /// then named `tcp-dubbo`.
    pub dubbo_protocol: Arc<str>,
    /// Names and labels as dubbo2istio writes them.
    pub aeraki: bool,
}

/// What groups and versions of an interface become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Variants {
    /// Labels of the instances of one service.
    #[default]
    Labels,
    /// Services of their own.
    Hosts,
}

/// Which of Dubbo's two ways to register are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// `/dubbo/INTERFACE/providers`.
    Interface,
    /// `/services/APPLICATION`.
    Application,
    /// Both; an instance that is registered in both ways counts once.
    #[default]
    Both,
}

/// What a path (below the registry's root) holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Names of the children are encoded URLs of providers.
    Providers {
        /// The interface.
        interface: Arc<str>,
    },
    /// Names of the children are encoded URLs of configurators (`override://`).
    Configurators {
        /// The interface.
        interface: Arc<str>,
    },
    /// A rule of the configuration centre, `KEY.configurators`.
    Rule {
        /// The key: `INTERFACE[:VERSION[:GROUP]]` or an application.
        key: Arc<str>,
    },
    /// The applications of an interface, joined by commas.
    Mapping {
        /// The interface.
        interface: Arc<str>,
    },
    /// Metadata of all services of an application's revision.
    Revision {
        /// The application.
        application: Arc<str>,
        /// The revision.
        revision: Arc<str>,
    },
    /// Metadata that an application published of one interface.
    Definition {
        /// The interface.
        interface: Arc<str>,
        /// The version; may be empty.
        version: Arc<str>,
        /// The group; may be empty.
        group: Arc<str>,
        /// The application.
        application: Arc<str>,
    },
    /// An instance of an application.
    Instance {
        /// The application.
        application: Arc<str>,
        /// The node's name, usually `ip:port`.
        id: Arc<str>,
    },
}

/// A service that may be different from when it was last taken.
#[derive(Clone, Debug)]
pub enum Change {
    /// As it is now.
    Upsert(Service),
    /// It has no instances any more.
    Remove(ServiceKey),
}

/// All that the registry holds, and the services that it makes.
#[derive(Debug)]
pub struct Catalog {
    options: Options,
}

impl Catalog {
    /// A catalogue with nothing in it.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// The names of the children at [`Place::Providers`] or [`Place::Configurators`]: all of them.
    /// None: the place is empty or gone.
    pub fn set_children(&mut self, _place: &Place, _names: Vec<String>) {
        todo!("{:?}", self.options)
    }

    /// One more child at such a place.
    pub fn add_child(&mut self, _place: &Place, _name: &str) {
        todo!()
    }

    /// One child less at such a place.
    pub fn remove_child(&mut self, _place: &Place, _name: &str) {
        todo!()
    }

    /// The data of a node at any other place; `None` when it is gone.
    pub fn set_data(&mut self, _place: &Place, _data: Option<Bytes>) {
        todo!()
    }

    /// All instances of an application.
    pub fn set_instances(&mut self, _application: &str, _records: BTreeMap<Arc<str>, Bytes>) {
        todo!()
    }

    /// Metadata that instances refer to and that was not told yet: worth reading.
    pub fn wanted(&mut self) -> Vec<Place> {
        todo!()
    }

    /// The services that may be different since this was last called.
    pub fn take_changes(&mut self) -> Vec<Change> {
        todo!()
    }

    /// All services with at least one instance. Those are no changes any more after this.
    pub fn snapshot(&mut self) -> Vec<Service> {
        todo!()
    }
}
