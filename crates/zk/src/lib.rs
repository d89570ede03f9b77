//! A ZooKeeper client for reading and watching, with one value for the session and one for each
//! connection, so that whoever uses it decides when to connect again.
//!
//! It never writes.

#![forbid(unsafe_code)]

use std::time::Duration;

use bytes::Bytes;
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
    /// How long a connection to one server may take, session and authentication included.
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

/// Why something failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The connection is broken or cannot be made; a new one may work.
    #[error("{0}")]
    Connection(String),
    /// The server refuses the credentials.
    #[error("authentication failed: {0}")]
    AuthFailed(String),
    /// A file of the configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The node does not exist.
    #[error("{path}: no such node")]
    NoNode {
        /// Its path, without the chroot.
        path: String,
    },
    /// The node's ACL does not let us read it.
    #[error("{path}: the node's ACL does not let this client read it")]
    NoAuth {
        /// Its path, without the chroot.
        path: String,
    },
    /// The answer is larger than [`Config::frame_limit`], or than the server is willing to send.
    #[error(
        "{path}: the answer of {bytes} bytes is larger than the limit of {limit} bytes (jute.maxbuffer)"
    )]
    TooLarge {
        /// Its path, without the chroot.
        path: String,
        /// The answer's size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The server does not know the request (`addWatch` before ZooKeeper 3.6).
    #[error("the server does not support {0}")]
    Unsupported(&'static str),
    /// Another error code of the server.
    #[error("{path}: error {code} of the server")]
    Server {
        /// The path of the request, without the chroot.
        path: String,
        /// The code, negative.
        code: i32,
    },
    /// An answer that makes no sense. The connection is of no more use.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

/// The children of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Their names, sorted.
    pub names: Vec<String>,
}

/// A session: what outlives a connection. It remembers its id, the last transaction seen and the
/// watches that were set.
#[derive(Debug, Default)]
pub struct Session {}

/// What changed, since the last time somebody asked: each path once, however often it changed, so
/// its size is bounded by the number of nodes.
#[derive(Debug)]
pub struct Events {}

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

/// A connection. Cheap to clone; requests are pipelined. It ends when all clones are dropped.
#[derive(Clone, Debug)]
pub struct Connection {}

/// A connection that was made.
#[derive(Debug)]
pub struct Connected {
    /// For requests.
    pub connection: Connection,
    /// For what the watches say.
    pub events: Events,
    /// Whether the session is the one from before. If not, it has no watches.
    pub resumed: bool,
    /// The server, `host:port`.
    pub server: String,
}

/// How a watch sees things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchMode {
    /// The node and its list of children.
    Persistent,
    /// The node and everything below it.
    PersistentRecursive,
}

/// Connects: goes on with the session if the ensemble still has it, else begins a new one.
///
/// The watches of a session that goes on are set again before this returns.
///
/// # Errors
/// If no server takes us; the error names each with its reason.
pub async fn connect(_config: &Config, _session: &mut Session) -> Result<Connected, Error> {
    todo!()
}

impl Connection {
    /// The children of a node. With `watch`, a one-shot watch tells of the next change.
    ///
    /// # Errors
    /// [`Error`]; [`Error::NoNode`], [`Error::NoAuth`] and [`Error::TooLarge`] concern this node only.
    pub async fn children(&self, _path: &str, _watch: bool) -> Result<Children, Error> {
        todo!()
    }

    /// The data of a node. With `watch`, a one-shot watch tells of the next change.
    ///
    /// # Errors
    /// As [`children`](Self::children).
    pub async fn data(&self, _path: &str, _watch: bool) -> Result<Bytes, Error> {
        todo!()
    }

    /// Whether a node exists. With `watch`, a one-shot watch tells when it comes, goes or changes.
    ///
    /// # Errors
    /// As [`children`](Self::children).
    pub async fn exists(&self, _path: &str, _watch: bool) -> Result<bool, Error> {
        todo!()
    }

    /// Waits until the server has all that the leader had when it was asked.
    ///
    /// # Errors
    /// As [`children`](Self::children).
    pub async fn sync(&self, _path: &str) -> Result<(), Error> {
        todo!()
    }

    /// Sets a watch that stays.
    ///
    /// # Errors
    /// [`Error::Unsupported`] of servers before 3.6.
    pub async fn add_watch(&self, _path: &str, _mode: WatchMode) -> Result<(), Error> {
        todo!()
    }

    /// Waits until the connection is broken, and says why.
    pub async fn closed(&self) -> Error {
        todo!()
    }

    /// How many requests were sent.
    #[must_use]
    pub fn requests(&self) -> u64 {
        todo!()
    }
}

impl Events {
    /// Waits for changes and takes all that are there. Empty when the connection is broken.
    pub async fn next(&mut self) -> Vec<Changed> {
        todo!()
    }
}
