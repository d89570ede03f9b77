//! What Dubbo writes into registries, as services.
//!
//! Pure: no I/O, no clock. A source tells a [`Catalog`] what the registry's nodes hold, and the
//! catalogue tells which services that makes. The sources of ZooKeeper and etcd share the layout
//! of paths ([`Place`]).
//!
//! # Services
//!
//! - An interface is one service, with instances of all groups and versions ([`Variants::Labels`]:
//!   the group is the label `group`, the version the instance's), or one for each group and
//!   version ([`Variants::Hosts`]: the key is `GROUP/INTERFACE:VERSION`).
//! - An application is one service, in the namespace `services`. Registries that have partitions
//!   put theirs in front ([`Namespaces`]).
//!
//! An instance that is registered with its interface and with its application counts once for the
//! interface: as the interface's own record says.
//!
//! Where an application leaves the metadata of its interfaces with its instances
//! (`storage-type=local`, Dubbo's default), the registry does not say which instance provides
//! which interface. All of them are taken to provide what the application published. Processes
//! that register with their interfaces only (`register-mode=interface`) are left out of that.

#![forbid(unsafe_code)]

mod application;
mod catalog;
mod labels;
mod mapping;
mod place;
mod provider;
mod rules;
mod url;

use std::sync::Arc;

pub use catalog::{Catalog, Change};
pub use labels::is_secret;
pub use place::Place;
pub use provider::{Provider, Registration, Standing};
pub use url::{Parameters, ProviderUrl, UrlError, decode};

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

/// The namespaces of the keys that services get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// Of interfaces.
    pub interfaces: Arc<str>,
    /// Of applications: another one, so that they never meet interfaces of the same name.
    pub applications: Arc<str>,
    /// What follows the name in `dubboHost`, so that the partitions of a registry have hosts of
    /// their own: empty, or begins with a dot.
    pub host_suffix: Arc<str>,
}

impl Default for Namespaces {
    /// Those of a registry without partitions of its own: none, and `services`.
    fn default() -> Self {
        Self {
            interfaces: "".into(),
            applications: "services".into(),
            host_suffix: "".into(),
        }
    }
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
    /// `/services/APPLICATION`: services of applications, and of the interfaces that their
    /// metadata names.
    Application,
    /// Both; an instance that is registered in both ways counts once.
    #[default]
    Both,
}
