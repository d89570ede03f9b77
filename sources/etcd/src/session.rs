//! One connection: the snapshot, and then following the changes.
//!
//! ```text
//! Range, page by page, all at the revision R of the first page ──► catalogue ──► all services
//! Watch from R + 1 ──────────────────────────────────────────────► catalogue ──► what changed
//! a probe each pulse ──► is there a quorum, may we still read?
//! ```
//!
//! A watch is not told when the right to read is taken away, and a member answers for the life of a
//! watch even when it cannot reach the others; hence the probe, which is a linearizable read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use diolkos_model::{Service, ServiceKey};
use diolkos_source_api::{Epoch, Event, EventSender, Evidence, HealthReporter, SourceError};
use diolkos_source_dubbo::{Catalog, Change, Place};

use crate::{
    Config,
    client::{Client, Failure, Watch},
    proto::Header,
    scope::Range,
};

/// The keys of a page.
const PAGE: i64 = 1000;
/// How often a snapshot is begun anew because its revision was compacted before its end.
const READS: u32 = 5;

/// One connection of the source.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) config: &'a Config,
    pub(crate) client: &'a Client,
    pub(crate) ranges: &'a [Range],
    pub(crate) pulse: Duration,
    pub(crate) epoch: Epoch,
    pub(crate) events: EventSender,
    pub(crate) health: HealthReporter,
}

/// All that etcd held at one revision.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) catalog: Catalog,
    pub(crate) extent: Extent<'a>,
}

/// What a reading took in.
#[derive(Debug, Default)]
pub(crate) struct Extent<'a> {
    pub(crate) header: Header,
    /// What was read, and is to be watched.
    readable: Vec<&'a Range>,
    /// What the user may not read.
    forbidden: Vec<&'a Range>,
}

impl Extent<'_> {
    /// Whether what is not seen is gone.
    fn evidence(&self) -> Evidence {
        if self.forbidden.is_empty() {
            return Evidence::Complete;
        }
        let prefixes: Vec<_> = self.forbidden.iter().map(|range| range.prefix()).collect();
        Evidence::Partial(format!("the user may not read {}", prefixes.join(", ")).into())
    }
}

