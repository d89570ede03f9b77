//! One connection: the full read, and then following the changes.
//!
//! ```text
//! lists ──► what they name ──► metadata that is wanted ──► catalogue ──► snapshot
//! watches ──► places that changed ──► read again ────────► catalogue ──► changed services
//! ```
//!
//! An event only names a place, which is then read as it is now, so that it matters neither how
//! often it changed nor in which order the events came. While reads are under way events gather
//! and are merged, so a list that changes all the time costs one read after the other and no more.

use std::{collections::HashSet, time::Duration};

use diolkos_model::{Service, ServiceKey};
use diolkos_source_api::{Epoch, Event, EventSender, HealthReporter, SourceError};
use diolkos_source_dubbo::Change;
use diolkos_zk::{Connection, Error, Events, WatchMode};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use crate::{
    layout::{Layout, Target},
    read::{Reader, fatal, trouble},
    state::State,
};

/// Reads under way at the same time.
const READS: usize = 256;
/// The time between two full reads when nothing asks for one. Watches tell of everything but what
/// the client may not read, and the server has had faults.
const REPAIR: Duration = Duration::from_secs(600);

/// Sets the watches, so that nothing that happens from now on is missed. Returns whether the server
/// knows watches that stay.
///
/// # Errors
/// When the connection is of no use.
pub(crate) async fn watch(connection: &Connection, layout: &Layout) -> Result<bool, SourceError> {
    for tree in layout.trees() {
        let watch = connection.add_watch(&tree, WatchMode::PersistentRecursive);
        match watch.await {
            Ok(()) => {}
            Err(Error::Unsupported(_)) => return Ok(false),
            Err(error) => return Err(fatal(&error)),
        }
    }
    Ok(true)
}

/// One connection of the source.
pub(crate) struct Session<'a> {
    reader: Reader<'a>,
    state: &'a mut State,
    out: Out<'a>,
    /// Whether something could not be read since the last snapshot began.
    doubted: bool,
}

/// Where a connection says what it found.
#[derive(Clone)]
pub(crate) struct Out<'a> {
    /// The name of the `Registry` document.
    pub(crate) registry: &'a str,
    pub(crate) events: EventSender,
    pub(crate) health: HealthReporter,
    /// Requests over earlier connections.
    pub(crate) requests: u64,
}

impl<'a> Session<'a> {
    /// A session whose watches are set, or that sets one with each read.
    pub(crate) fn new(reader: Reader<'a>, state: &'a mut State, out: Out<'a>) -> Self {
        Self {
            reader,
            state,
            out,
            doubted: false,
        }
    }

    /// Reads everything and names it.
    ///
    /// # Errors
    /// When the connection is of no more use, or the first list cannot be read.
    pub(crate) async fn snapshot(&mut self, epoch: Epoch) -> Result<(), SourceError> {
        let Reader {
            connection, layout, ..
        } = self.reader;
        // Another server may have told us more than this one knows yet.
        let synced = connection.sync(layout.root()).await;
        synced.map_err(|error| fatal(&error))?;
        self.doubted = false;
        self.out.events.send(Event::SnapshotStart { epoch }).await?;
        let mut targets = layout.lists();
        targets.extend(self.state.metadata());
        let seen = self.read(targets, true).await?;
        self.state.sweep(&seen);
        self.count();
        let evidence = self.state.evidence();
        let named = self.name_all().await?;
        if evidence.is_complete() {
            self.state.keep(&named);
        } else {
            // What a partial snapshot lacks stays, unless it says that it is gone. It says so each
            // time, since the guard may want to hear it more than once.
            for key in self.state.gone(&named) {
                self.state.untell(&key);
                self.out.events.send(Event::Remove { key }).await?;
            }
        }
        let end = Event::SnapshotEnd { epoch, evidence };
        self.out.events.send(end).await?;
        self.report();
        Ok(())
    }

    async fn name_all(&mut self) -> Result<HashSet<ServiceKey>, SourceError> {
        let mut named = HashSet::new();
        for service in self.state.catalog.snapshot() {
            if !self.reader.layout.takes(&service.key) {
                continue;
            }
            named.insert(service.key.clone());
            self.upsert(service).await?;
        }
        Ok(named)
    }

