//! Sharing of strings and label sets.

use std::{collections::HashSet, sync::Arc};

/// A label set: sorted by key, each key once. Shared between all instances that have the same one.
pub type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// Hands out shared strings and label sets: equal content, one allocation.
///
/// Each source owns one; it is not shared between tasks.
#[derive(Default, Debug)]
pub struct Interner {
    strings: HashSet<Arc<str>>,
    labels: HashSet<Labels>,
}

impl Interner {
    /// An interner that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The shared form of `text`.
    pub fn string(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        let shared: Arc<str> = text.into();
        self.strings.insert(shared.clone());
        shared
    }

    /// The shared form of a label set. Sorted by key; of several values for one key the last wins.
    pub fn labels<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
        let sorted: std::collections::BTreeMap<&str, &str> = pairs.into_iter().collect();
        let set: Vec<(Arc<str>, Arc<str>)> = sorted
            .into_iter()
            .map(|(key, value)| (self.string(key), self.string(value)))
            .collect();
        if let Some(known) = self.labels.get(set.as_slice()) {
            return known.clone();
        }
        let shared: Labels = set.into();
        self.labels.insert(shared.clone());
        shared
    }

    /// Forgets what nobody else holds any more. Worth calling after a full resynchronisation.
    pub fn sweep(&mut self) {
        self.labels.retain(|set| Arc::strong_count(set) > 1);
        self.strings.retain(|text| Arc::strong_count(text) > 1);
    }

    /// How many strings and label sets are held.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.strings.len(), self.labels.len())
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty() && self.labels.is_empty()
    }
}
