//! What enters the engine beside the events of sources.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use diolkos_guard::Limits;
use diolkos_model::{Service, Workload, Workloads};
use diolkos_plan::{Policy, Remembered};

/// How one registry is carried over.
#[derive(Clone, Debug)]
pub struct Configured {
    /// What becomes of its services.
    pub policy: Arc<Policy>,
    /// How much of it may vanish at once.
    pub limits: Limits,
}

/// All configured registries.
pub type Policies = BTreeMap<Arc<str>, Configured>;

/// Hosts that no registry may claim, each with the one that has it.
pub type Reserved = BTreeMap<String, String>;

/// Something for the engine to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Takes over the configuration: always all of it.
    Configure(Policies),
    /// Tells what of ours the mesh held before this process began. Until then nothing is an orphan.
    Remember(Vec<Remembered>),
    /// Gives back services as they were when an earlier process saw them last. They stay until the registry
    /// says otherwise, as far as the guard lets it.
    Restore(Vec<Service>),
    /// An operator has looked at it: the removals that are held back of this registry may pass.
    Release(Arc<str>),
    /// Tells which hosts belong to others: those of the cluster's Services.
    Reserve(Arc<Reserved>),
    /// Tells what is new of the cluster's Pods, for the registries that take from them ([`Policy::pods`]).
    Pods(PodNews),
}

/// What is new of the cluster's Pods.
///
/// A registry that takes from Pods waits until they are known: its objects stay as they are, so that a restart does not
/// write them all without what the Pods say, and then again with it.
#[derive(Clone, Debug)]
pub enum PodNews {
    /// They are read anew, with other labels: until [`All`](Self::All) comes nothing is known.
    Unknown,
    /// All that there are.
    All(Workloads),
    /// Those that changed since, by address; `None`: no Pod has it any more.
    Changed(Vec<(IpAddr, Option<Arc<Workload>>)>),
    /// Why they cannot be followed at the moment; `None` if they can again. What is known stays.
    Trouble(Option<Arc<str>>),
}
