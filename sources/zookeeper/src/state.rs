//! What is known of the registry, kept from one connection to the next.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use diolkos_model::{Service, ServiceKey};
use diolkos_source_api::{Backoff, Evidence};
use diolkos_source_dubbo::{Catalog, Options, Place, decode};

use crate::{
    layout::{Layout, Target},
    read::Found,
};

/// Reasons that are written out in one line.
const REASONS: usize = 3;
/// How soon what cannot be read is tried again, and how late at most: an ACL that is changed makes
/// no event.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What is known of the registry.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    /// What was read, though it may have been missing.
    known: HashSet<Target>,
    /// What cannot be read, and why. The catalogue keeps what it has of it.
    troubles: BTreeMap<Target, Arc<str>>,
    /// Services that the engine was told of, and how many instances they have.
    told: HashMap<ServiceKey, usize>,
    /// Services that went since the last complete snapshot. The guard may want to hear it again.
    gone: HashSet<ServiceKey>,
    /// Instances of all of them.
    instances: usize,
    retry: Backoff,
}

impl State {
    /// Nothing is known.
    pub(crate) fn new(options: Options) -> Self {
        Self {
            catalog: Catalog::new(options),
            known: HashSet::new(),
            troubles: BTreeMap::new(),
            told: HashMap::new(),
            gone: HashSet::new(),
            instances: 0,
            retry: Backoff::new(RETRY.0, RETRY.1),
        }
    }

    /// Takes over what was read. Returns what else there is to read: for a list what it names, in a
    /// `full` read all of that, else what was not known.
    pub(crate) fn settle(
        &mut self,
        layout: &Layout,
        target: &Target,
        found: Found,
        full: bool,
    ) -> Vec<Target> {
        self.troubles.remove(target);
        if is_settled(target, &found) {
            self.known.remove(target);
        } else {
            self.known.insert(target.clone());
        }
        match (target, found) {
            (Target::Names(place), Found::Names(names)) => self.catalog.set_children(place, names),
            (Target::Names(place), _) => self.catalog.set_children(place, Vec::new()),
            (Target::Data(place), Found::Data(data)) => self.catalog.set_data(place, Some(data)),
            (Target::Data(place), _) => self.catalog.set_data(place, None),
            (list, Found::Names(names)) => {
                let children = names.iter().flat_map(|name| layout.children(list, name));
                return children
                    .filter(|child| full || !self.known.contains(child))
                    .collect();
            }
            // What it named is told to be gone by itself, or is found gone by a full read.
            (_, Found::Data(_) | Found::Nothing) => {}
        }
        Vec::new()
    }

    /// Metadata that is wanted and not followed yet.
    pub(crate) fn wanted(&mut self) -> Vec<Target> {
        let wanted = self.catalog.wanted().into_iter().map(Target::of);
        wanted
            .filter(|target| self.known.insert(target.clone()))
            .collect()
    }

    /// Metadata that was wanted before and that no list leads to.
    pub(crate) fn metadata(&self) -> Vec<Target> {
        let metadata = self.known.iter().filter(|target| target.is_metadata());
        metadata
            .filter(|target| target.parent().is_none())
            .cloned()
            .collect()
    }

    /// Whether a change of a target matters. Metadata does if somebody asked for it.
    pub(crate) fn cares_for(&self, target: &Target) -> bool {
        match target {
            Target::Data(Place::Definition { interface, .. }) => {
                self.known.contains(&Target::folder(interface, ""))
            }
            target => !target.is_metadata() || self.known.contains(target),
        }
    }

    /// After a full read of `seen`: what was not in it is gone, unless a list that cannot be read
    /// would name it.
    pub(crate) fn sweep(&mut self, seen: &HashSet<Target>) {
        let known = std::mem::take(&mut self.known);
        for target in known {
            if seen.contains(&target) || self.is_hidden(&target) {
                self.known.insert(target);
                continue;
            }
            self.troubles.remove(&target);
            match &target {
                Target::Names(place) => self.catalog.set_children(place, Vec::new()),
                Target::Data(place) => self.catalog.set_data(place, None),
                _ => {}
            }
        }
        let idle: Vec<Target> = self
            .known
            .iter()
            .filter(|t| self.is_idle(t))
            .cloned()
            .collect();
        for target in idle {
            self.known.remove(&target);
            self.troubles.remove(&target);
        }
    }

    /// Whether nothing is left that made the catalogue want this metadata.
    fn is_idle(&self, target: &Target) -> bool {
        let reason = match target {
            Target::Folder { interface, rest } if rest.is_empty() => {
                let interface = interface.clone();
                Target::Data(Place::Mapping { interface })
            }
            Target::Data(Place::Revision { application, .. }) => {
                Target::Instances(application.clone())
            }
            _ => return false,
        };
        !self.known.contains(&reason)
    }

    /// Whether a list that would name this target cannot be read.
    fn is_hidden(&self, target: &Target) -> bool {
        let mut above = target.parent();
        while let Some(list) = above {
            if self.troubles.contains_key(&list) {
                return true;
            }
            above = list.parent();
        }
        false
    }

