//! The loop that makes the desired state true.
//!
//! Changes are written in bursts with a gap: istiod pushes to the proxies when no event came for
//! 100 ms (at the latest after 10 s), so a steady trickle of writes would delay every proxy by 10 s.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use diolkos_istio::{Kind, ObjectKey};
use diolkos_model::{ContentHash, ServiceKey};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Applied, Change, Desired, Differ, Ledger, Observed, Outcome, Record, Sink, WriteError,
    diff::Step,
};

/// How fast the loop goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The time without writes after a burst. Above istiod's 100 ms of quiet.
    pub gap: Duration,
    /// The most objects built and written at once; bounds memory.
    pub batch: usize,
    /// The wait before an object that failed is tried again the first time; doubles up to `slowest`.
    pub retry: Duration,
    /// The longest wait before an object that failed is tried again.
    pub slowest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            gap: Duration::from_millis(150),
            batch: 256,
            retry: Duration::from_millis(500),
            slowest: Duration::from_secs(60),
        }
    }
}

/// Writes made and failed, one call each: metrics hang here.
pub type OnApplied = Box<dyn Fn(&ObjectKey, &Result<Outcome, WriteError>) + Send>;

/// How long a batch that is under way may take once we have to stop. What it leaves undone the next
/// start finds.
const GRACE: Duration = Duration::from_secs(5);

/// Runs `sink` until `cancel` fires or the desired state has no publisher any more. On the way out
/// it finishes the batch that it has begun, if that does not take more than a few seconds.
pub async fn drive<S: Sink>(
    sink: S,
    desired: watch::Receiver<Arc<Desired>>,
    ledger: Ledger,
    pace: Pace,
    on_applied: OnApplied,
    cancel: CancellationToken,
) {
    let mut driver = Driver {
        sink,
        differ: Differ::default(),
        ledger,
        pace,
        on_applied,
        failed: HashMap::new(),
    };
    driver.run(desired, &cancel).await;
}

struct Driver<S> {
    sink: S,
    differ: Differ,
    ledger: Ledger,
    pace: Pace,
    on_applied: OnApplied,
    failed: HashMap<ObjectKey, Failure>,
}

/// An object that could not be written.
struct Failure {
    /// What was tried: when something else is wanted it is tried at once.
    wanted: Option<ContentHash>,
    tries: u32,
    due: Instant,
}

impl<S: Sink> Driver<S> {
    async fn run(
        &mut self,
        mut desired: watch::Receiver<Arc<Desired>>,
        cancel: &CancellationToken,
    ) {
        tokio::select! {
            () = self.read_all() => {}
            () = cancel.cancelled() => return,
        }
        self.take(&mut desired);
        for (registry, objects) in self.differ.unclaimed() {
            tracing::warn!(%registry, objects, "objects of a registry that is not configured are left alone; delete them by their label diolkos.io/registry if nobody needs them");
        }
        self.count();
        loop {
            let wrote = self.work(cancel).await;
            if wrote {
                self.count();
            }
            let gap = if wrote { self.pace.gap } else { Duration::ZERO };
            tokio::select! {
                // First: while there is always something to do, it would be left to chance below.
                biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(gap) => {}
            }
            let retry_at = self.failed.values().map(|f| f.due).min();
            let retry = async {
                match retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = desired.changed() => match changed {
                    Ok(()) => self.take(&mut desired),
                    Err(_) => return,
                },
                drift = self.sink.drift() => match drift {
                    Ok(observed) => self.drifted(observed),
                    Err(error) => {
                        tracing::warn!(sink = self.sink.name(), %error, "cannot watch the sink, reading it anew");
                        tokio::select! {
                            () = self.read_again() => {}
                            () = cancel.cancelled() => return,
                        }
                    }
                },
                () = retry => {}
            }
            // Whatever woke us, both are looked at: else one that is always ready could starve the other.
            if desired.has_changed().unwrap_or(false) {
                self.take(&mut desired);
            }
        }
    }

    fn count(&self) {
        let held = Kind::ALL.map(|kind| (kind, self.differ.held(kind)));
        self.ledger.hold(held.into());
    }

    /// Reads the sink when its changes could not be heard. After a pause: that may go on for long
    /// while reading works.
    async fn read_again(&mut self) {
        tokio::time::sleep(self.pace.retry).await;
        self.read_all().await;
    }

    /// Reads the sink until that works.
    async fn read_all(&mut self) {
        let mut wait = self.pace.retry;
        loop {
            match self.sink.observe().await {
                Ok(all) => {
                    self.ledger.readable(None);
                    self.differ.observed_all(all);
                    return;
                }
                Err(error) => {
                    tracing::warn!(sink = self.sink.name(), %error, "cannot read the sink, nothing is written");
                    self.ledger.readable(Some(error.to_string()));
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(self.pace.slowest);
                }
            }
        }
    }

    fn take(&mut self, desired: &mut watch::Receiver<Arc<Desired>>) {
        let new = desired.borrow_and_update().clone();
        self.differ.desired(&new);
    }

    fn drifted(&mut self, observed: Vec<Observed>) {
        for Observed { key, .. } in &observed {
            // The sink tells of the objects of others as well.
            if self.differ.concerns(key) {
                tracing::info!(object = %key, "somebody changed an object");
            }
            self.failed.remove(key);
        }
        self.differ.observed(observed);
    }

