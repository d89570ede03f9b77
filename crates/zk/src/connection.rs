//! What users have of a connection.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::{
    Changed, Children, Error, WatchMode,
    driver::Request,
    messages::{Answer, Ask},
    path::Chroot,
    session::{State, lock},
};

/// A connection. Cheap to clone; requests are pipelined, up to 256 at once. It ends when all clones and its
/// [`Events`] are dropped, and when the session is connected again.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::Sender<Request>,
}

/// What the clones of a connection share.
pub(crate) struct Shared {
    pub(crate) server: Arc<str>,
    pub(crate) chroot: Chroot,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) sent: AtomicU64,
    pub(crate) contact: watch::Receiver<Instant>,
    pub(crate) closed: watch::Receiver<Option<Error>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("server", &self.server)
            .field("closed", &*self.closed.borrow())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn ended(&self) -> Error {
        self.closed.borrow().clone().unwrap_or_else(|| {
            Error::Connection(format!("{}: the connection has ended", self.server))
        })
    }
}

impl Connection {
    /// The children of a node. With `watch`, a one-shot watch tells of the next change.
    ///
    /// # Errors
    /// [`Error`]; [`Error::NoNode`], [`Error::NoAuth`], [`Error::TooLarge`], [`Error::InvalidPath`] and
    /// [`Error::Server`] concern this node only. After others the connection is of no more use.
    pub async fn children(&self, path: &str, watch: bool) -> Result<Children, Error> {
        match self.ask(Ask::Children { watch }, path).await? {
            Answer::Children(mut names) => {
                names.sort_unstable();
                Ok(Children { names })
            }
            Answer::Data(_) | Answer::Done => Err(self.shared.ended()),
        }
    }

    /// The data of a node. With `watch`, a one-shot watch tells of the next change.
    ///
    /// # Errors
    /// As [`children`](Self::children).
    pub async fn data(&self, path: &str, watch: bool) -> Result<Bytes, Error> {
        match self.ask(Ask::Data { watch }, path).await? {
            Answer::Data(data) => Ok(data),
            Answer::Children(_) | Answer::Done => Err(self.shared.ended()),
        }
    }

    /// Whether a node exists. With `watch`, a one-shot watch tells when it comes, goes or has other data.
    ///
    /// # Errors
    /// As [`children`](Self::children).
    pub async fn exists(&self, path: &str, watch: bool) -> Result<bool, Error> {
        match self.ask(Ask::Exists { watch }, path).await {
            Ok(_) => Ok(true),
            Err(Error::NoNode { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the server has all that the leader had when it was asked.
    ///
    /// # Errors
    /// As [`children`](Self::children).
    pub async fn sync(&self, path: &str) -> Result<(), Error> {
        self.ask(Ask::Sync, path).await.map(drop)
    }

    /// Sets a watch that stays, on the session's next connections too. It tells nothing of what changes between two
    /// connections (one-shot watches do): read again after each.
    ///
    /// # Errors
    /// [`Error::Unsupported`] of servers before 3.6, which then hang up. From then on the session's connections say
    /// so without asking.
    pub async fn add_watch(&self, path: &str, mode: WatchMode) -> Result<(), Error> {
        if lock(&self.shared.state).no_add_watch {
            return Err(Error::Unsupported("addWatch"));
        }
        self.ask(Ask::AddWatch(mode), path).await.map(drop)
    }

    async fn ask(&self, ask: Ask, path: &str) -> Result<Answer, Error> {
        let path = self.shared.chroot.full(path)?;
        let (reply, answer) = oneshot::channel();
        let request = Request { ask, path, reply };
        if self.requests.send(request).await.is_err() {
            return Err(self.shared.ended());
        }
        self.shared.sent.fetch_add(1, Relaxed);
        answer.await.unwrap_or_else(|_| Err(self.shared.ended()))
    }

    /// Waits until the connection is broken, and says why.
    pub async fn closed(&self) -> Error {
        let mut closed = self.shared.closed.clone();
        // An error means that the task is gone, which says why before it goes.
        closed.wait_for(Option::is_some).await.ok();
        self.shared.ended()
    }

    /// How many requests were sent, by all clones. Pings do not count.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.sent.load(Relaxed)
    }

    /// The moment at which the server was last heard, answers to pings included: an idle connection is pinged at each
    /// third of the session's time-out, and broken after two thirds without an answer.
    #[must_use]
    pub fn contact(&self) -> watch::Receiver<Instant> {
        self.shared.contact.clone()
    }
}

/// What changed, since the last time somebody asked: each path at most once for itself and once for its
/// children, however often it changed, so its size is bounded by the number of nodes.
#[derive(Debug)]
pub struct Events {
    pub(crate) shared: Arc<Shared>,
    pub(crate) bell: Arc<Notify>,
    /// Keeps the connection alive.
    pub(crate) _requests: mpsc::Sender<Request>,
}

impl Events {
    /// Waits for changes and takes all that are there. Empty when the connection is broken.
    ///
    /// Changes that were not taken by then are told by the session's next connection, if it is resumed.
    pub async fn next(&mut self) -> Vec<Changed> {
        let mut closed = self.shared.closed.clone();
        loop {
            if closed.borrow().is_some() {
                return Vec::new();
            }
            let changes = lock(&self.shared.state).changes.take();
            if !changes.is_empty() {
                return changes;
            }
            tokio::select! {
                () = self.bell.notified() => {}
                _ = closed.wait_for(Option::is_some) => {}
            }
        }
    }
}
