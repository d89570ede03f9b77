//! The difference between what should be and what is there. Pure: no I/O, no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use diolkos_istio::{Kind, Object, ObjectKey};
use diolkos_model::{ContentHash, ServiceKey};

use crate::{Change, Desired, Observed, Planned, State};

/// Knows what is there and what should be, and which objects differ.
#[derive(Debug, Default)]
pub struct Differ {
    there: HashMap<ObjectKey, State>,
    desired: Arc<Desired>,
    /// Who wants each object, over all services.
    wanted: HashMap<ObjectKey, (ServiceKey, ContentHash)>,
    /// Objects that are perhaps not as they should be.
    dirty: BTreeSet<ObjectKey>,
}

/// What to do about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is as it should be, or nobody cares.
    Nothing,
    /// Somebody else holds the name.
    Foreign {
        registry: Arc<str>,
    },
    Put {
        service: ServiceKey,
    },
    Delete {
        registry: Arc<str>,
    },
}

impl Differ {
    /// Takes over a full reading of the sink. What it does not mention is not there.
    pub fn observed_all(&mut self, all: Vec<Observed>) {
        let before = std::mem::take(&mut self.there);
        self.dirty.extend(before.into_keys());
        self.dirty.extend(self.wanted.keys().cloned());
        self.observed(all);
    }

    /// Takes over single observations.
    pub fn observed(&mut self, some: Vec<Observed>) {
        for Observed { key, state } in some {
            self.dirty.insert(key.clone());
            match state {
                State::Gone => self.there.remove(&key),
                state => self.there.insert(key, state),
            };
        }
    }

    /// Takes over a new desired state. Only services that changed since the last one are looked at.
    pub fn desired(&mut self, new: &Arc<Desired>) {
        let old = std::mem::replace(&mut self.desired, Arc::clone(new));
        for (key, planned) in &old.services {
            if !new.services.contains_key(key) {
                self.retract(key, planned);
            }
        }
        for (key, planned) in &new.services {
            let before = old.services.get(key);
            if before.is_some_and(|before| Arc::ptr_eq(before, planned)) {
                continue;
            }
            if let Some(before) = before {
                self.retract(key, before);
            }
            for (object, hash) in planned.objects() {
                self.wanted.insert(object.clone(), (key.clone(), *hash));
                self.dirty.insert(object.clone());
            }
        }
        if !Arc::ptr_eq(&old.kept, &new.kept) {
            self.dirty.extend(old.kept.difference(&new.kept).cloned());
        }
        let now_complete: BTreeSet<&Arc<str>> = new
            .registries
            .iter()
            .filter(|(name, state)| {
                state.complete && !old.registries.get(*name).is_some_and(|s| s.complete)
            })
            .map(|(name, _)| name)
            .collect();
        if !now_complete.is_empty() {
            // From now on what nobody wants is an orphan.
            let ours = self.there.iter().filter(|(_, state)| {
                matches!(state, State::Ours { registry, .. } if now_complete.contains(registry))
            });
            self.dirty.extend(ours.map(|(key, _)| key.clone()));
        }
    }

    fn retract(&mut self, service: &ServiceKey, planned: &Planned) {
        for (object, _) in planned.objects() {
            // Another service may want it by now.
            if self
                .wanted
                .get(object)
                .is_some_and(|(owner, _)| owner == service)
            {
                self.wanted.remove(object);
            }
            self.dirty.insert(object.clone());
        }
    }

    /// The objects to look at, sorted.
    #[must_use]
    pub fn dirty(&self) -> Vec<ObjectKey> {
        self.dirty.iter().cloned().collect()
    }

