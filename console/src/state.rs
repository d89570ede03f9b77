//! What the API looks at.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use diolkos_engine::View;
use diolkos_sink_api::Ledger;
use diolkos_source_api::Health;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The health of every running source. Shared: the supervisor of sources changes it, readers copy.
#[derive(Clone, Debug, Default)]
pub struct Sources(Arc<RwLock<BTreeMap<Arc<str>, watch::Receiver<Health>>>>);

impl Sources {
    /// No sources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A source runs.
    pub fn insert(&self, registry: Arc<str>, health: watch::Receiver<Health>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(registry, health);
    }

    /// A source ended.
    pub fn remove(&self, registry: &str) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(registry);
    }

    /// The health of all of them now.
    #[must_use]
    pub fn health(&self) -> BTreeMap<Arc<str>, Health> {
        let sources = self.0.read().unwrap_or_else(PoisonError::into_inner);
        sources
            .iter()
            .map(|(name, health)| (name.clone(), health.borrow().clone()))
            .collect()
    }
}

/// Which replica writes a registry's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Its name; `None` while nobody does.
    pub identity: Option<String>,
    /// Whether that is the one that answers.
    pub ours: bool,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// How often that changed.
    pub transitions: i32,
}

/// Which replica writes each registry, where several share them. Shared: the keeper of the Leases changes it,
/// readers copy.
#[derive(Clone, Debug, Default)]
pub struct Holders(Arc<RwLock<Option<Shared>>>);

#[derive(Debug)]
struct Shared {
    holders: BTreeMap<Arc<str>, Holder>,
    error: Option<String>,
}

impl Holders {
    /// So it is now; `error` says why the Leases cannot be read or written, if so.
    pub fn set(&self, holders: BTreeMap<Arc<str>, Holder>, error: Option<String>) {
        let shared = Some(Shared { holders, error });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shared;
    }

    /// The holder of a registry; `None` where there are no Leases.
    #[must_use]
    pub fn get(&self, registry: &str) -> Option<Holder> {
        let shared = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let holder = shared.as_ref()?.holders.get(registry).cloned();
        Some(holder.unwrap_or_default())
    }

    /// Why the Leases cannot be read or written, if so.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let shared = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shared.as_ref()?.error.clone()
    }
}

/// All that can be looked at.
#[derive(Clone, Debug)]
pub struct Observer {
    /// What the engine knows.
    pub view: watch::Receiver<Arc<View>>,
    /// How the sources are.
    pub sources: Sources,
    /// What the sink did; `None` if there is no sink that keeps running.
    pub ledger: Option<Ledger>,
    /// Who writes what, where several replicas run.
    pub holders: Holders,
}

impl Observer {
    /// Why not ready, or `Ok`.
    ///
    /// A registry that is away does not make Diolkos unready: the mesh stays as it is, and a
    /// restart by the kubelet would help nobody.
    ///
    /// # Errors
    /// One line for people.
    pub fn ready(&self) -> Result<(), String> {
        let view = self.view.borrow().clone();
        let health = self.sources.health();
        for (name, registry) in &view.registries {
            let waiting = health
                .get(name)
                .is_none_or(|h| matches!(h.phase.as_str(), "Connecting" | "Syncing"));
            if !registry.synced && waiting {
                return Err(format!("registry {name}: the first snapshot is under way"));
            }
        }
        if let Some(error) = self.ledger.as_ref().and_then(Ledger::unreadable) {
            return Err(format!("the sink cannot be read: {error}"));
        }
        Ok(())
    }
}
