//! Nacos: services of Spring Cloud, of Dubbo, and others.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AuthSpec, Discovery, TlsSpec, TokenSpec};

/// Nacos, versions 1 to 3.
#[derive(KubeSchema, Deserialize, Serialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.auth) && has(self.keys))")
    .message("either auth or keys"))]
pub struct NacosSpec {
    /// Base URLs of the servers of one cluster (`http://` or `https://`); the next one is taken
    /// when one fails. Without a path, `/nacos` is meant. User names and passwords in a URL are
    /// refused: use `auth` or `keys`. Default: http://127.0.0.1:8848/nacos.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Ids of the namespaces to read; `public` is the one without an id. Default: public.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Groups to read; `["*"]` is all. Default: DEFAULT_GROUP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Clusters whose instances are read. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
    /// How services are followed. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NacosTransport")]
    pub transport: Option<NacosTransport>,
    /// What is added to the port of an address to come to its gRPC port. Default: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_port_offset: Option<u16>,
    /// Which services are read. Default: All; with `export.preset: aeraki`, Dubbo; with
    /// `export.preset: nacos`, Other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NacosServices")]
    pub services: Option<NacosServices>,
    /// Which of Dubbo's two ways to register are read. Default: Both; with `export.preset: aeraki`, Interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Discovery")]
    pub discovery: Option<Discovery>,
    /// A user, who logs in. It needs the right to read the namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// An access key, with which requests are signed, instead of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeysSpec>,
    /// TLS, for `https://` addresses, and for gRPC to the same servers. Default: the system's
    /// authorities, no client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// So long after a connection was lost and is there again nothing counts as gone: what was
    /// registered with a server that was restarted comes back client by client. Up to 1h.
    /// Default: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub settle_time: Option<String>,
}

/// How services of Nacos are followed.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NacosTransport {
    /// By gRPC where the server has it (Nacos 2 and later), else by HTTP.
    #[default]
    Auto,
    /// Pushes over gRPC.
    Grpc,
    /// Polling over HTTP.
    Http,
}

/// Which services of Nacos are read.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NacosServices {
    /// All.
    #[default]
    All,
    /// Those of Dubbo.
    Dubbo,
    /// All but those of Dubbo.
    Other,
}

/// An access key, and where its secret key is.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeysSpec {
    /// The access key.
    pub access_key: String,
    /// Where the secret key is.
    pub secret_key: TokenSpec,
}
