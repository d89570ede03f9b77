//! Who writes which registry: one Lease a registry, shared out over the replicas.
//!
//! ```text
//!            ┌─ list ──────────► Election: who is alive, who should hold what (share),
//! API server │                             what to do about each Lease (decide)
//!            └◄ create, patch ──┘   │
//!                                   └─► terms: registry → until when we may write
//! ```
//!
//! The algorithm is that of client-go's leader election:
//!
//! - **Only our own clock counts, and it is monotonic.** The Lease of another has expired when we have not seen it
//!   change (its `resourceVersion`) for its duration. The times that it carries are for people.
//! - **Every write names the version that it changes.** Of two that want a free Lease one gets a 409, and looks
//!   again.
//! - **We stop before the others start.** A term ends `margin` before the duration after the *start* of the last
//!   renewal that worked; the others count from when they saw that renewal, which is later.
//!
//! This does not fence: a request that is under way when a term ends is carried out. Two writers must be harmless
//! all the same, and they are: both write the same objects.
//!
//! Beside the Leases of the registries, each replica keeps one of its own, which says that it is alive and which
//! registries it serves. From these every replica works out the same share ([`share`](self::share)): the preferred
//! holder of each registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

mod decide;
mod election;
mod name;
mod run;
mod share;
mod wire;

pub use name::replica_identity;
pub use run::{Leases, start_leases};

/// client-go's default. A holder that dies is replaced after this time.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// Registry to until when this process may write its objects. What is not in it may not be written.
pub type LeaseTerms = BTreeMap<Arc<str>, Instant>;

/// How Leases are kept.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Where the Leases are.
    pub namespace: String,
    /// Who we are: another name for each process, see [`replica_identity`].
    pub identity: Arc<str>,
    /// How long a Lease lasts without a renewal.
    pub duration: Duration,
    /// How often it is renewed.
    pub renew: Duration,
    /// How long before the end of a Lease its holder stops.
    pub margin: Duration,
    /// How often we look at the Leases.
    pub look: Duration,
}

impl LeaseSettings {
    /// The times follow from `duration`, here with the figures for 15 s:
    ///
    /// - renewed every 5 s, so that two renewals in a row may fail before the term ends at 12 s;
    /// - a margin of 3 s, so that clocks may differ in speed by a quarter;
    /// - a look every second, so that a Lease which was given back is taken within that.
    #[must_use]
    pub fn new(namespace: String, identity: Arc<str>, duration: Duration) -> Self {
        Self {
            namespace,
            identity,
            duration,
            renew: duration / 3,
            margin: duration / 5,
            look: duration / 15,
        }
    }

    /// The longest that a call may take. A list and a renewal that both fail leave the time for another try.
    fn call(&self) -> Duration {
        self.renew / 2
    }
}

/// What is known about the Leases, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// The registries that have a Lease.
    pub registries: BTreeMap<Arc<str>, Holder>,
    /// The replicas that are alive.
    pub replicas: BTreeSet<Arc<str>>,
    /// Why the Leases cannot be read or written, if so.
    pub error: Option<String>,
}

/// Who holds a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The replica; `None` if nobody does, or if the Lease has expired.
    pub identity: Option<Arc<str>>,
    /// Since when, by that replica's clock.
    pub since: Option<SystemTime>,
    /// How often the holder changed.
    pub transitions: i32,
}
