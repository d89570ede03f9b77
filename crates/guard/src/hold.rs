//! What is held back of one registry, why, and until when.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use diolkos_model::ServiceKey;

use crate::Limits;

/// A time on a clock that only runs forward, since any moment before the first use.
pub type Moment = Duration;

/// Why a removal is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nothing is left: of the registry, or of a service that lost several instances at once. Ends
    /// when a complete snapshot says the same after [`Limits::empty_hold`].
    Empty,
    /// More would vanish at once than the limits allow. Ends when [`Limits::confirm_after`]
    /// complete snapshots in a row have said the same, spread over most of [`Limits::empty_hold`].
    Shrink,
}

impl Why {
    /// One word, for conditions and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Shrink => "Shrink",
        }
    }
}

/// A removal that is held back. It has an end: see [`Why`]; and an operator may release it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub why: Why,
    /// Since when.
    pub since: Moment,
    /// Complete snapshots in a row that said the same.
    pub confirmations: u32,
}

/// What a registry's answer would take from one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The service.
    pub service: ServiceKey,
    /// Instances that the mesh has of it, those held back included.
    pub known: usize,
    /// Instances that the registry has of it.
    pub left: usize,
    /// Whether the registry does not have the service itself any more.
    pub gone: bool,
}

impl Loss {
    fn instances(&self) -> usize {
        self.known.saturating_sub(self.left)
    }
}

/// A snapshot compared with what the mesh has.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Services that the mesh had before.
    pub services: usize,
    /// Their instances.
    pub instances: usize,
    /// Instances that the registry has now, of old and new services.
    pub instances_now: usize,
    /// The services that lose something.
    pub losses: Vec<Loss>,
    /// The services of which the snapshot does not tell for sure what they have: none of a complete
    /// one. They count as unchanged.
    pub uncertain: HashSet<ServiceKey>,
}

/// The guard of one registry: which removals may pass. Pure; the caller says what time it is.
#[derive(Clone, Debug)]
pub struct Guard {
    limits: Limits,
    holds: BTreeMap<ServiceKey, Hold>,
    services: Meter,
    instances: Meter,
    asked: Option<Moment>,
}

