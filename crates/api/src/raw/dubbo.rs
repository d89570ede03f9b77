//! The registries that Dubbo writes into, and how its services become objects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TlsSpec, TokenSpec};

/// Apache ZooKeeper, as Dubbo uses it.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ZooKeeperSpec {
    /// The servers of one ensemble, `host:port` (IPv6 as `[fd00::1]:2181`); the next one is taken
    /// when one fails. Default: 127.0.0.1:2181.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The node that all paths are below, such as `/shop`. Default: the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chroot: Option<String>,
    /// Where interfaces are registered: Dubbo's registry group. Default: /dubbo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Where applications are registered. Default: /services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applications: Option<String>,
    /// Which of Dubbo's two ways to register are read. Default: Both; with `export.preset: aeraki`, Interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Discovery")]
    pub discovery: Option<Discovery>,
    /// Digest authentication (`addauth digest`). It needs the right to read below `root` and
    /// `applications`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// Talk TLS: the addresses are those of secure ports. `tls: {}` trusts the system's authorities
    /// and shows no client certificate. Default: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// How long the ensemble keeps the session without hearing from it, 2s to 10m; the server may
    /// choose another time. Default: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub session_timeout: Option<String>,
    /// The largest answer that is accepted, 64Ki to 1Gi: bytes, or a number with Ki, Mi or Gi.
    /// A larger list of nodes costs its own service only. Default: 16Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(Ki|Mi|Gi)?$"))]
    pub frame_limit: Option<String>,
}

/// etcd (version 3), as Dubbo uses it.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EtcdSpec {
    /// Base URLs of the members of one cluster (`http://` or `https://`); the next one is taken
    /// when one fails. User names and passwords in a URL are refused: use `auth`.
    /// Default: http://127.0.0.1:2379.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Where interfaces are registered: Dubbo's registry group. Default: /dubbo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Where applications are registered. Default: /services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applications: Option<String>,
    /// Which of Dubbo's two ways to register are read. Default: Both; with `export.preset: aeraki`, Interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Discovery")]
    pub discovery: Option<Discovery>,
    /// A user of etcd. It needs a role that may read below `prefix` and `applications`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// TLS, for `https://` addresses. Default: the system's authorities, no client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// A user name, and where the password is.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthSpec {
    /// The user's name.
    pub username: String,
    /// Where the password is.
    pub password: TokenSpec,
}

/// Which of Dubbo's two ways to register are read.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// Interfaces: `/dubbo/INTERFACE/providers`, of Nacos `providers:INTERFACE:…`. One host an
    /// interface.
    Interface,
    /// Applications: `/services/APPLICATION`, of Nacos services with that name, with their metadata.
    Application,
    /// Both. An instance that is registered in both ways counts once.
    #[default]
    Both,
}

/// How Dubbo's services become objects.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DubboSpec {
    /// Host of Dubbo's services, a template, in a registry that has others too: for Nacos only (else it is
    /// `export.host`). Default: `{meta.dubboHost}`, which is the interface in lower case, or
    /// `APPLICATION.dubbo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What groups and versions of an interface become. Default: labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Variants")]
    pub variants: Option<Variants>,
    /// Name of the ports of Dubbo's own protocol: `tcp`, or `tcp-` and a name. Where a service has
    /// several ports, the number is put behind it. Default: tcp-dubbo.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^tcp(-[a-z0-9]([a-z0-9-]*[a-z0-9])?)?$"))]
    pub port_name: Option<String>,
}

/// What groups and versions of an interface become.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Variants {
    /// Labels `group` and `version` of the endpoints of one host: what subsets select on.
    #[default]
    Labels,
    /// Hosts of their own: `INTERFACE-GROUP-VERSION`.
    Hosts,
}
