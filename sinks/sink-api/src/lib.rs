//! What a sink must do, and the loop that drives it.
//!
//! ```text
//! engine ── watch<Arc<Desired>> ──► drive(): differ ─► queue ─► slots ─► Writer::apply ──► API server, files
//!                                      ▲                                    │
//!                                      └────── Sink::observe / drift ◄──────┘
//! ```
//!
//! # What a [`Sink`] guarantees
//!
//! 1. **[`Sink::observe`] tells all that is there**: our objects with the hash that they were
//!    written with, and the names that others hold (as [`State::Foreign`]). The first diff after a
//!    start is exact, so a restart with nothing changed writes nothing.
//! 2. **A result for each change**, however many are made at once. One bad object holds nobody back.
//! 3. **Foreign objects stay.** Neither [`Change::Put`] nor [`Change::Delete`] touches an object
//!    that is not ours *at the moment of the write*; the answer is [`WriteError::Foreign`].
//! 4. **Patched, never replaced by delete and create**: what others put on our objects (allocated
//!    addresses in `status`, labels, annotations) survives.
//! 5. **No retries inside.** [`WriteError::Retry`] says when to come again; the loop does.
//! 6. **Deadlines.** Every call ends in bounded time.
//! 7. **[`Sink::drift`] tells what others changed**, not the echo of our own writes. Dropping its
//!    future loses nothing.
//! 8. **[`Permit::check`] before each request** that changes something, immediately.
//!
//! The `conformance` feature holds the suite that every sink must pass against the real thing.

#![forbid(unsafe_code)]

use std::{future::Future, sync::Arc, time::Duration};

use diolkos_istio::{Object, ObjectKey};
use diolkos_model::ContentHash;
pub use diolkos_plan::{Desired, Planned, RegistryState, Remembered};

mod authority;
#[cfg(feature = "conformance")]
pub mod conformance;
mod diff;
mod drive;
mod ledger;
#[cfg(any(test, feature = "conformance"))]
mod shop;

pub use authority::{Authority, Permit, Terms};
pub use diff::Differ;
pub use drive::{Driving, OnApplied, Pace, drive};
pub use ledger::{Ledger, Record, Totals};

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its name.
    pub key: ObjectKey,
    /// Whose it is.
    pub state: State,
}

/// Whose an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Ours, written for this registry with this hash; `None` where somebody changed it since, or
    /// where it cannot be told.
    Ours {
        /// The registry that it says it belongs to.
        registry: Arc<str>,
        /// The hash that it has now.
        hash: Option<ContentHash>,
    },
    /// Somebody else's: we must not touch it.
    Foreign,
    /// Not there (any more).
    Gone,
}

/// One thing to do.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // most are puts, and they are moved, not copied
pub enum Change {
    /// Make it so.
    Put {
        /// As it should be.
        object: Object,
        /// Its hash.
        hash: ContentHash,
    },
    /// Remove it.
    Delete(ObjectKey),
}

impl Change {
    /// The object that is meant.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Put { object, .. } => &object.key,
            Self::Delete(key) => key,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It is changed.
    Updated,
    /// It is gone.
    Deleted,
    /// It was gone already: nothing was written.
    AlreadyGone,
}

impl Outcome {
    /// The name, for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::AlreadyGone => "already-gone",
        }
    }
}

/// Why a change was not made.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// An object of that name belongs to somebody else.
    #[error(
        "an object of that name exists and is not ours ({0}); rename or remove it, or export the service under another host or namespace"
    )]
    Foreign(String),
    /// The namespace does not exist.
    #[error("namespace {0} does not exist; create it or change export.namespace")]
    NamespaceMissing(Arc<str>),
    /// The object is refused as it is. It will be tried again when it changes, and now and then.
    #[error("refused: {0}")]
    Invalid(String),
    /// We may not do that. Tried again slowly.
    #[error("access denied: {0}")]
    Denied(String),
    /// It did not work this time.
    #[error("{reason}")]
    Retry {
        /// What happened.
        reason: String,
        /// How long the other side asked to be left alone: nothing at all is sent to it before.
        after: Option<Duration>,
    },
    /// Somebody else changes it whenever we have made it right. Said by the loop, not by sinks.
    #[error(
        "somebody keeps changing it ({repairs} repairs so far, the next one is delayed); find out who (`kubectl get --show-managed-fields`) and make them stop"
    )]
    Contested {
        /// How often it was made right since it was last left alone for a minute.
        repairs: u32,
    },
    /// This process may not write the objects of the registry, or not any more; another one does. No
    /// failure: the loop waits for its [`Authority`].
    #[error("another replica writes the objects of the registry {0}")]
    NotPermitted(Arc<str>),
}

impl WriteError {
    /// A short name for metrics and conditions.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Foreign(_) => "ForeignObject",
            Self::NamespaceMissing(_) => "NamespaceMissing",
            Self::Invalid(_) => "Invalid",
            Self::Denied(_) => "Denied",
            Self::Retry { .. } => "WriteFailed",
            Self::Contested { .. } => "Contested",
            Self::NotPermitted(_) => "NotPermitted",
        }
    }
}

/// The sink as a whole cannot be read.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{0}")]
pub struct SinkError(pub String);

/// Where objects go. See the [crate documentation](crate) for what it guarantees.
pub trait Sink: Send + 'static {
    /// What makes changes.
    type Writer: Writer;

    /// For logs and metrics: `kubernetes`, `directory`, …
    fn name(&self) -> &'static str;

    /// Reads all that is there.
    fn observe(&mut self) -> impl Future<Output = Result<Vec<Observed>, SinkError>> + Send;

    /// Our objects among those that [`Self::observe`] read last, with the service that each is there
    /// for. Objects that do not name their service are left out.
    fn remembered(&self) -> Vec<Remembered>;

    /// Waits for changes that others made. Never returns where that cannot be known.
    fn drift(&mut self) -> impl Future<Output = Result<Vec<Observed>, SinkError>> + Send;

    /// A handle that makes changes, while the sink listens.
    fn writer(&self) -> Self::Writer;
}

/// Makes changes to what a [`Sink`] holds.
pub trait Writer: Clone + Send + Sync + 'static {
    /// How many changes may be under way at once.
    fn parallel(&self) -> usize;

    /// Makes one change. There is never another one of the same object under way.
    fn apply(
        &self,
        change: Change,
        permit: &Permit,
    ) -> impl Future<Output = Result<Outcome, WriteError>> + Send;
}
