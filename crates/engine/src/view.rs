//! What the engine knows, for those who look.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use diolkos_guard::Why;
use diolkos_istio::ObjectKey;
use diolkos_model::{Service, ServiceKey};
use diolkos_plan::{Planned, Policy, Reason};

/// A snapshot of what the engine knows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The generation of the desired state that it belongs to.
    pub generation: u64,
    /// Whether it is known what the mesh held before this process began; also where nobody will tell.
    pub remembers: bool,
    /// All configured registries.
    pub registries: BTreeMap<Arc<str>, RegistryView>,
    /// All services that the registries have.
    pub services: BTreeMap<ServiceKey, Arc<Known>>,
    /// Services that only the mesh knows of.
    pub remembered: Vec<RememberedView>,
}

/// A service of which only the objects are known: the mesh held them before this process began, and no complete
/// snapshot has accounted for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedView {
    /// The registry.
    pub registry: Arc<str>,
    /// The service's key, as text.
    pub service: Arc<str>,
    /// Its objects.
    pub objects: Vec<ObjectKey>,
    /// Its endpoints in the mesh.
    pub endpoints: usize,
    /// Why the guard holds them, and since when; `None` before the first complete snapshot.
    pub hold: Option<(Why, SystemTime)>,
}

/// One registry.
#[derive(Clone, Debug, Default)]
pub struct RegistryView {
    /// Whether a complete snapshot was seen since the start.
    pub complete: bool,
    /// Whether a snapshot, complete or not, was seen since the start.
    pub synced: bool,
    /// Why the last snapshot was not complete, if it was not.
    pub partial: Option<Arc<str>>,
    /// What is known of the Pods; `None` if nothing is taken from them. Until they are known the registry is neither
    /// complete nor synced.
    pub pods: Option<PodsView>,
    /// Services that the registry has, or that are held.
    pub services: usize,
    /// Their instances.
    pub instances: usize,
    /// Endpoints in the mesh.
    pub endpoints: usize,
    /// Objects in the mesh.
    pub objects: usize,
    /// Services that the registry lacks and that stay for now.
    pub held_services: usize,
    /// Instances that the registry lacks and that stay for now.
    pub held_instances: usize,
    /// Services that the mesh held before this process began and that no complete snapshot has
    /// accounted for.
    pub remembered: usize,
    /// Services without instances, whose hosts stay with no endpoints for `guard.emptyGrace`.
    pub empty_services: usize,
    /// What the guard holds back, if it does.
    pub hold: Option<HoldView>,
    /// Services that are not carried over, by reason.
    pub refused: BTreeMap<Reason, usize>,
    /// Instances that are left out, by reason.
    pub dropped: BTreeMap<Reason, usize>,
    /// Services with an advice, by reason.
    pub advice: BTreeMap<Reason, usize>,
    /// One refusal, as an example for people.
    pub example: Option<String>,
}

/// What is known of the cluster's Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodsView {
    /// Whether they have been read once. Until then nothing of the registry is written.
    pub known: bool,
    /// Why they cannot be followed at the moment, if so.
    pub trouble: Option<Arc<str>>,
}

/// What the guard holds back of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldView {
    /// Why; of several reasons the graver one.
    pub why: Why,
    /// Since when, by the wall clock.
    pub since: SystemTime,
    /// Services that lose something, or everything.
    pub services: usize,
    /// Complete snapshots in a row that have said so.
    pub confirmations: u32,
    /// How many have to.
    pub needed: u32,
    /// How long nothing at all is not believed.
    pub empty_hold: Duration,
}

/// One service and what became of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// As the registry has it (with what is held).
    pub service: Arc<Service>,
    /// The policy that it was planned by.
    pub policy: Arc<Policy>,
    /// The host that it claims.
    pub host: Option<String>,
    /// Further hosts that it claims.
    pub aliases: Vec<String>,
    /// Further hosts that it does not have, and why: others have them.
    pub lost_aliases: Vec<String>,
    /// Whether the host had to be altered to be valid.
    pub altered: bool,
    /// The service that has the host instead.
    pub lost_to: Option<ServiceKey>,
    /// Why it is not carried over.
    pub refusal: Option<(Reason, String)>,
    /// The ports that clients dial.
    pub ports: Vec<u32>,
    /// Its endpoints.
    pub endpoints: usize,
    /// The instances that are left out, by reason.
    pub dropped: BTreeMap<Reason, usize>,
    /// What could be better.
    pub advice: Vec<Reason>,
    /// Instances that the registry lacks and that stay for now.
    pub held: Vec<Arc<str>>,
    /// Why the guard holds them back, and since when. `None` with held instances: the registry's answer was
    /// incomplete.
    pub hold: Option<(Why, SystemTime)>,
    /// Whether the registry does not have the service any more.
    pub gone: bool,
    /// The last record that had instances, where there are none and the host stays for a while.
    pub shape: Option<Arc<Service>>,
    /// Since when there are none, then.
    pub empty_since: Option<SystemTime>,
    /// Its objects; `None` if it is refused. They are in the mesh unless it lost its host.
    pub planned: Option<Arc<Planned>>,
    /// When the registry's record changed last.
    pub changed: SystemTime,
}

/// Why something is held back and since when, in words.
pub(crate) fn hold_text((why, since): (Why, SystemTime)) -> String {
    let since = humantime::format_rfc3339_seconds(since);
    format!("{} since {since}", why.as_str())
}

impl Known {
    /// Why it is not carried over, in words.
    #[must_use]
    pub fn refusal_text(&self) -> Option<String> {
        let (reason, detail) = self.refusal.as_ref()?;
        Some(format!("{reason}: {detail}"))
    }

    /// Why the guard holds instances back, and since when, in words.
    #[must_use]
    pub fn hold_text(&self) -> Option<String> {
        self.hold.map(hold_text)
    }

    /// Whether its objects are in the mesh.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        self.planned.is_some() && self.refusal.is_none() && self.lost_to.is_none()
    }
}
