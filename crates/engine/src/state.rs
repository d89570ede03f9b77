//! The state and how events change it. No channels, no waiting: a function of what comes in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::SystemTime,
};

use diolkos_guard::{Evidence, admit, sweep};
use diolkos_model::{ContentHash, Service, ServiceKey};
use diolkos_plan::{Desired, Plan, Planned, Policy, Reason, RegistryState, Verdict, plan};
use diolkos_source_api::{Envelope, Epoch, Event};

use crate::{
    claims::{Claim, Claims},
    view::{Known, RegistryView, View},
};

/// Everything that can change.
#[derive(Default)]
pub(crate) struct State {
    registries: BTreeMap<Arc<str>, Registry>,
    services: BTreeMap<ServiceKey, Arc<Known>>,
    hashes: BTreeMap<ServiceKey, ContentHash>,
    claims: Claims,
    /// To be planned anew.
    dirty: BTreeSet<ServiceKey>,
    /// Registries that were taken out of the configuration after a complete synchronisation: their
    /// objects are to be removed.
    retired: BTreeSet<Arc<str>>,
    generation: u64,
    changed: bool,
}

struct Registry {
    policy: Arc<Policy>,
    complete: bool,
    synced: bool,
    partial: Option<Arc<str>>,
    held_services: usize,
    snapshot: Option<Snapshot>,
}

/// A snapshot under way.
struct Snapshot {
    epoch: Epoch,
    seen: HashSet<ServiceKey>,
}

impl State {
    /// Whether there is something to plan or to publish.
    pub(crate) fn is_dirty(&self) -> bool {
        self.changed || !self.dirty.is_empty()
    }

    /// Takes over the configuration: all registries with their policies.
    pub(crate) fn configure(&mut self, policies: &BTreeMap<Arc<str>, Arc<Policy>>) {
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
        for (name, policy) in policies {
            self.retired.remove(name);
            match self.registries.get_mut(name) {
                Some(registry) if Arc::ptr_eq(&registry.policy, policy) => {}
                Some(registry) => {
                    registry.policy = policy.clone();
                    let of_registry = self.services.keys().filter(|key| key.registry == *name);
                    self.dirty.extend(of_registry.cloned());
                }
                None => {
                    let registry = Registry {
                        policy: policy.clone(),
                        complete: false,
                        synced: false,
                        partial: None,
                        held_services: 0,
                        snapshot: None,
                    };
                    self.registries.insert(name.clone(), registry);
                }
            }
        }
    }

    fn retire(&mut self, name: &Arc<str>) {
        let Some(registry) = self.registries.remove(name) else {
            return;
        };
        let keys: Vec<_> = self
            .services
            .keys()
            .filter(|key| key.registry == *name)
            .cloned()
            .collect();
        for key in keys {
            self.remove(&key);
        }
        if registry.complete {
            self.retired.insert(name.clone());
        }
    }

    /// Takes over what a source says. What a source of a registry that is no longer configured
    /// still says is ignored.
    pub(crate) fn apply(&mut self, Envelope { registry, event }: Envelope) {
        if !self.registries.contains_key(&registry) {
            return;
        }
        match event {
            Event::SnapshotStart { epoch } => self.snapshot_start(&registry, epoch),
            Event::Upsert { service, evidence } => self.upsert(service, &evidence),
            Event::Remove { key } => {
                tracing::info!(service = %key, "the registry removed a service");
                self.remove(&key);
            }
            Event::SnapshotEnd { epoch, evidence } => {
                self.snapshot_end(&registry, epoch, &evidence);
            }
        }
    }

    fn snapshot_start(&mut self, registry: &Arc<str>, epoch: Epoch) {
        if let Some(registry) = self.registries.get_mut(registry) {
            registry.snapshot = Some(Snapshot {
                epoch,
                seen: HashSet::new(),
            });
        }
    }

