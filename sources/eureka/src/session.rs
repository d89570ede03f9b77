//! One connection: everything, and then what changes.
//!
//! ```text
//! poll ──► /apps/delta ──► adds up? ──yes──► what it touches ──► events
//!   │                         └─no─┐
//!   └── now and then, no deltas ───┴──► /apps, and the delta again ──► events
//! ```
//!
//! The peer answers both requests from caches of their own, so the one may be older than the other.
//! A full answer is therefore followed by a delta: where that is newer, it adds what the full answer
//! lacks; where it is older, its records are, and are passed over.
//!
//! Requests make connections as they need them, so a peer may be restarted, or another one answer
//! behind the same address, and no request fails. The numbers of the deltas tell: they only grow.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use diolkos_model::Service;
use diolkos_source_api::{Backoff, Epoch, Event, EventSender, Evidence, SourceError};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    api::Api,
    mapping,
    registry::{Answer, Registry},
    told::Told,
};

/// How often everything is read although the deltas add up: the hash counts statuses and nothing else.
const FULL_EVERY: Duration = Duration::from_secs(300);
/// Deltas tell the changes of 3 minutes; this leaves time for the peer's cache.
const DELTAS_REACH: Duration = Duration::from_secs(140);
/// The longest time between full answers while deltas do not add up.
const MISMATCH: Duration = Duration::from_secs(60);
/// How often a full answer that does not hold what it says is read again, and after how long.
const TORN: (u32, Duration) = (2, Duration::from_millis(500));

/// One connection of the source, to one peer.
pub(crate) struct Session<'a> {
    api: Api<'a>,
    events: EventSender,
    epoch: Epoch,
    registry: Registry,
    told: Told,
    /// Why what is known may be less than there is, if it may.
    doubt: Option<Arc<str>>,
    /// Whether the last snapshot was complete.
    sure: bool,
    /// Until when the peer may not know all instances yet.
    settles: Option<Instant>,
    /// Whether the peer tells deltas.
    deltas: bool,
    /// The number of the last delta.
    version: Option<u64>,
    /// Whether it is another peer, or one that began anew, although no connection was lost.
    other: bool,
    /// Whether the last delta did not add up.
    mismatch: bool,
    /// When what led to the current state was asked for.
    current: Instant,
    /// When everything was asked for.
    full: Instant,
    /// When everything may be asked for again because a delta does not add up, and the waits.
    again: Instant,
    patience: Backoff,
}

impl<'a> Session<'a> {
    /// A connection in which nothing was asked yet. For `settle` after the first answer, nothing
    /// counts as gone.
    pub(crate) fn new(api: Api<'a>, events: EventSender, epoch: Epoch) -> Self {
        let now = Instant::now();
        let poll = api.config.poll;
        Self {
            api,
            events,
            epoch,
            registry: Registry::default(),
            told: Told::default(),
            doubt: None,
            sure: false,
            settles: None,
            deltas: true,
            version: None,
            other: false,
            mismatch: false,
            current: now,
            full: now,
            again: now,
            patience: Backoff::new(poll, poll.max(MISMATCH)),
        }
    }

    /// Reads everything for the first time and names it. Nothing counts as gone for `settle` from
    /// the peer's first answer.
    pub(crate) async fn begin(&mut self, settle: Duration) -> Result<(), SourceError> {
        let full = self.api.full().await?;
        let address = self.api.address();
        self.api.health.syncing(format!("reading {address}"));
        self.settle(settle);
        self.take(full, None).await?;
        self.snapshot().await?;
        self.report();
        Ok(())
    }

    /// Follows until the connection is of no more use.
    pub(crate) async fn follow(
        &mut self,
        resync: &mut mpsc::Receiver<()>,
    ) -> Result<(), SourceError> {
        loop {
            let next = Instant::now() + self.api.config.poll;
            tokio::select! {
                () = tokio::time::sleep_until(next) => self.poll().await?,
                Some(()) = resync.recv() => {
                    // All requests so far are served by one snapshot.
                    while resync.try_recv().is_ok() {}
                    self.read(None).await?;
                    self.snapshot().await?;
                }
                () = reached(self.settles) => {
                    self.settles = None;
                    self.read(None).await?;
                    self.snapshot().await?;
                }
            }
            self.report();
        }
    }

    async fn poll(&mut self) -> Result<(), SourceError> {
        let due = self.full.elapsed() >= FULL_EVERY || self.current.elapsed() > DELTAS_REACH;
        if due || !self.deltas {
            self.read(None).await?;
            return self.tell_all().await;
        }
        let asked = Instant::now();
        let Some(delta) = self.delta().await? else {
            self.read(None).await?;
            return self.tell_all().await;
        };
        if let Some(touched) = self.registry.follow(&delta) {
            self.adds_up(asked);
            return self.tell(touched, false).await;
        }
        self.mismatch = true;
        if asked < self.again {
            return Ok(());
        }
        self.again = asked + self.patience.next_delay();
        tracing::info!(
            peer = self.api.address(),
            hash = delta.hash,
            ours = self.registry.hash(),
            "the changes do not lead to what the peer says that it has, reading everything"
        );
        self.read(Some(delta)).await?;
        self.tell_all().await
    }

    /// The changes; `None`, also from now on, if the peer does not tell them.
    async fn delta(&mut self) -> Result<Option<Answer>, SourceError> {
        let delta = self.api.delta().await?;
        if delta.is_none() && self.deltas {
            self.deltas = false;
            let peer = self.api.address();
            tracing::info!(
                peer,
                "the peer tells no changes, reading everything each time"
            );
        }
        if let Some(version) = delta.as_ref().and_then(|delta| delta.version) {
            let last = self.version.replace(version);
            self.other |= last.is_some_and(|last| version < last);
        }
        Ok(delta)
    }

