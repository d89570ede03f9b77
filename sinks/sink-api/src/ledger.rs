//! What was written, when, and what could not be: for people, never for decisions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use diolkos_istio::{Kind, ObjectKey};

use crate::{Outcome, WriteError};

/// The last thing that happened to an object.
#[derive(Clone, Debug)]
pub struct Record {
    /// The registry that it belongs to.
    pub registry: Arc<str>,
    /// When.
    pub at: SystemTime,
    /// What was done, or why not.
    pub result: Result<Outcome, WriteError>,
}

/// Counts of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects that could not be written, by category.
    pub failing: BTreeMap<&'static str, usize>,
    /// One of them, as an example for people.
    pub example: Option<String>,
}

/// Shared between the loop that writes and those who ask.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<RwLock<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    records: HashMap<ObjectKey, Record>,
    pending: usize,
    generation: u64,
    unreadable: Option<String>,
    held: BTreeMap<Kind, usize>,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The last thing that happened to an object since the start.
    #[must_use]
    pub fn record(&self, key: &ObjectKey) -> Option<Record> {
        self.read(|inner| inner.records.get(key).cloned())
    }

    /// How many objects are not yet as they should be.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.read(|inner| inner.pending)
    }

    /// The generation of the desired state that was worked through last.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.read(|inner| inner.generation)
    }

    /// The objects of ours that are there, by kind.
    #[must_use]
    pub fn held(&self) -> BTreeMap<Kind, usize> {
        self.read(|inner| inner.held.clone())
    }

    /// Why the sink cannot be read, if it cannot.
    #[must_use]
    pub fn unreadable(&self) -> Option<String> {
        self.read(|inner| inner.unreadable.clone())
    }

    /// What fails, for one registry.
    #[must_use]
    pub fn totals(&self, registry: &str) -> Totals {
        self.read(|inner| {
            let mut totals = Totals::default();
            for (key, record) in &inner.records {
                let Err(error) = &record.result else { continue };
                if &*record.registry != registry {
                    continue;
                }
                *totals.failing.entry(error.category()).or_default() += 1;
                let example = format!("{key}: {error}");
                if totals.example.as_ref().is_none_or(|known| example < *known) {
                    totals.example = Some(example);
                }
            }
            totals
        })
    }

    /// For sinks that are not driven by [`crate::drive`]: a generation was worked through.
    pub fn finished(&self, generation: u64) {
        self.write(|inner| inner.generation = generation);
    }

    pub(crate) fn note(&self, key: ObjectKey, record: Record) {
        self.write(|inner| {
            let gone = matches!(record.result, Ok(Outcome::Deleted | Outcome::AlreadyGone));
            if gone {
                inner.records.remove(&key);
            } else {
                inner.records.insert(key, record);
            }
        });
    }

    /// The object is as it should be, whoever made it so, or nobody wants it any more.
    pub(crate) fn forget_failure(&self, key: &ObjectKey) {
        self.write(|inner| {
            if inner.records.get(key).is_some_and(|r| r.result.is_err()) {
                inner.records.remove(key);
            }
        });
    }

    pub(crate) fn progress(&self, pending: usize, generation: u64, held: BTreeMap<Kind, usize>) {
        self.write(|inner| {
            inner.pending = pending;
            inner.generation = generation;
            inner.held = held;
        });
    }

    pub(crate) fn readable(&self, error: Option<String>) {
        self.write(|inner| inner.unreadable = error);
    }

    // A poisoned lock only means that a reader panicked: the records are whole.
    fn read<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}
