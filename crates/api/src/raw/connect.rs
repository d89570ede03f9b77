//! How the registries are reached.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// HashiCorp Consul, read through its HTTP API.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConsulSpec {
    /// Base URLs of agents or servers (`http://` or `https://`), the preferred one first; the
    /// others are for fail-over. User names and passwords in a URL are refused: use `token`.
    /// Default: http://127.0.0.1:8500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Datacenters to read. Default: the agent's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<String>,
    /// Namespace to read (Consul Enterprise).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Admin partition to read (Consul Enterprise).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// How fresh answers must be. Default: Stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Consistency")]
    pub consistency: Option<Consistency>,
    /// Where the ACL token is. It needs `service:read` and `node:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenSpec>,
    /// TLS, for `https://` addresses. Default: the system's authorities, no client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// How fresh Consul's answers must be.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Any server may answer; an answer of a server that knows no leader removes nothing.
    Stale,
    /// The leader answers.
    Default,
    /// The leader answers, after the other servers confirmed that it still leads.
    Consistent,
}

/// Service documents on disk.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FileSpec {
    /// A file or a directory of YAML service documents; it is watched. A relative path starts at
    /// the folder of the Registry document; in a cluster the path must be absolute.
    pub path: String,
}

/// Where a token or password is. Read again when it changes. There is no field for the secret itself.
#[derive(KubeSchema, Deserialize, Serialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.file) != has(self.secretRef)")
    .message("exactly one of file, secretRef is needed"))]
pub struct TokenSpec {
    /// A file that holds it and nothing else (white space around it is ignored).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A key of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// A key of a Secret.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Namespace of the Secret. Default: diolkos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the Secret.
    pub name: String,
    /// Key in the Secret's data.
    pub key: String,
}

/// TLS as a client: files, or a Secret. Both are read again when they change.
#[derive(KubeSchema, Deserialize, Serialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.certFile) == has(self.keyFile)")
    .message("certFile and keyFile go together"))]
#[x_kube(validation = Rule::new("!has(self.secretRef) || !(has(self.caFile) || has(self.certFile))")
    .message("either files or secretRef"))]
pub struct TlsSpec {
    /// File (PEM) of the authorities to trust. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// File (PEM) of the client's certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// File (PEM) of the key of the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Name to ask for and to find in the server's certificate. Default: the address's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A Secret with the keys `ca.crt`, `tls.crt` and `tls.key` (each may be missing), instead of
    /// files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// A Secret.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SecretRef {
    /// Namespace of the Secret. Default: diolkos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the Secret.
    pub name: String,
}
