//! What servers say.

use std::{collections::BTreeMap, sync::Arc};

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
    /// In all pages, those that were not asked for included.
    pub total: usize,
    /// Of this page.
    pub items: Vec<T>,
    /// Further entries of this page: such as were not asked for and the server cannot leave out, or
    /// that make no sense.
    pub others: usize,
}

/// A configuration item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigItem {
    /// Its name in the group.
    pub data_id: String,
    /// Its content.
    pub content: String,
}
