//! What is there, as far as we know, and what others changed of it. Pure: no I/O, no clock.
//!
//! Two voices tell of an object: the watch, and the answers to our own writes. The watch's event of our own write
//! may come before the answer, after it, or after the next write. Rules:
//! - While a write of an object is under way, its events wait ([`Cache::begin`], [`Cache::settle`]).
//! - An event that is not newer than what is known says nothing.
//! - What we removed leaves a tombstone until the watch has seen that, so that late events of the time before do
//!   not look like a new object.

use std::collections::{HashMap, HashSet};

use diolkos_istio::{Kind, ObjectKey};
use diolkos_sink_api::{Observed, Remembered, State};
use kube::api::ObjectMeta;

use crate::entry::{self, Entry, Shares};

#[derive(Debug, Default)]
pub(crate) struct Cache {
    objects: HashMap<ObjectKey, Known>,
    /// Objects whose write is under way.
    in_flight: HashMap<ObjectKey, Waiting>,
    /// Objects that others changed, not yet told.
    changed: HashSet<ObjectKey>,
    workload_entries: Listing,
    service_entries: Listing,
    shares: Shares,
}

/// What waits for the end of a write.
#[derive(Debug, Default)]
struct Waiting {
    /// The newest event.
    event: Option<Event>,
    /// Others had changed it before, and that was not told yet.
    changed: bool,
}

#[derive(Debug)]
struct Known {
    entry: Entry,
    /// The listing that it was seen in last.
    seen: u32,
}

/// The lists of one kind, counted.
#[derive(Debug, Default)]
struct Listing {
    number: u32,
    running: bool,
}

/// What the watch says of one object.
#[derive(Debug)]
enum Event {
    Is(Entry),
    /// Removed, with the resource version of that.
    Gone(u64),
}

impl Event {
    fn version(&self) -> u64 {
        match self {
            Self::Is(entry) => entry.version,
            Self::Gone(version) => *version,
        }
    }
}

/// What a write taught us.
#[derive(Debug)]
pub(crate) enum Learned {
    /// Nothing: it failed, or it is unknown what came of it.
    Nothing,
    /// The object is now as we wrote it.
    Wrote(Entry),
    /// We removed it, or it was gone; it was this.
    Removed(Entry),
    /// Somebody else changed it: this is how it is now, `None` if it is gone.
    Saw(Option<Entry>),
}

