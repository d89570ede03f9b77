//! What outlives the process: the mesh's own objects, and the directory of `--state`.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use diolkos_engine::{Command, View};
use diolkos_model::{Service, ServiceKey};
use diolkos_sink_api::Remembered;
use diolkos_snapshot::Store;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// The least time between two looks at what changed.
const PAUSE: Duration = Duration::from_secs(2);
/// How long after a failure (a full disk) it is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Where a sink tells what was there when it began; it goes on to the engine.
pub(crate) fn of_the_mesh(commands: mpsc::Sender<Command>) -> mpsc::Sender<Vec<Remembered>> {
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(remembered) = receiver.recv().await {
            tracing::info!(objects = Vec::len(&remembered), "read what the mesh holds");
            if commands.send(Command::Remember(remembered)).await.is_err() {
                tracing::debug!("the engine has stopped");
            }
        }
    });
    sender
}

/// Gives the engine what the directory holds, then keeps the directory up to date until `cancel` fires.
///
/// # Errors
/// If the directory cannot be used at all. A broken file in it costs its registry's memory only, and is reported.
pub(crate) async fn of_the_disk(
    directory: &Path,
    commands: &mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
    cancel: CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let path = directory.to_owned();
    let (store, loaded) = tokio::task::spawn_blocking(move || {
        let store = Store::open(&path)?;
        let loaded = store.load()?;
        Ok::<_, diolkos_snapshot::SnapshotError>((store, loaded))
    })
    .await
    .context("reading the state panicked")?
    .context("--state")?;
    for fault in loaded.faults {
        tracing::warn!(%fault, "a file of --state is not believed, its registry starts without memory");
    }
    for (registry, services) in loaded.registries {
        tracing::info!(%registry, services = services.len(), "read the last good services");
        commands
            .send(Command::Restore(services))
            .await
            .context("the engine stopped")?;
    }
    Ok(tokio::spawn(keep(Arc::new(store), view, cancel)))
}

async fn keep(store: Arc<Store>, mut view: watch::Receiver<Arc<View>>, cancel: CancellationToken) {
    loop {
        let now = view.borrow_and_update().clone();
        let saved = {
            let store = store.clone();
            tokio::task::spawn_blocking(move || save(&store, &now)).await
        };
        let pause = match saved {
            Ok(Ok(())) => PAUSE,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot keep the last good services, the files stay as they were");
                RETRY
            }
            Err(error) => {
                tracing::error!(%error, "keeping the last good services panicked");
                RETRY
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(pause) => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

/// Saves the registries that have been read as a whole: half a snapshot must not replace a whole one. All are tried,
/// and the first error is told.
fn save(store: &Store, view: &View) -> Result<(), diolkos_snapshot::SnapshotError> {
    let mut services: BTreeMap<&Arc<str>, Vec<&Service>> = BTreeMap::new();
    for (name, registry) in &view.registries {
        if registry.complete {
            services.insert(name, Vec::new());
        }
    }
    let has_instances = |service: &Service| !service.instances.is_empty();
    for (ServiceKey { registry, .. }, known) in &view.services {
        if has_instances(&known.service)
            && let Some(services) = services.get_mut(registry)
        {
            services.push(&known.service);
        }
    }
    let mut result = Ok(());
    for (registry, services) in services {
        let saved = store.save(registry, services).map(|_| ());
        result = result.and(saved);
    }
    result
}
