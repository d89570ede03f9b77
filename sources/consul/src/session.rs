//! One connection: the snapshot, and then following the changes.
//!
//! An agent takes 200 connections from one client, so there is no waiting query for each service.
//! Two for each datacenter tell *that* something changed, and the rest is finding out *what*:
//!
//! ```text
//! wait_for_catalog ──► names, tags ───────────────┐
//!        └──► inventory: who is where, at which    ├──► queue ──► read_moved ──► events
//!             revision, against what was read ─────┤              (from the leader)
//! wait_for_checks ───► services, nodes' services ──┘
//! ```
//!
//! An inventory costs one request for each node, so wake-ups that come while one runs (and shortly
//! after) share the next. It also runs when a wait ends without a change, which repairs whatever
//! was missed. The one change that only this repair finds is that of a node's own address.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use diolkos_model::{Interner, ServiceKey};
use diolkos_net::TokenBucket;
use diolkos_source_api::{Backoff, Epoch, Event, EventSender, Evidence, SourceError};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, FuturesUnordered},
};
use tokio::time::Instant;

use crate::{
    api::{Api, Reply},
    checks::Failing,
    datacenter::{Datacenter, Reading, Signature, is_readable},
    index::{Index, Step},
    mapping,
    wire::{Entry, NodeServices},
};

/// Wake-ups that are served at once, and the pace of those that follow: one query can wake at every
/// single write of a busy Consul.
const WAKES: (u32, Duration) = (5, Duration::from_millis(50));
/// The shortest time between two inventories.
const INVENTORY_PAUSE: Duration = Duration::from_millis(100);
/// The time between two inventories, in times of what one takes: a quarter of the time at most.
const INVENTORY_SHARE: u32 = 3;
/// Nodes asked at the same time.
const NODES: usize = 8;
/// How soon a lost datacenter is tried again, while others are followed; and how late at most.
const REVIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A datacenter that was followed for so long is tried again soon after a loss.
const STEADY: Duration = Duration::from_secs(60);

/// One connection of the source.
pub(crate) struct Session<'a> {
    pub(crate) api: Api<'a>,
    pub(crate) datacenters: &'a [Datacenter],
    pub(crate) interner: &'a Mutex<Interner>,
    pub(crate) events: EventSender,
}

