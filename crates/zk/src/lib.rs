//! A ZooKeeper client for reading and watching, with one value for the session and one for each
//! connection, so that whoever uses it decides when to connect again.
//!
//! It never writes.
//!
//! [`connect`] makes one connection; when that is broken ([`Events::next`] gives nothing, [`Connection::closed`]
//! says why), the same [`Session`] is connected again. What users have to do:
//!
//! - After a connection that is not [`resumed`](Connected::resumed): set all watches and read all.
//! - After one that is: read again what persistent watches are for. One-shot watches tell what they missed.
//! - Set a watch before, or with, the read that it is for; read again on each change. A change that was taken and whose
//!   read failed is the user's to remember.

#![forbid(unsafe_code)]

mod changes;
mod connect;
mod connection;
mod driver;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod greeting;
mod jute;
mod messages;
mod path;
mod session;
mod splitter;
mod watches;
mod wire;

pub use connect::{Connected, connect};
pub use connection::{Connection, Events};
pub use error::Error;
pub use session::Session;

use std::time::Duration;

use diolkos_net::TlsConfig;

/// How an ensemble is reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// Servers, `host:port`; the next one is tried when one fails. At least one.
    pub servers: Vec<String>,
    /// All paths are below this one; empty is the root. Begins with `/` and does not end with it.
    pub chroot: String,
    /// The session's life without contact, as asked for; the server decides.
    pub session_timeout: Duration,
    /// How long a connection to one server may take, session and authentication included. With less than a third of
    /// the session's time-out there is time to find another server when one stops answering.
    pub connect_timeout: Duration,
    /// Digest credentials.
    pub digest: Option<Digest>,
    /// TLS, if the servers' ports are secure ones.
    pub tls: Option<TlsConfig>,
    /// The largest answer that is accepted, in bytes. A larger one fails its request only.
    pub frame_limit: usize,
}

/// Digest authentication (`addauth digest user:password`).
#[derive(Clone, Debug)]
pub struct Digest {
    /// The user's name.
    pub username: String,
    /// The file that holds the password; read anew for each connection.
    pub password_file: std::path::PathBuf,
}

/// The children of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Their names, sorted.
    pub names: Vec<String>,
}

/// A node that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Changed {
    /// Its path, without the chroot.
    pub path: String,
    /// Whether it came, went, or has other data or other children.
    pub kind: Change,
}

/// What happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It is new.
    Created,
    /// It is gone.
    Deleted,
    /// It has other data.
    Data,
    /// It has other children (one-shot and plain persistent watches only).
    Children,
}

/// How a watch sees things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchMode {
    /// The node and its list of children.
    Persistent,
    /// The node and everything below it.
    PersistentRecursive,
}
