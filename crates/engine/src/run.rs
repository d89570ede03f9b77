//! The loop: collects what comes in for a short window, then publishes once.

use std::{sync::Arc, time::Duration};

use diolkos_plan::Desired;
use diolkos_source_api::{Envelope, Event};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    clock::{Clock, SystemClock},
    command::{Command, Policies},
    state::State,
    view::View,
};

/// How long changes are collected before they are planned and published together.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Publish when nothing came for this long …
    pub quiet: Duration,
    /// … and at the latest this long after the first change.
    pub longest: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(50),
            longest: Duration::from_millis(500),
        }
    }
}

/// How an engine runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<C = SystemClock> {
    /// How long changes are collected.
    pub window: Window,
    /// Whether it will be told what the mesh held before ([`Command::Remember`]). Until then nothing is taken as
    /// an orphan.
    pub memory: bool,
    /// What time it is.
    pub clock: C,
}

/// Called as things happen; metrics hang here.
pub trait Observe: Send + 'static {
    /// A source said something.
    fn event(&self, registry: &Arc<str>, event: &Event);
    /// Changes were planned and published.
    fn published(&self, took: Duration);
}

/// Observes nothing.
impl Observe for () {
    fn event(&self, _: &Arc<str>, _: &Event) {}
    fn published(&self, _: Duration) {}
}

/// The ends of a running engine. It stops when all senders are dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    /// What sources say. Bounded: when the engine is behind, the sources wait.
    pub events: mpsc::Sender<Envelope>,
    /// Everything else that changes it.
    pub commands: mpsc::Sender<Command>,
    /// What the mesh should hold.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// What the engine knows.
    pub view: watch::Receiver<Arc<View>>,
}

/// Events that wait for the engine at most.
const EVENTS: usize = 1_024;
/// Commands that wait for the engine at most.
const COMMANDS: usize = 16;
/// Events that are taken at once.
const BURST: usize = 256;

/// Starts an engine with its first configuration. Also returns the names of registries that should be asked for a
/// complete snapshot, as they come: something of them is held back and waits to be confirmed.
#[must_use]
pub fn spawn<O: Observe, C: Clock>(
    policies: &Policies,
    options: Options<C>,
    observe: O,
) -> (Engine, mpsc::Receiver<Arc<str>>) {
    let Options {
        window,
        memory,
        clock,
    } = options;
    let (events, events_in) = mpsc::channel(EVENTS);
    let (commands, commands_in) = mpsc::channel(COMMANDS);
    let (ask, asked) = mpsc::channel(EVENTS);
    let mut state = State::with_memory(memory);
    state.configure(policies);
    let (desired, view) = state.publish(clock.now());
    let (desired, desired_out) = watch::channel(desired);
    let (view, view_out) = watch::channel(view);
    tokio::spawn(
        Loop {
            state,
            window,
            clock,
            desired,
            view,
            ask,
            observe,
        }
        .run(events_in, commands_in),
    );
    let engine = Engine {
        events,
        commands,
        desired: desired_out,
        view: view_out,
    };
    (engine, asked)
}

struct Loop<O, C> {
    state: State,
    window: Window,
    clock: C,
    desired: watch::Sender<Arc<Desired>>,
    view: watch::Sender<Arc<View>>,
    ask: mpsc::Sender<Arc<str>>,
    observe: O,
}

impl<O: Observe, C: Clock> Loop<O, C> {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Envelope>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut first: Option<Instant> = None;
        let mut last = Instant::now();
        let mut burst = Vec::with_capacity(BURST);
        loop {
            let due =
                first.map(|first| (last + self.window.quiet).min(first + self.window.longest));
            let wake = self.wake();
            tokio::select! {
                // What is due goes first, so that a steady stream of events cannot delay it.
                biased;
                () = sleep_until(due.unwrap_or(last)), if due.is_some() => {
                    first = None;
                    self.publish();
                }
                Some(command) = commands.recv() => {
                    self.state.command(self.clock.now(), command);
                }
                () = wake => self.tick(),
                count = events.recv_many(&mut burst, BURST) => {
                    if count == 0 {
                        return;
                    }
                    let now = self.clock.now();
                    for envelope in burst.drain(..) {
                        self.observe.event(&envelope.registry, &envelope.event);
                        self.state.apply(now, envelope);
                    }
                }
            }
            if self.state.is_dirty() {
                last = Instant::now();
                first.get_or_insert(last);
            }
        }
    }

    /// Waits until time alone changes something.
    fn wake(&self) -> impl Future<Output = ()> + use<O, C> {
        let now = self.clock.now().moment;
        let wait = self.state.wake().map(|at| at.saturating_sub(now));
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        }
    }

    fn tick(&mut self) {
        for registry in self.state.tick(self.clock.now()) {
            tracing::debug!(%registry, "asking for a complete snapshot, since something is held back");
            if let Err(error) = self.ask.try_send(registry) {
                tracing::debug!(%error, "nobody takes the request for a snapshot, it comes again");
            }
        }
    }

    fn publish(&mut self) {
        let started = Instant::now();
        let (desired, view) = self.state.publish(self.clock.now());
        self.observe.published(started.elapsed());
        // The view first: whoever sees a new desired state can look up why it is so.
        self.view.send_replace(view);
        self.desired.send_replace(desired);
    }
}
