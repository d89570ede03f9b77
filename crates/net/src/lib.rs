//! What sources share to talk to a registry: TLS and credentials that are read again when their
//! files change, an HTTP client over several addresses, gRPC connections, a rate limit.
//!
//! Nothing here retries for long or keeps state of a registry: a caller sets a deadline on each
//! request and decides what an answer means.

#![forbid(unsafe_code)]

mod bucket;
mod grpc;
mod http;
mod tls;
mod token;

pub use bucket::TokenBucket;
pub use bytes::Bytes;
pub use grpc::{GrpcAddress, GrpcError, root_cause};
pub use http::{AddressId, Answer, HttpClient, HttpConfig, HttpError, Request};
pub use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
pub use tls::{ReloadingTls, TlsConfig, TlsError};
pub use token::{TokenError, TokenFile};
