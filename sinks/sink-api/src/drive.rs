//! The loop that makes the desired state true.
//!
//! Objects are written one by one, as many at once as the sink allows. Meanwhile new desired states,
//! changes of others and changes of authority are taken in, so that something urgent waits for no more
//! than one request, however much there is to write. What is not yet done is kept as *which* objects
//! differ, never as a list of events.

mod jobs;
mod pace;
mod queue;
mod results;
mod retry;
mod summary;

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use diolkos_istio::{Kind, Object, ObjectKey};
use diolkos_model::{ContentHash, ServiceKey};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Authority, Change, Desired, Differ, Ledger, Observed, Outcome, Planned, Remembered, Sink,
    SinkError, State, WriteError, Writer,
    diff::{Dirty, Step},
};

use pace::Bursts;
pub use pace::Pace;
use queue::{Group, Queue, Stage, Ticket};
use retry::{Repairs, Retries};
use summary::Summary;

/// Writes made and failed, one call each: metrics hang here.
pub type OnApplied = Box<dyn Fn(&ObjectKey, &Result<Outcome, WriteError>) + Send>;

/// What the loop works with, besides the sink.
pub struct Driving {
    /// What should be.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// Where people look.
    pub ledger: Ledger,
    /// How fast it goes.
    pub pace: Pace,
    /// Told of each write.
    pub on_applied: OnApplied,
    /// Told once what was there before this process began.
    pub remember: Option<mpsc::Sender<Vec<Remembered>>>,
    /// Which registries' objects may be written.
    pub authority: Authority,
    /// Ends the loop.
    pub cancel: CancellationToken,
}

impl Driving {
    /// With the usual pace, all authority, and nobody told of anything.
    #[must_use]
    pub fn new(
        desired: watch::Receiver<Arc<Desired>>,
        ledger: Ledger,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            desired,
            ledger,
            pace: Pace::default(),
            on_applied: Box::new(|_, _| {}),
            remember: None,
            authority: Authority::always(),
            cancel,
        }
    }
}

/// How long writes that are under way may take once we have to stop. What they leave undone the next
/// start finds.
const GRACE: Duration = Duration::from_secs(5);

/// Runs `sink` until `cancel` fires, or until the desired state has no publisher any more and is worked
/// through. On the way out it waits for the writes that are under way, if that does not take more than
/// a few seconds.
pub async fn drive<S: Sink>(mut sink: S, driving: Driving) {
    let mut driver = Driver {
        writer: sink.writer(),
        name: sink.name(),
        driving,
        differ: Differ::default(),
        queue: Queue::default(),
        retries: Retries::default(),
        repairs: Repairs::default(),
        parked: HashMap::new(),
        flights: HashMap::new(),
        retrying: 0,
        writes: JoinSet::new(),
        built: HashMap::new(),
        bursts: Bursts::default(),
        outage: results::Outage::default(),
        picks: 0,
        summary: Summary::default(),
        closing: false,
    };
    driver.run(&mut sink).await;
}

/// A write's end.
type Landed = (ObjectKey, Result<Outcome, WriteError>);

struct Driver<W> {
    writer: W,
    name: &'static str,
    driving: Driving,
    differ: Differ,
    /// An object that differs is in exactly one of these: it waits for its turn …
    queue: Queue,
    /// … or for another try …
    retries: Retries,
    /// … or for the authority to write objects of this registry …
    parked: HashMap<ObjectKey, Parked>,
    /// … or it is being written.
    flights: HashMap<ObjectKey, Flight>,
    repairs: Repairs,
    /// How many of the flights are further tries.
    retrying: usize,
    writes: JoinSet<Landed>,
    /// Objects of services that are being written.
    built: HashMap<ServiceKey, Built>,
    bursts: Bursts,
    outage: results::Outage,
    picks: usize,
    summary: Summary,
    /// There is no publisher any more.
    closing: bool,
}

/// The objects of a service that are not sent yet, and what they were made of.
struct Built(Arc<Planned>, HashMap<ObjectKey, Object>);

/// A write under way.
struct Flight {
    registry: Arc<str>,
    /// What the object is to become; `None` if it is to go.
    hash: Option<ContentHash>,
    /// The service that it is there for.
    former: Option<ServiceKey>,
    /// `None` for a further try.
    ticket: Option<Ticket>,
    /// What was told of it meanwhile: it counts after the write.
    observed: Option<State>,
    /// Something else may be wanted by now, and which service it was for.
    again: Option<Option<ServiceKey>>,
}

/// An object of a registry that is not ours to write.
struct Parked {
    registry: Arc<str>,
    /// The service that it is, or was, there for.
    former: Option<ServiceKey>,
}

/// What is to be written, after all questions.
struct Job {
    change: Change,
    flight: Flight,
}

/// Why the loop stopped following the sink.
enum End {
    Stop,
    Deaf(SinkError),
}

