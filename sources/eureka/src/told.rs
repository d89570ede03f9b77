//! What the engine was told, and how it is told what is different. Pure.
//!
//! The guard takes a single removal as a deregistration. That is what it is when an instance leaves;
//! when a Eureka whose self-preservation is off evicts all that a broken network hides from it, it is
//! not. So what is lost by one answer goes out as a snapshot where it is much, or where a full answer
//! lacks whole applications, and the guard weighs it as a whole.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use diolkos_model::{ContentHash, Service};

/// Most instances that may leave by single removals, whatever the size of the registry; and the share
/// of all, as a divisor, in a larger one.
const FEW: usize = 5;
const SHARE: usize = 10;

/// What was said of a service.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    content: ContentHash,
    instances: usize,
    complete: bool,
}

/// What was said of all services that are known to the engine, by name.
#[derive(Debug, Default)]
pub(crate) struct Told(HashMap<Arc<str>, Said>);

/// What is different from what was said.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Services that are new or have other content.
    pub(crate) changed: Vec<Arc<Service>>,
    /// Services that are not there any more.
    pub(crate) gone: Vec<Arc<str>>,
    /// So many instances less than before, all in all.
    lost: usize,
    /// So many instances there were.
    known: usize,
}

impl Difference {
    /// Whether so much is lost that it has to be looked at as a whole.
    pub(crate) fn is_much(&self) -> bool {
        self.lost > FEW.max(self.known / SHARE)
    }
}

impl Told {
    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// Compares these names' services, as `service` makes them, with what was said. `complete`:
    /// whether it is known for sure what they have.
    pub(crate) fn compare(
        &self,
        names: &BTreeSet<Arc<str>>,
        complete: bool,
        mut service: impl FnMut(&str) -> Option<Service>,
    ) -> Difference {
        let mut difference = Difference {
            known: self.0.values().map(|said| said.instances).sum(),
            ..Difference::default()
        };
        let (mut before, mut now) = (0, 0);
        for name in names {
            let said = self.0.get(name).copied();
            before += said.map_or(0, |said| said.instances);
            match service(name) {
                None if said.is_some() => difference.gone.push(name.clone()),
                None => {}
                Some(service) => {
                    now += service.instances.len();
                    let new = Said::of(&service, complete);
                    let same = said.is_some_and(|said| said.covers(new));
                    if !same {
                        difference.changed.push(Arc::new(service));
                    }
                }
            }
        }
        difference.lost = before.saturating_sub(now);
        difference
    }

    /// The engine was told of a service.
    pub(crate) fn say(&mut self, service: &Service, complete: bool) {
        let said = Said::of(service, complete);
        self.0.insert(service.key.name.clone(), said);
    }

    /// The engine was told that a service is gone.
    pub(crate) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// A complete snapshot named these services only.
    pub(crate) fn keep(&mut self, names: &BTreeSet<Arc<str>>) {
        self.0.retain(|name, _| names.contains(name));
    }
}

impl Said {
    fn of(service: &Service, complete: bool) -> Self {
        Self {
            content: service.content_hash(),
            instances: service.instances.len(),
            complete,
        }
    }

    /// Whether nothing is won by saying `new`.
    fn covers(self, new: Self) -> bool {
        self.content == new.content && (self.complete || !new.complete)
    }
}

#[cfg(test)]
mod tests;
