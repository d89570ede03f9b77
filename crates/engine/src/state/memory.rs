//! What the mesh held before this process began: services of which only objects are known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use diolkos_guard::Moment;
use diolkos_istio::{Kind, ObjectKey};
use diolkos_model::ServiceKey;
use diolkos_plan::{Planned, Remembered};

use crate::clock::Now;

/// The ghosts of one registry, by the service's key as text: the parts of a key cannot be told apart in it.
pub(super) type Ghosts = BTreeMap<Arc<str>, Ghost>;

/// A service of which only the objects are known. It stays until a complete snapshot has said what became of it,
/// and the guard has let it go.
#[derive(Clone, Debug, Default)]
pub(super) struct Ghost {
    objects: BTreeSet<ObjectKey>,
    /// Service entries that hold their endpoints themselves: to write one is to take away what it lacks.
    inline: BTreeSet<ObjectKey>,
    pub(super) endpoints: usize,
    empty_since: Option<SystemTime>,
    /// When it goes, if it has no endpoints and nobody brings it back.
    pub(super) expires: Option<Moment>,
}

/// Sorts what is remembered by registry and service.
pub(super) fn ghosts(all: Vec<Remembered>) -> BTreeMap<Arc<str>, Ghosts> {
    let mut registries: BTreeMap<Arc<str>, Ghosts> = BTreeMap::new();
    for remembered in all {
        let ghosts = registries.entry(remembered.registry.clone()).or_default();
        let ghost = ghosts.entry(remembered.service.clone()).or_default();
        ghost.add(remembered);
    }
    registries
}

impl Ghost {
    fn add(&mut self, remembered: Remembered) {
        let Remembered {
            object,
            endpoints,
            empty_since,
            ..
        } = remembered;
        self.endpoints += match (object.kind, endpoints) {
            (Kind::WorkloadEntry, _) => 1,
            (Kind::ServiceEntry, endpoints) => endpoints.unwrap_or(0) as usize,
        };
        if endpoints.is_some() {
            self.inline.insert(object.clone());
        }
        self.empty_since = self.empty_since.or(empty_since);
        self.objects.insert(object);
    }

    /// The objects to leave alone, if `planned` is what the registry has of the service now.
    pub(super) fn kept<'a>(
        &'a self,
        planned: Option<&'a Planned>,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        let shrunk = planned.is_none_or(|planned| planned.endpoints() < self.endpoints);
        self.objects.iter().filter(move |key| {
            let wanted = planned.is_some_and(|planned| {
                let objects = planned.objects();
                objects
                    .binary_search_by(|(object, _)| object.cmp(key))
                    .is_ok()
            });
            !wanted || (shrunk && self.inline.contains(*key))
        })
    }

    /// The service may go. What stays of it is a host without endpoints, until `grace` is over. Endpoints that are
    /// inside of a service entry cannot be taken out of it, as only its metadata is known: it goes as a whole.
    /// Returns whether anything stays.
    pub(super) fn let_go(&mut self, now: Now, grace: Duration) -> bool {
        if self.endpoints > 0 {
            let inline = &self.inline;
            self.objects
                .retain(|key| key.kind == Kind::ServiceEntry && !inline.contains(key));
            self.endpoints = 0;
            self.empty_since = Some(now.wall);
        }
        self.expire(now, grace)
    }

    /// It has no endpoints, and the registry does not have it: the grace runs from when that began, as far as the
    /// wall clock can be believed.
    pub(super) fn expire(&mut self, now: Now, grace: Duration) -> bool {
        let since = self.empty_since.unwrap_or(now.wall);
        let elapsed = now.wall.duration_since(since).unwrap_or_default();
        let left = grace.saturating_sub(elapsed);
        if self.objects.is_empty() || left.is_zero() {
            return false;
        }
        self.expires.get_or_insert(now.moment + left);
        true
    }
}

/// A key for a ghost: what is not known of it is left empty. Written out it is the text that it came from.
pub(super) fn ghost_key(registry: &Arc<str>, service: &str) -> ServiceKey {
    let name = service
        .strip_prefix(&**registry)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(service);
    ServiceKey {
        registry: registry.clone(),
        namespace: "".into(),
        group: "".into(),
        name: name.into(),
    }
}

/// The name of a ghost's service, as far as it can be told: names may hold slashes themselves.
pub(super) fn ghost_name(service: &str) -> &str {
    service.rsplit('/').next().unwrap_or(service)
}