    fn upsert(&mut self, service: Arc<Service>, evidence: &Evidence) {
        let key = service.key.clone();
        let Some(registry) = self.registries.get_mut(&key.registry) else {
            return;
        };
        if let Some(snapshot) = &mut registry.snapshot {
            snapshot.seen.insert(key.clone());
        }
        let known = self.services.get(&key);
        let admitted = admit(
            known.map(|known| &*known.service),
            Arc::unwrap_or_clone(service),
            evidence,
        );
        let hash = admitted.service.content_hash();
        if self.hashes.get(&key) == Some(&hash)
            && known.is_some_and(|known| known.held == admitted.held)
        {
            return;
        }
        let entry = Known {
            service: Arc::new(admitted.service),
            policy: registry.policy.clone(),
            host: None,
            altered: false,
            lost_to: None,
            refusal: None,
            ports: Vec::new(),
            endpoints: 0,
            dropped: BTreeMap::new(),
            advice: Vec::new(),
            held: admitted.held,
            planned: None,
            changed: SystemTime::now(),
        };
        self.hashes.insert(key.clone(), hash);
        self.unclaim(&key);
        self.services.insert(key.clone(), Arc::new(entry));
        self.dirty.insert(key);
    }

    fn remove(&mut self, key: &ServiceKey) {
        self.unclaim(key);
        if self.services.remove(key).is_some() {
            self.changed = true;
        }
        self.hashes.remove(key);
        self.dirty.remove(key);
        if let Some(snapshot) = self
            .registries
            .get_mut(&key.registry)
            .and_then(|r| r.snapshot.as_mut())
        {
            snapshot.seen.remove(key);
        }
    }

    fn snapshot_end(&mut self, name: &Arc<str>, epoch: Epoch, evidence: &Evidence) {
        let Some(registry) = self.registries.get_mut(name) else {
            return;
        };
        // The end of a snapshot whose start was not seen proves nothing.
        let Some(snapshot) = registry.snapshot.take().filter(|s| s.epoch == epoch) else {
            tracing::warn!(registry = %name, epoch, "the end of a snapshot that never began, ignored");
            return;
        };
        let unseen = self
            .services
            .keys()
            .filter(|key| key.registry == *name && !snapshot.seen.contains(*key))
            .cloned()
            .collect();
        let decided = sweep(unseen, evidence);
        registry.synced = true;
        registry.complete |= evidence.is_complete();
        registry.held_services = decided.hold.len();
        registry.partial = match evidence {
            Evidence::Complete => None,
            Evidence::Partial(why) => Some(why.clone()),
        };
        self.changed = true;
        if let Some(why) = &registry.partial {
            tracing::warn!(registry = %name, reason = %why, held = decided.hold.len(), "the registry's answer is incomplete, nothing is removed");
        }
        for key in &decided.remove {
            tracing::info!(service = %key, "gone from the registry");
            self.remove(key);
        }
    }

    /// Plans what is dirty and makes snapshots of the result.
    pub(crate) fn publish(&mut self) -> (Arc<Desired>, Arc<View>) {
        for key in std::mem::take(&mut self.dirty) {
            self.replan(&key);
        }
        self.changed = false;
        self.generation += 1;
        let mut view = View {
            generation: self.generation,
            registries: self.registry_views(),
            services: BTreeMap::new(),
        };
        let mut desired = Desired {
            generation: self.generation,
            registries: self.registry_states(),
            services: BTreeMap::new(),
            kept: Arc::default(),
        };
        let mut counts: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for (key, known) in &self.services {
            let known = self.settle(key, known, &mut counts);
            if let Some(planned) = known.planned.as_ref().filter(|_| known.is_carried()) {
                desired.services.insert(key.clone(), planned.clone());
            }
            if let Some(registry) = view.registries.get_mut(&key.registry) {
                registry.count(&known);
            }
            view.services.insert(key.clone(), known);
        }
        (Arc::new(desired), Arc::new(view))
    }

