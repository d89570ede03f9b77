//! From the state to what sinks and people see.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use diolkos_guard::{Hold, Moment};
use diolkos_model::{ServiceKey, Workloads};
use diolkos_plan::{
    Desired, Plan, Planned, Policy, Reason, RegistryState, Verdict, plan_empty, plan_with,
};

use super::{Registry, State, memory::ghost_key};
use crate::{
    claims::Claim,
    clock::Now,
    view::{HoldView, Known, RegistryView, RememberedView, View},
};

impl State {
    /// Plans what is dirty and makes snapshots of the result.
    pub(crate) fn publish(&mut self, now: Now) -> (Arc<Desired>, Arc<View>) {
        for key in std::mem::take(&mut self.dirty) {
            self.replan(&key);
        }
        self.schedule();
        self.changed = false;
        self.generation += 1;
        let mut view = View {
            generation: self.generation,
            remembers: !self.awaits_memory,
            registries: self.registry_views(now),
            services: BTreeMap::new(),
            remembered: self.remembered(now),
        };
        let mut desired = Desired {
            generation: self.generation,
            registries: self.registry_states(),
            services: BTreeMap::new(),
            kept: self.keep(),
        };
        let waiting = self.waiting();
        let mut counts: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for (key, known) in &self.services {
            let known = self.settle(now, key, known, &mut counts);
            let wanted = known.is_carried() && !waiting.contains(&key.registry);
            if let Some(planned) = known.planned.as_ref().filter(|_| wanted) {
                desired.services.insert(key.clone(), planned.clone());
            }
            if let Some(registry) = view.registries.get_mut(&key.registry) {
                registry.count(&known);
            }
            view.services.insert(key.clone(), known);
        }
        (Arc::new(desired), Arc::new(view))
    }

    /// The objects that stay because no snapshot has accounted for them. The same set as before, if it is equal, so
    /// that sinks see at once that nothing changed.
    fn keep(&mut self) -> Arc<BTreeSet<diolkos_istio::ObjectKey>> {
        let mut kept = BTreeSet::new();
        for name in self.registries.keys() {
            let Some((ghosts, known)) = self.haunted(name) else {
                continue;
            };
            for (text, ghost) in ghosts {
                let planned = known.get(&**text).and_then(|k| k.planned.as_deref());
                kept.extend(ghost.kept(planned).cloned());
            }
        }
        if kept != *self.kept {
            self.kept = Arc::new(kept);
        }
        self.kept.clone()
    }