impl Cache {
    /// What is known of an object, tombstones left out.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Entry> {
        let known = self.objects.get(key)?;
        (known.entry.state != State::Gone).then_some(&known.entry)
    }

    /// Reads metadata into what is kept of it.
    pub(crate) fn read(&mut self, kind: Kind, meta: &ObjectMeta) -> Option<(ObjectKey, Entry)> {
        entry::read(kind, meta, &mut self.shares)
    }

    /// A list of a kind begins.
    pub(crate) fn list_begins(&mut self, kind: Kind) {
        let listing = self.listing(kind);
        listing.number = listing.number.wrapping_add(1);
        listing.running = true;
    }

    /// A list is complete: what it did not mention is gone.
    pub(crate) fn list_ends(&mut self, kind: Kind) {
        let listing = self.listing(kind);
        listing.running = false;
        let number = listing.number;
        let Self {
            objects,
            in_flight,
            changed,
            ..
        } = self;
        objects.retain(|key, known| {
            // The answer to a write that is under way is newer than the list.
            let stays = key.kind != kind || known.seen == number || in_flight.contains_key(key);
            if !stays && known.entry.state != State::Gone {
                changed.insert(key.clone());
            }
            stays
        });
        self.shares.sweep();
    }

    /// The watch or a list says that an object is so.
    pub(crate) fn is(&mut self, key: ObjectKey, entry: Entry) {
        self.event(key, Event::Is(entry));
    }

    /// The watch says that an object was removed.
    pub(crate) fn gone(&mut self, key: ObjectKey, version: u64) {
        self.event(key, Event::Gone(version));
    }

    fn event(&mut self, key: ObjectKey, event: Event) {
        if let Some(waiting) = self.in_flight.get_mut(&key) {
            let older = waiting.event.as_ref();
            if older.is_none_or(|other| other.version() <= event.version()) {
                waiting.event = Some(event);
            }
            return;
        }
        let seen = self.listing(key.kind).number;
        let Some(known) = self.objects.get_mut(&key) else {
            if let Event::Is(entry) = event {
                self.changed.insert(key.clone());
                self.objects.insert(key, Known { entry, seen });
            }
            return;
        };
        match event {
            Event::Is(entry) => {
                known.seen = seen;
                if entry.version <= known.entry.version {
                    return;
                }
                if entry.state != known.entry.state {
                    self.changed.insert(key);
                }
                known.entry = entry;
            }
            Event::Gone(version) if version < known.entry.version => {}
            Event::Gone(_) => {
                if known.entry.state != State::Gone {
                    self.changed.insert(key.clone());
                }
                self.objects.remove(&key);
            }
        }
    }

    /// A write of the object begins.
    pub(crate) fn begin(&mut self, key: &ObjectKey) {
        let waiting = self.in_flight.entry(key.clone()).or_default();
        waiting.changed |= self.changed.remove(key);
    }

    /// The write of an object ended.
    pub(crate) fn settle(&mut self, key: &ObjectKey, learned: Learned) {
        let Waiting { event, changed } = self.in_flight.remove(key).unwrap_or_default();
        if changed {
            self.changed.insert(key.clone());
        }
        match learned {
            Learned::Nothing => {}
            Learned::Wrote(entry) => self.wrote(key, entry),
            Learned::Removed(entry) => self.wrote(
                key,
                Entry {
                    state: State::Gone,
                    ..entry
                },
            ),
            Learned::Saw(Some(entry)) => self.is(key.clone(), entry),
            Learned::Saw(None) => self.gone(key.clone(), u64::MAX),
        }
        if let Some(event) = event {
            self.event(key.clone(), event);
        }
    }

    fn wrote(&mut self, key: &ObjectKey, entry: Entry) {
        let listing = self.listing(key.kind);
        // Written during a list, it may be in it or not. If it is not, it counts as gone until the watch tells of
        // it a moment later; to take it as seen would miss that somebody removed it before the list was made.
        let seen = listing.number.wrapping_sub(listing.running.into());
        self.changed.remove(key);
        self.objects.insert(key.clone(), Known { entry, seen });
    }

    /// Whether others changed something that was not told yet.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What others changed since the last time.
    pub(crate) fn take_changes(&mut self) -> Vec<Observed> {
        let changed = std::mem::take(&mut self.changed);
        let observed = |key: ObjectKey| {
            let state = self
                .objects
                .get(&key)
                .map_or(State::Gone, |known| known.entry.state.clone());
            Observed { key, state }
        };
        changed.into_iter().map(observed).collect()
    }

    /// All that is there. Counts as told.
    pub(crate) fn take_all(&mut self) -> Vec<Observed> {
        self.changed.clear();
        let there = self
            .objects
            .iter()
            .filter(|(_, known)| known.entry.state != State::Gone);
        there
            .map(|(key, known)| Observed {
                key: key.clone(),
                state: known.entry.state.clone(),
            })
            .collect()
    }

    /// What our objects tell of the time before.
    pub(crate) fn remembered(&self) -> Vec<Remembered> {
        let objects = self.objects.iter();
        let remembered = objects.filter_map(|(key, known)| known.entry.remembered(key));
        remembered.collect()
    }

    fn listing(&mut self, kind: Kind) -> &mut Listing {
        match kind {
            Kind::WorkloadEntry => &mut self.workload_entries,
            Kind::ServiceEntry => &mut self.service_entries,
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
