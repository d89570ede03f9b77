//! What outlives a connection.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    Change,
    changes::Changes,
    messages::{EventKind, Grant, Ticket},
    path::Chroot,
    watches::Watches,
};

/// A session: what outlives a connection. It remembers its id, the last transaction seen, the
/// watches that were set and the changes that nobody has asked for.
///
/// It is not closed when it is dropped: it owns nothing on the server, which forgets it when its time has passed.
pub struct Session {
    pub(crate) state: Arc<Mutex<State>>,
    /// The task of the last connection.
    pub(crate) driver: Option<JoinHandle<()>>,
    /// When the last connection's server was heard.
    pub(crate) contact: Option<watch::Receiver<Instant>>,
    /// Which server is tried first. The first time it is any, so that replicas spread over the ensemble.
    pub(crate) turn: usize,
}

/// What the connection changes.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) ticket: Ticket,
    /// The session's life without contact, as the server granted it.
    pub(crate) timeout: Duration,
    /// Whether the user of this crate has had a connection of this session.
    pub(crate) known: bool,
    pub(crate) watches: Watches,
    pub(crate) changes: Changes,
    /// A server said that it does not know `addWatch`.
    pub(crate) no_add_watch: bool,
}

impl State {
    /// Takes what the server grants. If it is another session, nothing of the former is left.
    pub(crate) fn granted(&mut self, grant: Grant) {
        if grant.id != self.ticket.id {
            *self = Self::default();
        }
        self.ticket.id = grant.id;
        self.ticket.password = grant.password;
        self.timeout = grant.timeout;
    }

    /// Notes the transaction of a reply. Changes up to it have been told before it.
    pub(crate) fn saw(&mut self, zxid: i64) {
        self.ticket.zxid = self.ticket.zxid.max(zxid);
    }

    /// Notes an event. Returns whether it is news for the user.
    pub(crate) fn notice(&mut self, chroot: &Chroot, kind: EventKind, path: &str) -> bool {
        self.watches.fired(kind, path);
        let Some(path) = chroot.strip(path) else {
            tracing::debug!(path, "an event of a node that is not below the chroot");
            return false;
        };
        self.changes.add(
            path,
            match kind {
                EventKind::Created => Change::Created,
                EventKind::Deleted => Change::Deleted,
                EventKind::Data => Change::Data,
                EventKind::Children => Change::Children,
            },
        );
        true
    }
}

impl Session {
    /// The session's number, as the server logs it in hexadecimal digits. Nothing before the first connection and
    /// after an expiry.
    #[must_use]
    pub fn id(&self) -> Option<i64> {
        match lock(&self.state).ticket.id {
            0 => None,
            id => Some(id),
        }
    }

    /// Ends what is left of the last connection: from here on nobody else changes the state.
    pub(crate) async fn disconnect(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
            if let Err(error) = driver.await
                && error.is_panic()
            {
                tracing::error!(%error, "the task of a zookeeper connection panicked");
            }
        }
    }

    /// Whether no server was heard for so long that the ensemble must have expired the session, if it is up.
    pub(crate) fn overdue(&self) -> bool {
        let heard = self.contact.as_ref().map(|contact| *contact.borrow());
        heard.is_some_and(|heard| heard.elapsed() > 2 * lock(&self.state).timeout)
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            driver: None,
            contact: None,
            turn: usize::from(rand::random::<u16>()),
        }
    }
}

/// Without the password, which is as good as credentials.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Session")
            .field("id", &format_args!("{:#x}", state.ticket.id))
            .field("zxid", &format_args!("{:#x}", state.ticket.zxid))
            .field("watches", &state.watches.len())
            .finish_non_exhaustive()
    }
}

/// Locks, also after a panic of another holder: the state is whole between any two lines that change it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
