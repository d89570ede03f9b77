//! A source under its supervisor, and the world as its events tell it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::dubbo::provider;
use diolkos_model::{Instance, Service};
use diolkos_source_api::{
    Envelope, Event, EventSender, Evidence, Health, HealthReporter, Phase, SourceCx, Stopped,
    supervise,
};
use diolkos_source_zookeeper::{Config, ZooKeeper};
use diolkos_testkit::eventually;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// What the registry is bound to have told by now, when tests wait for it.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// For servers that have to be found again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(60);

/// The node of a provider.
pub(crate) fn provider_path(interface: &str, address: &str) -> String {
    let name = provider(interface, address, "");
    format!("/dubbo/{interface}/providers/{name}")
}

/// What the events said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// By name, as last said.
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    /// The evidence that came with it.
    pub(crate) evidence: BTreeMap<String, Evidence>,
    /// Services that were said to be gone.
    pub(crate) removed: Vec<String>,
    /// The evidence of each snapshot that came to its end.
    pub(crate) snapshots: Vec<Evidence>,
    /// Snapshots that were begun.
    pub(crate) started: usize,
    /// Services named since the last snapshot began.
    pub(crate) named: Vec<String>,
    /// All upserts.
    pub(crate) upserts: usize,
}

impl World {
    fn apply(&mut self, event: Event) {
        match event {
            Event::SnapshotStart { .. } => {
                self.started += 1;
                self.named.clear();
            }
            Event::Upsert { service, evidence } => {
                let name = service.key.name.to_string();
                self.upserts += 1;
                self.named.push(name.clone());
                self.evidence.insert(name.clone(), evidence);
                self.services.insert(name, service);
            }
            Event::Remove { key } => {
                let name = key.name.to_string();
                // A partial snapshot says again what went before it.
                if self.services.remove(&name).is_some() {
                    self.removed.push(name);
                } else {
                    assert!(self.removed.contains(&name), "{name} was never named");
                }
            }
            Event::SnapshotEnd { evidence, .. } => self.snapshots.push(evidence),
        }
    }

    /// Enough to see what is wrong, and cheap: conditions are looked at often.
    fn summary(&self) -> String {
        let Self {
            services,
            removed,
            snapshots,
            upserts,
            ..
        } = self;
        let some = services.values().take(10);
        let some: Vec<_> = some
            .map(|service| (&service.key.name, service.instances.len()))
            .collect();
        let count = services.len();
        format!(
            "{count} services: {some:?}…; removed: {removed:?}; snapshots: {snapshots:?}; upserts: {upserts}"
        )
    }

    /// The only instance of a service.
    pub(crate) fn only(&self, name: &str) -> Option<&Instance> {
        match &*self.services.get(name)?.instances {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The number of instances of a service.
    pub(crate) fn count(&self, name: &str) -> Option<usize> {
        Some(self.services.get(name)?.instances.len())
    }
}

/// A running source.
pub(crate) struct Running {
    world: Arc<Mutex<World>>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) resync: mpsc::Sender<()>,
    pub(crate) cancel: CancellationToken,
    task: JoinHandle<Stopped>,
}

impl Running {
    /// Starts a source. It ends with the test's runtime.
    pub(crate) fn start(config: Config) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Envelope>(16);
        let (resync, resync_receiver) = mpsc::channel(4);
        let (reporter, health) = HealthReporter::new();
        let cancel = CancellationToken::new();
        let cx = SourceCx {
            events: EventSender::new(config.dubbo.registry.clone(), sender),
            health: reporter,
            resync: resync_receiver,
            cancel: cancel.clone(),
        };
        let world = Arc::new(Mutex::new(World::default()));
        let applied = world.clone();
        tokio::spawn(async move {
            while let Some(envelope) = receiver.recv().await {
                applied
                    .lock()
                    .expect("an event was wrong before")
                    .apply(envelope.event);
            }
        });
        let task =
            tokio::spawn(async move { supervise("zookeeper", ZooKeeper::new(config), cx).await });
        Self {
            world,
            health,
            resync,
            cancel,
            task,
        }
    }

    /// Starts a source and waits for its first snapshot.
    pub(crate) async fn synced(config: Config) -> Self {
        let running = Self::start(config);
        running
            .until("the first snapshot ends", |world| {
                !world.snapshots.is_empty()
            })
            .await;
        running
    }

    /// What was said so far.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("an event was wrong")
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&World) -> bool) {
        self.within(SOON, what, so).await;
    }

    /// Waits until the world is so, no longer than `deadline`.
    pub(crate) async fn within(&self, deadline: Duration, what: &str, so: impl Fn(&World) -> bool) {
        eventually(deadline, what, async || {
            let world = self.world();
            so(&world).then_some(()).ok_or_else(|| world.summary())
        })
        .await;
    }

    /// How many requests were sent until the last event.
    pub(crate) fn requests(&self) -> u64 {
        self.health.borrow().requests
    }

    /// Forgets what went.
    pub(crate) fn forget(&self) {
        self.world().removed.clear();
    }

    /// Waits until so many snapshots came to their end, the last of them complete.
    pub(crate) async fn snapshots(&self, count: usize) {
        self.within(RECOVERY, "a complete snapshot", |world| {
            world.snapshots.len() >= count && world.snapshots.last() == Some(&Evidence::Complete)
        })
        .await;
    }

    /// Waits until the loss of the connection is told.
    pub(crate) async fn lost(&self) {
        eventually(RECOVERY, "the loss is told", async || {
            let phase = self.health.borrow().phase;
            phase != Phase::Connecting && !phase.is_connected()
        })
        .await;
    }

    /// Ends the source.
    pub(crate) async fn stop(self) -> Stopped {
        self.cancel.cancel();
        self.task.await.expect("the source panicked")
    }
}