    /// Deals with every object that differs. Returns whether anything was written.
    async fn work(&mut self, cancel: &CancellationToken) -> bool {
        let now = Instant::now();
        let mut puts: Vec<(ObjectKey, ServiceKey)> = Vec::new();
        let mut deletes: Vec<(ObjectKey, Arc<str>)> = Vec::new();
        for key in self.differ.dirty() {
            if self
                .failed
                .get(&key)
                .is_some_and(|f| f.due > now && f.wanted == self.differ.wanted_hash(&key))
            {
                continue;
            }
            match self.differ.step(&key) {
                Step::Nothing => self.settle(&key),
                Step::Foreign { registry } => self.foreign(key, registry),
                Step::Put { service } => puts.push((key, service)),
                Step::Delete { registry } => deletes.push((key, registry)),
            }
        }
        // What is new first: an endpoint or a service that gets another name, namespace or id would
        // else be missing in between, for as long as a large burst takes. Endpoints come before the
        // services that select them, and go before them.
        for kind in Kind::ALL {
            self.put(&of_kind(&puts, kind), cancel).await;
        }
        for kind in Kind::ALL {
            self.delete(&of_kind(&deletes, kind), cancel).await;
        }
        self.ledger
            .progress(self.differ.pending(), self.differ.generation());
        !puts.is_empty() || !deletes.is_empty()
    }

    fn settle(&mut self, key: &ObjectKey) {
        self.differ.settled(key);
        self.failed.remove(key);
        self.ledger.forget_failure(key);
    }

    /// Nothing is sent; the object is looked at again when the sink says that it changed.
    fn foreign(&mut self, key: ObjectKey, registry: Arc<str>) {
        self.differ.settled(&key);
        self.failed.remove(&key);
        let result = Err(WriteError::Foreign("it has no label of ours".into()));
        (self.on_applied)(&key, &result);
        let at = SystemTime::now();
        self.ledger.note(
            key,
            Record {
                registry,
                at,
                result,
            },
        );
    }

    async fn delete(&mut self, keys: &[(ObjectKey, Arc<str>)], cancel: &CancellationToken) {
        for chunk in keys.chunks(self.pace.batch.max(1)) {
            let changes = chunk
                .iter()
                .map(|(key, _)| Change::Delete(key.clone()))
                .collect();
            let expected = chunk
                .iter()
                .map(|(key, registry)| (key.clone(), (registry.clone(), None)))
                .collect();
            self.apply(changes, expected, cancel).await;
        }
    }

    async fn put(&mut self, keys: &[(ObjectKey, ServiceKey)], cancel: &CancellationToken) {
        for chunk in keys.chunks(self.pace.batch.max(1)) {
            if cancel.is_cancelled() {
                return;
            }
            let changes = self.differ.build(chunk);
            let expected = chunk
                .iter()
                .map(|(key, service)| {
                    let hash = self.differ.wanted_hash(key);
                    (key.clone(), (service.registry.clone(), hash))
                })
                .collect();
            self.apply(changes, expected, cancel).await;
        }
    }

    /// Writes one batch. `expected` has what each object is to become, and which registry it is of.
    async fn apply(
        &mut self,
        changes: Vec<Change>,
        mut expected: HashMap<ObjectKey, (Arc<str>, Option<ContentHash>)>,
        cancel: &CancellationToken,
    ) {
        if cancel.is_cancelled() {
            return;
        }
        let results = tokio::select! {
            results = self.sink.apply(changes) => results,
            () = async { cancel.cancelled().await; tokio::time::sleep(GRACE).await } => {
                tracing::warn!(sink = self.sink.name(), "stopping, a write under way is given up");
                return;
            }
        };
        for applied in results {
            if let Some((registry, hash)) = expected.remove(&applied.key) {
                self.record(applied, registry, hash);
            }
        }
        for (key, (registry, hash)) in expected {
            let result = Err(WriteError::Retry {
                reason: "the sink did not say what came of it".into(),
                after: None,
            });
            self.record(Applied { key, result }, registry, hash);
        }
    }

    fn record(&mut self, applied: Applied, registry: Arc<str>, hash: Option<ContentHash>) {
        let Applied { key, result } = applied;
        (self.on_applied)(&key, &result);
        match &result {
            Ok(outcome) => {
                tracing::debug!(object = %key, ?outcome, "written");
                self.differ.written(&key, registry.clone(), hash);
                self.differ.settled(&key);
                self.failed.remove(&key);
            }
            Err(error) => {
                tracing::warn!(object = %key, %error, "cannot write");
                self.defer(&key, error, hash);
            }
        }
        let at = SystemTime::now();
        self.ledger.note(
            key,
            Record {
                registry,
                at,
                result,
            },
        );
    }

    fn defer(&mut self, key: &ObjectKey, error: &WriteError, wanted: Option<ContentHash>) {
        let tries = self
            .failed
            .get(key)
            .filter(|f| f.wanted == wanted)
            .map_or(0, |f| f.tries);
        let doubled = self.pace.retry.saturating_mul(1 << tries.min(16));
        let wait = match error {
            WriteError::Retry {
                after: Some(after), ..
            } => (*after).max(self.pace.retry),
            WriteError::Retry { .. } => doubled,
            // Waiting does not mend these; a change of the object or of the sink does.
            _ => doubled.max(self.pace.slowest / 6),
        };
        let due = Instant::now() + wait.min(self.pace.slowest);
        self.failed.insert(
            key.clone(),
            Failure {
                wanted,
                tries: tries.saturating_add(1),
                due,
            },
        );
    }
}

fn of_kind<T: Clone>(keys: &[(ObjectKey, T)], kind: Kind) -> Vec<(ObjectKey, T)> {
    keys.iter()
        .filter(|(key, _)| key.kind == kind)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
