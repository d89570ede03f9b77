//! What a registry may claim, and how much may vanish at once.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a registry may claim in the mesh.
///
/// Some things no grant lifts: wildcard hosts, names of the cluster's own Services, link-local,
/// multicast and metadata addresses, Unix sockets.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GrantSpec {
    /// Domains whose hosts it may claim: `service.consul` is that host and everything under it.
    /// Default: any host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Namespaces that its objects may lie in. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Networks of endpoint addresses (`10.0.0.0/8`). Default: any but loopback; loopback
    /// addresses must be named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
    /// The most that `export.exportTo` may say. Default: anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Most services. Those above, in the order of their names, are refused. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_services: Option<u32>,
    /// Most endpoints of a service. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_endpoints: Option<u32>,
    /// The mesh's cluster domain. Default: cluster.local.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_domain: Option<String>,
}

/// How much may vanish from the mesh when the registry says that it is gone. What is held back
/// stays as it was last seen, and is reported.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GuardSpec {
    /// How long it is not believed that nothing is left: of the registry, or of a service that loses
    /// all of several instances at once. `0s` believes it at once. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub empty_hold: Option<String>,
    /// Most services that may vanish at once: a share (`30%`) or a number. Default: 30%.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_service_shrink: Option<IntOrString>,
    /// Most instances that may vanish at once: a share (`15%`) or a number. Default: 15%.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instance_shrink: Option<IntOrString>,
    /// Complete answers in a row that must say the same before more may vanish. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub confirm_after: Option<u32>,
    /// How long a service without instances stays, with no endpoints. Default: 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub empty_grace: Option<String>,
}
