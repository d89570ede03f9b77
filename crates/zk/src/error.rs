//! What can go wrong.

use std::io;

use crate::jute::Malformed;

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The connection is broken or cannot be made; a new one may work.
    #[error("{0}")]
    Connection(String),
    /// The server refuses the credentials.
    #[error("authentication failed: {0}")]
    AuthFailed(String),
    /// Something in the configuration, or a file that it names, cannot be used.
    #[error("{0}")]
    Config(String),
    /// No node can have this path. Nothing was sent.
    #[error("{path}: not a path of a node: {problem}")]
    InvalidPath {
        /// The path as it was given, at most 200 characters of it.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
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
    /// The answer is larger than [`Config::frame_limit`](crate::Config::frame_limit). It was read away, and a watch
    /// that was asked for is set. (A server limits what it takes, not what it sends.)
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
    /// The server does not know the request (`addWatch` before ZooKeeper 3.6). It hangs up after it said so: the next
    /// connection of the session knows, and says this without asking.
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

/// Why a connection to a server is of no more use; an [`Error`] but for the server's name.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is broken, or there is none.
    Broken(String),
    /// It was there, and the server ended it.
    Closed(String),
    /// It says what is not in the protocol.
    Protocol(String),
    /// It refuses us.
    Refused(String),
}

impl Fault {
    pub(crate) fn at(self, server: &str) -> Error {
        match self {
            Self::Broken(why) | Self::Closed(why) => Error::Connection(format!("{server}: {why}")),
            Self::Protocol(why) => Error::Protocol(format!("{server}: {why}")),
            Self::Refused(why) => Error::AuthFailed(format!("{server}: {why}")),
        }
    }
}

impl From<Malformed> for Fault {
    fn from(error: Malformed) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}