impl Session<'_> {
    /// Names everything there is. With several datacenters, one that cannot be read makes the
    /// snapshot partial; when none can be read, the connection is of no use.
    pub(crate) async fn snapshot(&self, epoch: Epoch) -> Result<(), SourceError> {
        self.events.send(Event::SnapshotStart { epoch }).await?;
        let mut doubts: Vec<String> = Vec::new();
        let mut stale = false;
        let mut lost = Vec::new();
        for dc in self.datacenters {
            match self.snapshot_of(dc).await {
                Ok(evidence) => {
                    dc.state().down = None;
                    stale |= matches!(evidence, Evidence::Stale(_));
                    let doubt = evidence.doubt();
                    doubts.extend(doubt.map(|doubt| format!("{}: {doubt}", dc.name)));
                }
                Err(SourceError::Stopped) => return Err(SourceError::Stopped),
                Err(error) => {
                    doubts.push(format!("{}: {error}", dc.name));
                    self.lose(dc, &error);
                    lost.push(error);
                }
            }
        }
        if lost.len() == self.datacenters.len()
            && let Some(error) = lost.pop()
        {
            return Err(error);
        }
        let evidence = match doubts.as_slice() {
            [] => Evidence::Complete,
            doubts if stale => Evidence::Stale(doubts.join("; ").into()),
            doubts => Evidence::Partial(doubts.join("; ").into()),
        };
        self.events
            .send(Event::SnapshotEnd { epoch, evidence })
            .await?;
        self.interner().sweep();
        self.report();
        Ok(())
    }

    /// Reads a datacenter as a whole. The waiting queries later start from where this began, so
    /// nothing that happens meanwhile is missed.
    async fn snapshot_of(&self, dc: &Datacenter) -> Result<Evidence, SourceError> {
        dc.queue.clear();
        let mut catalog = self.api.catalog(&dc.name, None).await?;
        if catalog.denies {
            self.api.identify(&dc.name).await?;
            catalog = self.api.catalog(&dc.name, None).await?;
        }
        // Not before: an attempt is no contact.
        let health = &self.api.health;
        health.syncing(format!("reading {}", self.api.http.address()));
        let failing = self.failing(dc, None).await?;
        let names = {
            let mut state = dc.state();
            state.catalog_index = Index::of(catalog.index);
            state.failing_index = Index::of(failing.index);
            state.failing = failing.value;
            state.reset(&catalog.value, &self.api.config.select)
        };
        let mut reads = stream::iter(names)
            .map(|name| self.read(dc, name, true))
            .buffer_unordered(self.concurrency());
        let mut evidence = catalog.evidence;
        while let Some(of_one) = reads.try_next().await? {
            if evidence.is_complete() {
                evidence = of_one;
            }
        }
        Ok(evidence)
    }

    /// Follows all datacenters until a new snapshot is due (`Ok`) or no connection is left.
    pub(crate) async fn follow(&self) -> Result<(), SourceError> {
        let mut watches: FuturesUnordered<_> =
            self.datacenters.iter().map(|dc| self.watch(dc)).collect();
        while let Some((dc, ended)) = watches.next().await {
            let Err(error) = ended else {
                return Ok(());
            };
            let alone = self
                .datacenters
                .iter()
                .all(|other| std::ptr::eq(other, dc) || other.state().down.is_some());
            if alone || matches!(error, SourceError::Stopped) {
                return Err(error);
            }
            self.lose(dc, &error);
            self.report();
            watches.push(self.watch(dc));
        }
        Ok(())
    }

    /// Follows a datacenter until it is lost (`Err`), or waits for a lost one until it is back.
    async fn watch<'d>(&self, dc: &'d Datacenter) -> (&'d Datacenter, Result<(), SourceError>) {
        let down = dc.state().down.is_some();
        if down {
            self.revive(dc).await;
            return (dc, Ok(()));
        }
        let started = Instant::now();
        let ended = self.follow_one(dc).await;
        if started.elapsed() >= STEADY {
            dc.state().backoff = None;
        }
        (dc, ended)
    }

    /// Waits until a lost datacenter answers.
    async fn revive(&self, dc: &Datacenter) {
        loop {
            let wait = dc
                .state()
                .backoff
                .get_or_insert_with(|| Backoff::new(REVIVE.0, REVIVE.1))
                .next_delay();
            tokio::time::sleep(wait).await;
            match self.api.catalog(&dc.name, None).await {
                Ok(_) => return,
                Err(error) => self.lose(dc, &error),
            }
        }
    }

    async fn follow_one(&self, dc: &Datacenter) -> Result<(), SourceError> {
        let ended: Result<(Infallible, Infallible, Infallible, Infallible), SourceError> = tokio::try_join!(
            self.wait_for_catalog(dc),
            self.wait_for_checks(dc),
            self.take_inventories(dc),
            self.read_moved(dc),
        );
        ended.map(|(never, ..)| match never {})
    }

    async fn wait_for_catalog(&self, dc: &Datacenter) -> Result<Infallible, SourceError> {
        let mut bucket = TokenBucket::new(WAKES.0, WAKES.1);
        loop {
            bucket.take().await;
            let at = dc.state().catalog_index;
            let catalog = self.api.catalog(&dc.name, Some(at)).await?;
            let step = at.advance(catalog.index);
            let moved = {
                let mut state = dc.state();
                state.catalog_index = step.index();
                let moved = state.list(&catalog.value, &self.api.config.select);
                if step == Step::Back {
                    self.went_back(dc, "catalog");
                    state.names()
                } else {
                    moved
                }
            };
            dc.queue.extend(moved);
            dc.inventory.notify_one();
        }
    }

    async fn wait_for_checks(&self, dc: &Datacenter) -> Result<Infallible, SourceError> {
        let mut bucket = TokenBucket::new(WAKES.0, WAKES.1);
        loop {
            bucket.take().await;
            let at = dc.state().failing_index;
            let failing = self.failing(dc, Some(at)).await?;
            let step = at.advance(failing.index);
            let touched = {
                let mut state = dc.state();
                state.failing_index = step.index();
                let mut touched = state.failing.replace(failing.value);
                if step == Step::Back {
                    self.went_back(dc, "checks");
                    touched.services = state.names();
                    touched.nodes.clear();
                }
                touched
            };
            dc.queue.extend(touched.services);
            self.queue_nodes(dc, touched.nodes).await?;
        }
    }

    async fn failing(
        &self,
        dc: &Datacenter,
        after: Option<Index>,
    ) -> Result<Reply<Failing>, SourceError> {
        let reply = self.api.failing(&dc.name, after).await?;
        for problem in &reply.value.bad {
            tracing::warn!(
                registry = &*self.api.config.registry,
                datacenter = &*dc.name,
                problem,
                "leaving out a check that cannot be decoded"
            );
        }
        Ok(reply.map(|checks| Failing::of(&checks.good)))
    }

    fn went_back(&self, dc: &Datacenter, of: &str) {
        let registry = &*self.api.config.registry;
        tracing::warn!(
            registry,
            datacenter = &*dc.name,
            of,
            "consul's index went back, reading everything again"
        );
    }

    /// Queues the services of nodes whose own checks changed.
    async fn queue_nodes(&self, dc: &Datacenter, nodes: Vec<Arc<str>>) -> Result<(), SourceError> {
        let nodes: HashSet<Arc<str>> = nodes.into_iter().collect();
        let all = dc.state().names();
        if nodes.len() > all.len() || nodes.iter().any(|node| !is_readable(node)) {
            dc.queue.extend(all);
            return Ok(());
        }
        let known: HashMap<&str, &Arc<str>> = all.iter().map(|name| (&**name, name)).collect();
        let nodes = nodes.iter().map(|node| node.to_string()).collect();
        self.ask_nodes(dc, nodes, |answer| {
            let services = answer.services.iter();
            let touched = services.filter_map(|s| known.get(s.service.as_str()).copied());
            dc.queue.extend(touched.cloned());
        })
        .await
    }

    /// Asks what is registered on nodes, several at a time.
    async fn ask_nodes(
        &self,
        dc: &Datacenter,
        nodes: Vec<String>,
        mut each: impl FnMut(NodeServices),
    ) -> Result<(), SourceError> {
        let mut answers = stream::iter(nodes)
            .map(async |node: String| self.api.node_services(&dc.name, &node).await)
            .buffer_unordered(NODES);
        while let Some(answer) = answers.try_next().await? {
            each(answer.value);
        }
        Ok(())
    }

    async fn take_inventories(&self, dc: &Datacenter) -> Result<Infallible, SourceError> {
        loop {
            dc.inventory.notified().await;
            let started = Instant::now();
            let moved = self.inventory(dc).await?;
            dc.queue.extend(moved);
            let pause = started.elapsed() * INVENTORY_SHARE;
            tokio::time::sleep(pause.max(INVENTORY_PAUSE)).await;
        }
    }

    /// The services whose instances are not as they were last read. All, where finding out would
    /// take more requests than reading them, or cannot be done.
    async fn inventory(&self, dc: &Datacenter) -> Result<Vec<Arc<str>>, SourceError> {
        let nodes = self.api.nodes(&dc.name).await?;
        let all = dc.state().names();
        let nodes_are_known = nodes.evidence.is_complete()
            && nodes.value.bad.is_empty()
            && nodes.value.good.iter().all(|node| is_readable(&node.node));
        if !nodes_are_known || nodes.value.good.len() > all.len() {
            return Ok(all);
        }
        let nodes = nodes.value.good.into_iter().map(|node| node.node).collect();
        let mut seen: HashMap<String, Signature> = HashMap::new();
        self.ask_nodes(dc, nodes, |answer| {
            let Some(node) = answer.node else {
                return;
            };
            for service in answer.services {
                seen.entry(service.service).or_default().add(
                    (&node.node, node.modify_index),
                    (&service.id, service.modify_index),
                );
            }
        })
        .await?;
        Ok(dc.state().compare(&seen))
    }

    /// Reads what is queued, several services at a time, of each one read at a time.
    async fn read_moved(&self, dc: &Datacenter) -> Result<Infallible, SourceError> {
        let mut busy: HashSet<Arc<str>> = HashSet::new();
        let mut reads = FuturesUnordered::new();
        loop {
            while reads.len() < self.concurrency()
                && let Some(name) = dc.queue.take(&busy)
            {
                busy.insert(name.clone());
                reads.push(async move {
                    let evidence = self.read(dc, name.clone(), false).await;
                    (name, evidence)
                });
            }
            tokio::select! {
                Some((name, evidence)) = reads.next() => {
                    busy.remove(&name);
                    evidence?;
                    if reads.is_empty() {
                        self.report();
                    }
                }
                () = dc.queue.grown() => {}
            }
        }
    }

    /// Reads a service from the leader and sends what there is to say of it.
    async fn read(
        &self,
        dc: &Datacenter,
        name: Arc<str>,
        snapshot: bool,
    ) -> Result<Evidence, SourceError> {
        let answer = self.api.instances(&dc.name, &name).await?;
        for problem in &answer.value.bad {
            tracing::warn!(
                registry = &*self.api.config.registry,
                datacenter = &*dc.name,
                service = &*name,
                problem,
                "leaving out an instance that cannot be decoded"
            );
        }
        let mut entries = answer.value.good;
        // Consul looks names up without regard to case, but lists them apart.
        entries.retain(|entry| *entry.service.service == *name);
        let key = ServiceKey {
            registry: self.api.config.registry.clone(),
            namespace: dc.name.clone(),
            group: "".into(),
            name,
        };
        let service = self
            .is_wanted(&key.name, &entries)
            .then(|| mapping::service(key.clone(), &entries, &mut self.interner()));
        let evidence = answer.evidence;
        let reading = Reading {
            entries: &entries,
            service,
            evidence: evidence.clone(),
        };
        let event = dc.state().settle(key, reading, snapshot);
        if let Some(event) = event {
            self.events.send(event).await?;
        }
        Ok(evidence)
    }

    fn is_wanted(&self, name: &str, entries: &[Entry]) -> bool {
        let tags = entries.iter().flat_map(|entry| &entry.service.tags);
        let tags: Vec<String> = tags.cloned().collect();
        entries.iter().any(mapping::is_instance) && (self.api.config.select)(name, &tags)
    }

    fn lose(&self, dc: &Datacenter, error: &SourceError) {
        let reason: Arc<str> = error.to_string().into();
        if dc.state().down.replace(reason.clone()).is_none() {
            tracing::warn!(
                registry = &*self.api.config.registry,
                datacenter = &*dc.name,
                error = &*reason,
                "cannot read a datacenter, the mesh keeps what it has of it"
            );
        }
    }

    /// Says in one line how things stand.
    fn report(&self) {
        let mut total = (0, 0);
        let mut down = String::new();
        for dc in self.datacenters {
            let state = dc.state();
            let (services, instances) = state.counts();
            total = (total.0 + services, total.1 + instances);
            if let Some(reason) = &state.down {
                down += &format!("; {}: {reason}", dc.name);
            }
        }
        let (services, instances) = total;
        self.api
            .health
            .live(format!("{services} services, {instances} instances{down}"));
    }

    fn concurrency(&self) -> usize {
        self.api.config.max_concurrent_reads.max(1)
    }

    fn interner(&self) -> std::sync::MutexGuard<'_, Interner> {
        self.interner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
