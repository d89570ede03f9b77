//! What to connect to and what to read.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc, time::Duration};

use diolkos_net::TlsConfig;

/// Decides from the name of a service, in lower case, whether it is read at all.
pub type Select = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How a Eureka is read.
#[derive(Clone)]
pub struct Config {
    /// The name of the `Registry` document.
    pub registry: Arc<str>,
    /// Base URLs of peers with the context path, without a `/` at the end
    /// (`http://10.0.0.1:8761/eureka`); the next one is tried when one fails. At least one.
    pub addresses: Vec<String>,
    /// The region that the instances are in; empty if it is not known.
    pub region: Arc<str>,
    /// The statuses in which an instance may get traffic, in upper case; usually `UP` alone.
    pub statuses: BTreeSet<String>,
    /// Basic authentication.
    pub user: Option<User>,
    /// For `https` addresses.
    pub tls: TlsConfig,
    /// How often changes are asked for.
    pub poll: Duration,
    /// So long after a peer was lost nothing counts as gone: another one, or one that was restarted,
    /// may not know all instances yet.
    pub settle: Duration,
    /// The services to read.
    pub select: Select,
}

/// A user of Eureka's HTTP API.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The file that holds the password. Read again when it changes.
    pub password_file: PathBuf,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registry,
            addresses,
            region,
            statuses,
            user,
            tls,
            poll,
            settle,
            select: _,
        } = self;
        f.debug_struct("Config")
            .field("registry", registry)
            .field("addresses", addresses)
            .field("region", region)
            .field("statuses", statuses)
            .field("user", user)
            .field("tls", tls)
            .field("poll", poll)
            .field("settle", settle)
            .finish_non_exhaustive()
    }
}
