//! What one peer says that it holds. Pure: no I/O, no clock.
//!
//! What is in here comes from one peer only, and always adds up: a delta that does not lead to the
//! counts that the peer gives is not taken over. So that an instance does not flap between two of
//! the peer's response caches of different age, a record of a delta never replaces a newer one.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    fmt::Write,
    sync::Arc,
};

use crate::mapping::{Change, Entry};

/// The instances of one application, by id.
pub(crate) type Application = BTreeMap<Arc<str>, Entry>;

/// What an answer holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// The peer's counts by status; `None` if it gives none.
    pub(crate) hash: Option<String>,
    /// The number of a delta, which grows as long as the peer lives.
    pub(crate) version: Option<u64>,
    /// The instances, in the order of the answer.
    pub(crate) changes: Vec<Change>,
}

impl Answer {
    /// Whether a full answer holds what its hash says. One without a hash cannot be checked.
    pub(crate) fn is_whole(&self) -> bool {
        let statuses = self.changes.iter().map(|change| &*change.entry.status);
        self.hash
            .as_deref()
            .is_none_or(|hash| hash == counts(statuses))
    }
}

/// All applications that a peer holds.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    applications: BTreeMap<Arc<str>, Application>,
}

impl Registry {
    /// Takes over a full answer in the place of everything.
    pub(crate) fn replace(&mut self, answer: Answer) {
        self.applications.clear();
        for Change { app, id, entry, .. } in answer.changes {
            self.applications.entry(app).or_default().insert(id, entry);
        }
    }

    /// Takes over a delta, if that leads to the counts that the peer gives with it. Returns the
    /// applications that it touches, or `None` if nothing was taken over.
    pub(crate) fn follow(&mut self, delta: &Answer) -> Option<BTreeSet<Arc<str>>> {
        let hash = delta.hash.as_deref()?;
        let mut before: BTreeMap<Arc<str>, Option<Application>> = BTreeMap::new();
        for change in &delta.changes {
            before
                .entry(change.app.clone())
                .or_insert_with(|| self.applications.get(&change.app).cloned());
            self.take(change);
        }
        if hash == self.hash() {
            return Some(before.into_keys().collect());
        }
        for (name, application) in before {
            match application {
                Some(application) => drop(self.applications.insert(name, application)),
                None => drop(self.applications.remove(&name)),
            }
        }
        None
    }

    fn take(&mut self, change: &Change) {
        let application = self.applications.entry(change.app.clone()).or_default();
        match application.entry(change.id.clone()) {
            btree_map::Entry::Occupied(known) if known.get().updated > change.entry.updated => {}
            btree_map::Entry::Occupied(known) if change.deleted => drop(known.remove()),
            btree_map::Entry::Occupied(mut known) => drop(known.insert(change.entry.clone())),
            btree_map::Entry::Vacant(_) if change.deleted => {}
            btree_map::Entry::Vacant(vacant) => drop(vacant.insert(change.entry.clone())),
        }
        if application.is_empty() {
            self.applications.remove(&change.app);
        }
    }

    /// The counts by status, as the peer gives them with each answer.
    pub(crate) fn hash(&self) -> String {
        let entries = self.applications.values().flat_map(BTreeMap::values);
        counts(entries.map(|entry| &*entry.status))
    }

    /// An application; `None` if there is none of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Application> {
        self.applications.get(name)
    }

    /// The names of all applications.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.applications.keys()
    }
}

/// `STATUS_count_` for each status, in the order of their names.
fn counts<'a>(statuses: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for status in statuses {
        *counts.entry(status).or_default() += 1;
    }
    counts
        .iter()
        .fold(String::new(), |mut text, (status, count)| {
            // To a string it never fails.
            write!(text, "{status}_{count}_").ok();
            text
        })
}

#[cfg(test)]
mod tests;
