//! What to connect to and what to read.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use diolkos_net::TlsConfig;

/// Decides from a service's name and the tags of all its instances whether it is read at all.
pub type Select = Arc<dyn Fn(&str, &[String]) -> bool + Send + Sync>;

/// How a Consul is read.
#[derive(Clone)]
pub struct Config {
    /// The name of the `Registry` document.
    pub registry: Arc<str>,
    /// Base URLs of agents or servers, the preferred one first.
    pub addresses: Vec<String>,
    /// The datacenters to read; none means the agents' own.
    pub datacenters: Vec<String>,
    /// The namespace (Consul Enterprise).
    pub namespace: Option<String>,
    /// The admin partition (Consul Enterprise).
    pub partition: Option<String>,
    /// How fresh answers must be.
    pub consistency: Consistency,
    /// The file that holds the ACL token. Read again when it changes.
    pub token_file: Option<PathBuf>,
    /// For `https` addresses.
    pub tls: TlsConfig,
    /// The services to read.
    pub select: Select,
    /// How long a waiting query stays open, and how often everything is compared anew although
    /// Consul reports no change. Consul takes at most 10 minutes.
    pub wait: Duration,
    /// Services read at the same time, in each datacenter.
    pub max_concurrent_reads: usize,
}

impl Config {
    /// The usual settings: the agent's own datacenter, every service but `consul`.
    #[must_use]
    pub fn new(registry: impl Into<Arc<str>>, addresses: Vec<String>) -> Self {
        Self {
            registry: registry.into(),
            addresses,
            datacenters: Vec::new(),
            namespace: None,
            partition: None,
            consistency: Consistency::default(),
            token_file: None,
            tls: TlsConfig::default(),
            select: Arc::new(|name, _| name != "consul"),
            wait: Duration::from_secs(60),
            max_concurrent_reads: 16,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registry,
            addresses,
            datacenters,
            namespace,
            partition,
            consistency,
            token_file,
            tls,
            select: _,
            wait,
            max_concurrent_reads,
        } = self;
        f.debug_struct("Config")
            .field("registry", registry)
            .field("addresses", addresses)
            .field("datacenters", datacenters)
            .field("namespace", namespace)
            .field("partition", partition)
            .field("consistency", consistency)
            .field("token_file", token_file)
            .field("tls", tls)
            .field("wait", wait)
            .field("max_concurrent_reads", max_concurrent_reads)
            .finish_non_exhaustive()
    }
}

/// How fresh answers must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Any server may answer the waiting queries, which spreads their load. They only tell *that*
    /// something changed: what is believed is read from the leader nevertheless.
    #[default]
    Stale,
    /// The leader answers everything.
    Default,
    /// The leader answers everything, and asks the other servers first whether it still leads.
    Consistent,
}
