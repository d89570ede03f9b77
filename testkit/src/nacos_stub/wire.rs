//! The envelope of Nacos' gRPC: a type, headers, and a body of JSON.

use std::collections::BTreeMap;

use serde_json::Value;

/// Who sends and what it is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metadata {
    /// The name of a Java class.
    #[prost(string, tag = "3")]
    pub(super) kind: String,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(super) headers: BTreeMap<String, String>,
    #[prost(string, tag = "8")]
    pub(super) client_ip: String,
}

/// Protobuf's own wrapper. Nacos leaves the URL empty.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// All that is ever sent, in both directions.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Payload {
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    pub(super) body: Option<Any>,
}

impl Payload {
    /// As a server sends it.
    pub(super) fn new(kind: &str, body: &Value) -> Self {
        Self {
            metadata: Some(Metadata {
                kind: kind.to_owned(),
                headers: BTreeMap::new(),
                client_ip: "127.0.0.1".to_owned(),
            }),
            body: Some(Any {
                type_url: String::new(),
                value: body.to_string().into_bytes(),
            }),
        }
    }

    /// Type, headers and body. What is no JSON is null.
    pub(super) fn open(self) -> (String, BTreeMap<String, String>, Value) {
        let Metadata { kind, headers, .. } = self.metadata.unwrap_or_default();
        let body = self.body.unwrap_or_default();
        let body = serde_json::from_slice(&body.value).unwrap_or_default();
        (kind, headers, body)
    }
}
