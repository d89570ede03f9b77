//! The health of a source: a level, of which only the newest value counts.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::{sync::watch, time::Instant};

use crate::Epoch;

/// Where a source is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// No connection yet.
    #[default]
    Connecting,
    /// Connected; the first snapshot of this connection is under way.
    Syncing,
    /// Synchronised and following.
    Live,
    /// The connection is lost; the last state stands.
    Unreachable,
    /// The registry refuses us; the last state stands.
    Denied,
    /// The configuration cannot work.
    Misconfigured,
}

impl Phase {
    /// The name, as in status conditions and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::Syncing => "Syncing",
            Self::Live => "Live",
            Self::Unreachable => "Unreachable",
            Self::Denied => "Denied",
            Self::Misconfigured => "Misconfigured",
        }
    }

    /// Whether there is a working connection.
    #[must_use]
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Syncing | Self::Live)
    }
}

/// The health of a source. Times are for people and metrics; no decision rests on the wall clock.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Where it is in its life.
    pub phase: Phase,
    /// The connection's number.
    pub epoch: Epoch,
    /// The last answer of the registry.
    pub last_contact: Option<SystemTime>,
    /// One line on what is going on or went wrong.
    pub detail: Arc<str>,
    /// Connections to the registry that are in use now: requests under way, waiting ones among them.
    pub connections: usize,
    /// Requests sent to the registry since the start.
    pub requests: u64,
}

/// Where a source reports its health.
#[derive(Clone, Debug)]
pub struct HealthReporter(Arc<Reporter>);

#[derive(Debug)]
struct Reporter {
    health: watch::Sender<Health>,
    /// Since when the connection is live, for the supervisor. On a clock that never jumps.
    live_since: Mutex<Option<Instant>>,
}

impl HealthReporter {
    /// A reporter and the receiver of what it reports.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Health>) {
        let (health, receiver) = watch::channel(Health::default());
        let reporter = Reporter {
            health,
            live_since: Mutex::default(),
        };
        (Self(Arc::new(reporter)), receiver)
    }

    /// The registry answered: the connection works.
    pub fn contact(&self) {
        self.0
            .health
            .send_modify(|health| health.last_contact = Some(SystemTime::now()));
    }

    /// Connected, first snapshot under way. To be called when the registry has answered, not when it
    /// is asked: an outage would else look like a contact with each attempt. Once live, a further
    /// snapshot is a contact like any other.
    pub fn syncing(&self, detail: impl Into<Arc<str>>) {
        if self.0.health.borrow().phase == Phase::Live {
            self.contact();
        } else {
            self.phase(Phase::Syncing, detail.into(), true);
        }
    }

    /// Synchronised and following.
    pub fn live(&self, detail: impl Into<Arc<str>>) {
        self.phase(Phase::Live, detail.into(), true);
    }

    /// Counts for people: open connections and requests so far.
    pub fn traffic(&self, connections: usize, requests: u64) {
        self.0.health.send_modify(|health| {
            health.connections = connections;
            health.requests = requests;
        });
    }

    pub(crate) fn begin(&self, epoch: Epoch) {
        *self.live_since() = None;
        self.0.health.send_modify(|health| health.epoch = epoch);
    }

    pub(crate) fn lost(&self, phase: Phase, detail: impl Into<Arc<str>>) {
        self.phase(phase, detail.into(), false);
    }

    /// Since when the connection has been live without a break; `None` while it is not.
    pub(crate) fn live_since(&self) -> MutexGuard<'_, Option<Instant>> {
        let since = self.0.live_since.lock();
        since.unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self, phase: Phase, detail: Arc<str>, contact: bool) {
        if phase == Phase::Live {
            self.live_since().get_or_insert_with(Instant::now);
        } else {
            *self.live_since() = None;
        }
        self.0.health.send_modify(|health| {
            health.phase = phase;
            health.detail = detail;
            if contact {
                health.last_contact = Some(SystemTime::now());
            }
        });
    }
}
