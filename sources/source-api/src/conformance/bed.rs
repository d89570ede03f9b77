//! A source under its supervisor.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Fixture, Outage, Wanted, WantedInstance, world::World};
use crate::{
    Envelope, Epoch, Event, EventSender, Health, HealthReporter, Source, SourceCx, SourceError,
    Stopped, supervise,
};

/// The name of the registry.
const REGISTRY: &str = "conformance";
/// The sender's name in envelopes that say that a connection begins.
const RUN: &str = "(run)";
/// Room for events. Small, so that a source often has to wait.
const ROOM: usize = 4;
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// For what has no budget; only a failing case waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A source has to end within this.
const END: Duration = Duration::from_secs(1);

/// The source, saying in the way of events that a connection begins.
struct Marked<S> {
    source: S,
    runs: EventSender,
}

impl<S: Source> Source for Marked<S> {
    async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        self.runs.send(Event::SnapshotStart { epoch }).await?;
        self.source.run(epoch, cx).await
    }
}

pub(super) struct Bed<F> {
    pub(super) fixture: F,
    pub(super) health: watch::Receiver<Health>,
    pub(super) resync: mpsc::Sender<()>,
    world: Arc<Mutex<World>>,
    /// How many events are taken, so that the source can be stopped in the middle.
    taken: watch::Sender<usize>,
    listener: JoinHandle<()>,
    task: JoinHandle<Stopped>,
    cancel: DropGuard,
}

impl<F: Fixture> Bed<F> {
    /// Starts the source on a registry that holds `services`, which nobody changes for now.
    pub(super) async fn start(fixture: F, services: &[Wanted]) -> Result<Self> {
        Self::start_taking(usize::MAX, fixture, services).await
    }

    /// As [`Self::start`], taking no more than so many events for now.
    pub(super) async fn start_taking(
        events: usize,
        mut fixture: F,
        services: &[Wanted],
    ) -> Result<Self> {
        fixture.put_all(services).await?;
        Ok(Self::run(events, fixture, services))
    }

    /// Starts the source; `services` are in the registry.
    pub(super) fn run(events: usize, fixture: F, services: &[Wanted]) -> Self {
        let mut world = World::new(REGISTRY);
        for Wanted { name, instances } in services {
            // Sources may give a weight where none was registered: that is not known yet.
            let known = instances.iter().filter(|i| i.weight.is_some());
            world.assure(name, known.map(WantedInstance::content).collect());
        }
        let world = Arc::new(Mutex::new(world));
        let (sender, receiver) = mpsc::channel(ROOM);
        let (resync, resyncs) = mpsc::channel(1);
        let (reporter, health) = HealthReporter::new();
        let (taken, allowed) = watch::channel(events);
        let cancel = CancellationToken::new();
        let cx = SourceCx {
            events: EventSender::new(REGISTRY.into(), sender.clone()),
            health: reporter,
            resync: resyncs,
            cancel: cancel.clone(),
        };
        let source = Marked {
            source: fixture.source(REGISTRY.into()),
            runs: EventSender::new(RUN.into(), sender),
        };
        Self {
            fixture,
            health,
            resync,
            listener: tokio::spawn(listen(receiver, world.clone(), allowed)),
            world,
            taken,
            task: tokio::spawn(supervise(REGISTRY, source, cx)),
            cancel: cancel.drop_guard(),
        }
    }

