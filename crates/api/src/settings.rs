//! The checked form of the documents: defaults filled in, every value of its own type.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use diolkos_plan::Policy;

pub use crate::raw::{Consistency, Discovery, NacosServices, NacosTransport, Variants};
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
    /// etcd, as Dubbo uses it.
    Etcd(Box<EtcdSettings>),
    /// Eureka.
    Eureka(Box<EurekaSettings>),
    /// Service documents on disk.
    File(FileSettings),
    /// Nacos.
    Nacos(Box<NacosSettings>),
    /// ZooKeeper, as Dubbo uses it.
    ZooKeeper(Box<ZooKeeperSettings>),
}

impl SourceSettings {
    /// The kind of registry, as documents name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Consul(_) => "consul",
            Self::Etcd(_) => "etcd",
            Self::Eureka(_) => "eureka",
            Self::File(_) => "file",
            Self::Nacos(_) => "nacos",
            Self::ZooKeeper(_) => "zookeeper",
        }
    }

    /// Whether a credential or a certificate is in a Secret, so that a cluster is needed.
    #[must_use]
    pub fn needs_cluster(&self) -> bool {
        let (credential, tls) = match self {
            Self::Consul(consul) => (consul.token.as_ref(), Some(&consul.tls)),
            Self::Etcd(etcd) => (password(etcd.auth.as_ref()), Some(&etcd.tls)),
            Self::Eureka(eureka) => (password(eureka.auth.as_ref()), Some(&eureka.tls)),
            Self::File(_) => (None, None),
            Self::Nacos(nacos) => (nacos.auth.as_ref().map(NacosAuth::secret), Some(&nacos.tls)),
            Self::ZooKeeper(zk) => (password(zk.auth.as_ref()), zk.tls.as_ref()),
        };
        matches!(credential, Some(Credential::Secret { .. }))
            || tls.is_some_and(|tls| matches!(tls.material, TlsMaterial::Secret { .. }))
    }
}

fn password(login: Option<&Login>) -> Option<&Credential> {
    login.map(|login| &login.password)
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

/// How an etcd is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSettings {
    /// Base URLs, without a `/` at the end, the preferred one first. At least one.
    pub addresses: Vec<String>,
    /// Where interfaces are registered. Begins with `/` and does not end with it.
    pub prefix: String,
    /// Where applications are registered. Begins with `/` and does not end with it.
    pub applications: String,
    /// A user of etcd.
    pub auth: Option<Login>,
    /// For `https` addresses.
    pub tls: TlsSettings,
    /// How services are made.
    pub dubbo: DubboSettings,
}

/// How a Eureka is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EurekaSettings {
    /// Base URLs with the context path, without a `/` at the end, the preferred one first. At least
    /// one.
    pub addresses: Vec<String>,
    /// The region of the instances; empty if it is not known.
    pub region: Arc<str>,
    /// Statuses in which an instance gets traffic, in upper case. At least one.
    pub statuses: BTreeSet<String>,
    /// Basic authentication.
    pub auth: Option<Login>,
    /// For `https` addresses.
    pub tls: TlsSettings,
    /// How often changes are asked for.
    pub poll_interval: Duration,
    /// So long after a peer was lost nothing counts as gone.
    pub settle_time: Duration,
}

/// How a Nacos is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NacosSettings {
    /// Base URLs with the context path, without a `/` at the end, the preferred one first. At least
    /// one.
    pub addresses: Vec<String>,
    /// Ids of namespaces; `public` is the one without an id. At least one.
    pub namespaces: Vec<String>,
    /// Groups; `None` is all.
    pub groups: Option<Vec<String>>,
    /// Clusters whose instances are read; empty is all.
    pub clusters: Vec<String>,
    /// How services are followed.
    pub transport: NacosTransport,
    /// What is added to the port of an address to come to its gRPC port.
    pub grpc_port_offset: u16,
    /// Which services are read.
    pub services: NacosServices,
    /// How servers know us.
    pub auth: Option<NacosAuth>,
    /// For `https` addresses, and for gRPC to the same servers.
    pub tls: TlsSettings,
    /// So long after a connection that was lost nothing counts as gone.
    pub settle_time: Duration,
    /// How services of Dubbo are made.
    pub dubbo: DubboSettings,
}

/// How a Nacos knows us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NacosAuth {
    /// A user, who logs in.
    Login(Login),
    /// Requests are signed.
    Keys {
        /// The access key.
        access_key: String,
        /// Where the secret key is.
        secret_key: Credential,
    },
}

impl NacosAuth {
    fn secret(&self) -> &Credential {
        match self {
            Self::Login(login) => &login.password,
            Self::Keys { secret_key, .. } => secret_key,
        }
    }
}

/// How a ZooKeeper is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperSettings {
    /// Servers, `host:port`, the preferred one first. At least one.
    pub addresses: Vec<String>,
    /// All paths are below this one: empty, or begins with `/` and does not end with it.
    pub chroot: String,
    /// Where interfaces are registered. Begins with `/` and does not end with it.
    pub root: String,
    /// Where applications are registered. Begins with `/` and does not end with it.
    pub applications: String,
    /// Digest credentials.
    pub auth: Option<Login>,
    /// If the servers' ports are secure ones.
    pub tls: Option<TlsSettings>,
    /// The session's life without contact, as asked for.
    pub session_timeout: Duration,
    /// The largest answer that is accepted, in bytes.
    pub frame_limit: usize,
    /// How services are made.
    pub dubbo: DubboSettings,
}

/// How Dubbo's records become services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DubboSettings {
    /// Which of Dubbo's two ways to register are read.
    pub discovery: Discovery,
    /// What groups and versions of an interface become.
    pub variants: Variants,
    /// The protocol of ports of Dubbo's own protocol: what stands behind `tcp-` in the port's name,
    /// or `tcp`.
    pub protocol: Arc<str>,
    /// Names and labels as dubbo2istio writes them.
    pub aeraki: bool,
}

/// A user name, and where the password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub username: String,
    /// Where the password is.
    pub password: Credential,
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
