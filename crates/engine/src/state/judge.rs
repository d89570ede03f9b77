//! What a snapshot takes away, put before the guard.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use diolkos_guard::{Comparison, Loss};
use diolkos_model::ServiceKey;

use super::{
    State,
    memory::{ghost_key, ghost_name},
};
use crate::{clock::Now, view::Known};

impl State {
    /// Compares what a registry has with what the mesh has, and lets go what the guard lets pass. `unseen` are the
    /// services that the registry does not have any more; `before` has how many instances the mesh had of those
    /// that it does have. `certain` are the services that the snapshot tells all of, if it does not of every one:
    /// the others stay as they are.
    pub(super) fn judge(
        &mut self,
        now: Now,
        name: &Arc<str>,
        unseen: &BTreeSet<ServiceKey>,
        before: &HashMap<ServiceKey, usize>,
        certain: Option<&HashSet<ServiceKey>>,
    ) {
        self.drop_unselected(name, unseen);
        let mut comparison = Comparison::default();
        let mut accounted: BTreeSet<Arc<str>> = BTreeSet::new();
        let ghosts = self.ghosts_of(name);
        for (key, known) in self
            .services
            .iter()
            .filter(|(key, _)| key.registry == *name)
        {
            let ghost = ghosts.and_then(|ghosts| {
                let (text, ghost) = ghosts.get_key_value(key.to_string().as_str())?;
                accounted.insert(text.clone());
                Some(ghost)
            });
            let remembered = ghost.map_or(0, |ghost| ghost.endpoints);
            if certain.is_some_and(|certain| !certain.contains(key)) {
                unchanged(
                    &mut comparison,
                    key,
                    known.service.instances.len().max(remembered),
                );
                continue;
            }
            let before = before.get(key).copied();
            let gone = known.gone || unseen.contains(key);
            compare(&mut comparison, known, gone, before, remembered);
        }
        for (text, ghost) in ghosts.into_iter().flatten() {
            if accounted.contains(text) || ghost.endpoints == 0 {
                continue;
            }
            if certain.is_some() {
                unchanged(&mut comparison, &ghost_key(name, text), ghost.endpoints);
                continue;
            }
            comparison.services += 1;
            comparison.instances += ghost.endpoints;
            comparison.losses.push(Loss {
                service: ghost_key(name, text),
                known: ghost.endpoints,
                left: 0,
                gone: true,
            });
        }
        let Some(registry) = self.registries.get_mut(name) else {
            return;
        };
        let passed = registry.guard.snapshot(now.moment, &comparison);
        let passed: HashSet<ServiceKey> = passed.into_iter().collect();
        let held: HashSet<&ServiceKey> = comparison
            .losses
            .iter()
            .map(|loss| &loss.service)
            .filter(|key| !passed.contains(*key))
            .collect();
        self.settle_ghosts(now, name, &held, certain);
        if !held.is_empty() {
            tracing::warn!(registry = %name, services = held.len(), "the registry lacks much at once, what is missing stays for now");
        }
        for loss in &comparison.losses {
            if passed.contains(&loss.service) {
                tracing::info!(service = %loss.service, before = loss.known, now = loss.left, "gone from the registry");
                self.pass(now, &loss.service, loss.gone);
            } else if loss.gone {
                self.hold_all(now, &loss.service);
            }
        }
        // Services without instances that the registry has no more: they end with their grace.
        for key in unseen {
            if let Some(known) = self
                .services
                .get(key)
                .filter(|k| k.service.instances.is_empty() && !k.gone)
            {
                let service = diolkos_model::Service::clone(&known.service);
                self.set(now, service, Vec::new(), true);
            }
        }
        self.changed = true;
    }

    /// What `select` leaves out now is not read any more: the administrator wants it gone.
    fn drop_unselected(&mut self, name: &Arc<str>, unseen: &BTreeSet<ServiceKey>) {
        let Some(registry) = self.registries.get(name) else {
            return;
        };
        let policy = registry.policy.clone();
        if let Some(ghosts) = self.ghosts.get_mut(name) {
            ghosts.retain(|text, _| policy.select.takes_name(ghost_name(text)));
        }
        for key in unseen {
            if !policy.select.takes_name(&key.name) {
                self.forget(key);
            }
        }
    }

    /// Ghosts whose services the registry has are accounted for; those of services without endpoints go when
    /// their grace is over; the others stay while they are held.
    fn settle_ghosts(
        &mut self,
        now: Now,
        name: &Arc<str>,
        held: &HashSet<&ServiceKey>,
        certain: Option<&HashSet<ServiceKey>>,
    ) {
        let grace = self.grace(name);
        let Some((_, known)) = self.haunted(name) else {
            return;
        };
        let sure =
            |known: &Known| certain.is_none_or(|certain| certain.contains(&known.service.key));
        // And whether the registry has instances of them.
        let known: HashMap<String, bool> = known
            .into_iter()
            .filter(|(_, known)| sure(known))
            .map(|(text, known)| (text, !known.service.instances.is_empty()))
            .collect();
        let held: HashSet<String> = held.iter().map(|key| key.to_string()).collect();
        let Some(ghosts) = self.ghosts.get_mut(name) else {
            return;
        };
        ghosts.retain(|text, ghost| {
            let has_instances = known.get(&**text).copied();
            let doubted = certain.is_some() && has_instances.is_none();
            if doubted || held.contains(&**text) {
                true
            } else if has_instances == Some(true) {
                false
            } else if ghost.endpoints == 0 {
                ghost.expire(now, grace)
            } else {
                // It passed: see `pass_ghost`.
                true
            }
        });
    }

    /// The removal of a service that is known by its objects passes.
    pub(super) fn pass_ghost(&mut self, now: Now, key: &ServiceKey) {
        let grace = self.grace(&key.registry);
        let Some(ghosts) = self.ghosts.get_mut(&key.registry) else {
            return;
        };
        let text = key.to_string();
        let stays = match ghosts.get_mut(text.as_str()) {
            None => return,
            // What the registry has of it is written by its own plan.
            Some(_)
                if self
                    .services
                    .get(key)
                    .is_some_and(|k| !k.service.instances.is_empty()) =>
            {
                false
            }
            Some(ghost) => ghost.let_go(now, grace),
        };
        if !stays {
            ghosts.remove(text.as_str());
        }
        self.changed = true;
    }
}

/// Adds a service of which nothing is sure.
fn unchanged(comparison: &mut Comparison, service: &ServiceKey, instances: usize) {
    comparison.services += usize::from(instances > 0);
    comparison.instances += instances;
    comparison.instances_now += instances;
    comparison.uncertain.insert(service.clone());
}

/// Adds one service to the comparison. The mesh had `before` instances of it (all that are known now, if it was not
/// named), and `remembered` endpoints before this process began.
fn compare(
    comparison: &mut Comparison,
    known: &Known,
    gone: bool,
    before: Option<usize>,
    remembered: usize,
) {
    let instances = known.service.instances.len();
    let left = if gone {
        0
    } else {
        instances - known.held.len()
    };
    let before = before.unwrap_or(instances).max(remembered);
    comparison.services += usize::from(before > 0);
    comparison.instances += before;
    comparison.instances_now += left;
    if left < before || !known.held.is_empty() {
        comparison.losses.push(Loss {
            service: known.service.key.clone(),
            known: before,
            left,
            gone,
        });
    }
}
