//! What the mesh should hold: the engine publishes it, sinks make it true.

use std::{collections::BTreeMap, sync::Arc};

use diolkos_istio::{Object, ObjectKey};
use diolkos_model::{ContentHash, Service, ServiceKey};

use crate::{Policy, plan};

/// The desired state of all registries. A snapshot: cheap to clone, never changes.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Grows with every publication.
    pub generation: u64,
    /// The registries that are configured.
    pub registries: BTreeMap<Arc<str>, RegistryState>,
    /// The services that have objects, by key.
    pub services: BTreeMap<ServiceKey, Arc<Planned>>,
}

/// How far a registry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryState {
    /// Whether a complete snapshot of it was seen since the start. Only then may objects of it that
    /// nobody wants be taken as orphans.
    pub complete: bool,
}

/// The objects of one service: their hashes, and what it takes to build them. Built objects are
/// never kept; building costs microseconds, keeping costs most of the memory.
#[derive(Clone, Debug)]
pub struct Planned {
    service: Arc<Service>,
    policy: Arc<Policy>,
    objects: Box<[(ObjectKey, ContentHash)]>,
}

impl Planned {
    /// Remembers the hashes of `objects`, which [`plan`] made of `service` and `policy`.
    #[must_use]
    pub fn new(service: Arc<Service>, policy: Arc<Policy>, objects: &[Object]) -> Self {
        let mut hashes: Vec<_> = objects
            .iter()
            .map(|object| (object.key.clone(), object.content_hash()))
            .collect();
        hashes.sort_unstable();
        Self {
            service,
            policy,
            objects: hashes.into(),
        }
    }

    /// The registry that the objects belong to.
    #[must_use]
    pub fn registry(&self) -> &Arc<str> {
        &self.policy.registry
    }

    /// The service they were made of.
    #[must_use]
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The policy they were made by.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Keys and hashes of the objects, sorted by key.
    #[must_use]
    pub fn objects(&self) -> &[(ObjectKey, ContentHash)] {
        &self.objects
    }

    /// Builds the objects anew.
    #[must_use]
    pub fn build(&self) -> Vec<Object> {
        plan(&self.policy, &self.service).objects
    }
}
