//! A Nacos client for reading and following services.
//!
//! [`Client::connect`] makes a connection to one server by gRPC (Nacos 2 and later): services are
//! subscribed on it, and [`Pushes`] says what changes. [`Client::http`] is the HTTP API, all that
//! Nacos 1 has. Nothing here retries or goes to another server: a caller decides what an
//! [`Error`] means.

#![forbid(unsafe_code)]

mod auth;
mod client;
mod connection;
mod error;
mod http;
mod json;
mod model;
mod proto;
mod push;
mod pushes;

use std::{fmt, path::PathBuf, time::Duration};

pub use client::Client;
pub use connection::Connection;
use diolkos_net::TlsConfig;
pub use error::Error;
pub use http::Http;
pub use model::{ConfigItem, Host, Name, Page, ServiceInfo};
pub use push::Push;
pub use pushes::Pushes;

/// How long an answer may take. A login before it may take 15 s more.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// An answer may be as large as this, in bytes.
const ANSWER_LIMIT: usize = 16 << 20;

/// Counts what is asked, and says that there was an answer.
pub trait Meter: Send + Sync + fmt::Debug + 'static {
    /// A request is sent.
    fn asked(&self);
    /// A server granted a request, or sent something on its own.
    fn answered(&self);
}

/// How the servers are reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// Base URLs with the context path, without a `/` at the end (`http://10.0.0.1:8848/nacos`).
    /// At least one.
    pub addresses: Vec<String>,
    /// What is added to the port of an address to come to its gRPC port: usually 1000.
    pub grpc_offset: u16,
    /// How servers know us.
    pub auth: Option<Auth>,
    /// For `https` addresses, and for gRPC to the same servers.
    pub tls: TlsConfig,
}

/// How servers know us. Files are read again for each login or signature.
#[derive(Clone, Debug)]
pub enum Auth {
    /// A user, who logs in for a token.
    Password {
        /// The name.
        username: String,
        /// The file that holds the password.
        password_file: PathBuf,
    },
    /// An access key, with which requests are signed.
    Keys {
        /// The access key.
        access_key: String,
        /// The file that holds the secret key.
        secret_key_file: PathBuf,
    },
}

/// Decodes any bytes in all the ways that bytes of servers are decoded. For fuzzing: it never
/// panics.
pub fn decode_for_fuzz(data: &[u8]) {
    push::decode_for_fuzz(data);
    json::decode_for_fuzz(data);
}
