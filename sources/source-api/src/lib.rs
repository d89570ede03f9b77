//! What a source of services must do, and the supervisor that runs it.
//!
//! ```text
//! registry ── Source::run ──► EventSender (bounded) ──► engine
//!                  │
//!                  └──► HealthReporter (a level, latest wins) ──► status, readiness, metrics
//! ```
//!
//! # What a [`Source`] guarantees
//!
//! 1. **Whole services.** An [`Event::Upsert`] holds all instances of a service. Nothing is ever
//!    said about a single instance, so a lost or repeated event does no harm.
//! 2. **Epochs.** Each `run` starts with [`Event::SnapshotStart`], names every service that the
//!    registry has, and says [`Event::SnapshotEnd`]. Only what was not named between the two may
//!    be taken as gone. Later it may do the same again at any time, in the same connection.
//! 3. **Honest evidence.** An answer that may hold less than there is (filtered by ACL, no leader,
//!    a page failed) is sent with [`Evidence::Partial`]. An *error* is not an answer: no event.
//! 4. **[`Event::Remove`] only on an explicit word** of the registry that the service is gone. Inside a
//!    partial snapshot it tells which of the services that are not named are gone for sure, those
//!    that went before included.
//! 5. **One connection.** `run` returns when the connection is of no more use. It has no retry
//!    loop of its own: [`supervise`] waits and calls again with the next epoch. State that helps
//!    to resume (indexes, sessions) may live in `self`.
//! 6. **Back-pressure.** The event channel is bounded; a full one stops the reader.
//! 7. **Health.** [`HealthReporter::live`] after every contact that proves the connection works.
//! 8. **Ends quickly** (under a second) when [`SourceCx::cancel`] fires.
//!
//! The `conformance` feature holds the suite that every source must pass against its real server, and
//! what its own tests there need.

#![forbid(unsafe_code)]

use std::{future::Future, sync::Arc};

pub use diolkos_guard::Evidence;
use diolkos_model::{Service, ServiceKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

mod backoff;
#[cfg(feature = "conformance")]
pub mod conformance;
mod health;
mod supervise;
#[cfg(feature = "conformance")]
pub mod testing;

pub use backoff::Backoff;
pub use health::{Health, HealthReporter, Phase};
pub use supervise::{Stopped, supervise};

/// Counts the connections of one source, from 1.
pub type Epoch = u64;

/// What a source says. Always about whole services.
#[derive(Clone, Debug)]
pub enum Event {
    /// All services follow.
    SnapshotStart {
        /// The number that `run` was given.
        epoch: Epoch,
    },
    /// A service as it is now, new or changed or the same.
    Upsert {
        /// With all its instances.
        service: Arc<Service>,
        /// Whether instances that it lacks are gone.
        evidence: Evidence,
    },
    /// The registry says that this service is gone.
    Remove {
        /// The service.
        key: ServiceKey,
    },
    /// What was not named since `SnapshotStart` is gone, if the evidence is complete.
    SnapshotEnd {
        /// The number that `run` was given.
        epoch: Epoch,
        /// Whether services that were not named are gone. What was said of single services counts
        /// whatever this is.
        evidence: Evidence,
    },
}

/// An event and the registry that it comes from.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The name of the `Registry` document.
    pub registry: Arc<str>,
    /// What its source said.
    pub event: Event,
}

/// Why a connection ended. Tells the supervisor how to go on.
#[derive(thiserror::Error, Debug)]
pub enum SourceError {
    /// The configuration cannot work. Reported; tried again slowly, since files and Secrets change.
    #[error("configuration: {0}")]
    Config(String),
    /// The registry refuses us (401, 403, unknown token). Tried again slowly; nothing changes in the mesh.
    #[error("access denied: {0}")]
    Denied(String),
    /// No connection, or it broke. Tried again with back-off.
    #[error("{0}")]
    Transport(String),
    /// An answer that makes no sense. Tried again with back-off.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// Diolkos is stopping: the receiver of the events is gone or `cancel` fired.
    #[error("stopped")]
    Stopped,
}

/// The way of events to the engine.
#[derive(Clone, Debug)]
pub struct EventSender {
    registry: Arc<str>,
    sender: mpsc::Sender<Envelope>,
}

impl EventSender {
    /// A sender for the registry of that name.
    #[must_use]
    pub fn new(registry: Arc<str>, sender: mpsc::Sender<Envelope>) -> Self {
        Self { registry, sender }
    }

    /// Sends, waiting for room.
    ///
    /// # Errors
    /// [`SourceError::Stopped`] when nobody listens any more.
    pub async fn send(&self, event: Event) -> Result<(), SourceError> {
        let registry = self.registry.clone();
        self.sender
            .send(Envelope { registry, event })
            .await
            .map_err(|_| SourceError::Stopped)
    }
}

/// All that a source gets from outside, and its only way out.
#[derive(Debug)]
pub struct SourceCx {
    /// Where events go.
    pub events: EventSender,
    /// Where health goes.
    pub health: HealthReporter,
    /// Somebody asks for a new snapshot (an operator, the engine). Serve it inside the connection.
    pub resync: mpsc::Receiver<()>,
    /// Fires when the source has to end.
    pub cancel: CancellationToken,
}

/// One registry. See the [crate documentation](crate) for what it guarantees.
pub trait Source: Send + 'static {
    /// One connection: synchronise, then follow. Returns when the connection is of no more use.
    fn run(
        &mut self,
        epoch: Epoch,
        cx: &mut SourceCx,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;
}
