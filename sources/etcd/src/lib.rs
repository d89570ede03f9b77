//! etcd with Dubbo's layout as a source of services.

#![forbid(unsafe_code)]

use std::{fmt, path::PathBuf, sync::Arc};

use diolkos_net::TlsConfig;
use diolkos_source_api::{Epoch, Source, SourceCx, SourceError};
use diolkos_source_dubbo::Options;

/// How an etcd is read.
#[derive(Clone)]
pub struct Config {
    /// Base URLs of the members; the next one is tried when one fails. At least one.
    pub endpoints: Vec<String>,
    /// A user of etcd.
    pub user: Option<User>,
    /// For `https` endpoints.
    pub tls: TlsConfig,
    /// Where Dubbo's interfaces are, usually `/dubbo`.
    pub prefix: String,
    /// Where Dubbo's applications are, usually `/services`.
    pub applications: String,
    /// How services are made.
    pub dubbo: Options,
    /// Whether a service (interface or application) of this name is wanted at all.
    pub select: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// A user of etcd.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The file that holds the password; read anew for each connection.
    pub password_file: PathBuf,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// etcd as a [`Source`].
#[derive(Debug)]
pub struct Etcd {
    config: Config,
}

impl Etcd {
    /// A source with these settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Source for Etcd {
    async fn run(&mut self, _epoch: Epoch, _cx: &mut SourceCx) -> Result<(), SourceError> {
        todo!("{:?}", self.config)
    }
}
