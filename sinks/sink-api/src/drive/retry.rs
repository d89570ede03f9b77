//! When objects are tried again. Pure: the time and the jitter are arguments.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use diolkos_istio::ObjectKey;
use diolkos_model::ContentHash;
use tokio::time::Instant;

use super::pace::Pace;
use crate::WriteError;

/// Objects that have to wait before they are tried (again).
#[derive(Debug, Default)]
pub(super) struct Retries {
    waits: HashMap<ObjectKey, Wait>,
    /// Those that are not being tried just now.
    due: BTreeSet<(Instant, ObjectKey)>,
}

#[derive(Debug)]
struct Wait {
    /// What was tried.
    wanted: Option<ContentHash>,
    /// How often it failed.
    tries: u32,
    /// How often it was tried early because something else was wanted.
    early: u32,
    since: Instant,
    due: Instant,
}

impl Retries {
    /// A try failed. `jitter` is between 0 and 1.
    pub(super) fn fail(
        &mut self,
        key: &ObjectKey,
        wanted: Option<ContentHash>,
        error: &WriteError,
        now: Instant,
        pace: &Pace,
        jitter: f64,
    ) {
        let before = self.waits.get(key);
        let (tries, early) = before.map_or((0, 0), |wait| (wait.tries, wait.early));
        let wait = Wait {
            wanted,
            tries: tries.saturating_add(1),
            early,
            since: now,
            due: now + pause(error, tries, pace, jitter),
        };
        self.set(key, wait);
    }

    /// It is not to be tried before `due`, though it did not fail.
    pub(super) fn hold(
        &mut self,
        key: &ObjectKey,
        wanted: Option<ContentHash>,
        now: Instant,
        due: Instant,
    ) {
        let before = self.waits.get(key);
        let (tries, early) = before.map_or((0, 0), |wait| (wait.tries, wait.early));
        let wait = Wait {
            wanted,
            tries,
            early,
            since: now,
            due,
        };
        self.set(key, wait);
    }

    fn set(&mut self, key: &ObjectKey, wait: Wait) {
        self.forget(key);
        self.due.insert((wait.due, key.clone()));
        self.waits.insert(key.clone(), wait);
    }

    /// What is wanted of an object that waits. Something else than what was tried is tried
    /// [sooner](Self::sooner).
    pub(super) fn wants(&mut self, key: &ObjectKey, wanted: Option<ContentHash>, pace: &Pace) {
        if let Some(wait) = self.waits.get_mut(key)
            && wait.wanted != wanted
        {
            wait.wanted = wanted;
            self.sooner(key, pace);
        }
    }

    /// Somebody changed an object that waits. If it failed, that may have been the cause of it; if it
    /// did not, it waits because it is changed so often.
    pub(super) fn edited(&mut self, key: &ObjectKey, pace: &Pace) {
        if self.waits.get(key).is_some_and(|wait| wait.tries > 0) {
            self.sooner(key, pace);
        }
    }

    /// There is a reason to try an object that waits before its time: at once, after the next reason
    /// not before [`Pace::retry`] is over, and so on doubling. So an object that fails and flaps is
    /// not tried each time that it flaps.
    fn sooner(&mut self, key: &ObjectKey, pace: &Pace) {
        let Some(wait) = self.waits.get_mut(key) else {
            return;
        };
        let pause = match wait.early {
            0 => Duration::ZERO,
            early => doubled(pace, early - 1),
        };
        let sooner = wait.since + pause;
        if sooner < wait.due && self.due.remove(&(wait.due, key.clone())) {
            wait.early = wait.early.saturating_add(1);
            wait.due = sooner;
            self.due.insert((sooner, key.clone()));
        }
    }

    /// The store works again after it did not for a while: whatever was tried in vain meanwhile is due now. What
    /// nobody tried does not wait for the store.
    pub(super) fn hurry(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.due);
        for (due, key) in waiting {
            let due = match self.waits.get_mut(&key) {
                Some(wait) if wait.tries > 0 && wait.due > now => {
                    wait.due = now;
                    now
                }
                _ => due,
            };
            self.due.insert((due, key));
        }
    }

    /// It is as it should be.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        if let Some(wait) = self.waits.remove(key) {
            self.due.remove(&(wait.due, key.clone()));
        }
    }

    /// An object whose time has come. It is being tried until [`Self::fail`] or [`Self::forget`].
    pub(super) fn pop(&mut self, now: Instant) -> Option<ObjectKey> {
        let (due, _) = self.due.first()?;
        if *due > now {
            return None;
        }
        self.due.pop_first().map(|(_, key)| key)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether it waits or is being tried again.
    pub(super) fn contains(&self, key: &ObjectKey) -> bool {
        self.waits.contains_key(key)
    }
}

/// How long to wait after a failure, of which there were `tries` before.
fn pause(error: &WriteError, tries: u32, pace: &Pace, jitter: f64) -> Duration {
    // Downwards only: `slowest` is a promise.
    let spread = |wait: Duration| wait.mul_f64(1.0 - 0.2 * jitter);
    match error {
        // Never earlier than asked.
        WriteError::Retry {
            after: Some(after), ..
        } => (*after).clamp(pace.retry.min(pace.slowest), pace.slowest),
        WriteError::Retry { .. } => spread(doubled(pace, tries)),
        // Waiting does not mend these; a change of the object or of the sink does.
        _ => spread(doubled(pace, tries).max(pace.slowest / 6)),
    }
}

fn doubled(pace: &Pace, times: u32) -> Duration {
    let wait = pace.retry.saturating_mul(1 << times.min(16));
    wait.min(pace.slowest)
}

/// How often others changed our objects, so that two programs that both think that they own an object
/// do not fight as fast as they can.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    objects: HashMap<ObjectKey, Repair>,
    tidied: Option<Instant>,
}

#[derive(Debug)]
struct Repair {
    count: u32,
    last: Instant,
}

/// Repairs that are made at once.
const AT_ONCE: u32 = 3;
/// An object that was left alone for so long after a repair begins anew.
const QUIET: Duration = Duration::from_secs(60);

impl Repairs {
    /// Somebody changed the object. Returns how often it was repaired already, and when it may be
    /// repaired again, if that is too much to do it at once.
    pub(super) fn edited(
        &mut self,
        key: &ObjectKey,
        now: Instant,
        pace: &Pace,
    ) -> Option<(u32, Instant)> {
        self.tidy(now);
        let repair = self.objects.entry(key.clone()).or_insert(Repair {
            count: 0,
            last: now,
        });
        if now.duration_since(repair.last) >= QUIET {
            repair.count = 0;
        }
        let before = repair.count;
        repair.count = before.saturating_add(1);
        repair.last = now;
        let late = before.checked_sub(AT_ONCE)?;
        let wait = doubled(pace, late.saturating_add(1));
        repair.last = now + wait;
        Some((before, now + wait))
    }

    /// Forgets those that were left alone, now and then.
    fn tidy(&mut self, now: Instant) {
        let tidied = *self.tidied.get_or_insert(now);
        if now.duration_since(tidied) >= QUIET {
            self.tidied = Some(now);
            let quiet = |repair: &Repair| now.saturating_duration_since(repair.last) >= QUIET;
            self.objects.retain(|_, repair| !quiet(repair));
        }
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