    /// What becomes of a planned service among the others: another one may have its host, and a
    /// registry may have too many services.
    fn settle<'a>(
        &self,
        key: &'a ServiceKey,
        known: &Arc<Known>,
        counts: &mut BTreeMap<&'a Arc<str>, usize>,
    ) -> Arc<Known> {
        if known.refusal.is_some() {
            return known.clone();
        }
        if let Some(host) = &known.host
            && let Some(winner) = self.claims.winner(host)
            && winner != key
        {
            let mut known = Known::clone(known);
            known.refusal = Some((Reason::HostTaken, format!("'{host}' belongs to {winner}")));
            known.lost_to = Some(winner.clone());
            return Arc::new(known);
        }
        let count = counts.entry(&key.registry).or_default();
        *count += 1;
        match known.policy.grant.max_services {
            Some(most) if *count > most => {
                let mut known = Known::clone(known);
                known.refusal = Some((
                    Reason::TooManyServices,
                    format!("grant.maxServices is {most}"),
                ));
                Arc::new(known)
            }
            _ => known.clone(),
        }
    }

    fn replan(&mut self, key: &ServiceKey) {
        self.unclaim(key);
        let (Some(known), Some(registry)) =
            (self.services.get(key), self.registries.get(&key.registry))
        else {
            return;
        };
        let policy = registry.policy.clone();
        let service = known.service.clone();
        let plan = plan(&policy, &service);
        let planned = (!plan.objects.is_empty())
            .then(|| Arc::new(Planned::new(service.clone(), policy.clone(), &plan.objects)));
        let known = summary(known, policy, &plan, planned);
        if let (Some(host), Some(claim)) = (&known.host, claim(&known)) {
            self.claims.add(host, claim);
        }
        self.services.insert(key.clone(), Arc::new(known));
    }

    fn unclaim(&mut self, key: &ServiceKey) {
        if let Some(known) = self.services.get(key)
            && let (Some(host), Some(claim)) = (&known.host, claim(known))
        {
            self.claims.remove(host, &claim);
        }
    }

    fn registry_states(&self) -> BTreeMap<Arc<str>, RegistryState> {
        let configured = self.registries.iter().map(|(name, r)| {
            (
                name.clone(),
                RegistryState {
                    complete: r.complete,
                },
            )
        });
        let retired = self
            .retired
            .iter()
            .map(|name| (name.clone(), RegistryState { complete: true }));
        configured.chain(retired).collect()
    }

    fn registry_views(&self) -> BTreeMap<Arc<str>, RegistryView> {
        self.registries
            .iter()
            .map(|(name, registry)| {
                let view = RegistryView {
                    complete: registry.complete,
                    synced: registry.synced,
                    partial: registry.partial.clone(),
                    held_services: registry.held_services,
                    ..RegistryView::default()
                };
                (name.clone(), view)
            })
            .collect()
    }
}

impl RegistryView {
    fn count(&mut self, known: &Known) {
        self.services += 1;
        self.instances += known.service.instances.len();
        self.held_instances += known.held.len();
        for (reason, count) in &known.dropped {
            *self.dropped.entry(*reason).or_default() += count;
        }
        for reason in &known.advice {
            *self.advice.entry(*reason).or_default() += 1;
        }
        match &known.refusal {
            Some((reason, detail)) => {
                *self.refused.entry(*reason).or_default() += 1;
                // What `select` leaves out is meant to be left out: no example of a problem.
                if *reason != Reason::ServiceExcluded && self.example.is_none() {
                    self.example = Some(format!("{}: {reason}: {detail}", known.service.key));
                }
            }
            None => {
                self.endpoints += known.endpoints;
                self.objects += known.planned.as_ref().map_or(0, |p| p.objects().len());
            }
        }
    }
}

fn claim(known: &Known) -> Option<Claim> {
    known.planned.as_ref()?;
    Some(Claim {
        priority: Reverse(known.policy.priority),
        registry: known.policy.registry.clone(),
        altered: known.altered,
        service: known.service.key.clone(),
    })
}

fn summary(
    before: &Known,
    policy: Arc<Policy>,
    plan: &Plan,
    planned: Option<Arc<Planned>>,
) -> Known {
    let mut dropped: BTreeMap<Reason, usize> = BTreeMap::new();
    for (_, reason) in plan.dropped_instances() {
        *dropped.entry(reason).or_default() += 1;
    }
    let advice: BTreeSet<Reason> = plan
        .decisions
        .iter()
        .map(|d| d.reason)
        .filter(|r| r.verdict() == Verdict::Advice)
        .collect();
    Known {
        service: before.service.clone(),
        policy,
        host: plan.host.clone(),
        altered: plan.altered,
        lost_to: None,
        refusal: plan.refusal().map(|d| (d.reason, d.detail.clone())),
        ports: plan.ports().iter().map(|p| p.number).collect(),
        endpoints: plan.endpoints,
        dropped,
        advice: advice.into_iter().collect(),
        held: before.held.clone(),
        planned,
        changed: before.changed,
    }
}

#[cfg(test)]
mod tests;