    /// Reads everything. `delta` is the last one, if it was asked for just now.
    async fn read(&mut self, delta: Option<Answer>) -> Result<(), SourceError> {
        let full = self.api.full().await?;
        self.take(full, delta).await
    }

    async fn take(&mut self, mut full: Answer, delta: Option<Answer>) -> Result<(), SourceError> {
        let mut tries = 0;
        let mut asked = Instant::now();
        while !full.is_whole() && tries < TORN.0 {
            tries += 1;
            tokio::time::sleep(TORN.1).await;
            asked = Instant::now();
            full = self.api.full().await?;
        }
        self.doubt = (!full.is_whole()).then(|| {
            let hash = full.hash.as_deref().unwrap_or_default();
            format!("the answer holds other instances than it says ({hash})").into()
        });
        self.registry.replace(full);
        (self.full, self.current) = (asked, asked);
        let delta = match delta {
            None if self.deltas => self.delta().await?,
            delta => delta,
        };
        let adds_up = delta.is_some_and(|delta| self.registry.follow(&delta).is_some());
        if adds_up {
            self.adds_up(asked);
        }
        self.api.interner.sweep();
        if std::mem::take(&mut self.other) && self.lacks_much() {
            self.settle(self.api.config.settle);
        }
        Ok(())
    }

    /// From now on nothing counts as gone for so long.
    fn settle(&mut self, time: Duration) {
        self.settles = (!time.is_zero()).then(|| Instant::now() + time);
    }

    fn lacks_much(&mut self) -> bool {
        let names = self.told.names().cloned().collect();
        let (api, registry) = (&mut self.api, &self.registry);
        let told = &self.told;
        let difference = told.compare(&names, true, |name| service(api, registry, name));
        difference.is_much()
    }

    /// What is known is what the peer says that it has.
    fn adds_up(&mut self, asked: Instant) {
        self.current = asked;
        self.doubt = None;
        self.mismatch = false;
        self.patience.reset();
    }

    fn evidence(&self) -> Evidence {
        if let Some(doubt) = &self.doubt {
            Evidence::Partial(doubt.clone())
        } else if self.settles.is_some() {
            let why = "the peer is another or began anew, and may not know all instances yet";
            Evidence::Partial(why.into())
        } else {
            Evidence::Complete
        }
    }

    /// Names everything.
    async fn snapshot(&mut self) -> Result<(), SourceError> {
        let (epoch, evidence) = (self.epoch, self.evidence());
        self.events.send(Event::SnapshotStart { epoch }).await?;
        let names: BTreeSet<Arc<str>> = self.registry.names().cloned().collect();
        for name in &names {
            if let Some(service) = service(&mut self.api, &self.registry, name) {
                self.upsert(Arc::new(service), &evidence).await?;
            }
        }
        self.sure = evidence.is_complete();
        if self.sure {
            self.told.keep(&names);
        }
        self.events
            .send(Event::SnapshotEnd { epoch, evidence })
            .await
    }

    /// Tells what is different after everything was read.
    async fn tell_all(&mut self) -> Result<(), SourceError> {
        let names = self.registry.names().chain(self.told.names());
        let names = names.cloned().collect();
        self.tell(names, true).await
    }

    /// Tells what is different in these applications. What is lost goes out as a snapshot if it is
    /// much, or if it is a full answer that lacks applications, with no word of where they went.
    async fn tell(&mut self, names: BTreeSet<Arc<str>>, full: bool) -> Result<(), SourceError> {
        let evidence = self.evidence();
        let complete = evidence.is_complete();
        let (api, registry) = (&mut self.api, &self.registry);
        let difference = self
            .told
            .compare(&names, complete, |name| service(api, registry, name));
        let weighed = difference.is_much() || full && !difference.gone.is_empty();
        // A doubt that begins or ends concerns all that was said.
        if complete && weighed || complete != self.sure {
            return self.snapshot().await;
        }
        for service in difference.changed {
            self.upsert(service, &evidence).await?;
        }
        if complete {
            for name in difference.gone {
                let key = mapping::key(self.api.config, &name);
                self.events.send(Event::Remove { key }).await?;
                self.told.forget(&name);
            }
        }
        Ok(())
    }

    async fn upsert(
        &mut self,
        service: Arc<Service>,
        evidence: &Evidence,
    ) -> Result<(), SourceError> {
        self.told.say(&service, evidence.is_complete());
        let evidence = evidence.clone();
        self.events.send(Event::Upsert { service, evidence }).await
    }

    fn report(&self) {
        let address = self.api.address();
        let how = if self.deltas {
            "following"
        } else {
            "reading all of"
        };
        let doubt = match self.evidence() {
            Evidence::Complete if self.mismatch => {
                "; the changes that it tells do not add up".to_owned()
            }
            Evidence::Complete => String::new(),
            Evidence::Partial(why) | Evidence::Stale(why) => format!("; {why}"),
        };
        self.api.health.live(format!("{how} {address}{doubt}"));
    }
}

/// The service of an application; `None` if there is none of that name, or it is not read.
fn service(api: &mut Api<'_>, registry: &Registry, name: &str) -> Option<Service> {
    if !(api.config.select)(name) {
        return None;
    }
    let application = registry.get(name)?;
    Some(api.mapper().service(name, application.values()))
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
