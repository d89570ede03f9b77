//! All Leases together: what is known of them, and what to do. Pure: the times are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Holder, LeaseSettings, LeaseTerms, LeaseView,
    decide::{Action, Mine, Preferred, Record, Seen, decide},
    share::{Serves, share},
};

/// What a Lease is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Registry(Arc<str>),
    Replica(Arc<str>),
}

/// A Lease of the list.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) subject: Subject,
    /// `metadata.resourceVersion`.
    pub(super) version: String,
    pub(super) record: Record,
    /// The registries that a replica serves.
    pub(super) serves: BTreeSet<Arc<str>>,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) subject: Subject,
    /// The version that it changes; `None`: the Lease is new.
    pub(super) version: Option<String>,
    pub(super) write: Write,
}

#[derive(Clone, Debug)]
pub(super) enum Write {
    Put {
        record: Record,
        serves: BTreeSet<Arc<str>>,
    },
    Delete,
}

/// Why a call did not do what it was meant to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The Lease is not there any more.
    Missing,
    /// It has another version, or none of that name was expected.
    Conflict,
    /// It may have been done or not.
    Unknown,
}

/// Both clocks. The second one is only for people to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: Instant,
    pub(super) wall: Timestamp,
}

impl Clock {
    pub(super) fn read() -> Self {
        Self {
            now: Instant::now(),
            wall: Timestamp::now(),
        }
    }
}

/// What one replica knows.
pub(super) struct Election {
    settings: LeaseSettings,
    /// The registries that we serve.
    wanted: BTreeSet<Arc<str>>,
    slots: BTreeMap<Subject, Slot>,
}

struct Slot {
    version: Option<String>,
    seen: Seen,
    mine: Mine,
    serves: BTreeSet<Arc<str>>,
}

impl Slot {
    fn missing(now: Instant) -> Self {
        Self {
            version: None,
            seen: Seen {
                record: None,
                since: now,
            },
            mine: Mine::No,
            serves: BTreeSet::new(),
        }
    }

    fn gone(&mut self, now: Instant) {
        if self.seen.record.is_some() {
            *self = Self::missing(now);
        }
    }
}

impl Election {
    pub(super) fn new(settings: LeaseSettings) -> Self {
        Self {
            settings,
            wanted: BTreeSet::new(),
            slots: BTreeMap::new(),
        }
    }

    /// The registries that we serve from now on.
    pub(super) fn want(&mut self, wanted: BTreeSet<Arc<str>>) {
        self.wanted = wanted;
    }

    /// Takes over all Leases as they are. `now` is the time after the answer: the others' time runs from when we
    /// saw them.
    pub(super) fn observe(&mut self, all: Vec<Listed>, now: Instant) {
        let listed: BTreeSet<_> = all.iter().map(|lease| lease.subject.clone()).collect();
        for lease in all {
            self.observe_one(lease, now);
        }
        for (subject, slot) in &mut self.slots {
            if !listed.contains(subject) {
                slot.gone(now);
            }
        }
        let ours: BTreeSet<_> = self.ours().collect();
        self.slots
            .retain(|subject, slot| slot.seen.record.is_some() || ours.contains(subject));
        for subject in ours {
            self.slots
                .entry(subject)
                .or_insert_with(|| Slot::missing(now));
        }
    }

    fn observe_one(&mut self, lease: Listed, now: Instant) {
        let slot = self
            .slots
            .entry(lease.subject)
            .or_insert_with(|| Slot::missing(now));
        if lease.record.holder.as_ref() != Some(&self.settings.identity) {
            slot.mine = Mine::No;
        }
        // The version, not `renewTime`: that one may stand still with the clock of the holder.
        if slot.version.as_ref() != Some(&lease.version) {
            slot.version = Some(lease.version);
            slot.seen = Seen {
                record: Some(lease.record),
                since: now,
            };
        }
        slot.serves = lease.serves;
    }

