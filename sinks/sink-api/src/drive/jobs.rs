//! From an object that has its turn to a write that is under way.

use std::sync::Arc;

use diolkos_istio::ObjectKey;
use diolkos_model::ServiceKey;
use tokio::time::Instant;

use super::{
    Built, Driver, Flight, Job, Parked,
    queue::{Group, Picked, Ticket},
    retry_slots,
};
use crate::{Change, Permit, Planned, WriteError, Writer, diff::Step};

/// One pick in so many is for an object that failed before, while there are others.
const RETRY_TURN: usize = 8;

impl<W: Writer> Driver<W> {
    /// What is to be written next. Objects that failed before come after the others, but for one turn
    /// in a few, and never hold more than their share of the slots: they may take long to fail again.
    pub(super) fn next(&mut self, slots: usize, now: Instant) -> Option<Job> {
        let may_retry = self.retrying < retry_slots(slots);
        loop {
            self.picks += 1;
            let retry_first = may_retry && self.picks.is_multiple_of(RETRY_TURN);
            let due = if retry_first {
                self.retries.pop(now)
            } else {
                None
            };
            let picked = due.is_none().then(|| self.queue.pick()).flatten();
            let job = if let Some(Picked { key, group, ticket }) = picked {
                self.job(key, former(group), Some(ticket))
            } else {
                let due = due.or_else(|| may_retry.then(|| self.retries.pop(now)).flatten());
                self.job(due?, None, None)
            };
            if job.is_some() {
                return job;
            }
        }
    }

    /// Looks once more whether the object is to be written, and may be.
    fn job(
        &mut self,
        key: ObjectKey,
        former: Option<ServiceKey>,
        ticket: Option<Ticket>,
    ) -> Option<Job> {
        let step = self.differ.step(&key);
        let registry = match &step {
            Step::Put { service } => service.registry.clone(),
            Step::Delete { registry } => registry.clone(),
            Step::Nothing => return self.none(ticket, |driver| driver.settle(&key)),
            Step::Foreign { registry } => {
                return self.none(ticket, |driver| driver.foreign(&key, registry.clone()));
            }
        };
        if !self.driving.authority.permits(&registry) {
            return self.none(ticket, |driver| driver.park(key, registry, former));
        }
        let change = match &step {
            Step::Put { service } => self.put(&key, service),
            _ => Some(Change::Delete(key.clone())),
        };
        let hash = self.differ.wanted_hash(&key);
        let Some(change) = change else {
            let reason = "it cannot be built as it was planned; this is a defect of Diolkos".into();
            let error = WriteError::Retry {
                reason,
                after: None,
            };
            return self.none(ticket, |driver| {
                driver.record(&key, Err(error), registry, hash);
            });
        };
        let flight = Flight {
            registry,
            hash,
            former,
            ticket,
            observed: None,
            again: None,
        };
        Some(Job { change, flight })
    }

    /// Nothing is to be written after all.
    fn none(&mut self, ticket: Option<Ticket>, instead: impl FnOnce(&mut Self)) -> Option<Job> {
        if let Some(ticket) = ticket {
            self.queue.done(ticket);
        }
        instead(self);
        None
    }

    pub(super) fn park(&mut self, key: ObjectKey, registry: Arc<str>, former: Option<ServiceKey>) {
        self.retries.forget(&key);
        self.parked.insert(key, Parked { registry, former });
    }

    /// The object as it should be. While more of the service is to be written, what was built with it
    /// is kept: to build a large service once for each of its objects would take a square of time.
    fn put(&mut self, key: &ObjectKey, service: &ServiceKey) -> Option<Change> {
        let planned = self.differ.planned(service)?;
        let Built(of, mut objects) = match self.built.remove(service) {
            Some(built) if Arc::ptr_eq(&built.0, planned) && built.1.contains_key(key) => built,
            _ => Built::new(planned),
        };
        let object = objects.remove(key);
        if self.queue.has_more(&Group::Service(service.clone())) {
            self.built.insert(service.clone(), Built(of, objects));
        }
        let (object, hash) = (object?, self.differ.wanted_hash(key)?);
        Some(Change::Put { object, hash })
    }

    pub(super) fn launch(&mut self, Job { change, flight }: Job) {
        let key = change.key().clone();
        let permit = Permit::new(self.driving.authority.clone(), flight.registry.clone());
        let writer = self.writer.clone();
        self.retrying += usize::from(flight.ticket.is_none());
        self.flights.insert(key.clone(), flight);
        self.writes.spawn(async move {
            let result = writer.apply(change, &permit).await;
            (key, result)
        });
    }
}

impl Built {
    fn new(planned: &Arc<Planned>) -> Self {
        let objects = planned.build().into_iter();
        let objects = objects.map(|object| (object.key.clone(), object));
        Self(planned.clone(), objects.collect())
    }
}

fn former(group: Group) -> Option<ServiceKey> {
    match group {
        Group::Service(service) => Some(service),
        Group::Orphan(_) => None,
    }
}
