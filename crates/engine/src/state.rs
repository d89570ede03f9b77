//! The state and how events change it. No channels, no waiting: a function of what comes in and when.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use diolkos_guard::{Guard, Moment};
use diolkos_istio::ObjectKey;
use diolkos_model::{ContentHash, Service, ServiceKey};
use diolkos_plan::Policy;
use diolkos_source_api::Epoch;

use crate::{
    claims::Claims,
    clock::Now,
    command::{Command, Configured, Policies, Reserved},
    view::Known,
};

mod events;
mod judge;
mod memory;
mod pods;
mod publish;

use memory::{Ghosts, ghosts};
use pods::Pods;

/// Everything that can change.
#[derive(Default)]
pub(crate) struct State {
    registries: BTreeMap<Arc<str>, Registry>,
    services: BTreeMap<ServiceKey, Arc<Known>>,
    hashes: BTreeMap<ServiceKey, ContentHash>,
    claims: Claims,
    reserved: Arc<Reserved>,
    pods: Pods,
    /// To be planned anew.
    dirty: BTreeSet<ServiceKey>,
    /// When services without instances go.
    empty: BTreeMap<ServiceKey, Moment>,
    /// What the mesh held before this process began and no snapshot has accounted for, by registry; also of
    /// registries that are not configured (yet).
    ghosts: BTreeMap<Arc<str>, Ghosts>,
    /// Whether it is still to be told what the mesh held. Until then nobody knows what would vanish.
    awaits_memory: bool,
    /// The objects of ghosts, as last published.
    kept: Arc<BTreeSet<ObjectKey>>,
    /// Registries that were taken out of the configuration: their objects are to be removed.
    retired: BTreeSet<Arc<str>>,
    generation: u64,
    changed: bool,
    wake: Option<Moment>,
}

struct Registry {
    policy: Arc<Policy>,
    guard: Guard,
    complete: bool,
    synced: bool,
    /// Why the last snapshot cannot be believed in full.
    doubt: Option<Arc<str>>,
    /// What the last snapshot lacked, if it cannot be believed in full.
    unseen: BTreeSet<ServiceKey>,
    /// How many snapshots in a row could not be believed in full, and when to ask for the next one. What made them
    /// so (the rights of a token) may change without a word.
    doubtful: u32,
    ask_again: Option<Moment>,
    snapshot: Option<Snapshot>,
    level: Level,
}

/// The pace of the guard doubles so often at most while snapshots are doubtful: a token may lack rights for good, and a
/// snapshot costs a request for each service.
const DOUBLINGS: u32 = 5;

impl Registry {
    /// When to ask for a snapshot again because the last one cannot be believed in full.
    fn next_doubt(&self, now: Now) -> Option<Moment> {
        let wait = self.guard.limits().pace() * 2_u32.pow(self.doubtful.min(DOUBLINGS));
        (self.doubtful > 0).then(|| now.moment + wait)
    }
}

/// How much the mesh has of a registry.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Services with instances.
    services: usize,
    instances: usize,
}

impl Level {
    fn add(&mut self, known: &Known) {
        let instances = known.service.instances.len();
        self.services += usize::from(instances > 0);
        self.instances += instances;
    }

    fn take(&mut self, known: &Known) {
        let instances = known.service.instances.len();
        self.services -= usize::from(instances > 0);
        self.instances -= instances;
    }
}

/// A snapshot under way.
struct Snapshot {
    epoch: Epoch,
    /// What it named, with the instances that the mesh had of each before.
    seen: HashMap<ServiceKey, usize>,
    /// Those of them that it may not have told all of.
    doubted: HashSet<ServiceKey>,
    /// What it said is gone.
    gone: HashSet<ServiceKey>,
}

impl State {
    /// A state that will be told what the mesh held before this process began.
    pub(crate) fn with_memory(awaits_memory: bool) -> Self {
        Self {
            awaits_memory,
            ..Self::default()
        }
    }

    /// Whether there is something to plan or to publish.
    pub(crate) fn is_dirty(&self) -> bool {
        self.changed || !self.dirty.is_empty()
    }

    /// Does what a command says.
    pub(crate) fn command(&mut self, now: Now, command: Command) {
        match command {
            Command::Configure(policies) => self.configure(&policies),
            Command::Remember(all) => self.remember(now, all),
            Command::Restore(services) => self.restore(now, services),
            Command::Release(registry) => self.release(now, &registry),
            Command::Reserve(reserved) => {
                self.changed |= reserved != self.reserved;
                self.reserved = reserved;
            }
            Command::Pods(news) => self.pods(news),
        }
    }

    /// Takes over the configuration: all registries with their policies.
    pub(crate) fn configure(&mut self, policies: &Policies) {
        self.changed = true;
        let gone: Vec<_> = self
            .registries
            .keys()
            .filter(|name| !policies.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.retire(&name);
        }
        for (name, Configured { policy, limits }) in policies {
            self.retired.remove(name);
            match self.registries.get_mut(name) {
                Some(registry) => {
                    registry.guard.set_limits(limits.clone());
                    if !Arc::ptr_eq(&registry.policy, policy) {
                        let took_from_pods = registry.policy.pods.is_some();
                        registry.policy = policy.clone();
                        let of_registry = self.services.keys().filter(|key| key.registry == *name);
                        self.dirty.extend(of_registry.cloned());
                        self.replace_pods_of(name, took_from_pods);
                    }
                }
                None => {
                    let registry = Registry {
                        policy: policy.clone(),
                        guard: Guard::new(limits.clone()),
                        complete: false,
                        synced: false,
                        doubt: None,
                        unseen: BTreeSet::new(),
                        doubtful: 0,
                        ask_again: None,
                        snapshot: None,
                        level: Level::default(),
                    };
                    self.registries.insert(name.clone(), registry);
                }
            }
        }
        if self.registries.values().all(|r| r.policy.pods.is_none()) {
            self.pods.forget();
        }
    }

