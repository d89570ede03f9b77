//! How services become Istio objects.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DubboSpec;

/// How services become Istio objects.
#[derive(KubeSchema, Deserialize, Serialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExportSpec {
    /// Names, hosts and labels of a tool that is to be replaced. A field that is given wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Preset")]
    pub preset: Option<Preset>,
    /// Namespace of the objects, a template. It must exist. Default: diolkos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Host of a service, a template. Default for Consul: `{service}.service.consul`, with several
    /// datacenters `{service}.service.{datacenter}.consul`; for Eureka:
    /// `{service}.eureka`; for Nacos: `{service}.{group|dns}.{namespace|dns}.nacos`, but
    /// services of Dubbo have `dubbo.host`; for files: `{service}`; for etcd and ZooKeeper:
    /// `{meta.dubboHost}`, which is the interface in lower case, or `APPLICATION.dubbo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Further hosts of a service, templates. One without a value for a service is left out.
    /// Default: none; for Eureka: `{meta.vipAddress}.eureka`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// How endpoints are written. Default: WorkloadEntry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EndpointMode")]
    pub endpoints: Option<EndpointMode>,
    /// Whether the services count as part of the mesh. Default: MESH_INTERNAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
    /// How proxies find the endpoints of a host. Default: STATIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Resolution")]
    #[x_kube(validation = Rule::new("self == 'STATIC'")
        .message("only STATIC works in this release: endpoints come from the registry, not from DNS"))]
    pub resolution: Option<Resolution>,
    /// Namespaces that see the services: names, `.` (the namespace of the objects), `*` (all) or
    /// `~` (none). Default: `grant.exportTo`; without that, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Ports and protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortsSpec>,
    /// Which tags and metadata become labels of the endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsSpec>,
    /// What is Dubbo's own; for etcd, Nacos and ZooKeeper only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dubbo: Option<DubboSpec>,
    /// Locality of an endpoint (`region/zone/subzone`), a template. Default: what the registry
    /// says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Istio network of the endpoints. Default: that of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Service account of the endpoints. Never taken from registry data: whoever registers could
    /// pass for any identity of the mesh. (The preset of dubbo2istio does take it from there.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Whether the endpoints have a sidecar (label `security.istio.io/tlsMode`). Default: no word
    /// on it. Never taken from registry data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TlsMode")]
    pub tls_mode: Option<TlsMode>,
    /// What is taken from the Pod that has an instance's address: labels, service account and
    /// locality. What this document says itself goes before it, and it goes before what the registry
    /// says. Needs a cluster. Default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_labels: Option<PodLabelsSpec>,
}

/// A tool to be replaced.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Preset {
    /// Of Consul, Aeraki's consul2istio: namespace istio-system, inline endpoints, host
    /// `{service}.service.consul`, ports named by protocol, labels `manager: Aeraki` and
    /// `registry: consul`.
    ///
    /// Of etcd, Nacos and ZooKeeper, Aeraki's dubbo2istio: namespace and service account as providers
    /// name them (`aeraki_meta_app_namespace`, else `dubbo`; `aeraki_meta_app_service_account`,
    /// else `default`), inline endpoints, no applications, groups and versions as hosts, labels
    /// `manager: aeraki` and `registry: dubbo2istio`.
    Aeraki,
    /// Of Nacos, its own server for Istio: namespace `{namespace}`, inline endpoints, host
    /// `{service}.{group}.{namespace}.nacos`, ports named by protocol, label `registryType: nacos`
    /// and annotation `virtual: "1"`.
    Nacos,
    /// Of Consul, Eureka and Nacos, Higress: namespace `mcp`, inline endpoints, ports named by
    /// protocol, protocol `http` where nothing else is said, host `{service}.{datacenter}.consul`,
    /// `{service}.eureka` or `{service}.{group}.{namespace}.nacos`.
    Higress,
}

/// How endpoints are written.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointMode {
    /// A WorkloadEntry an instance: a change writes one small object.
    WorkloadEntry,
    /// In the ServiceEntry: fewer objects; better from 5,000 instances a namespace on.
    Inline,
}

/// Whether services count as part of the mesh.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Part of the mesh: proxies use mutual TLS where the endpoint has a sidecar.
    #[serde(rename = "MESH_INTERNAL")]
    MeshInternal,
    /// Outside: plain unless a DestinationRule says otherwise.
    #[serde(rename = "MESH_EXTERNAL")]
    MeshExternal,
}

/// How proxies find the endpoints of a host.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The endpoints' addresses, from the registry.
    Static,
    /// By DNS. Not in this release.
    Dns,
    /// By DNS, the first address. Not in this release.
    DnsRoundRobin,
    /// The address that the client dialled. Not in this release.
    None,
}

/// Ports and protocols.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PortsSpec {
    /// How ports are named. Default: ProtocolNumber; for services of Dubbo: Protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Naming")]
    pub naming: Option<Naming>,
    /// Protocols by service and port. The first rule that matches wins, and goes before what the
    /// registry says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ProtocolRuleSpec>,
    /// Protocol where neither a rule nor the registry names one. Default: tcp; for Eureka and Nacos
    /// (but for services of Dubbo): http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Protocol")]
    pub default_protocol: Option<Protocol>,
    /// The one port that clients dial, whatever ports the instances listen on. Default: every
    /// registered port, up to 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub service_port: Option<u16>,
}

/// How ports are named. Istio takes the protocol from the part before the first `-`.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `http-8080`.
    ProtocolNumber,
    /// `http` where a service has one port, else `http-8080`.
    Protocol,
}

/// Sets the protocol of the ports that match.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProtocolRuleSpec {
    /// Globs on the service's name. Default: every service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The registered port. Default: every port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Protocol,
}

/// A protocol that Istio routes by.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Protocol {
    Http,
    Http2,
    Https,
    Grpc,
    GrpcWeb,
    Tcp,
    Tls,
    Mongo,
    Mysql,
    Redis,
    Udp,
}

impl Protocol {
    /// The name, as documents write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Mongo => "mongo",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Udp => "udp",
        }
    }
}

/// Which tags and metadata become labels of the endpoints.
///
/// Labels of Istio and Kubernetes (`istio.io/`, `kubernetes.io/`, `k8s.io/` and their subdomains)
/// are never taken from registry data.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelsSpec {
    /// Globs on keys that become labels. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Globs on keys that do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Label key to use instead, by the registry's key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
}

/// What is taken from the Pod that has an instance's address.
///
/// Pods on the network of their node are left out: they share its address.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PodLabelsSpec {
    /// Globs on the keys of the Pod's labels. Default: `version`, `service.istio.io/canonical-name`,
    /// `service.istio.io/canonical-revision` and `security.istio.io/tlsMode`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Take the Pod's service account, where the endpoint has the label
    /// `security.istio.io/tlsMode: istio` and the Pod is in the namespace of the objects. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<bool>,
    /// Take the locality of the Pod's node. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<bool>,
}

/// Whether endpoints have a sidecar.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// They take Istio's mutual TLS.
    Istio,
    /// They do not.
    Disabled,
}
