//! How a registry's services are carried over: the checked form of `Registry.spec`.

use std::{collections::BTreeMap, sync::Arc};

use diolkos_istio::{Location, Resolution};
use diolkos_model::Service;
use globset::GlobSet;
use ipnet::IpNet;

use crate::Template;

/// Everything that decides how the services of one registry become objects.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The name of the `Registry` document.
    pub registry: Arc<str>,
    /// Of two registries that claim a host, the one with the higher priority gets it; of equal
    /// ones the one whose name sorts first.
    pub priority: i32,
    /// Which services and instances are carried over.
    pub select: Select,
    /// The namespace of the objects.
    pub namespace: Template,
    /// The host of a service.
    pub host: Template,
    /// Services of another kind in the same registry.
    pub exception: Option<Exception>,
    /// Further hosts of a service; one without a value for a service is left out.
    pub aliases: Vec<Template>,
    /// How endpoints are written.
    pub endpoints: Endpoints,
    /// Whether services count as part of the mesh.
    pub location: Location,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Namespaces that see the services; empty is the mesh's default, all.
    pub export_to: Vec<String>,
    /// Ports and protocols.
    pub ports: PortPolicy,
    /// Which tags and metadata become labels.
    pub labels: LabelPolicy,
    /// The locality of an endpoint, instead of what the registry says.
    pub locality: Option<Template>,
    /// The network that the endpoints belong to.
    pub network: Option<String>,
    /// The service account of the endpoints.
    pub service_account: ServiceAccount,
    /// The label `security.istio.io/tlsMode` of the endpoints. Never taken from registry data.
    pub tls_mode: Option<String>,
    /// Further labels of the service entries (presets set those of the peers here).
    pub object_labels: BTreeMap<String, String>,
    /// Further annotations of the service entries, by key.
    pub object_annotations: BTreeMap<String, Annotation>,
    /// What is taken from the Pods behind the addresses; `None`: nothing, and no Pods are needed.
    pub pods: Option<PodPolicy>,
    /// What the registry may claim.
    pub grant: Grant,
}

impl Policy {
    /// The usual values: every healthy instance, a `WorkloadEntry` each, all labels, nothing
    /// granted beyond what is not denied.
    #[must_use]
    pub fn new(registry: impl Into<Arc<str>>, namespace: Template, host: Template) -> Self {
        Self {
            registry: registry.into(),
            priority: 0,
            select: Select {
                include: None,
                exclude: Vec::new(),
                healthy_only: true,
            },
            namespace,
            host,
            exception: None,
            aliases: Vec::new(),
            endpoints: Endpoints::WorkloadEntry,
            location: Location::MeshInternal,
            resolution: Resolution::Static,
            export_to: Vec::new(),
            ports: PortPolicy {
                naming: PortNaming::ProtocolNumber,
                service_port: None,
                protocols: Vec::new(),
                default_protocol: "tcp".into(),
            },
            labels: LabelPolicy {
                include: None,
                exclude: GlobSet::empty(),
                rename: BTreeMap::new(),
            },
            locality: None,
            network: None,
            service_account: ServiceAccount::None,
            tls_mode: None,
            object_labels: BTreeMap::new(),
            object_annotations: BTreeMap::new(),
            pods: None,
            grant: Grant {
                cluster_domain: "cluster.local".into(),
                ..Grant::default()
            },
        }
    }

    /// The host and the ports of a service: the usual ones, or those of the exception.
    pub(crate) fn host_and_ports(&self, service: &Service) -> (&Template, &PortPolicy) {
        let applies = |exception: &&Exception| {
            let mut keys = service.meta.iter().map(|(key, _)| &**key);
            keys.any(|key| key == exception.key)
        };
        match self.exception.as_ref().filter(applies) {
            Some(Exception { host, ports, .. }) => (host, ports),
            None => (&self.host, &self.ports),
        }
    }
}

/// Services of another kind: those whose own metadata (not that of their instances) has a key. A
/// registry that holds several kinds gives each of its services the objects that it has from a
/// registry of its kind.
#[derive(Clone, Debug)]
pub struct Exception {
    /// The key.
    pub key: String,
    /// Their host.
    pub host: Template,
    /// Their ports.
    pub ports: PortPolicy,
}

/// The value of an annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotation {
    /// That of this key of the service's metadata; left out where there is none.
    Meta(String),
    /// Always the same.
    Fixed(String),
}

/// Which services and instances are carried over.
#[derive(Clone, Debug)]
pub struct Select {
    /// A service is taken if one of these matches it; `None` takes all.
    pub include: Option<Matcher>,
    /// A service or instance that one of these matches is left out.
    pub exclude: Vec<Matcher>,
    /// Leave out unhealthy instances.
    pub healthy_only: bool,
}