    /// Notes that a target cannot be read. Returns whether that is news.
    pub(crate) fn fail(&mut self, target: Target, reason: &str) -> bool {
        self.known.insert(target.clone());
        let reason: Arc<str> = reason.into();
        let before = self.troubles.insert(target, reason.clone());
        before.as_ref() != Some(&reason)
    }

    /// How long to wait before what cannot be read is tried again.
    pub(crate) fn retry_delay(&mut self) -> Duration {
        if self.is_whole() {
            self.retry.reset();
        }
        self.retry.next_delay()
    }

    /// What cannot be read.
    pub(crate) fn troubled(&self) -> Vec<Target> {
        self.troubles.keys().cloned().collect()
    }

    /// Whether all could be read.
    pub(crate) fn is_whole(&self) -> bool {
        self.troubles.is_empty()
    }

    /// Whether services may be missing altogether.
    pub(crate) fn evidence(&self) -> Evidence {
        let reasons = self.troubles.iter().filter(|(target, _)| hides(target));
        partial(reasons.map(|(_, reason)| reason))
    }

    /// Whether instances of a service may be missing.
    pub(crate) fn evidence_of(&self, key: &ServiceKey) -> Evidence {
        let reasons = self.troubles.iter();
        let reasons = reasons.filter(|(target, _)| hides(target) && self.concerns(target, key));
        partial(reasons.map(|(_, reason)| reason))
    }

    /// Whether a target tells of instances of a service.
    fn concerns(&self, target: &Target, key: &ServiceKey) -> bool {
        let (interface, _) = key.name.split_once(':').unwrap_or((&key.name, ""));
        let is_application = !key.namespace.is_empty();
        let of_interface = |name: &str| !is_application && decode(name) == interface;
        let of_application = |name: &str| match is_application {
            true => *key.name == *name,
            false => self.catalog.provides(name, interface),
        };
        match target {
            Target::Folder { interface, .. } => of_interface(interface),
            Target::Instances(application) => of_application(application),
            Target::Names(place) | Target::Data(place) => match place {
                Place::Providers { interface }
                | Place::Mapping { interface }
                | Place::Definitions { interface }
                | Place::Definition { interface, .. } => of_interface(interface),
                Place::Revision { application, .. } | Place::Instance { application, .. } => {
                    of_application(application)
                }
                Place::Configurators { .. } | Place::Rule { .. } => false,
            },
            Target::Interfaces | Target::Applications | Target::Mappings | Target::Rules => true,
        }
    }

    /// What cannot be read, in one line; empty if there is nothing.
    pub(crate) fn complaint(&self) -> String {
        joined(self.troubles.values())
    }

    /// The engine knows this service now.
    pub(crate) fn tell(&mut self, service: &Service) {
        let count = service.instances.len();
        self.gone.remove(&service.key);
        let before = self.told.insert(service.key.clone(), count);
        self.instances = self.instances + count - before.unwrap_or(0);
    }

    /// The engine is told that this service is gone. Returns whether that is news.
    pub(crate) fn untell(&mut self, key: &ServiceKey) -> bool {
        let Some(instances) = self.told.remove(key) else {
            return false;
        };
        self.instances -= instances;
        self.gone.insert(key.clone());
        true
    }

    /// After a full read that found these: what the engine was told of besides and what is certainly
    /// gone.
    pub(crate) fn gone(&self, named: &HashSet<ServiceKey>) -> Vec<ServiceKey> {
        let others = self.told.keys().chain(&self.gone);
        others
            .filter(|key| !named.contains(key))
            .filter(|key| self.evidence_of(key).is_complete())
            .cloned()
            .collect()
    }

    /// After a complete snapshot that named these: the engine knows no others.
    pub(crate) fn keep(&mut self, named: &HashSet<ServiceKey>) {
        self.told.retain(|key, _| named.contains(key));
        self.gone.clear();
        self.instances = self.told.values().sum();
    }

    /// How many services and instances the engine knows.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.told.len(), self.instances)
    }
}

fn partial<'a>(reasons: impl Iterator<Item = &'a Arc<str>>) -> Evidence {
    let reason = joined(reasons);
    if reason.is_empty() {
        Evidence::Complete
    } else {
        Evidence::Partial(reason.into())
    }
}

fn joined<'a>(mut reasons: impl Iterator<Item = &'a Arc<str>>) -> String {
    let first: Vec<&str> = reasons.by_ref().take(REASONS).map(|r| &**r).collect();
    let line = first.join("; ");
    match reasons.count() {
        0 => line,
        more => format!("{line}; and {more} more"),
    }
}

/// Whether there is nothing more to follow once this was read: a revision never changes, and what
/// is gone is named by its list when it comes back.
fn is_settled(target: &Target, found: &Found) -> bool {
    match (target, found) {
        (Target::Data(Place::Revision { .. }), Found::Data(_)) => true,
        (target, Found::Nothing) => !target.comes_unannounced(),
        _ => false,
    }
}

/// Whether a target tells of instances. The others are settings of instances that are known.
fn hides(target: &Target) -> bool {
    !matches!(
        target,
        Target::Rules
            | Target::Data(Place::Rule { .. })
            | Target::Names(Place::Configurators { .. })
    )
}
