//! The checked form of the documents: defaults filled in, every value of its own type.

use std::{path::PathBuf, sync::Arc};

use diolkos_plan::Policy;

pub use crate::raw::Consistency;
pub use diolkos_guard::{Limits, Shrink};

/// A `Registry` that is free of faults.
#[derive(Clone, Debug)]
pub struct CheckedRegistry {
    /// The document's name.
    pub name: Arc<str>,
    /// How its services become objects.
    pub policy: Policy,
    /// Where its services come from.
    pub source: SourceSettings,
    /// How much may vanish at once.
    pub guard: Limits,
}

/// Where services come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// Consul.
    Consul(Box<ConsulSettings>),
    /// Service documents on disk.
    File(FileSettings),
}

impl SourceSettings {
    /// The kind of registry, as documents name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Consul(_) => "consul",
            Self::File(_) => "file",
        }
    }
}

/// How a Consul is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulSettings {
    /// Base URLs, without a `/` at the end, the preferred one first. At least one.
    pub addresses: Vec<String>,
    /// Datacenters; empty is the agent's own.
    pub datacenters: Vec<String>,
    /// Namespace (Consul Enterprise).
    pub namespace: Option<String>,
    /// Admin partition (Consul Enterprise).
    pub partition: Option<String>,
    /// How fresh answers must be.
    pub consistency: Consistency,
    /// Where the ACL token is.
    pub token: Option<Credential>,
    /// For `https` addresses.
    pub tls: TlsSettings,
}

/// Service documents on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// A file or a directory.
    pub path: PathBuf,
}

/// Where a secret is. The secret itself is never part of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A file that holds it.
    File(PathBuf),
    /// A key of a Secret; needs a cluster.
    Secret {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// The key in its data.
        key: String,
    },
}

/// TLS as a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Where the certificates are.
    pub material: TlsMaterial,
    /// The name to ask for and to find in the server's certificate, instead of the host.
    pub server_name: Option<String>,
}

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsMaterial {
    /// PEM files.
    Files {
        /// Authorities to trust instead of the system's.
        ca: Option<PathBuf>,
        /// The client's certificate chain and its key.
        identity: Option<(PathBuf, PathBuf)>,
    },
    /// The keys `ca.crt`, `tls.crt` and `tls.key` of a Secret; needs a cluster.
    Secret {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
    },
}

impl Default for TlsMaterial {
    /// The system's authorities, no client certificate.
    fn default() -> Self {
        Self::Files {
            ca: None,
            identity: None,
        }
    }
}
