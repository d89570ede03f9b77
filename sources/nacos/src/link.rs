//! The connection for one namespace: when what is read.
//!
//! ```text
//! names ──► services (subscribed) ──► Dubbo's metadata ──► said for the first time
//!                                                               │ from now on
//!   each second the names ─────────► new services, gone ones    │
//!   pushes ────────────────────────► services                   ▼
//!   in turns each service ─────────► what a lost push told    changes
//! ```
//!
//! By HTTP there are no pushes, and every list is followed by questions for all services.

use std::{sync::Arc, time::Duration};

use diolkos_nacos::{Error, Name, Push, Pushes};
use diolkos_source_api::Backoff;
use futures::{FutureExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;

use crate::{
    Config, Groups,
    metadata::{self, Found},
    namespace::{Answer, Ask, Listing, Namespace},
    reader::Reader,
};

/// Services asked for at the same time.
const LOOKS: usize = 64;
/// Between two lists, as pushes tell of no new services.
const LIST: Pace = Pace {
    shortest: Duration::from_secs(1),
    share: 20,
    longest: Duration::from_secs(5),
};
/// So much more seldom where the server tells of new services.
const HINTED: u32 = 30;
/// Between two rounds by HTTP.
const ROUND: Pace = Pace {
    shortest: Duration::from_secs(2),
    share: 3,
    longest: Duration::from_secs(60),
};
/// How long it takes until each service had its turn.
pub(crate) const SWEEP: Duration = Duration::from_secs(60);
/// The shortest turn.
const TURN: Duration = Duration::from_millis(20);
/// When what could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Between two readings of Dubbo's metadata.
const METADATA: Pace = Pace {
    shortest: Duration::from_secs(5),
    share: 20,
    longest: Duration::from_secs(60),
};
/// How soon a namespace that cannot be read is tried again, and how late at most.
const REVIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Later than anything.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// How often something is read.
struct Pace {
    /// The shortest time between two readings.
    shortest: Duration,
    /// The time between two, in times of what one takes.
    share: u32,
    /// The longest: a server that was slow once is not left alone for long.
    longest: Duration,
}

impl Pace {
    /// How long to wait after a reading that took so long.
    fn pause(&self, took: Duration) -> Duration {
        (took * self.share).clamp(self.shortest, self.longest)
    }
}

/// What was to be done for a namespace, and came to its end.
pub(crate) enum Done {
    /// Of the connection's first and of requested readings, the list is `sure`.
    Listed {
        listing: Result<Listing, Error>,
        took: Duration,
    },
    Looked(Ask, Result<Answer, Error>),
    Left(Name, Result<(), Error>),
    Metadata {
        found: Found,
        took: Duration,
    },
    /// The namespace was lost and tried again.
    Revived(Result<Line, Error>),
}

impl Done {
    /// Whether Nacos said something.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Listed { listing, .. } => listing.is_ok(),
            Self::Looked(_, answer) => answer.is_ok(),
            Self::Left(_, ended) => ended.is_ok(),
            Self::Metadata { .. } => false,
            Self::Revived(line) => line.is_ok(),
        }
    }
}

/// Which connection something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The number of the link.
    pub(crate) link: usize,
    /// Of the connections that it had.
    connection: u32,
}

/// Work under way.
pub(crate) type Work = FuturesUnordered<BoxFuture<'static, (Tag, Done)>>;

/// A namespace that can be reached.
pub(crate) struct Line {
    pub(crate) reader: Reader,
    /// None by HTTP.
    pub(crate) pushes: Option<Pushes>,
}

/// How far a full reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Names,
    Services,
    Metadata,
    /// All is read, and followed.
    Whole,
}

/// The connection for one namespace.
pub(crate) struct Link<'a> {
    pub(crate) tag: Tag,
    pub(crate) namespace: &'a mut Namespace,
    config: &'a Config,
    /// See [`SWEEP`].
    sweep: Duration,
    /// `None`: it cannot be read.
    reader: Option<Reader>,
    /// Why.
    pub(crate) down: Option<Arc<str>>,
    /// Whether the engine was told of it over this connection.
    pub(crate) told: bool,
    stage: Stage,
    reviving: Backoff,
    listing: bool,
    /// Another list is due as soon as the one under way is there.
    relist: bool,
    /// A service went since the list under way was begun.
    overtaken: bool,
    /// When the round by HTTP began that is under way.
    round: Option<Instant>,
    reading_metadata: bool,
    list_due: Instant,
    sweep_due: Instant,
    retry_due: Instant,
    /// `None`: there is no use for it.
    metadata_due: Option<Instant>,
}