impl Select {
    /// Whether a service of this name can be carried over at all, so that sources need not read
    /// what the plan would leave out. Groups, tags and metadata are looked at by the plan.
    #[must_use]
    pub fn takes_name(&self, name: &str) -> bool {
        let included = self
            .include
            .as_ref()
            .and_then(|include| include.services.as_ref())
            .is_none_or(|globs| globs.is_match(name));
        let excluded = self.exclude.iter().any(|exclude| {
            exclude.groups.is_none()
                && !exclude.selects_instances()
                && exclude
                    .services
                    .as_ref()
                    .is_some_and(|globs| globs.is_match(name))
        });
        included && !excluded
    }
}

/// Globs on the parts of a service. A service matches if, for every part that has globs, one of
/// them matches; tags and metadata are those of its instances and select instances.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// On the service's name.
    pub services: Option<GlobSet>,
    /// On the group.
    pub groups: Option<GlobSet>,
    /// On plain tags of an instance.
    pub tags: Option<GlobSet>,
    /// On values of metadata, by key.
    pub metadata: BTreeMap<String, GlobSet>,
}

impl Matcher {
    /// Whether it has no globs at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_none()
            && self.groups.is_none()
            && self.tags.is_none()
            && self.metadata.is_empty()
    }

    /// Whether it looks at instances, not only at the service's name and group.
    #[must_use]
    pub fn selects_instances(&self) -> bool {
        self.tags.is_some() || !self.metadata.is_empty()
    }
}

/// How endpoints are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoints {
    /// A `WorkloadEntry` an instance.
    WorkloadEntry,
    /// In the `ServiceEntry`.
    Inline,
}

/// The service account of endpoints: the identity that clients expect them to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServiceAccount {
    /// No word on it.
    #[default]
    None,
    /// The same for all.
    Fixed(String),
    /// What an instance says of itself. Whoever registers can then pass for any identity of the
    /// namespace, so only presets do this, for the tools that did.
    FromLabel {
        /// The key of the instance's label.
        key: String,
        /// Where the instance has no such label, or an empty one.
        default: String,
    },
}

/// Ports and protocols.
#[derive(Clone, Debug)]
pub struct PortPolicy {
    /// How ports are named.
    pub naming: PortNaming,
    /// The one port that clients dial, whatever the instances registered.
    pub service_port: Option<u16>,
    /// Protocols by service and port; the first rule that matches wins, before the registry's word.
    pub protocols: Vec<ProtocolRule>,
    /// Where nothing else says: usually `tcp`.
    pub default_protocol: Arc<str>,
}

/// How ports are named. Istio takes the protocol from the part before the first `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortNaming {
    /// `http-8080`, always.
    ProtocolNumber,
    /// `http` where a service has one port, else `http-8080` (as consul2istio does).
    Protocol,
}

/// Sets the protocol of the ports that match.
#[derive(Clone, Debug)]
pub struct ProtocolRule {
    /// On the service's name; `None` is every service.
    pub services: Option<GlobSet>,
    /// The registered port number; `None` is every port.
    pub port: Option<u16>,
    /// The protocol, as Istio names it, in lower case.
    pub protocol: Arc<str>,
}

/// Which tags and metadata become labels of the endpoints.
#[derive(Clone, Debug)]
pub struct LabelPolicy {
    /// Keys that become labels; `None` is all.
    pub include: Option<GlobSet>,
    /// Keys that do not.
    pub exclude: GlobSet,
    /// Registry key to label key.
    pub rename: BTreeMap<String, String>,
}

/// What is taken from the Pod that has an instance's address. What the policy itself says (`service_account`,
/// `tls_mode`, `locality`) goes before it; it goes before what the registry says.
#[derive(Clone, Debug)]
pub struct PodPolicy {
    /// The globs of [`labels`](Self::labels), as written: two policies with the same ones take the same labels.
    pub include: Vec<String>,
    /// Keys of the labels to take.
    pub labels: GlobSet,
    /// Whether the service account is taken.
    pub service_account: bool,
    /// Whether the locality of the node is taken.
    pub locality: bool,
}

/// What a registry may claim. The built-in denials hold whatever is granted.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// Host suffixes; empty is any host that is not denied.
    pub hosts: Vec<String>,
    /// Namespaces that objects may lie in; empty is any.
    pub namespaces: Vec<String>,
    /// Networks of endpoint addresses; empty is any but loopback.
    pub cidrs: Vec<IpNet>,
    /// The mesh's cluster domain, usually `cluster.local`; hosts under `svc.` of it are denied.
    pub cluster_domain: String,
    /// Most services.
    pub max_services: Option<usize>,
    /// Most endpoints a service.
    pub max_endpoints: Option<usize>,
}