    /// Follows the changes until a new snapshot is due.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub(crate) async fn follow(&mut self, events: &mut Events) -> Result<(), SourceError> {
        let repair = Instant::now() + REPAIR;
        let mut retry = Instant::now() + self.state.retry_delay();
        loop {
            let targets = tokio::select! {
                changed = events.next() => {
                    if changed.is_empty() {
                        return Err(fatal(&self.reader.connection.closed().await));
                    }
                    let layout = self.reader.layout;
                    let concerned = changed.iter().flat_map(|changed| layout.concerned(changed));
                    concerned.filter(|target| self.state.cares_for(target)).collect()
                }
                () = sleep_until(retry), if !self.state.is_whole() => {
                    retry = Instant::now() + self.state.retry_delay();
                    self.state.troubled()
                }
                () = sleep_until(repair) => return Ok(()),
            };
            self.read(targets, false).await?;
            self.tell_changes().await?;
            if self.doubted && self.state.is_whole() {
                tracing::info!(registry = self.out.registry, "all can be read again");
                return Ok(());
            }
        }
    }

    /// Reads targets and what they lead to, many at a time and each one once. Returns all that was
    /// read.
    async fn read(
        &mut self,
        targets: Vec<Target>,
        full: bool,
    ) -> Result<HashSet<Target>, SourceError> {
        let mut seen = HashSet::new();
        let mut waiting = targets;
        let mut news = 0;
        while !waiting.is_empty() {
            news += self.read_down(&mut seen, waiting, full).await?;
            waiting = self.state.wanted();
            waiting.retain(|target| !seen.contains(target));
        }
        if news > 0 {
            tracing::warn!(
                registry = self.out.registry,
                reason = self.state.complaint(),
                "cannot read a part of the registry, the mesh keeps what it has of it"
            );
        }
        Ok(seen)
    }

    /// Reads targets and what they name. Returns how many of them cannot be read for a new reason.
    async fn read_down(
        &mut self,
        seen: &mut HashSet<Target>,
        mut waiting: Vec<Target>,
        full: bool,
    ) -> Result<usize, SourceError> {
        let (reader, state) = (&self.reader, &mut *self.state);
        let mut news = 0;
        let mut reads = FuturesUnordered::new();
        loop {
            while reads.len() < READS
                && let Some(target) = waiting.pop()
            {
                if seen.insert(target.clone()) {
                    reads.push(async move {
                        let found = reader.read(&target).await;
                        (target, found)
                    });
                }
            }
            let Some((target, found)) = reads.next().await else {
                return Ok(news);
            };
            match found {
                Ok(found) => {
                    let next = state.settle(reader.layout, &target, found, full);
                    waiting.extend(next);
                }
                Err(error) => {
                    self.doubted = true;
                    let reason = trouble(&error).filter(|_| !reader.layout.is_first(&target));
                    let reason = reason.ok_or_else(|| fatal(&error))?;
                    news += usize::from(state.fail(target, &reason));
                }
            }
        }
    }

    /// Says what is different by now.
    async fn tell_changes(&mut self) -> Result<(), SourceError> {
        self.count();
        for change in self.state.catalog.take_changes() {
            match change {
                Change::Upsert(service) if self.reader.layout.takes(&service.key) => {
                    self.upsert(service).await?;
                }
                // Where something cannot be read there may be more instances.
                Change::Remove(key) if self.state.evidence_of(&key).is_complete() => {
                    self.remove(key).await?;
                }
                Change::Upsert(_) | Change::Remove(_) => {}
            }
        }
        self.report();
        Ok(())
    }

    async fn upsert(&mut self, service: Service) -> Result<(), SourceError> {
        self.state.tell(&service);
        let evidence = self.state.evidence_of(&service.key);
        let service = service.into();
        let upsert = Event::Upsert { service, evidence };
        self.out.events.send(upsert).await
    }

    async fn remove(&mut self, key: ServiceKey) -> Result<(), SourceError> {
        if self.state.untell(&key) {
            self.out.events.send(Event::Remove { key }).await?;
        }
        Ok(())
    }

    /// Tells the requests so far, before what they found.
    fn count(&self) {
        let requests = self.out.requests + self.reader.connection.requests();
        self.out.health.traffic(1, requests);
    }

    /// Says in one line how things stand.
    fn report(&self) {
        let (services, instances) = self.state.counts();
        let complaint = self.state.complaint();
        let complaint = if complaint.is_empty() {
            complaint
        } else {
            format!("; {complaint}")
        };
        self.out.health.live(format!(
            "{services} services, {instances} instances{complaint}"
        ));
    }
}