    /// The administrator took the registry out: what it brought goes, without the guard.
    fn retire(&mut self, name: &Arc<str>) {
        for key in self.keys_of(name) {
            self.forget(&key);
        }
        self.registries.remove(name);
        self.ghosts.remove(name);
        self.retired.insert(name.clone());
    }

    fn remember(&mut self, now: Now, all: Vec<diolkos_plan::Remembered>) {
        self.awaits_memory = false;
        self.changed = true;
        self.ghosts = ghosts(all);
        let complete: Vec<_> = self
            .registries
            .iter()
            .filter(|(_, registry)| registry.complete)
            .map(|(name, _)| name.clone())
            .collect();
        for name in complete {
            // The registry was faster: what is known of it now is what the mesh is compared with.
            let before = self.keys_of(&name).into_iter().map(|key| (key, 0));
            self.judge(now, &name, &BTreeSet::new(), &before.collect(), None);
        }
    }

    fn restore(&mut self, now: Now, services: Vec<Service>) {
        for service in services {
            let key = service.key.clone();
            if self.registries.contains_key(&key.registry) && !self.services.contains_key(&key) {
                self.set(now, service, Vec::new(), false);
            }
        }
    }

    /// Lets everything pass that is held back of a registry.
    fn release(&mut self, now: Now, name: &Arc<str>) {
        let Some(registry) = self.registries.get_mut(name) else {
            return;
        };
        let mut keys: BTreeSet<ServiceKey> = registry.guard.holds().keys().cloned().collect();
        let unseen = std::mem::take(&mut registry.unseen);
        let incomplete = self
            .services
            .iter()
            .filter(|(key, known)| key.registry == *name && !known.held.is_empty());
        keys.extend(incomplete.map(|(key, _)| key.clone()));
        keys.extend(unseen.iter().cloned());
        tracing::info!(registry = %name, services = keys.len(), "an operator released the removals that were held back");
        for key in keys {
            let gone = unseen.contains(&key);
            self.pass(now, &key, gone);
        }
        self.changed = true;
    }

    /// When [`Self::tick`] has something to do next.
    pub(crate) fn wake(&self) -> Option<Moment> {
        self.wake
    }

    /// Does what time alone brings about. Returns the registries to ask for a complete snapshot.
    pub(crate) fn tick(&mut self, now: Now) -> Vec<Arc<str>> {
        let due = self.empty.iter().filter(|(_, at)| **at <= now.moment);
        let due: Vec<_> = due.map(|(key, _)| key.clone()).collect();
        for key in due {
            self.bury(&key);
        }
        for ghosts in self.ghosts.values_mut() {
            let before = ghosts.len();
            ghosts.retain(|_, ghost| ghost.expires.is_none_or(|at| at > now.moment));
            self.changed |= ghosts.len() < before;
        }
        let mut ask = Vec::new();
        for (name, registry) in &mut self.registries {
            let due = |at: Option<Moment>| at.is_some_and(|at| at <= now.moment);
            if due(registry.guard.ask_at()) || due(registry.ask_again) {
                registry.guard.asked(now.moment);
                registry.ask_again = registry.next_doubt(now);
                ask.push(name.clone());
            }
        }
        self.schedule();
        ask
    }

    /// A service has been without instances for long enough.
    fn bury(&mut self, key: &ServiceKey) {
        self.empty.remove(key);
        let Some(known) = self.services.get(key) else {
            return;
        };
        tracing::info!(service = %key, "it had no instances for the time of guard.emptyGrace, its host goes");
        if known.gone {
            self.forget(key);
            return;
        }
        let mut known = Known::clone(known);
        known.shape = None;
        self.unclaim(key);
        self.services.insert(key.clone(), Arc::new(known));
        self.dirty.insert(key.clone());
    }

    fn schedule(&mut self) {
        let ghosts = self.ghosts.values().flat_map(|ghosts| ghosts.values());
        let asks = self.registries.values();
        let asks = asks.flat_map(|r| [r.guard.ask_at(), r.ask_again]);
        self.wake = self
            .empty
            .values()
            .copied()
            .chain(ghosts.filter_map(|ghost| ghost.expires))
            .chain(asks.flatten())
            .min();
    }

    /// The ghosts of a registry, if it has any.
    fn ghosts_of(&self, registry: &Arc<str>) -> Option<&Ghosts> {
        let ghosts = self.ghosts.get(registry)?;
        (!ghosts.is_empty()).then_some(ghosts)
    }

    /// The ghosts of a registry, if it has any, with its services by the text that ghosts go by.
    fn haunted(&self, registry: &Arc<str>) -> Option<(&Ghosts, BTreeMap<String, &Known>)> {
        let ghosts = self.ghosts_of(registry)?;
        let services = self.services.iter();
        let known = services
            .filter(|(key, _)| key.registry == *registry)
            .map(|(key, known)| (key.to_string(), &**known));
        Some((ghosts, known.collect()))
    }

    fn keys_of(&self, registry: &Arc<str>) -> Vec<ServiceKey> {
        let keys = self.services.keys();
        keys.filter(|key| key.registry == *registry)
            .cloned()
            .collect()
    }

    fn grace(&self, registry: &Arc<str>) -> Duration {
        let registry = self.registries.get(registry);
        registry.map_or(Duration::ZERO, |r| r.guard.limits().empty_grace)
    }
}

#[cfg(test)]
mod tests;