impl<W: Writer> Driver<W> {
    async fn run<S: Sink>(&mut self, sink: &mut S) {
        let cancel = self.driving.cancel.clone();
        tokio::select! {
            () = self.begin(sink) => {}
            () = cancel.cancelled() => return,
        }
        loop {
            match self.follow(sink).await {
                End::Stop => break,
                End::Deaf(error) => {
                    tracing::warn!(sink = self.name, %error, "cannot watch the sink, reading it anew");
                    tokio::select! {
                        () = self.read_again(sink) => {}
                        () = cancel.cancelled() => break,
                    }
                }
            }
        }
        if tokio::time::timeout(GRACE, self.land_all()).await.is_err() {
            let under_way = self.flights.len();
            tracing::warn!(
                sink = self.name,
                under_way,
                "stopping, writes under way are given up"
            );
        }
    }

    async fn begin<S: Sink>(&mut self, sink: &mut S) {
        self.read_all(sink).await;
        if let Some(remember) = self.driving.remember.take()
            && remember.send(sink.remembered()).await.is_err()
        {
            tracing::debug!("nobody wants to know what was there before");
        }
        self.take_desired();
        for (registry, objects) in self.differ.unclaimed() {
            tracing::warn!(%registry, objects, "objects of a registry that is not configured are left alone; delete them by their label diolkos.io/registry if nobody needs them");
        }
    }

    /// Reads the sink when its changes could not be heard. After a pause: that may go on for long
    /// while reading works.
    async fn read_again<S: Sink>(&mut self, sink: &mut S) {
        tokio::time::sleep(self.driving.pace.retry).await;
        self.land_all().await;
        self.read_all(sink).await;
        self.look(self.differ.generation() + 1);
    }

    /// Reads the sink until that works.
    async fn read_all<S: Sink>(&mut self, sink: &mut S) {
        let mut wait = self.driving.pace.retry;
        loop {
            match sink.observe().await {
                Ok(all) => {
                    self.driving.ledger.readable(None);
                    self.differ.observed_all(all);
                    return;
                }
                Err(error) => {
                    tracing::warn!(sink = self.name, %error, "cannot read the sink, nothing is written");
                    self.driving.ledger.readable(Some(error.to_string()));
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(self.driving.pace.slowest);
                }
            }
        }
    }

    /// Writes, and takes in whatever happens. Each thing that may happen is a level that stays until
    /// it is taken, and the wait for changes of others is not begun anew when something else happens,
    /// so nothing can starve anything else.
    async fn follow<S: Sink>(&mut self, sink: &mut S) -> End {
        let cancel = self.driving.cancel.clone();
        loop {
            let mut drift = pin!(sink.drift());
            let told = loop {
                let wake = self.turn();
                if self.closing && self.is_idle() {
                    return End::Stop;
                }
                tokio::select! {
                    () = cancel.cancelled() => return End::Stop,
                    told = &mut drift => break told,
                    changed = self.driving.desired.changed(), if !self.closing => {
                        self.closing = changed.is_err();
                        self.take_desired();
                    }
                    () = self.driving.authority.changed() => self.unpark(),
                    Some(landed) = self.writes.join_next() => self.land(landed),
                    () = sleep_until(wake) => {}
                }
            };
            match told {
                Ok(observed) => self.drifted(observed),
                Err(error) => return End::Deaf(error),
            }
        }
    }

    /// Takes in what is there and sends what can be sent. Returns when to do so again, if nothing
    /// happens before.
    fn turn(&mut self) -> Option<Instant> {
        self.take_desired();
        while let Some(landed) = self.writes.try_join_next() {
            self.land(landed);
        }
        let wake = self.send();
        self.tell();
        wake
    }

    fn tell(&self) {
        let generation = self.differ.generation();
        let oldest = self.queue.oldest().unwrap_or(u64::MAX);
        let pending =
            self.queue.len() + self.retries.len() + self.parked.len() + self.flights.len();
        let held = Kind::ALL.map(|kind| (kind, self.differ.held(kind)));
        let done = generation.min(oldest.saturating_sub(1));
        self.driving.ledger.progress(pending, done, held.into());
    }

    /// Whether nothing is under way and nothing can be done at once.
    fn is_idle(&self) -> bool {
        self.queue.len() == 0 && self.flights.is_empty()
    }

    fn take_desired(&mut self) {
        let new = self.driving.desired.borrow_and_update().clone();
        if !self.differ.follows(&new) {
            self.differ.desired(&new);
            self.look(new.generation);
        }
    }