    /// The Leases that must be there.
    fn ours(&self) -> impl Iterator<Item = Subject> {
        let me = Subject::Replica(self.settings.identity.clone());
        let registries = self.wanted.iter().cloned().map(Subject::Registry);
        registries.chain([me])
    }

    /// What is to be sent now. Only after `fresh` looks Leases are taken: what the API server did not tell us for
    /// long may well be renewed.
    pub(super) fn calls(&mut self, clock: Clock, fresh: bool) -> Vec<Call> {
        let serves = self.alive(clock.now);
        let shared = share(&serves);
        let mut calls = Vec::new();
        let subjects: Vec<Subject> = self.slots.keys().cloned().collect();
        for subject in subjects {
            let preferred = self.preferred(&subject, &shared);
            let Some(slot) = self.slots.get_mut(&subject) else {
                continue;
            };
            note_astray(&mut slot.mine, preferred, clock.now);
            let mut action = decide(&slot.seen, slot.mine, preferred, clock.now, &self.settings);
            let me = matches!(&subject, Subject::Replica(id) if *id == self.settings.identity);
            if me && action == Action::Wait && slot.serves != self.wanted {
                action = Action::Renew;
            }
            if !fresh && action == Action::Take {
                action = Action::Wait;
            }
            let write = match action {
                Action::Wait => None,
                Action::Leave => {
                    slot.mine = Mine::Leaving { since: clock.now };
                    None
                }
                Action::Take | Action::Renew => Some(self.put(&subject, action, clock.wall)),
                Action::Release if nobody_serves(&subject, &serves) => Some(Write::Delete),
                Action::Release => Some(self.put(&subject, action, clock.wall)),
            };
            let write = write.or_else(|| {
                let stale = fresh && self.is_stale(&subject, &serves, clock.now);
                stale.then_some(Write::Delete)
            });
            calls.extend(write.map(|write| self.call(subject, write)));
        }
        calls
    }

    /// What is to be sent when we stop, in this order: once our own Lease is gone, nobody waits for us to take one.
    pub(super) fn last_calls(&self, wall: Timestamp) -> Vec<Call> {
        let me = Some(&self.settings.identity);
        let held = self.slots.iter().rev().filter(|(_, slot)| {
            let record = slot.seen.record.as_ref();
            record.and_then(|record| record.holder.as_ref()) == me
        });
        held.map(|(subject, _)| {
            let write = match subject {
                Subject::Replica(_) => Write::Delete,
                Subject::Registry(_) => self.put(subject, Action::Release, wall),
            };
            self.call(subject.clone(), write)
        })
        .collect()
    }

    fn call(&self, subject: Subject, write: Write) -> Call {
        let version = self.slots.get(&subject).and_then(|s| s.version.clone());
        Call {
            subject,
            version,
            write,
        }
    }

    /// Takes over what came of a call. `Ok` has the new version.
    pub(super) fn answer(
        &mut self,
        call: Call,
        started: Instant,
        now: Instant,
        result: Result<String, Failed>,
    ) {
        let Some(slot) = self.slots.get_mut(&call.subject) else {
            return;
        };
        match (call.write, result) {
            (Write::Put { record, serves }, Ok(version)) => {
                let ours = record.holder.as_ref() == Some(&self.settings.identity);
                slot.mine = match slot.mine {
                    _ if !ours => Mine::No,
                    Mine::Holding { astray, .. } => Mine::Holding {
                        renewed: started,
                        astray,
                    },
                    _ => Mine::Holding {
                        renewed: started,
                        astray: None,
                    },
                };
                slot.seen = Seen {
                    record: Some(record),
                    since: now,
                };
                slot.version = Some(version);
                slot.serves = serves;
            }
            (Write::Delete, Ok(_)) | (_, Err(Failed::Missing)) => slot.gone(now),
            (_, Err(Failed::Conflict | Failed::Unknown)) => {}
        }
    }

    /// Until when we may write what.
    pub(super) fn terms(&self) -> LeaseTerms {
        let lasts = self.settings.duration - self.settings.margin;
        let term = |(subject, slot): (&Subject, &Slot)| match (subject, slot.mine) {
            (Subject::Registry(registry), Mine::Holding { renewed, .. }) => {
                Some((registry.clone(), renewed + lasts))
            }
            _ => None,
        };
        self.slots.iter().filter_map(term).collect()
    }

