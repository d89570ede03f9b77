//! What to connect to and what to read.

use std::{fmt, sync::Arc, time::Duration};

use diolkos_source_dubbo::Options;

/// Decides from the name of a service (of Dubbo: of the interface or the application) whether it is
/// read at all.
pub type Select = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How a Nacos is read.
#[derive(Clone)]
pub struct Config {
    /// The name of the `Registry` document.
    pub registry: Arc<str>,
    /// How the servers are reached.
    pub client: diolkos_nacos::Config,
    /// Ids of the namespaces; `public` is the one without an id. At least one.
    pub namespaces: Vec<String>,
    /// The groups that are read.
    pub groups: Groups,
    /// Instances of these clusters only; empty: of all.
    pub clusters: Vec<String>,
    /// How services are followed.
    pub transport: Transport,
    /// Which services are read.
    pub services: Services,
    /// How services of Dubbo are made.
    pub dubbo: Options,
    /// So long after a connection that had been lost nothing counts as gone: clients of a server
    /// that was restarted register again one after the other.
    pub settle: Duration,
    /// The services to read.
    pub select: Select,
}

/// Groups of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// All that there are.
    All,
    /// These.
    Named(Vec<String>),
}

/// How services are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// By gRPC where a server has it, else by HTTP.
    #[default]
    Auto,
    /// Pushes of Nacos 2 and later.
    Grpc,
    /// Polling, all that Nacos 1 has.
    Http,
}

/// Which services are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Services {
    /// All.
    #[default]
    All,
    /// Those of Dubbo.
    Dubbo,
    /// All but those of Dubbo.
    Other,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("registry", &self.registry)
            .field("client", &self.client)
            .field("namespaces", &self.namespaces)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}
