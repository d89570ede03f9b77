//! ZooKeeper with Dubbo's layout as a source of services.

#![forbid(unsafe_code)]

use std::{fmt, sync::Arc};

use diolkos_source_api::{Epoch, Source, SourceCx, SourceError};
use diolkos_source_dubbo::Options;

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
    /// Whether a service (interface or application) of this name is wanted at all.
    pub select: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// ZooKeeper as a [`Source`].
#[derive(Debug)]
pub struct ZooKeeper {
    config: Config,
}

impl ZooKeeper {
    /// A source with these settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Source for ZooKeeper {
    async fn run(&mut self, _epoch: Epoch, _cx: &mut SourceCx) -> Result<(), SourceError> {
        todo!("{:?}", self.config)
    }
}