    fn drifted(&mut self, observed: Vec<Observed>) {
        let mut told = Vec::with_capacity(observed.len());
        for observed in observed {
            match self.flights.get_mut(&observed.key) {
                // It tells of before the write or of after it; what the write says comes first.
                Some(flight) => flight.observed = Some(observed.state),
                None => told.push(observed),
            }
        }
        let keys: Vec<ObjectKey> = told.iter().map(|observed| observed.key.clone()).collect();
        self.differ.observed(told);
        for key in &keys {
            self.edited(key);
        }
        // The state that is worked through does not count as new because of them.
        self.look(self.differ.generation() + 1);
    }

    /// Others changed an object, perhaps one of ours.
    fn edited(&mut self, key: &ObjectKey) {
        let registry = match self.differ.step(key) {
            Step::Put { service } => service.registry,
            Step::Delete { registry } => registry,
            Step::Nothing | Step::Foreign { .. } => return,
        };
        // Else it is perhaps the one that may who writes.
        let ours = self.driving.authority.permits(&registry);
        if !ours || self.queue.contains(key) {
            return;
        }
        let (now, pace) = (Instant::now(), self.driving.pace);
        if let Some(count) = self.summary.add("edited", now) {
            tracing::info!(object = %key, count, "somebody changed objects of ours, this one among them");
        }
        if self.retries.contains(key) {
            self.retries.edited(key, &pace);
            return;
        }
        let Some((repairs, due)) = self.repairs.edited(key, now, &pace) else {
            return;
        };
        self.retries
            .hold(key, self.differ.wanted_hash(key), now, due);
        let error = WriteError::Contested { repairs };
        if let Some(count) = self.summary.add(error.category(), now) {
            tracing::warn!(object = %key, count, %error, "repairing slowly");
        }
        self.note(key, registry, Err(error));
    }

    /// Finds a place for what changed. `since` is the generation that is not worked through before.
    fn look(&mut self, since: u64) {
        let Dirty { objects, shrunk } = self.differ.take_dirty();
        for (key, former) in objects {
            self.place(key, former, since);
        }
        for service in shrunk {
            self.queue.hurry(&Group::Service(service));
        }
    }

    fn place(&mut self, key: ObjectKey, former: Option<ServiceKey>, since: u64) {
        if let Some(flight) = self.flights.get_mut(&key) {
            flight.again = Some(former);
            return;
        }
        let (group, stage) = match self.differ.step(&key) {
            Step::Nothing => return self.settle(&key),
            Step::Foreign { registry } => return self.foreign(&key, registry),
            Step::Put { service } => (Group::Service(service), Stage::put(key.kind)),
            Step::Delete { .. } => {
                let group = former.map_or_else(|| Group::Orphan(key.clone()), Group::Service);
                (group, Stage::delete(key.kind))
            }
        };
        if self.retries.contains(&key) {
            let wanted = self.differ.wanted_hash(&key);
            self.retries.wants(&key, wanted, &self.driving.pace);
        } else {
            self.parked.remove(&key);
            self.queue.push(key, &group, stage, since);
        }
    }

    /// It is as it should be, or nobody wants it.
    fn settle(&mut self, key: &ObjectKey) {
        self.queue.remove(key);
        self.retries.forget(key);
        self.parked.remove(key);
        self.driving.ledger.forget_failure(key);
    }

    /// Nothing is sent; the object is looked at again when the sink says that it changed.
    fn foreign(&mut self, key: &ObjectKey, registry: Arc<str>) {
        self.settle(key);
        let result = Err(WriteError::Foreign("it has no label of ours".into()));
        (self.driving.on_applied)(key, &result);
        self.note(key, registry, result);
    }

    /// Objects wait for authority until there is some: they are placed anew.
    fn unpark(&mut self) {
        let authority = &self.driving.authority;
        let permitted = self
            .parked
            .extract_if(|_, parked| authority.permits(&parked.registry));
        let permitted: Vec<_> = permitted.collect();
        for (key, parked) in permitted {
            self.place(key, parked.former, self.differ.generation() + 1);
        }
    }

    /// Sends as much as may be sent. Returns when more may be, if nothing has to end before.
    fn send(&mut self) -> Option<Instant> {
        let slots = self.writer.parallel().max(1);
        let pace = self.driving.pace;
        while self.flights.len() < slots {
            let now = Instant::now();
            if let Some(at) = self.bursts.closed_until(now, &pace) {
                let retry = self.retries.next().map(|due| due.max(at));
                return if self.queue.len() > 0 {
                    Some(at)
                } else {
                    retry
                };
            }
            let Some(job) = self.next(slots, now) else {
                if self.queue.len() == 0 {
                    self.bursts.over();
                    self.built.clear();
                }
                let may_retry = self.retrying < retry_slots(slots);
                return self.retries.next().filter(|_| may_retry);
            };
            self.bursts.sent(now, &pace);
            self.launch(job);
        }
        None
    }
}

/// How many slots objects may hold that failed before.
fn retry_slots(slots: usize) -> usize {
    (slots / 4).max(1)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
