//! What enters the engine beside the events of sources.

use std::{collections::BTreeMap, sync::Arc};

use diolkos_guard::Limits;
use diolkos_model::Service;
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
}