impl Guard {
    /// A guard that holds nothing back yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            holds: BTreeMap::new(),
            services: Meter::default(),
            instances: Meter::default(),
            asked: None,
        }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Sets other limits. What is held back stays so until it is confirmed under the new ones.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What is held back.
    #[must_use]
    pub fn holds(&self) -> &BTreeMap<ServiceKey, Hold> {
        &self.holds
    }

    /// The registry has again what was missing of a service, or the service is dealt with.
    pub fn settle(&mut self, service: &ServiceKey) {
        self.holds.remove(service);
    }

    /// Decides on what a registry says about one service outside of a snapshot. `services` and
    /// `instances` are what the mesh has of the registry now. True if it may pass.
    ///
    /// A single instance less passes always: that is what a deregistration looks like. Several at
    /// once pass as long as all that went within the time of [`Limits::empty_hold`] stays within
    /// the limits; the last several of a service never do at once.
    pub fn step(&mut self, now: Moment, loss: &Loss, services: usize, instances: usize) -> bool {
        let window = self.limits.empty_hold;
        self.services.note(now, services, window);
        self.instances.note(now, instances, window);
        if self.holds.contains_key(&loss.service) && loss.left < loss.known {
            return false;
        }
        let lost = loss.instances();
        let services_lost = self
            .services
            .lost(services.saturating_sub(usize::from(loss.gone)));
        let many_services = loss.gone
            && services_lost > 1
            && self
                .limits
                .max_service_shrink
                .is_exceeded(services_lost, self.services.peak);
        let many_instances = lost > 1
            && self.limits.max_instance_shrink.is_exceeded(
                self.instances.lost(instances.saturating_sub(lost)),
                self.instances.peak,
            );
        let why = if many_services || many_instances {
            Why::Shrink
        } else if loss.left == 0 && loss.known > 1 {
            Why::Empty
        } else {
            return true;
        };
        if window.is_zero() && why == Why::Empty {
            return true;
        }
        self.hold(loss.service.clone(), why, now);
        false
    }

    /// Decides on a snapshot. Returns the services whose losses pass; the others are held.
    ///
    /// What is held of uncertain services stays held, and what was confirmed of it so far does not
    /// count as "in a row".
    pub fn snapshot(&mut self, now: Moment, comparison: &Comparison) -> Vec<ServiceKey> {
        let Comparison {
            services,
            instances,
            instances_now,
            losses,
            uncertain,
        } = comparison;
        let missing: HashSet<&ServiceKey> = losses.iter().map(|loss| &loss.service).collect();
        self.holds.retain(|service, hold| {
            let doubted = uncertain.contains(service);
            if doubted {
                hold.confirmations = 0;
            }
            // Whatever is not missing any more needs no hold.
            doubted || missing.contains(service)
        });
        let new = || {
            losses
                .iter()
                .filter(|loss| !self.holds.contains_key(&loss.service))
        };
        let services_lost = new().filter(|loss| loss.gone).count();
        // Net: a deployment replaces instances. Instances that are held already count as lost before.
        let held: usize = losses
            .iter()
            .filter(|loss| self.holds.contains_key(&loss.service))
            .map(Loss::instances)
            .sum();
        let instances_lost = instances.saturating_sub(instances_now.saturating_add(held));
        let shrinks = self
            .limits
            .max_service_shrink
            .is_exceeded(services_lost, *services)
            || self
                .limits
                .max_instance_shrink
                .is_exceeded(instances_lost, *instances);
        losses
            .iter()
            .filter(|loss| self.passes(now, loss, shrinks))
            .map(|loss| loss.service.clone())
            .collect()
    }

    fn passes(&mut self, now: Moment, loss: &Loss, shrinks: bool) -> bool {
        let Limits {
            empty_hold,
            confirm_after,
            ..
        } = self.limits;
        let spaced = self.limits.pace() * confirm_after.saturating_sub(1);
        if let Some(hold) = self.holds.get_mut(&loss.service) {
            hold.confirmations = hold.confirmations.saturating_add(1);
            return match hold.why {
                Why::Empty => now.saturating_sub(hold.since) >= empty_hold,
                Why::Shrink => {
                    // A registry that breaks and comes back every second confirms nothing by that.
                    hold.confirmations >= confirm_after && now.saturating_sub(hold.since) >= spaced
                }
            };
        }
        let empty = loss.left == 0 && loss.known > 0 && !empty_hold.is_zero();
        let why = match (shrinks, empty) {
            (true, _) => Why::Shrink,
            (false, true) => Why::Empty,
            (false, false) => return true,
        };
        self.hold(loss.service.clone(), why, now);
        // The snapshot itself is the first that says so.
        if let Some(hold) = self.holds.get_mut(&loss.service) {
            hold.confirmations = 1;
            return why == Why::Shrink && confirm_after <= 1;
        }
        true
    }

    fn hold(&mut self, service: ServiceKey, why: Why, now: Moment) {
        let hold = Hold {
            why,
            since: now,
            confirmations: 0,
        };
        self.holds.insert(service, hold);
        self.asked.get_or_insert(now);
    }

    /// When the registry should be asked for a complete snapshot, because something is held back.
    #[must_use]
    pub fn ask_at(&self) -> Option<Moment> {
        if self.holds.is_empty() {
            return None;
        }
        Some(
            self.asked
                .map_or(Moment::ZERO, |asked| asked + self.limits.pace()),
        )
    }

    /// The registry was asked.
    pub fn asked(&mut self, now: Moment) {
        self.asked = (!self.holds.is_empty()).then_some(now);
    }
}

/// The most that there was within a window of time.
#[derive(Clone, Debug, Default)]
struct Meter {
    peak: usize,
    at: Moment,
}

impl Meter {
    fn note(&mut self, now: Moment, level: usize, window: Duration) {
        if level >= self.peak || now.saturating_sub(self.at) > window {
            self.peak = level;
            self.at = now;
        }
    }

    /// How much is lost against the peak when `level` is left.
    fn lost(&self, level: usize) -> usize {
        self.peak.saturating_sub(level)
    }
}

#[cfg(test)]
mod tests;
