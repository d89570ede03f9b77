//! A source under its supervisor, for the tests on its real server that are its own: what the
//! [conformance suite](crate::conformance) cannot know.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use diolkos_model::{Instance, Service, ServiceKey};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Envelope, Event, EventSender, Evidence, Health, HealthReporter, Source, SourceCx, Stopped,
    supervise,
};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The registry as the events tell it.
pub trait World: Send + 'static {
    /// Takes over what the source said.
    ///
    /// # Panics
    /// If it must not say that; the test fails with the next look at the world.
    fn apply(&mut self, event: Event);

    /// The evidence of each snapshot that came to its end.
    fn snapshots(&self) -> &[Evidence];

    /// Enough to see what is wrong, and cheap: it is made with each look.
    fn summary(&self) -> String;
}

/// All that the events said so far, one after the other. What a snapshot does not name stays.
#[derive(Clone)]
pub struct Told {
    name: fn(&ServiceKey) -> String,
    /// By name, as last said.
    pub services: BTreeMap<String, Arc<Service>>,
    /// The evidence that came with it.
    pub evidence: BTreeMap<String, Evidence>,
    /// Services that were said to be gone, each once.
    pub removed: Vec<String>,
    /// The evidence of each snapshot that came to its end.
    pub snapshots: Vec<Evidence>,
    /// Snapshots that were begun.
    pub started: usize,
    /// Services named since the last snapshot began.
    pub named: Vec<String>,
    /// All upserts.
    pub upserts: usize,
}

impl Told {
    /// Nothing was said yet. `name` is what tests call a service.
    #[must_use]
    pub fn by(name: fn(&ServiceKey) -> String) -> Self {
        Self {
            name,
            services: BTreeMap::new(),
            evidence: BTreeMap::new(),
            removed: Vec::new(),
            snapshots: Vec::new(),
            started: 0,
            named: Vec::new(),
            upserts: 0,
        }
    }

    /// The only instance of a service.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&Instance> {
        match &*self.services.get(name)?.instances {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The number of instances of a service.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<usize> {
        Some(self.services.get(name)?.instances.len())
    }
}

impl World for Told {
    fn apply(&mut self, event: Event) {
        match event {
            Event::SnapshotStart { .. } => {
                self.started += 1;
                self.named.clear();
            }
            Event::Upsert { service, evidence } => {
                let name = (self.name)(&service.key);
                self.upserts += 1;
                self.named.push(name.clone());
                self.evidence.insert(name.clone(), evidence);
                self.services.insert(name, service);
            }
            Event::Remove { key } => {
                let name = (self.name)(&key);
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

    fn snapshots(&self) -> &[Evidence] {
        &self.snapshots
    }

    fn summary(&self) -> String {
        format!("{self:?}")
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self.services.iter().take(10);
        let some: Vec<_> = some.map(|(name, s)| (name, s.instances.len())).collect();
        f.debug_struct("Told")
            .field("services", &self.services.len())
            .field("some", &some)
            .field("removed", &self.removed)
            .field("snapshots", &self.snapshots)
            .field("upserts", &self.upserts)
            .finish()
    }
}

/// A running source. It ends with the test's runtime, or with [`Running::stop`].
#[derive(Debug)]
pub struct Running<W> {
    world: Arc<Mutex<W>>,
    /// What the source says of itself.
    pub health: watch::Receiver<Health>,
    /// Asks for a snapshot.
    pub resync: mpsc::Sender<()>,
    /// Ends the source.
    pub cancel: CancellationToken,
    task: JoinHandle<Stopped>,
}

impl<W: World> Running<W> {
    /// Starts a source of a registry of that name.
    #[must_use]
    pub fn start(registry: &'static str, source: impl Source, world: W) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Envelope>(16);
        let (resync, resyncs) = mpsc::channel(4);
        let (reporter, health) = HealthReporter::new();
        let cancel = CancellationToken::new();
        let cx = SourceCx {
            events: EventSender::new(registry.into(), sender),
            health: reporter,
            resync: resyncs,
            cancel: cancel.clone(),
        };
        let world = Arc::new(Mutex::new(world));
        let applied = world.clone();
        tokio::spawn(async move {
            while let Some(Envelope { event, .. }) = receiver.recv().await {
                locked(&applied).apply(event);
            }
        });
        let task = tokio::spawn(async move { supervise(registry, source, cx).await });
        Self {
            world,
            health,
            resync,
            cancel,
            task,
        }
    }

    /// What was said so far.
    ///
    /// # Panics
    /// If the source said something that it must not say.
    pub fn world(&self) -> MutexGuard<'_, W> {
        locked(&self.world)
    }

    /// Waits until the world is so.
    ///
    /// # Panics
    /// If it is not within `time`; the message names `what`.
    pub async fn within(&self, time: Duration, what: &str, so: impl Fn(&W) -> bool) {
        let end = Instant::now() + time;
        loop {
            let summary = {
                let world = self.world();
                if so(&world) {
                    return;
                }
                world.summary()
            };
            let health = &self.health;
            assert!(
                Instant::now() < end,
                "{what}: not within {time:?}; {summary}; {health:?}"
            );
            sleep(LOOK).await;
        }
    }

    /// Waits until a snapshot came to its end.
    ///
    /// # Panics
    /// If none does within `time`.
    pub async fn synced(&self, time: Duration) {
        self.within(time, "the first snapshot ends", |world| {
            !world.snapshots().is_empty()
        })
        .await;
    }

    /// Ends the source.
    ///
    /// # Panics
    /// If it panicked.
    pub async fn stop(self) -> Stopped {
        self.cancel.cancel();
        match self.task.await {
            Ok(stopped) => stopped,
            Err(error) => panic!("the source panicked: {error}"),
        }
    }
}

fn locked<W>(world: &Mutex<W>) -> MutexGuard<'_, W> {
    match world.lock() {
        Ok(world) => world,
        Err(_) => panic!("an event was wrong: see the first panic"),
    }
}
