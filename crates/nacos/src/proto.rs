//! The messages of Nacos' gRPC API: an envelope around JSON.
//!
//! Numbers are those of `nacos_grpc_service.proto`, the same since Nacos 2.0.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use serde_json::Value;

pub(crate) const REQUEST: &str = "/Request/request";
pub(crate) const STREAM: &str = "/BiRequestStream/requestBiStream";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Payload {
    #[prost(message, optional, tag = "2")]
    pub(crate) metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    pub(crate) body: Option<Body>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metadata {
    /// The name of the Java class of the body, without its package.
    #[prost(string, tag = "3")]
    pub(crate) kind: String,
    #[prost(map = "string, string", tag = "7")]
    pub(crate) headers: HashMap<String, String>,
    #[prost(string, tag = "8")]
    pub(crate) client_ip: String,
}

/// A `google.protobuf.Any` without its type, which is never set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Body {
    /// JSON.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

impl Payload {
    pub(crate) fn new(kind: &str, body: &Value) -> Self {
        Self {
            metadata: Some(Metadata {
                kind: kind.to_owned(),
                ..Metadata::default()
            }),
            body: Some(Body {
                value: body.to_string().into(),
            }),
        }
    }

    pub(crate) fn kind(&self) -> &str {
        self.metadata.as_ref().map_or("", |m| &m.kind)
    }

    pub(crate) fn json(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], |body| &body.value)
    }
}
