//! Reads all registries once: for `export`, `diff` and `explain -f`.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use diolkos_api::CheckedRegistry;
use diolkos_console::{Holders, Observer, Sources};
use diolkos_engine::{Engine, Options, SystemClock, View, spawn};
use diolkos_istio::Object;
use diolkos_plan::Desired;

use crate::{documents, sources::Supervisor, workloads::Workloads};

/// The registries as they were read.
pub(crate) struct Synced {
    engine: Engine,
    supervisor: Supervisor,
    _workloads: Workloads,
}

impl Synced {
    pub(crate) fn desired(&self) -> Arc<Desired> {
        self.engine.desired.borrow().clone()
    }

    pub(crate) fn objects(&self) -> Vec<Object> {
        let desired = self.desired();
        let mut objects: Vec<Object> = desired
            .services
            .values()
            .flat_map(|planned| planned.build())
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects
    }

    pub(crate) fn observer(&self) -> Observer {
        Observer {
            view: self.engine.view.clone(),
            sources: self.supervisor.sources().clone(),
            ledger: None,
            holders: Holders::default(),
        }
    }
}

/// Reads every registry until it is synchronised.
///
/// # Errors
/// If one is not within `timeout`; says which, and what it last reported.
pub(crate) async fn sync(
    registries: &[CheckedRegistry],
    timeout: Duration,
) -> anyhow::Result<Synced> {
    // One snapshot is all that is read: nothing is asked again.
    let (engine, _) = spawn(
        &documents::policies(registries),
        Options::<SystemClock>::default(),
        (),
    );
    let client = documents::client(registries, None).await?;
    let mut supervisor = Supervisor::new(engine.events.clone(), client.clone())?;
    let mut workloads = Workloads::new(client, engine.commands.clone());
    workloads.configure(registries).await?;
    supervisor.configure(registries);
    if tokio::time::timeout(timeout, synchronised(&engine))
        .await
        .is_err()
    {
        let why = waiting(&engine, supervisor.sources());
        bail!(
            "not synchronised within {} s: {}",
            timeout.as_secs_f64(),
            why.join("; ")
        );
    }
    Ok(Synced {
        engine,
        supervisor,
        _workloads: workloads,
    })
}

/// Waits until a snapshot of every registry was seen and compared with what the sink holds, and all is planned.
pub(crate) async fn synchronised(engine: &Engine) {
    let (mut view, mut desired) = (engine.view.clone(), engine.desired.clone());
    let all = |view: &Arc<View>| {
        view.remembers && view.registries.values().all(|registry| registry.synced)
    };
    let planned = async {
        let generation = view.wait_for(all).await?.generation;
        // The engine publishes the view first.
        desired
            .wait_for(|desired| desired.generation >= generation)
            .await
            .map(|_| ())
    };
    // The engine lives as long as its senders do, one of which is `engine`.
    if let Err(error) = planned.await {
        tracing::error!(%error, "the engine stopped");
    }
}

/// The registries that are not synchronised, and what they last reported.
pub(crate) fn waiting(engine: &Engine, sources: &Sources) -> Vec<String> {
    let health = sources.health();
    let view = engine.view.borrow().clone();
    view.registries
        .iter()
        .filter(|(_, registry)| !registry.synced)
        .map(|(name, registry)| {
            if let Some(pods) = registry.pods.as_ref().filter(|pods| !pods.known) {
                let why = pods.trouble.as_deref().unwrap_or("they are being read");
                return format!("registry {name} waits for the cluster's Pods: {why}");
            }
            let health = health.get(name).cloned().unwrap_or_default();
            format!(
                "registry {name} is {}: {}",
                health.phase.as_str(),
                health.detail
            )
        })
        .collect()
}
