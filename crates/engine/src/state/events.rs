//! What sources say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use diolkos_guard::{Evidence, Loss, admit, without};
use diolkos_model::{Service, ServiceKey};
use diolkos_source_api::{Envelope, Epoch, Event};

use super::{Snapshot, State, memory::ghost_key};
use crate::{clock::Now, view::Known};

impl State {
    /// Takes over what a source says. What a source of a registry that is no longer configured
    /// still says is ignored.
    pub(crate) fn apply(&mut self, now: Now, Envelope { registry, event }: Envelope) {
        if !self.registries.contains_key(&registry) {
            return;
        }
        match event {
            Event::SnapshotStart { epoch } => self.snapshot_start(&registry, epoch),
            Event::Upsert { service, evidence } => {
                self.upsert(now, Arc::unwrap_or_clone(service), &evidence);
            }
            Event::Remove { key } => self.remove(now, &key),
            Event::SnapshotEnd { epoch, evidence } => {
                self.snapshot_end(now, &registry, epoch, &evidence);
            }
        }
    }

    fn snapshot_start(&mut self, registry: &Arc<str>, epoch: Epoch) {
        if let Some(registry) = self.registries.get_mut(registry) {
            registry.snapshot = Some(Snapshot {
                epoch,
                seen: HashMap::new(),
                doubted: HashSet::new(),
                gone: HashSet::new(),
            });
        }
    }

    fn upsert(&mut self, now: Now, service: Service, evidence: &Evidence) {
        let key = service.key.clone();
        let Some(registry) = self.registries.get_mut(&key.registry) else {
            return;
        };
        let known = self.services.get(&key);
        let had = known.map_or(0, |known| known.service.instances.len());
        let in_snapshot = registry.snapshot.is_some();
        if let Some(snapshot) = &mut registry.snapshot {
            snapshot.seen.entry(key.clone()).or_insert(had);
            snapshot.gone.remove(&key);
            if evidence.is_complete() {
                snapshot.doubted.remove(&key);
            } else {
                snapshot.doubted.insert(key.clone());
            }
        }
        if matches!(evidence, Evidence::Stale(_)) && known.is_some() {
            // What is known is newer, what is held back included.
            return;
        }
        let left = service.instances.len();
        let admitted = admit(known.map(|known| &*known.service), service, evidence);
        let (mut service, mut held) = (admitted.service, admitted.held);
        if in_snapshot {
            // Its end tells whether too much is gone.
        } else if held.is_empty() {
            // While the mesh remembers more of it than there is now, a snapshot has yet to say so. What is remembered
            // is held under the service's key if the snapshot named the service, else under one of its own.
            let ghosts = self.ghosts.get(&key.registry).filter(|g| !g.is_empty());
            let remembered = ghosts.and_then(|ghosts| {
                let text = key.to_string();
                let ghost = ghosts.get(text.as_str())?;
                Some((ghost_key(&key.registry, &text), ghost.endpoints))
            });
            match remembered {
                Some((_, endpoints)) if left < endpoints => {}
                Some((ghost, _)) => {
                    registry.guard.settle(&key);
                    registry.guard.settle(&ghost);
                }
                None => registry.guard.settle(&key),
            }
        } else if evidence.is_complete() {
            let loss = Loss {
                service: key.clone(),
                known: had,
                left,
                gone: false,
            };
            let level = registry.level;
            let guard = &mut registry.guard;
            if guard.step(now.moment, &loss, level.services, level.instances) {
                service = without(&service, &held);
                held.clear();
            } else {
                tracing::warn!(service = %key, known = had, left, "the registry has lost much at once, what is missing stays for now");
            }
        }
        self.set(now, service, held, false);
    }

    /// The registry says that a service is gone.
    fn remove(&mut self, now: Now, key: &ServiceKey) {
        let (Some(known), Some(registry)) = (
            self.services.get(key),
            self.registries.get_mut(&key.registry),
        ) else {
            return;
        };
        if let Some(snapshot) = &mut registry.snapshot {
            // Its end tells whether too much is gone.
            snapshot.seen.remove(key);
            snapshot.gone.insert(key.clone());
            return;
        }
        let loss = Loss {
            service: key.clone(),
            known: known.service.instances.len(),
            left: 0,
            gone: true,
        };
        let level = registry.level;
        if loss.known == 0
            || registry
                .guard
                .step(now.moment, &loss, level.services, level.instances)
        {
            tracing::info!(service = %key, "the registry removed a service");
            self.pass(now, key, true);
        } else {
            tracing::warn!(service = %key, instances = loss.known, "the registry removed much at once, the service stays for now");
            self.hold_all(now, key);
        }
    }