    /// What becomes of a planned service among the others: another one may have its host, and a
    /// registry may have too many services.
    fn settle<'a>(
        &self,
        now: Now,
        key: &'a ServiceKey,
        known: &Arc<Known>,
        counts: &mut BTreeMap<&'a Arc<str>, usize>,
    ) -> Arc<Known> {
        let registry = self.registries.get(&key.registry);
        let hold = registry
            .and_then(|registry| registry.guard.holds().get(key))
            .map(|hold| (hold.why, wall(now, hold.since)));
        let (refusal, lost_to) = if known.refusal.is_some() {
            (known.refusal.clone(), None)
        } else if let Some((refusal, winner)) = self.other_claim(key, known) {
            (Some(refusal), winner)
        } else {
            (quota(key, known, counts), None)
        };
        let lost = self.lost_aliases(key, known);
        let same = hold == known.hold && refusal == known.refusal && lost_to == known.lost_to;
        if same && lost.is_empty() {
            return known.clone();
        }
        let mut known = if lost.is_empty() {
            Known::clone(known)
        } else {
            without_aliases(known, lost)
        };
        (known.hold, known.refusal, known.lost_to) = (hold, refusal, lost_to);
        Arc::new(known)
    }

    /// Who else has the host of the service.
    fn other_claim(
        &self,
        key: &ServiceKey,
        known: &Known,
    ) -> Option<((Reason, String), Option<ServiceKey>)> {
        let host = known.host.as_ref()?;
        if let Some(owner) = self.reserved.get(host) {
            let detail = format!("'{host}' is a name of {owner}; choose another export.host");
            return Some(((Reason::HostOfService, detail), None));
        }
        let winner = self.claims.winner(host).filter(|winner| *winner != key)?;
        let detail = format!("'{host}' belongs to {winner}");
        Some(((Reason::HostTaken, detail), Some(winner.clone())))
    }

    /// The aliases of the service that are others' hosts, and whose.
    fn lost_aliases(&self, key: &ServiceKey, known: &Known) -> Vec<(String, String)> {
        let owner = |alias: &String| match self.reserved.get(alias) {
            Some(owner) => Some(owner.to_string()),
            None => {
                let winner = self.claims.winner(alias).filter(|winner| *winner != key)?;
                Some(winner.to_string())
            }
        };
        let aliases = known.aliases.iter();
        aliases
            .filter_map(|alias| Some((alias.clone(), owner(alias)?)))
            .collect()
    }

    fn replan(&mut self, key: &ServiceKey) {
        self.unclaim(key);
        let (Some(known), Some(registry)) =
            (self.services.get(key), self.registries.get(&key.registry))
        else {
            return;
        };
        let policy = registry.policy.clone();
        let workloads = match &policy.pods {
            Some(_) => self.pods.of(&known.service),
            None => Workloads::new(),
        };
        let (plan, planned) = planned(known, &policy, workloads);
        if plan.objects.is_empty() && known.shape.is_some() && known.gone {
            // There is no host to keep.
            self.forget(key);
            return;
        }
        let known = summary(known, policy, &plan, planned);
        for (host, claim) in claims(&known) {
            self.claims.add(host, claim);
        }
        self.services.insert(key.clone(), Arc::new(known));
    }

    pub(super) fn unclaim(&mut self, key: &ServiceKey) {
        if let Some(known) = self.services.get(key) {
            for (host, claim) in claims(known) {
                self.claims.remove(host, &claim);
            }
        }
    }

    /// The registries that wait until the Pods are known. Their services claim their hosts, but what they would be
    /// without their Pods must not be written.
    fn waiting(&self) -> BTreeSet<Arc<str>> {
        let names = self.registries.keys();
        names
            .filter(|name| self.awaits_pods(name))
            .cloned()
            .collect()
    }

    fn registry_states(&self) -> BTreeMap<Arc<str>, RegistryState> {
        let configured = self.registries.iter().map(|(name, r)| {
            let waits = self.awaits_pods(name);
            let complete = r.complete && !self.awaits_memory && !waits;
            (name.clone(), RegistryState { complete, waits })
        });
        let over = RegistryState {
            complete: true,
            waits: false,
        };
        let retired = self.retired.iter().map(|name| (name.clone(), over));
        configured.chain(retired).collect()
    }

    /// Instances that only the mesh's memory tells of, and that are held back.
    fn held_ghosts(&self, name: &Arc<str>, registry: &Registry) -> usize {
        let ghosts = self.ghosts.get(name).into_iter().flatten();
        let held = ghosts.filter(|(text, _)| {
            let holds = registry.guard.holds();
            holds.contains_key(&ghost_key(name, text))
        });
        held.map(|(_, ghost)| ghost.endpoints).sum()
    }

    /// The services that only the mesh knows of.
    fn remembered(&self, now: Now) -> Vec<RememberedView> {
        let mut views = Vec::new();
        for (name, registry) in &self.registries {
            let Some((ghosts, known)) = self.haunted(name) else {
                continue;
            };
            for (text, ghost) in ghosts {
                if known.contains_key(&**text) {
                    continue;
                }
                let hold = registry.guard.holds().get(&ghost_key(name, text));
                views.push(RememberedView {
                    registry: name.clone(),
                    service: text.clone(),
                    objects: ghost.kept(None).cloned().collect(),
                    endpoints: ghost.endpoints,
                    hold: hold.map(|hold| (hold.why, wall(now, hold.since))),
                });
            }
        }
        views
    }

    fn registry_views(&self, now: Now) -> BTreeMap<Arc<str>, RegistryView> {
        self.registries
            .iter()
            .map(|(name, registry)| {
                let pods = registry.policy.pods.is_some().then(|| self.pods.view());
                let ready = pods.as_ref().is_none_or(|pods| pods.known);
                let view = RegistryView {
                    complete: registry.complete && ready,
                    synced: registry.synced && ready,
                    partial: registry.doubt.clone(),
                    pods,
                    held_services: registry.unseen.len().max(registry.guard.holds().len()),
                    held_instances: self.held_ghosts(name, registry),
                    remembered: self.ghosts.get(name).map_or(0, BTreeMap::len),
                    hold: hold_view(registry, now),
                    ..RegistryView::default()
                };
                (name.clone(), view)
            })
            .collect()
    }
}