    /// A source that has said all that there is, and follows.
    pub(super) async fn live(fixture: F, services: &[Wanted]) -> Result<Self> {
        let bed = Self::start(fixture, services).await?;
        bed.synced().await?;
        bed.shows(services).await?;
        Ok(bed)
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.world)
    }

    /// Lets the listener take so many events in all, since the start.
    pub(super) fn take(&self, events: usize) {
        self.taken.send_replace(events);
    }

    /// The listener takes nothing more for now.
    pub(super) fn pause(&self) {
        self.taken.send_replace(0);
    }

    /// Waits until the connection that is under way has said all, with complete evidence, and is live.
    pub(super) async fn synced(&self) -> Result<()> {
        self.until(PATIENCE, "a complete snapshot", |world| {
            let last = world.snapshots.last();
            let last = last.context("no snapshot has come to its end")?;
            ensure!(
                last.complete && last.epoch == world.run,
                "the last one is of connection {} (of {}), complete: {}",
                last.epoch,
                world.run,
                last.complete
            );
            Ok(())
        })
        .await?;
        self.until_health("it is live", PATIENCE, |health| {
            health.phase == crate::Phase::Live && health.last_contact.is_some()
        })
        .await
    }

    /// Puts a service into the registry and waits until it is seen so.
    pub(super) async fn put(&mut self, service: &Wanted) -> Result<()> {
        self.world().release(&service.name);
        self.fixture.put(service).await?;
        self.shows_within(self.fixture.budget(), std::slice::from_ref(service))
            .await
    }

    /// Puts a service into the registry. Nothing is known of it before it was seen.
    pub(super) async fn put_unseen(&mut self, service: &Wanted) -> Result<()> {
        self.world().release(&service.name);
        self.fixture.put(service).await
    }

    /// Removes a service from the registry and waits until that is seen.
    pub(super) async fn delete(&mut self, name: &str) -> Result<()> {
        self.delete_unseen(name).await?;
        self.lacks(name).await
    }

    /// Removes a service from the registry.
    pub(super) async fn delete_unseen(&mut self, name: &str) -> Result<()> {
        self.world().release(name);
        self.fixture.delete(name).await
    }

    /// Waits until a service is gone.
    pub(super) async fn lacks(&self, name: &str) -> Result<()> {
        let what = format!("{name} is gone");
        self.until(self.fixture.budget(), &what, |world| {
            let seen = world.services.get(name);
            ensure!(seen.is_none(), "it is {seen:?}");
            Ok(())
        })
        .await
    }

    /// Waits until these services are seen as they are. From then on they have to stay so.
    pub(super) async fn shows(&self, services: &[Wanted]) -> Result<()> {
        self.shows_within(PATIENCE, services).await
    }

    async fn shows_within(&self, time: Duration, services: &[Wanted]) -> Result<()> {
        self.until(time, "services are seen as they are", |world| {
            for service in services {
                let seen = world.services.get(&service.name);
                let seen = seen.with_context(|| format!("{} is missing", service.name))?;
                ensure!(service.is(&seen.content), "{service:?} is {seen:?}");
            }
            for Wanted { name, .. } in services {
                let content = world.services[name].content.clone();
                world.assure(name, content);
            }
            Ok(())
        })
        .await
    }

    /// Fails unless these are all services that are known.
    pub(super) fn names_only(&self, services: &[Wanted]) -> Result<()> {
        let world = self.world();
        let known = world.names();
        ensure!(known == names(services), "known are {known:?}");
        Ok(())
    }

    /// Waits until `so` finds no fault.
    pub(super) async fn until(
        &self,
        time: Duration,
        what: &str,
        so: impl Fn(&mut World) -> Result<()>,
    ) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let fault = {
                let mut world = self.world();
                ensure!(world.faults.is_empty(), "{:#?}", world.faults);
                match so(&mut world) {
                    Ok(()) => return Ok(()),
                    Err(fault) => fault,
                }
            };
            if Instant::now() >= end {
                let health = self.health.borrow().clone();
                let fault = fault.context(format!("not within {time:?}: {what}"));
                return Err(fault.context(format!("{health:?}")));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the health is so.
    pub(super) async fn until_health(
        &self,
        what: &str,
        time: Duration,
        so: impl Fn(&Health) -> bool,
    ) -> Result<()> {
        let mut health = self.health.clone();
        let found = timeout(time, health.wait_for(so)).await;
        match found {
            Ok(health) => health.map(drop).context("the source has ended"),
            Err(_) => Err(anyhow!("not within {time:?}: {what}; {:?}", self.health)),
        }
    }

    /// Begins an outage, and waits until the source has noticed.
    pub(super) async fn outage(&mut self, kind: Outage) -> Result<()> {
        self.fixture.outage(kind).await?;
        self.until_health("the outage is noticed", self.fixture.notices(), |health| {
            !health.phase.is_connected()
        })
        .await
    }

    /// Ends an outage, and waits until a new connection has said all. That may be one that was begun
    /// during the outage, if it is still waiting for its first answer.
    pub(super) async fn recover(&mut self) -> Result<()> {
        let before = self.world().snapshots.len();
        self.fixture.recover().await?;
        self.until(PATIENCE, "a snapshot after the outage", |world| {
            ensure!(world.snapshots.len() > before, "there is none");
            Ok(())
        })
        .await?;
        self.synced().await
    }

    /// Ends the source, which has to be quick, and gives the registry back.
    pub(super) async fn stop(self) -> Result<F> {
        self.cancel.disarm().cancel();
        let ended = timeout(END, self.task).await;
        ended.with_context(|| format!("it does not end within {END:?}"))??;
        // Without a source there is no sender any more.
        self.taken.send_replace(usize::MAX);
        timeout(PATIENCE, self.listener)
            .await
            .context("the source has left a task behind that holds its sender")??;
        let faults = std::mem::take(&mut locked(&self.world).faults);
        ensure!(faults.is_empty(), "{faults:#?}");
        Ok(self.fixture)
    }

    /// Nobody listens any more.
    pub(super) async fn deafen(&mut self) {
        self.listener.abort();
        // Only its end matters, which is what an error means.
        (&mut self.listener).await.ok();
    }

    /// Whether the source has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

async fn listen(
    mut events: mpsc::Receiver<Envelope>,
    world: Arc<Mutex<World>>,
    mut allowed: watch::Receiver<usize>,
) {
    loop {
        let taken = locked(&world).events;
        if allowed.wait_for(|allowed| *allowed > taken).await.is_err() {
            // The case is over; so are the checks.
            return;
        }
        let Some(Envelope { registry, event }) = events.recv().await else {
            return;
        };
        let mut world = locked(&world);
        match event {
            Event::SnapshotStart { epoch } if *registry == *RUN => world.run_begins(epoch),
            event => world.apply(&registry, event),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A service with an instance for each number, all healthy and on one port.
pub(super) fn wanted(name: &str, instances: impl IntoIterator<Item = u8>, port: u16) -> Wanted {
    let instance = |number: u8| WantedInstance {
        id: format!("{name}-{number}"),
        ip: Ipv4Addr::new(10, 20, 0, number),
        port,
        version: Some("v1".to_owned()),
        healthy: true,
        weight: None,
    };
    Wanted {
        name: name.to_owned(),
        instances: instances.into_iter().map(instance).collect(),
    }
}

/// Many services with two instances each.
pub(super) fn many(count: usize) -> Vec<Wanted> {
    (0..count)
        .map(|number| wanted(&format!("many-{number}"), [1, 2], 8080))
        .collect()
}

/// The names of services.
fn names(services: &[Wanted]) -> BTreeSet<&str> {
    services.iter().map(|service| &*service.name).collect()
}