    /// How many objects may differ.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.dirty.len()
    }

    /// The object has been dealt with.
    pub fn settled(&mut self, key: &ObjectKey) {
        self.dirty.remove(key);
    }

    /// Takes over the result of a write that worked.
    pub fn written(&mut self, key: &ObjectKey, registry: Arc<str>, hash: Option<ContentHash>) {
        match hash {
            Some(_) => self
                .there
                .insert(key.clone(), State::Ours { registry, hash }),
            None => self.there.remove(key),
        };
    }

    /// Whether the object is ours or should be.
    pub(crate) fn concerns(&self, key: &ObjectKey) -> bool {
        self.wanted.contains_key(key) || matches!(self.there.get(key), Some(State::Ours { .. }))
    }

    /// The hash that an object should have; `None` if nobody wants it.
    pub(crate) fn wanted_hash(&self, key: &ObjectKey) -> Option<ContentHash> {
        self.wanted.get(key).map(|(_, hash)| *hash)
    }

    /// The generation of the desired state.
    pub(crate) fn generation(&self) -> u64 {
        self.desired.generation
    }

    /// What to do about an object.
    pub(crate) fn step(&self, key: &ObjectKey) -> Step {
        let there = self.there.get(key);
        if matches!(there, Some(State::Ours { .. })) && self.desired.kept.contains(key) {
            return Step::Nothing;
        }
        match (self.wanted.get(key), there) {
            (None, None | Some(State::Foreign | State::Gone)) => Step::Nothing,
            (None, Some(State::Ours { registry, .. })) => {
                // An object of a registry that is not configured may be another instance's, and one
                // of a registry that is not complete may be wanted in a moment.
                let complete = self
                    .desired
                    .registries
                    .get(registry)
                    .is_some_and(|s| s.complete);
                if complete {
                    Step::Delete {
                        registry: registry.clone(),
                    }
                } else {
                    Step::Nothing
                }
            }
            (Some((service, _)), Some(State::Foreign)) => Step::Foreign {
                registry: service.registry.clone(),
            },
            (
                Some((service, hash)),
                Some(State::Ours {
                    registry,
                    hash: Some(there),
                }),
            ) if there == hash && *registry == service.registry => Step::Nothing,
            (Some((service, _)), _) => Step::Put {
                service: service.clone(),
            },
        }
    }

    /// Builds the changes for some objects of one kind; each service's objects are built once.
    pub(crate) fn build(&self, puts: &[(ObjectKey, ServiceKey)]) -> Vec<Change> {
        let mut by_service: BTreeMap<&ServiceKey, BTreeSet<&ObjectKey>> = BTreeMap::new();
        for (object, service) in puts {
            by_service.entry(service).or_default().insert(object);
        }
        let built = by_service.into_iter().flat_map(|(service, keys)| {
            let objects: Vec<Object> = self
                .desired
                .services
                .get(service)
                .map(|planned| planned.build())
                .unwrap_or_default();
            objects
                .into_iter()
                .filter(move |object| keys.contains(&object.key))
        });
        built
            .map(|object| {
                let hash = object.content_hash();
                Change::Put { object, hash }
            })
            .collect()
    }

    /// Objects that say they are ours but whose registry is not configured: left alone, reported.
    #[must_use]
    pub fn unclaimed(&self) -> BTreeMap<Arc<str>, usize> {
        let mut counts = BTreeMap::new();
        for state in self.there.values() {
            if let State::Ours { registry, .. } = state
                && !self.desired.registries.contains_key(registry)
            {
                *counts.entry(registry.clone()).or_default() += 1;
            }
        }
        counts
    }

    /// Differences as a list, without doing anything: object, and whether it would be created,
    /// changed or deleted.
    #[must_use]
    pub fn preview(&self) -> Vec<(ObjectKey, &'static str)> {
        self.dirty()
            .into_iter()
            .filter_map(|key| {
                let what = match self.step(&key) {
                    Step::Nothing => return None,
                    Step::Foreign { .. } => "conflict",
                    Step::Delete { .. } => "delete",
                    Step::Put { .. } if self.there.contains_key(&key) => "change",
                    Step::Put { .. } => "create",
                };
                Some((key, what))
            })
            .collect()
    }

    /// The objects that are there and ours, by kind.
    #[must_use]
    pub fn held(&self, kind: Kind) -> usize {
        self.there
            .iter()
            .filter(|(key, state)| key.kind == kind && matches!(state, State::Ours { .. }))
            .count()
    }
}

#[cfg(test)]
mod tests;
