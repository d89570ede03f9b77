//! The documents as they are written: names, shapes and descriptions, no judgement.
//!
//! One set of types is the CRD, the file form and the published JSON schema; the doc comments are
//! what `kubectl explain` and editors show. Nothing has a default here: what is left out stays
//! out, so that a preset can tell, and an API server persists no default of this release.
//! [`check`](crate::check) fills them in.

#![expect(
    unreachable_pub,
    reason = "a derive of kube writes public types into functions"
)]

mod connect;
mod dubbo;
mod eureka;
mod export;
mod limits;
mod nacos;
mod status;

use std::collections::BTreeMap;

pub use connect::{Consistency, ConsulSpec, FileSpec, SecretKeyRef, SecretRef, TlsSpec, TokenSpec};
pub use dubbo::{AuthSpec, Discovery, DubboSpec, EtcdSpec, Variants, ZooKeeperSpec};
pub use eureka::{EurekaSpec, EurekaStatus};
pub use export::{
    EndpointMode, ExportSpec, LabelsSpec, Location, Naming, PodLabelsSpec, PortsSpec, Preset,
    Protocol, ProtocolRuleSpec, Resolution, TlsMode,
};
use kube::{CustomResource, KubeSchema};
pub use limits::{GrantSpec, GuardSpec};
pub use nacos::{KeysSpec, NacosServices, NacosSpec, NacosTransport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use status::RegistryStatus;

/// What is to be carried over from one registry into the mesh, and how.
///
/// Exactly one of `consul`, `etcd`, `eureka`, `file`, `nacos` and `zookeeper` names the registry.
/// Everything else may be left out: all healthy instances of all services are then carried over.
#[derive(CustomResource, KubeSchema, Deserialize, Serialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "diolkos.io",
    version = "v1alpha1",
    kind = "Registry",
    plural = "registries",
    shortname = "reg",
    category = "diolkos",
    status = "RegistryStatus",
    derive = "PartialEq",
    doc = "A service registry whose services are carried over into the mesh.",
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("the name is used as a label value: at most 63 characters"),
    printcolumn = r#"{"name":"Registry","type":"string","jsonPath":".status.registry"}"#,
    printcolumn = r#"{"name":"Connected","type":"string","jsonPath":".status.conditions[?(@.type==\"Connected\")].status"}"#,
    printcolumn = r#"{"name":"Synced","type":"string","jsonPath":".status.conditions[?(@.type==\"Synced\")].status"}"#,
    printcolumn = r#"{"name":"Services","type":"integer","jsonPath":".status.services"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
// The rule and `RegistrySpec::variants` list the same fields.
#[x_kube(validation = Rule::new("[has(self.consul), has(self.etcd), has(self.eureka), has(self.file), has(self.nacos), has(self.zookeeper)].filter(given, given).size() == 1")
    .message("exactly one of consul, etcd, eureka, file, nacos, zookeeper is needed"))]
pub struct RegistrySpec {
    /// HashiCorp Consul, read through its HTTP API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consul: Option<ConsulSpec>,
    /// etcd (version 3), as Dubbo uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdSpec>,
    /// Netflix Eureka, also that of Spring Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eureka: Option<EurekaSpec>,
    /// Service documents on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSpec>,
    /// Nacos, versions 1 to 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nacos: Option<NacosSpec>,
    /// Apache ZooKeeper, as Dubbo uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zookeeper: Option<ZooKeeperSpec>,
    /// Which services and instances are carried over. Default: all that are healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<SelectSpec>,
    /// Whether services are carried over as they are found. Default: All.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Import")]
    #[x_kube(validation = Rule::new("self == 'All'")
        .message("only All works in this release"))]
    pub import: Option<Import>,
    /// How services become Istio objects.
    ///
    /// Templates put values of a service into a text: `{service}`, `{group}`, `{namespace}`,
    /// `{datacenter}`, `{registry}`, `{version}`, `{region}`, `{zone}`, `{subzone}`, `{meta.KEY}`,
    /// with the filters `lower` and `dns` (makes one DNS label): `{meta.team|lower|dns}.example`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<ExportSpec>,
    /// What this registry may claim in the mesh. What lies outside is refused and reported,
    /// service by service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantSpec>,
    /// How much may vanish from the mesh at once when the registry says that it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardSpec>,
    /// Which registry gets a host that several claim: the one with the higher priority; of equal
    /// ones the one whose name sorts first. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

impl RegistrySpec {
    /// The kinds of registry, by field name, and whether each is given.
    pub(crate) fn variants(&self) -> [(&'static str, bool); 6] {
        [
            ("consul", self.consul.is_some()),
            ("etcd", self.etcd.is_some()),
            ("eureka", self.eureka.is_some()),
            ("file", self.file.is_some()),
            ("nacos", self.nacos.is_some()),
            ("zookeeper", self.zookeeper.is_some()),
        ]
    }
}

/// Whether services are carried over as they are found.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// Every service that `select` lets through.
    All,
    /// Only services that a ServiceEntry asks for. Not in this release.
    Claimed,
}

/// Which services and instances are carried over.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SelectSpec {
    /// A service is carried over if this matches it. Default: every service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<MatcherSpec>,
    /// A service or instance that this matches is left out. Default: none; of Consul, the service
    /// `consul` itself is left out unless `include.services` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<MatcherSpec>,
    /// Leave out instances that the registry calls unhealthy. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_only: Option<bool>,
}

/// Globs (`*`, `?`, `[ab]`, `{a,b}`) on the parts of a service. It matches if every part that has
/// globs matches one of them. Upper and lower case differ.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MatcherSpec {
    /// Globs on the service's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Globs on the service's group, in registries that have groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Globs on plain tags of an instance (not `key=value`: those are metadata).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Globs on values of an instance's metadata, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Vec<String>>,
}
