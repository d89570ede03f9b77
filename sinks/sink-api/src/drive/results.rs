//! What came of writes.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use diolkos_istio::ObjectKey;
use diolkos_model::ContentHash;
use tokio::{task::JoinError, time::Instant};

use super::{Driver, Landed};
use crate::{Observed, Outcome, Record, WriteError, Writer};

impl<W: Writer> Driver<W> {
    pub(super) async fn land_all(&mut self) {
        while let Some(landed) = self.writes.join_next().await {
            self.land(landed);
        }
    }

    pub(super) fn land(&mut self, landed: Result<Landed, JoinError>) {
        let (key, result) = match landed.map_err(JoinError::try_into_panic) {
            Ok(landed) => landed,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // Only the end of the runtime cancels writes.
            Err(Err(_)) => return,
        };
        let Some(flight) = self.flights.remove(&key) else {
            return;
        };
        match flight.ticket {
            Some(ticket) => self.queue.done(ticket),
            None => self.retrying -= 1,
        }
        match result {
            Err(WriteError::NotPermitted(registry)) => {
                self.park(key.clone(), registry, flight.former);
            }
            result => self.record(&key, result, flight.registry, flight.hash),
        }
        let generation = self.differ.generation();
        if let Some(state) = flight.observed {
            let key = key.clone();
            self.drifted(vec![Observed { key, state }]);
        }
        if let Some(former) = flight.again {
            self.place(key, former, generation);
        }
    }

    pub(super) fn record(
        &mut self,
        key: &ObjectKey,
        result: Result<Outcome, WriteError>,
        registry: Arc<str>,
        hash: Option<ContentHash>,
    ) {
        (self.driving.on_applied)(key, &result);
        match &result {
            Ok(outcome) => {
                tracing::debug!(object = %key, ?outcome, "written");
                self.bursts.ended(Instant::now());
                let now = Instant::now();
                if self.outage.worked(now, self.driving.pace.slowest) {
                    tracing::info!("the sink takes writes again, what waits is tried at once");
                    self.retries.hurry(now);
                }
                self.differ.written(key, registry.clone(), hash);
                self.retries.forget(key);
            }
            Err(error) => self.failed(key, error, hash),
        }
        self.note(key, registry, result);
    }

    fn failed(&mut self, key: &ObjectKey, error: &WriteError, hash: Option<ContentHash>) {
        let (now, pace) = (Instant::now(), self.driving.pace);
        tracing::debug!(object = %key, %error, "cannot write");
        if let Some(count) = self.summary.add(error.category(), now) {
            tracing::warn!(object = %key, count, %error, "cannot write objects, this one among them; see the status for the others");
        }
        if matches!(error, WriteError::Retry { .. }) {
            self.outage.failed();
        }
        if let WriteError::Retry {
            after: Some(after), ..
        } = error
        {
            self.bursts.pause(now + (*after).min(pace.slowest));
        }
        self.retries.fail(key, hash, error, now, &pace, jitter());
    }

    pub(super) fn note(
        &self,
        key: &ObjectKey,
        registry: Arc<str>,
        result: Result<Outcome, WriteError>,
    ) {
        let record = Record {
            registry,
            at: SystemTime::now(),
            result,
        };
        self.driving.ledger.note(key.clone(), record);
    }
}

/// Whether the store as a whole does not work, as far as writes tell.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Writes in a row that failed without a word on the object itself.
    failures: usize,
    /// When the last outage ended.
    ended: Option<Instant>,
}

impl Outage {
    /// So many failures in a row are no accident.
    const IN_A_ROW: usize = 8;

    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// A write worked. Returns whether that is the end of an outage: at most once in `pause`, since many objects that
    /// are refused for ever, among few others that work, look like one outage after the other.
    fn worked(&mut self, now: Instant, pause: Duration) -> bool {
        let ends = std::mem::take(&mut self.failures) >= Self::IN_A_ROW
            && self.ended.is_none_or(|ended| now - ended >= pause);
        if ends {
            self.ended = Some(now);
        }
        ends
    }
}

/// Between 0 and 1. Each hasher of the standard library has random keys.
fn jitter() -> f64 {
    f64::from(RandomState::new().hash_one(()) as u32) / f64::from(u32::MAX)
}