    fn snapshot_end(&mut self, now: Now, name: &Arc<str>, epoch: Epoch, evidence: &Evidence) {
        let Some(registry) = self.registries.get_mut(name) else {
            return;
        };
        // The end of a snapshot whose start was not seen proves nothing.
        let Some(snapshot) = registry.snapshot.take().filter(|s| s.epoch == epoch) else {
            tracing::warn!(registry = %name, epoch, "the end of a snapshot that never began, ignored");
            return;
        };
        let unseen: BTreeSet<ServiceKey> = self
            .services
            .keys()
            .filter(|key| key.registry == *name && !snapshot.seen.contains_key(*key))
            .cloned()
            .collect();
        registry.synced = true;
        registry.doubt = evidence.doubt().cloned();
        let Snapshot {
            seen,
            doubted,
            gone,
            ..
        } = snapshot;
        if let Some(why) = &registry.doubt {
            let told = seen.keys().filter(|key| !doubted.contains(*key));
            let certain: HashSet<ServiceKey> = told.chain(&gone).cloned().collect();
            let (gone, unseen): (BTreeSet<_>, BTreeSet<_>) =
                unseen.into_iter().partition(|key| gone.contains(key));
            tracing::warn!(registry = %name, reason = %why, held = unseen.len(), "the registry's answer is incomplete, what it does not tell of stays");
            registry.unseen = unseen;
            registry.doubtful = registry.doubtful.saturating_add(1);
            registry.ask_again = registry.next_doubt(now);
            self.judge(now, name, &gone, &seen, Some(&certain));
            return;
        }
        registry.complete = true;
        registry.unseen.clear();
        (registry.doubtful, registry.ask_again) = (0, None);
        self.judge(now, name, &unseen, &seen, None);
    }

    /// A removal may go through: instances that were held go, and the service itself if the registry does not have
    /// it (any more).
    pub(super) fn pass(&mut self, now: Now, key: &ServiceKey, gone: bool) {
        if let Some(registry) = self.registries.get_mut(&key.registry) {
            registry.guard.settle(key);
        }
        self.pass_ghost(now, key);
        let Some(known) = self.services.get(key).cloned() else {
            return;
        };
        let gone = gone || known.gone;
        let left = if gone {
            Service::new(key.clone(), known.service.meta.clone(), Vec::new())
        } else {
            without(&known.service, &known.held)
        };
        self.set(now, left, Vec::new(), gone);
    }

    /// The registry does not have the service, and it stays as it is for now.
    pub(super) fn hold_all(&mut self, now: Now, key: &ServiceKey) {
        let Some(known) = self.services.get(key).cloned() else {
            return;
        };
        let ids = known.service.instances.iter().map(|i| i.id.clone());
        self.set(now, Service::clone(&known.service), ids.collect(), true);
    }

    /// Takes over a service as it is to be from now on. `held` are the instances that only stay for now.
    pub(super) fn set(&mut self, now: Now, service: Service, held: Vec<Arc<str>>, gone: bool) {
        let key = service.key.clone();
        let before = self.services.get(&key);
        let hash = service.content_hash();
        let same = self.hashes.get(&key) == Some(&hash);
        if same && before.is_some_and(|b| b.held == held && b.gone == gone) {
            return;
        }
        let shape = before
            .filter(|_| service.instances.is_empty())
            .and_then(|b| {
                let last = (!b.service.instances.is_empty()).then(|| b.service.clone());
                b.shape.clone().or(last)
            });
        let grace = self.grace(&key.registry);
        let shape = shape.filter(|_| !grace.is_zero());
        if shape.is_none() && gone && service.instances.is_empty() {
            self.forget(&key);
            return;
        }
        let Some(registry) = self.registries.get(&key.registry) else {
            return;
        };
        let empty_since = shape
            .is_some()
            .then(|| before.and_then(|b| b.empty_since).unwrap_or(now.wall));
        let known = Known {
            service: Arc::new(service),
            policy: registry.policy.clone(),
            host: None,
            aliases: Vec::new(),
            lost_aliases: Vec::new(),
            altered: false,
            lost_to: None,
            refusal: None,
            ports: Vec::new(),
            endpoints: 0,
            dropped: BTreeMap::new(),
            advice: Vec::new(),
            held,
            hold: None,
            gone,
            shape,
            empty_since,
            planned: None,
            changed: if same {
                before.map_or(now.wall, |b| b.changed)
            } else {
                now.wall
            },
        };
        if known.shape.is_some() {
            self.empty.entry(key.clone()).or_insert(now.moment + grace);
        } else {
            self.empty.remove(&key);
        }
        self.hashes.insert(key.clone(), hash);
        self.unclaim(&key);
        self.replace(&key, Some(known));
        self.dirty.insert(key);
    }

    /// Forgets a service at once: its objects go.
    pub(super) fn forget(&mut self, key: &ServiceKey) {
        self.unclaim(key);
        self.replace(key, None);
        self.hashes.remove(key);
        self.dirty.remove(key);
        self.empty.remove(key);
        if let Some(registry) = self.registries.get_mut(&key.registry) {
            registry.guard.settle(key);
            if let Some(snapshot) = &mut registry.snapshot {
                snapshot.seen.remove(key);
            }
        }
    }

    /// The one place where services come and go, so that the level is right.
    fn replace(&mut self, key: &ServiceKey, known: Option<Known>) {
        self.changed = true;
        let (before, now) = match known {
            Some(known) => {
                let known = Arc::new(known);
                (
                    self.services.insert(key.clone(), known.clone()),
                    Some(known),
                )
            }
            None => (self.services.remove(key), None),
        };
        let Some(registry) = self.registries.get_mut(&key.registry) else {
            return;
        };
        let takes_from_pods = registry.policy.pods.is_some();
        if let Some(before) = before {
            registry.level.take(&before);
            if takes_from_pods {
                self.pods.displace(&before.service);
            }
        }
        if let Some(now) = now {
            registry.level.add(&now);
            if takes_from_pods {
                self.pods.place(&now.service);
            }
        }
    }
}