impl<'a> Session<'a> {
    /// Reads all there is, at one revision.
    pub(crate) async fn read(&self) -> Result<Reading<'a>, SourceError> {
        for attempt in 1..=READS {
            match self.read_once().await {
                Ok(reading) => return Ok(reading),
                Err(Failure::Compacted) => {
                    tracing::info!(
                        attempt,
                        "the revision was compacted meanwhile, reading anew"
                    );
                }
                Err(failure) => return Err(self.lost(failure)),
            }
        }
        let member = self.client.member();
        Err(SourceError::Transport(format!(
            "{member}: each revision is compacted before it is read: let etcd keep revisions for longer"
        )))
    }

    async fn read_once(&self) -> Result<Reading<'a>, Failure> {
        let mut catalog = Catalog::new(self.config.dubbo.clone());
        let mut extent = Extent::default();
        for range in self.ranges {
            match self
                .read_range(range, &mut extent.header, &mut catalog)
                .await
            {
                Ok(()) => extent.readable.push(range),
                Err(Failure::Forbidden) if !range.required => extent.forbidden.push(range),
                Err(Failure::Forbidden) => return Err(self.config.denied(range).into()),
                Err(failure) => return Err(failure),
            }
        }
        self.fill(&mut catalog).await?;
        Ok(Reading { catalog, extent })
    }

    /// Reads one range into the catalogue, at the revision of the header, if there is one yet.
    async fn read_range(
        &self,
        range: &Range,
        header: &mut Header,
        catalog: &mut Catalog,
    ) -> Result<(), Failure> {
        let mut from = range.start();
        let mut limit = PAGE;
        loop {
            let revision = header.revision;
            let page = self.client.page(range, from.clone(), limit, revision).await;
            let page = match page {
                Err(Failure::TooLarge) if limit > 1 => {
                    limit /= 2;
                    continue;
                }
                page => page?,
            };
            if revision == 0 {
                *header = page.header.unwrap_or_default();
            }
            for kv in &page.kvs {
                self.config.put(catalog, kv);
            }
            match page.kvs.last() {
                Some(last) if page.more => from = after(&last.key),
                _ => return Ok(()),
            }
        }
    }

    /// Tells the catalogue the metadata that it wants. It lets go of metadata that no instance names,
    /// and the key does not change when an instance names it again: the watch tells nothing then.
    async fn fill(&self, catalog: &mut Catalog) -> Result<(), Failure> {
        for place in catalog.wanted() {
            if !matches!(place, Place::Revision { .. }) {
                // Of all others, every change is told.
                continue;
            }
            let path = place.path(&self.config.prefix, &self.config.applications);
            let data = match self.client.get(path).await {
                Err(Failure::Forbidden) => None,
                data => data?,
            };
            catalog.set_data(&place, data);
        }
        Ok(())
    }

    /// Watches from where the reading ended.
    pub(crate) async fn watch(&self, extent: &Extent<'_>) -> Result<Watch<'a>, SourceError> {
        let from = extent.header.revision + 1;
        let watch = self.client.watch(&extent.readable, from, self.pulse).await;
        watch.map_err(|failure| self.lost(failure))
    }

    /// Names all services.
    pub(crate) async fn tell(
        &self,
        catalog: &mut Catalog,
        extent: &Extent<'_>,
    ) -> Result<(), SourceError> {
        let (epoch, evidence) = (self.epoch, extent.evidence());
        self.events.send(Event::SnapshotStart { epoch }).await?;
        let services = catalog.snapshot().into_iter();
        for service in services.filter(|service| self.wants(&service.key)) {
            let (service, evidence) = (service.into(), evidence.clone());
            self.events
                .send(Event::Upsert { service, evidence })
                .await?;
        }
        self.events
            .send(Event::SnapshotEnd { epoch, evidence })
            .await?;
        self.live();
        Ok(())
    }

    /// Follows the watch until a new reading is due (`Ok`) or the connection is of no more use.
    pub(crate) async fn follow(
        &self,
        mut watch: Watch<'_>,
        catalog: &mut Catalog,
        extent: &Extent<'_>,
    ) -> Result<(), SourceError> {
        let evidence = extent.evidence();
        loop {
            let events = match watch.next().await {
                Ok(events) => events,
                Err(Failure::Compacted) => {
                    tracing::info!("the watch fell behind what etcd keeps, reading anew");
                    // An etcd that compacts all the time is not to be read all the time.
                    tokio::time::sleep(self.pulse / 10).await;
                    return Ok(());
                }
                Err(failure) => return Err(self.lost(failure)),
            };
            self.live();
            for event in &events {
                self.config.apply(catalog, event);
            }
            self.fill(catalog).await.map_err(|f| self.lost(f))?;
            for change in catalog.take_changes() {
                self.tell_change(change, &evidence).await?;
            }
        }
    }

    async fn tell_change(&self, change: Change, evidence: &Evidence) -> Result<(), SourceError> {
        let event = match change {
            Change::Upsert(Service { key, .. }) | Change::Remove(key) if !self.wants(&key) => {
                return Ok(());
            }
            Change::Upsert(service) => Event::Upsert {
                service: service.into(),
                evidence: evidence.clone(),
            },
            // It may have instances where we may not look.
            Change::Remove(_) if !evidence.is_complete() => return Ok(()),
            Change::Remove(key) => Event::Remove { key },
        };
        self.events.send(event).await
    }

    /// Probes at each pulse, until another part of the keys can be read than was (`Ok`), or the
    /// connection is of no more use.
    pub(crate) async fn probe(&self, extent: &Extent<'_>) -> Result<(), SourceError> {
        loop {
            tokio::time::sleep(self.pulse).await;
            for range in &extent.readable {
                match self.client.probe(range, self.pulse).await {
                    Ok(_) => {}
                    Err(Failure::Forbidden) if !range.required => return Ok(()),
                    Err(Failure::Forbidden) => return Err(self.config.denied(range)),
                    Err(failure) => return Err(self.lost(failure)),
                }
            }
            for range in &extent.forbidden {
                match self.client.probe(range, self.pulse).await {
                    Ok(_) => return Ok(()),
                    Err(Failure::Forbidden) => {}
                    Err(failure) => return Err(self.lost(failure)),
                }
            }
            self.live();
        }
    }

    fn wants(&self, service: &ServiceKey) -> bool {
        (self.config.select)(&service.name)
    }

    fn live(&self) {
        self.health
            .live(format!("following {}", self.client.member()));
    }

    fn lost(&self, failure: Failure) -> SourceError {
        self.client.lost_by(failure)
    }
}

/// The key that follows this one directly.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.extend_from_slice(&[0]);
    next.freeze()
}
