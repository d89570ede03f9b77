//! What the mesh should hold: the engine publishes it, sinks make it true.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use diolkos_istio::{Object, ObjectKey, annotation};
use diolkos_model::{ContentHash, Service, ServiceKey, Workloads};

use crate::{
    Plan, Policy,
    plan::{plan_empty, plan_with},
};

/// The desired state of all registries. A snapshot: cheap to clone, never changes.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Grows with every publication.
    pub generation: u64,
    /// The registries that are configured.
    pub registries: BTreeMap<Arc<str>, RegistryState>,
    /// The services that have objects, by key.
    pub services: BTreeMap<ServiceKey, Arc<Planned>>,
    /// Objects that stay as they are for now, whether a service wants them otherwise or nobody does:
    /// the mesh held them before this process began, and what the registry says since would take
    /// too much away.
    pub kept: Arc<BTreeSet<ObjectKey>>,
}

/// An object of ours that was there before this process began: what its metadata tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The object.
    pub object: ObjectKey,
    /// The registry that it comes from.
    pub registry: Arc<str>,
    /// The key of its service, as [`ServiceKey`] writes it.
    pub service: Arc<str>,
    /// How many endpoints a service entry holds itself; `None` if it says nothing of that.
    pub endpoints: Option<u32>,
    /// Since when its service has no endpoints.
    pub empty_since: Option<SystemTime>,
}

/// How far a registry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryState {
    /// Whether a complete snapshot of it was seen since the start, and what the mesh held then is
    /// known. Only then may objects of it that nobody wants and that are not
    /// [kept](Desired::kept) be taken as orphans.
    pub complete: bool,
    /// Whether its services are left out for now, although they are known: what is there of them
    /// stays. Otherwise what a service does not want any more may go, complete or not.
    pub waits: bool,
}

impl Remembered {
    /// Reads the annotations of an object of `registry`; `None` if they do not name a service. What
    /// cannot be read of the rest counts as not there.
    #[must_use]
    pub fn read<'a>(
        object: &ObjectKey,
        registry: &Arc<str>,
        annotated: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<Self> {
        Some(Self {
            object: object.clone(),
            registry: registry.clone(),
            service: annotated(annotation::SERVICE)?.into(),
            endpoints: annotated(annotation::ENDPOINTS).and_then(|n| n.parse().ok()),
            empty_since: annotated(annotation::EMPTY_SINCE)
                .and_then(|time| humantime::parse_rfc3339(time).ok()),
        })
    }
}

/// The objects of one service: their hashes, and what it takes to build them. Built objects are
/// never kept; building costs microseconds, keeping costs most of the memory.
#[derive(Clone, Debug)]
pub struct Planned {
    service: Arc<Service>,
    policy: Arc<Policy>,
    /// The Pods behind its addresses; few have any, so they cost a pointer.
    workloads: Option<Arc<Workloads>>,
    endpoints: usize,
    empty_since: Option<SystemTime>,
    objects: Box<[(ObjectKey, ContentHash)]>,
}

impl Planned {
    /// Remembers the hashes of the objects of `made`, which [`plan`](crate::plan()) made of `service` and `policy`.
    #[must_use]
    pub fn new(service: Arc<Service>, policy: Arc<Policy>, made: &Plan) -> Self {
        Self::remember(service, policy, made, None)
    }

    /// As [`Self::new`], of what [`plan_with`] made with these Pods.
    #[must_use]
    pub fn with(
        service: Arc<Service>,
        policy: Arc<Policy>,
        workloads: Workloads,
        made: &Plan,
    ) -> Self {
        Self {
            workloads: (!workloads.is_empty()).then(|| Arc::new(workloads)),
            ..Self::new(service, policy, made)
        }
    }

    /// As [`Self::new`], of what [`plan_empty`] made: `service` is the last that had instances.
    #[must_use]
    pub fn empty(
        service: Arc<Service>,
        policy: Arc<Policy>,
        made: &Plan,
        since: SystemTime,
    ) -> Self {
        Self::remember(service, policy, made, Some(since))
    }

    fn remember(
        service: Arc<Service>,
        policy: Arc<Policy>,
        made: &Plan,
        empty_since: Option<SystemTime>,
    ) -> Self {
        let hash = |object: &Object| match empty_since {
            None => object.content_hash(),
            Some(since) => emptied(object.clone(), since).content_hash(),
        };
        let mut hashes: Vec<_> = made
            .objects
            .iter()
            .map(|object| (object.key.clone(), hash(object)))
            .collect();
        hashes.sort_unstable();
        Self {
            service,
            policy,
            workloads: None,
            endpoints: made.endpoints,
            empty_since,
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

    /// The Pods that they were made with.
    #[must_use]
    pub fn workloads(&self) -> Option<&Workloads> {
        self.workloads.as_deref()
    }

    /// Keys and hashes of the objects, sorted by key.
    #[must_use]
    pub fn objects(&self) -> &[(ObjectKey, ContentHash)] {
        &self.objects
    }

    /// How many endpoints the objects hold.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// Builds the objects anew.
    #[must_use]
    pub fn build(&self) -> Vec<Object> {
        let Some(since) = self.empty_since else {
            let nobody = Workloads::new();
            let workloads = self.workloads().unwrap_or(&nobody);
            return plan_with(&self.policy, &self.service, workloads).objects;
        };
        let objects = plan_empty(&self.policy, &self.service).objects;
        let emptied = objects.into_iter().map(|object| emptied(object, since));
        emptied.collect()
    }
}

/// Says in the object since when it has no endpoints.
fn emptied(mut object: Object, since: SystemTime) -> Object {
    let since = humantime::format_rfc3339_seconds(since).to_string();
    object
        .annotations
        .insert(annotation::EMPTY_SINCE.to_owned(), since);
    object
}
