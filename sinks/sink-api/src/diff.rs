//! The difference between what should be and what is there. Pure: no I/O, no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use diolkos_istio::{Kind, ObjectKey};
use diolkos_model::{ContentHash, Instance, ServiceKey, Weight};

use crate::{Desired, Observed, Planned, RegistryState, State};

/// Knows what is there and what should be, and which objects differ.
#[derive(Debug, Default)]
pub struct Differ {
    there: HashMap<ObjectKey, State>,
    desired: Arc<Desired>,
    /// Who wants each object, over all services.
    wanted: HashMap<ObjectKey, (ServiceKey, ContentHash)>,
    /// What is there and was wanted until a service changed or went: no orphan of unknown origin.
    retracted: HashSet<ObjectKey>,
    dirty: Dirty,
    /// How many of the objects that are there are ours.
    held: BTreeMap<Kind, usize>,
}

/// Where something changed since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Objects that are perhaps not as they should be. Where a service wanted it until now and does
    /// not any more, that one.
    pub(crate) objects: BTreeMap<ObjectKey, Option<ServiceKey>>,
    /// Services with fewer endpoints than before.
    pub(crate) shrunk: BTreeSet<ServiceKey>,
}

impl Dirty {
    fn add(&mut self, key: ObjectKey) {
        self.objects.entry(key).or_default();
    }
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
        self.held.clear();
        let before = std::mem::take(&mut self.there);
        for key in before.into_keys().chain(self.wanted.keys().cloned()) {
            self.dirty.add(key);
        }
        self.observed(all);
        let there = &self.there;
        self.retracted
            .retain(|key| matches!(there.get(key), Some(State::Ours { .. })));
    }

    /// Takes over single observations.
    pub fn observed(&mut self, some: Vec<Observed>) {
        for Observed { key, state } in some {
            self.dirty.add(key.clone());
            self.set(key, state);
        }
    }

    fn set(&mut self, key: ObjectKey, state: State) {
        let kind = key.kind;
        let is_ours = matches!(state, State::Ours { .. });
        if !is_ours {
            self.retracted.remove(&key);
        }
        let before = match state {
            State::Gone => self.there.remove(&key),
            state => self.there.insert(key, state),
        };
        let was_ours = matches!(before, Some(State::Ours { .. }));
        let held = self.held.entry(kind).or_default();
        *held = *held + usize::from(is_ours) - usize::from(was_ours);
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
                if lost_an_endpoint(before, planned) {
                    self.dirty.shrunk.insert(key.clone());
                }
            }
            for (object, hash) in planned.objects() {
                self.wanted.insert(object.clone(), (key.clone(), *hash));
                self.retracted.remove(object);
                self.dirty.add(object.clone());
            }
        }
        if !Arc::ptr_eq(&old.kept, &new.kept) {
            for key in old.kept.symmetric_difference(&new.kept) {
                self.dirty.add(key.clone());
            }
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
            for (key, _) in ours {
                self.dirty.add(key.clone());
            }
        }
    }

    /// Whether the desired state was taken over.
    pub(crate) fn follows(&self, desired: &Arc<Desired>) -> bool {
        Arc::ptr_eq(&self.desired, desired)
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
                if self.there.contains_key(object) {
                    self.forsake(object, &service.registry);
                }
            }
            let dirty = self.dirty.objects.entry(object.clone()).or_default();
            *dirty = Some(service.clone());
        }
    }

    /// Nobody wants an object any more that we have written.
    fn forsake(&mut self, key: &ObjectKey, registry: &Arc<str>) {
        let registry = self.desired.registries.get(registry);
        if registry.is_some_and(|registry| !registry.waits) {
            self.retracted.insert(key.clone());
        }
    }

    /// Where to look, since the last call.
    pub(crate) fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// Takes over the result of a write that worked.
    pub fn written(&mut self, key: &ObjectKey, registry: Arc<str>, hash: Option<ContentHash>) {
        if hash.is_some() && !self.wanted.contains_key(key) {
            self.forsake(key, &registry);
        }
        let state = match hash {
            Some(_) => State::Ours { registry, hash },
            None => State::Gone,
        };
        self.set(key.clone(), state);
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
                // of a registry that is not complete may be wanted in a moment, if it is not known
                // that it is wanted no more.
                let registered = self.desired.registries.get(registry);
                let may_go = |s: &RegistryState| s.complete || self.retracted.contains(key);
                if registered.is_some_and(may_go) {
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

    /// What a service's objects are made of.
    pub(crate) fn planned(&self, service: &ServiceKey) -> Option<&Arc<Planned>> {
        self.desired.services.get(service)
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
        self.dirty
            .objects
            .keys()
            .filter_map(|key| {
                let what = match self.step(key) {
                    Step::Nothing => return None,
                    Step::Foreign { .. } => "conflict",
                    Step::Delete { .. } => "delete",
                    Step::Put { .. } if self.there.contains_key(key) => "change",
                    Step::Put { .. } => "create",
                };
                Some((key.clone(), what))
            })
            .collect()
    }

    /// How many objects are there and ours, by kind.
    #[must_use]
    pub fn held(&self, kind: Kind) -> usize {
        self.held.get(&kind).copied().unwrap_or_default()
    }
}

/// Whether an endpoint of `before` is not in `now`, or gets no traffic any more. Both are sorted by id.
fn lost_an_endpoint(before: &Planned, now: &Planned) -> bool {
    if now.endpoints() < before.endpoints() {
        return true;
    }
    let serves = |i: &&Instance| i.health.is_healthy() && i.weight != Some(Weight(0));
    let mut now = now.service().instances.iter().filter(serves).peekable();
    let before = before.service().instances.iter();
    before.filter(serves).any(|instance| {
        while now.next_if(|other| other.id < instance.id).is_some() {}
        now.next_if(|other| other.id == instance.id).is_none()
    })
}

#[cfg(test)]
mod tests;
