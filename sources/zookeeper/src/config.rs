//! What to connect to and what to read.

use std::{fmt, sync::Arc};

use diolkos_source_dubbo::Options;

/// Decides from the name of an interface or an application whether it is read at all.
pub type Select = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How a ZooKeeper is read.
#[derive(Clone)]
pub struct Config {
    /// How the ensemble is reached.
    pub client: diolkos_zk::Config,
    /// Where Dubbo's interfaces are, usually `/dubbo`.
    pub root: String,
    /// Where Dubbo's applications are, usually `/services`.
    pub applications: String,
    /// How services are made.
    pub dubbo: Options,
    /// The services to read.
    pub select: Select,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            root,
            applications,
            dubbo,
            select: _,
        } = self;
        f.debug_struct("Config")
            .field("client", client)
            .field("root", root)
            .field("applications", applications)
            .field("dubbo", dubbo)
            .finish_non_exhaustive()
    }
}