/// All that is held back of a registry, in one line's worth.
fn hold_view(registry: &Registry, now: Now) -> Option<HoldView> {
    let holds = registry.guard.holds();
    let oldest = holds.values().min_by_key(|hold| hold.since)?;
    let worst = holds.values().map(|hold| hold.why).max()?;
    let slowest = holds.values().map(|hold: &Hold| hold.confirmations).min()?;
    Some(HoldView {
        why: worst,
        since: wall(now, oldest.since),
        services: holds.len(),
        confirmations: slowest,
        needed: registry.guard.limits().confirm_after,
        empty_hold: registry.guard.limits().empty_hold,
    })
}

/// When that moment was, by the wall clock of now.
fn wall(now: Now, moment: Moment) -> SystemTime {
    now.wall
        .checked_sub(now.moment.saturating_sub(moment))
        .unwrap_or(now.wall)
}

fn quota<'a>(
    key: &'a ServiceKey,
    known: &Known,
    counts: &mut BTreeMap<&'a Arc<str>, usize>,
) -> Option<(Reason, String)> {
    let count = counts.entry(&key.registry).or_default();
    *count += 1;
    let most = known.policy.grant.max_services?;
    (*count > most).then(|| {
        let detail = format!("grant.maxServices is {most}");
        (Reason::TooManyServices, detail)
    })
}

impl RegistryView {
    fn count(&mut self, known: &Known) {
        self.services += usize::from(!known.gone || known.hold.is_some());
        self.instances += known.service.instances.len();
        self.held_instances += known.held.len();
        self.empty_services += usize::from(known.shape.is_some());
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

/// The hosts that a service claims, if it has objects.
fn claims(known: &Known) -> impl Iterator<Item = (&str, Claim)> {
    let claim = |alias| Claim {
        empty: known.shape.is_some(),
        priority: Reverse(known.policy.priority),
        registry: known.policy.registry.clone(),
        alias,
        altered: known.altered,
        service: known.service.key.clone(),
    };
    let own = known.host.iter().map(|host| (host, false));
    let all = own.chain(known.aliases.iter().map(|alias| (alias, true)));
    all.filter(|_| known.planned.is_some())
        .map(move |(host, alias)| (host.as_str(), claim(alias)))
}

/// The service without aliases that others have: that costs it nothing else.
fn without_aliases(known: &Known, lost: Vec<(String, String)>) -> Known {
    let service = known.shape.as_ref().unwrap_or(&known.service);
    let hosts: Vec<_> = lost.iter().map(|(alias, _)| &**alias).collect();
    let policy = Arc::new(known.policy.without_aliases(service, &hosts));
    let workloads = known.planned.as_ref().and_then(|p| p.workloads());
    let (plan, planned) = planned(known, &policy, workloads.cloned().unwrap_or_default());
    let told = |(alias, owner)| format!("'{alias}' belongs to {owner}");
    Known {
        lost_aliases: lost.into_iter().map(told).collect(),
        ..summary(known, policy, &plan, planned)
    }
}

/// Plans a service as it is, or as one whose instances are gone.
fn planned(
    known: &Known,
    policy: &Arc<Policy>,
    workloads: Workloads,
) -> (Plan, Option<Arc<Planned>>) {
    let (plan, planned) = match (&known.shape, known.empty_since) {
        (Some(shape), Some(since)) => {
            let plan = plan_empty(policy, shape);
            let planned = Planned::empty(shape.clone(), policy.clone(), &plan, since);
            (plan, planned)
        }
        _ => {
            let plan = plan_with(policy, &known.service, &workloads);
            let service = known.service.clone();
            let planned = Planned::with(service, policy.clone(), workloads, &plan);
            (plan, planned)
        }
    };
    let planned = (!plan.objects.is_empty()).then(|| Arc::new(planned));
    (plan, planned)
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
        policy,
        host: plan.host.clone(),
        aliases: plan.aliases.clone(),
        altered: plan.altered,
        lost_to: None,
        refusal: plan.refusal().map(|d| (d.reason, d.detail.clone())),
        ports: plan.ports().iter().map(|p| p.number).collect(),
        endpoints: plan.endpoints,
        dropped: if before.shape.is_some() {
            BTreeMap::new()
        } else {
            dropped
        },
        advice: advice.into_iter().collect(),
        planned,
        ..before.clone()
    }
}