impl<'a> Link<'a> {
    /// A link that has everything to read.
    pub(crate) fn new(
        number: usize,
        namespace: &'a mut Namespace,
        config: &'a Config,
        sweep: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            tag: Tag {
                link: number,
                connection: 0,
            },
            namespace,
            config,
            sweep,
            reader: None,
            down: None,
            told: false,
            stage: Stage::Names,
            reviving: Backoff::new(REVIVE.0, REVIVE.1),
            listing: false,
            relist: false,
            overtaken: false,
            round: None,
            reading_metadata: false,
            list_due: now,
            sweep_due: now + NEVER,
            retry_due: now + RETRY,
            metadata_due: None,
        }
    }

    /// The namespace can be reached.
    pub(crate) fn up(&mut self, reader: Reader) {
        self.reader = Some(reader);
        self.down = None;
        self.namespace.begin();
        self.reread();
    }

    /// The namespace cannot be read.
    /// Returns how long to wait before it is tried again.
    pub(crate) fn lose(&mut self, error: &str) -> Duration {
        self.reader = None;
        // Nothing that belongs to the lost connection counts any more.
        self.tag.connection += 1;
        (self.listing, self.reading_metadata, self.round) = (false, false, None);
        if self.down.as_deref() != Some(error) {
            tracing::warn!(
                registry = &*self.config.registry,
                namespace = &*self.namespace.id,
                error,
                "cannot read a namespace, the mesh keeps what it has of it"
            );
        }
        self.down = Some(error.into());
        self.reviving.next_delay()
    }

    /// Begins to read everything (again).
    pub(crate) fn reread(&mut self) {
        self.stage = Stage::Names;
        self.relist = self.listing;
        self.list_due = Instant::now();
    }

    /// Whether all was read, or cannot be.
    pub(crate) fn is_settled(&self) -> bool {
        self.down.is_some() || self.stage == Stage::Whole
    }

    /// The next time at which there is something to do without anything happening.
    pub(crate) fn due(&self) -> Instant {
        if self.reader.is_none() {
            return Instant::now() + NEVER;
        }
        let mut due = self.retry_due.min(self.sweep_due);
        if !self.listing {
            due = due.min(self.list_due);
        }
        if !self.reading_metadata
            && let Some(metadata) = self.metadata_due
        {
            due = due.min(metadata);
        }
        due
    }

    /// Begins what is due.
    pub(crate) fn step(&mut self, work: &Work) {
        let Some(reader) = self.reader.clone() else {
            return;
        };
        let now = Instant::now();
        if !self.listing && now >= self.list_due {
            self.list(&reader, work);
        }
        if now >= self.sweep_due {
            self.namespace.sweep();
            self.sweep_due = now + self.turn();
        }
        if now >= self.retry_due {
            self.namespace.retry();
            self.retry_due = now + RETRY;
        }
        while self.namespace.under_way() < LOOKS
            && let Some(ask) = self.namespace.next_ask()
        {
            self.look(&reader, ask, work);
        }
        self.progress(now);
        let Namespace {
            directory,
            metadata,
            ..
        } = &mut *self.namespace;
        let first = self.metadata_due.is_none() && directory.needs_metadata();
        if metadata.want(directory) || first {
            self.metadata_due = Some(now);
        }
        if !self.reading_metadata && self.metadata_due.is_some_and(|due| now >= due) {
            self.read_metadata(&reader, work);
        }
    }

    /// The time until it is the next service's turn.
    fn turn(&self) -> Duration {
        let services = u32::try_from(self.namespace.len()).unwrap_or(u32::MAX);
        (self.sweep / services.max(1)).max(TURN)
    }

    fn list(&mut self, reader: &Reader, work: &Work) {
        self.listing = true;
        self.relist = false;
        let (tag, reader) = (self.tag, reader.clone());
        let groups: Groups = self.config.groups.clone();
        let sure = self.stage == Stage::Names;
        if reader.connection.is_none() {
            self.round = Some(Instant::now());
        }
        let list = async move {
            let started = Instant::now();
            let listing = reader.list(&groups, sure).await;
            let took = started.elapsed();
            (tag, Done::Listed { listing, took })
        };
        work.push(list.boxed());
    }

    fn look(&self, reader: &Reader, ask: Ask, work: &Work) {
        let (tag, reader) = (self.tag, reader.clone());
        let look = async move {
            let answer = reader.look(&ask).await;
            (tag, Done::Looked(ask, answer))
        };
        work.push(look.boxed());
    }

    fn read_metadata(&mut self, reader: &Reader, work: &Work) {
        self.reading_metadata = true;
        let (tag, reader) = (self.tag, reader.clone());
        let missing = self.namespace.metadata.missing();
        let read = async move {
            let started = Instant::now();
            let found = metadata::read(&reader, missing).await;
            let took = started.elapsed();
            (tag, Done::Metadata { found, took })
        };
        work.push(read.boxed());
    }

    /// Goes on to the next stage where one is through.
    fn progress(&mut self, now: Instant) {
        if self.stage == Stage::Services && self.namespace.is_idle() {
            self.stage = Stage::Whole;
            if self.namespace.directory.needs_metadata() {
                self.stage = Stage::Metadata;
                self.metadata_due = Some(now);
            }
        }
        if let Some(began) = self.round
            && !self.listing
            && self.namespace.is_idle()
        {
            self.round = None;
            self.list_due = now + ROUND.pause(began.elapsed());
        }
    }

    /// Takes over what was done.
    ///
    /// # Errors
    /// When the namespace cannot be read any more.
    pub(crate) fn done(&mut self, done: Done, work: &Work) -> Result<(), Error> {
        let Some(reader) = self.reader.clone() else {
            // It was asked before the namespace was lost.
            return Ok(());
        };
        match done {
            Done::Listed { listing, took } => {
                self.listing = false;
                let hints = reader.connection.is_some().then_some(reader.hints);
                self.listed(listing?, took, hints);
            }
            Done::Looked(ask, answer) => self.looked(&reader, &ask, answer, work)?,
            Done::Left(name, ended) => {
                if let Err(error @ (Error::Transport(_) | Error::Config(_))) = ended {
                    return Err(error);
                }
                self.namespace.left(&name);
            }
            Done::Metadata { found, took } => self.found(found, took),
            // The session's own.
            Done::Revived(_) => {}
        }
        Ok(())
    }

    /// `hints`: whether the server tells of new services; `None` by HTTP.
    fn listed(&mut self, listing: Listing, took: Duration, hints: Option<bool>) {
        let now = Instant::now();
        if self.relist {
            // What it says is older than the question.
            self.list_due = now;
            return;
        }
        let full = self.stage == Stage::Names;
        let overtaken = std::mem::take(&mut self.overtaken);
        self.namespace.listed(listing, full || hints.is_none());
        if full {
            self.stage = Stage::Services;
            self.sweep_due = match hints {
                Some(_) => now + self.turn(),
                None => now + NEVER,
            };
        }
        let pause = LIST.pause(took);
        self.list_due = match hints {
            // When the round is through.
            None => now + NEVER,
            Some(true) if !self.namespace.lacks() && !overtaken => now + pause * HINTED,
            Some(_) => now + pause,
        };
    }

    fn looked(
        &mut self,
        reader: &Reader,
        ask: &Ask,
        answer: Result<Answer, Error>,
        work: &Work,
    ) -> Result<(), Error> {
        let answer = match answer {
            Err(error @ Error::Config(_)) => return Err(error),
            Err(error @ Error::Transport(_)) if reader.connection.is_some() => return Err(error),
            Err(error @ Error::Transport(_)) => {
                // Whether it is this service or the server, a list tells.
                self.list_due = self.list_due.min(Instant::now() + LIST.shortest);
                Err(error)
            }
            answer => answer,
        };
        if let Some(gone) = self.namespace.answered(ask, answer) {
            let (tag, reader) = (self.tag, reader.clone());
            let leave = async move {
                let ended = reader.leave(&gone).await;
                (tag, Done::Left(gone, ended))
            };
            work.push(leave.boxed());
        }
        Ok(())
    }

    fn found(&mut self, found: Found, took: Duration) {
        self.reading_metadata = false;
        let Namespace {
            directory,
            metadata,
            ..
        } = &mut *self.namespace;
        let trouble = metadata.found(directory, found);
        let now = Instant::now();
        let pause = METADATA.pause(took);
        self.metadata_due = directory.needs_metadata().then_some(now + pause);
        if metadata.want(directory) {
            self.metadata_due = Some(now);
        } else if self.stage == Stage::Metadata {
            self.stage = Stage::Whole;
        }
        if trouble != self.namespace.metadata_doubt
            && let Some(reason) = &trouble
        {
            tracing::warn!(
                registry = &*self.config.registry,
                namespace = &*self.namespace.id,
                reason = &**reason,
                "the mesh keeps what it has of interfaces"
            );
        }
        self.namespace.metadata_doubt = trouble;
    }

    /// Takes over a push.
    pub(crate) fn pushed(&mut self, push: Push) {
        match push {
            Push::Service(info) => self.namespace.pushed(&info),
            Push::Added(name) => self.namespace.added(&name),
            Push::Deleted(name) => {
                self.namespace.deleted(&name);
                // Only a list that begins after this can confirm it.
                self.list_due = Instant::now();
                self.overtaken = self.listing;
            }
        }
    }
}
