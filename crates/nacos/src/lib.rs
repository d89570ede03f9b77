//! A Nacos client for reading and following services.

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use diolkos_net::TlsConfig;

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

/// The name of a service in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The group, usually `DEFAULT_GROUP`.
    pub group: Arc<str>,
    /// The service, without its group.
    pub service: Arc<str>,
}

/// What a server says of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceInfo {
    /// Its name.
    pub name: Name,
    /// Those that are enabled.
    pub hosts: Vec<Host>,
    /// When the server made this, by its clock, in milliseconds since 1970.
    pub last_ref_time: i64,
    /// The servers' checksum of the content; mostly empty.
    pub checksum: String,
    /// The share of healthy instances is at or below the service's protection threshold: the server
    /// says of all that they are healthy.
    pub protected: bool,
}

/// An instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// An IP address, or what was registered as one.
    pub ip: String,
    /// The port as registered.
    pub port: u32,
    /// 1.0 if nothing else was said; 0 is no traffic.
    pub weight: f64,
    /// Whether heartbeats or probes succeed.
    pub healthy: bool,
    /// Whether it may get traffic.
    pub enabled: bool,
    /// Whether it goes with its client.
    pub ephemeral: bool,
    /// The cluster, usually `DEFAULT`.
    pub cluster: String,
    /// Custom metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A page of a list, and how many entries the whole list has.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// In all pages.
    pub total: usize,
    /// Of this page.
    pub items: Vec<T>,
}

/// A configuration item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigItem {
    /// Its name in the group.
    pub data_id: String,
    /// Its content.
    pub content: String,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot work.
    #[error("{0}")]
    Config(String),
    /// The server refuses us, also with a new token.
    #[error("access denied: {0}")]
    Denied(String),
    /// No connection, or it broke, or the server sent us away.
    #[error("{0}")]
    Transport(String),
    /// The server cannot do that: it is of another version.
    #[error("{0}")]
    Unsupported(String),
    /// The server answers with an error; others may have an answer.
    #[error("{0}")]
    Refused(String),
    /// An answer that makes no sense.
    #[error("{0}")]
    Protocol(String),
}

/// How long an answer may take.
pub const DEADLINE: Duration = Duration::from_secs(5);