    /// Everything, for people.
    pub(super) fn view(&self, now: Instant, error: Option<String>) -> LeaseView {
        let registry = |(subject, slot): (&Subject, &Slot)| {
            let Subject::Registry(registry) = subject else {
                return None;
            };
            let record = slot.seen.record.as_ref()?;
            let identity = slot.seen.holder(now).cloned();
            let since = identity.as_ref().and(record.acquired).map(Into::into);
            let holder = Holder {
                identity,
                since,
                transitions: record.transitions,
            };
            Some((registry.clone(), holder))
        };
        LeaseView {
            registries: self.slots.iter().filter_map(registry).collect(),
            replicas: self.alive(now).into_keys().collect(),
            error,
        }
    }

    /// The replicas that are alive, we among them, and what they serve.
    fn alive(&self, now: Instant) -> Serves {
        let mut alive = Serves::new();
        for (subject, slot) in &self.slots {
            if let Subject::Replica(id) = subject
                && slot.seen.holder(now).is_some()
            {
                alive.insert(id.clone(), slot.serves.clone());
            }
        }
        alive.insert(self.settings.identity.clone(), self.wanted.clone());
        alive
    }

    fn preferred(&self, subject: &Subject, shared: &BTreeMap<Arc<str>, Arc<str>>) -> Preferred {
        let me = &self.settings.identity;
        match subject {
            Subject::Replica(id) if id == me => Preferred::Me,
            Subject::Replica(_) => Preferred::Unwanted,
            Subject::Registry(registry) if !self.wanted.contains(registry) => Preferred::Unwanted,
            Subject::Registry(registry) if shared.get(registry) == Some(me) => Preferred::Me,
            Subject::Registry(_) => Preferred::Another,
        }
    }

    /// Whether a Lease is left over from a replica or a registry that is no more. One of the replicas tidies up.
    fn is_stale(&self, subject: &Subject, alive: &Serves, now: Instant) -> bool {
        let over = match subject {
            Subject::Replica(id) => !alive.contains_key(id),
            Subject::Registry(_) => nobody_serves(subject, alive),
        };
        let first = alive.keys().next() == Some(&self.settings.identity);
        let slot = self.slots.get(subject).filter(|s| s.version.is_some());
        over && first && slot.is_some_and(|s| now >= s.seen.free_at() + self.settings.duration)
    }

    /// A Lease as we take, renew or give it back.
    fn put(&self, subject: &Subject, action: Action, wall: Timestamp) -> Write {
        let before = self.slots.get(subject).and_then(|s| s.seen.record.as_ref());
        let transitions = before.map_or(0, |record| record.transitions);
        let acquired = before.and_then(|record| record.acquired);
        let record = Record {
            holder: (action != Action::Release).then(|| self.settings.identity.clone()),
            duration: self.settings.duration,
            transitions: match (action, before) {
                (Action::Take, Some(_)) => transitions.saturating_add(1),
                _ => transitions,
            },
            acquired: if action == Action::Renew {
                acquired.or(Some(wall))
            } else {
                Some(wall)
            },
            renewed: Some(wall),
        };
        let serves = match subject {
            Subject::Replica(_) => self.wanted.clone(),
            Subject::Registry(_) => BTreeSet::new(),
        };
        Write::Put { record, serves }
    }
}

fn note_astray(mine: &mut Mine, preferred: Preferred, now: Instant) {
    if let Mine::Holding { astray, .. } = mine {
        *astray = (preferred == Preferred::Another).then(|| astray.unwrap_or(now));
    }
}

fn nobody_serves(subject: &Subject, alive: &Serves) -> bool {
    match subject {
        Subject::Registry(registry) => !alive.values().any(|serves| serves.contains(registry)),
        Subject::Replica(_) => false,
    }
}

#[cfg(test)]
mod tests;
