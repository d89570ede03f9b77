//! What came of writes.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::SystemTime,
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

/// Between 0 and 1. Each hasher of the standard library has random keys.
fn jitter() -> f64 {
    f64::from(RandomState::new().hash_one(()) as u32) / f64::from(u32::MAX)
}
