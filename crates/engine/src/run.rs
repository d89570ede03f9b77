//! The loop: collects what comes in for a short window, then publishes once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use diolkos_plan::{Desired, Policy};
use diolkos_source_api::{Envelope, Event};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{state::State, view::View};

/// All configured registries and their policies.
pub type Policies = BTreeMap<Arc<str>, Arc<Policy>>;

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
    /// The configuration; always all of it.
    pub policies: mpsc::Sender<Policies>,
    /// What the mesh should hold.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// What the engine knows.
    pub view: watch::Receiver<Arc<View>>,
}

/// Events that wait for the engine at most.
const EVENTS: usize = 1_024;
/// Events that are taken at once.
const BURST: usize = 256;

/// Starts an engine with its first configuration.
#[must_use]
pub fn spawn<O: Observe>(policies: &Policies, window: Window, observe: O) -> Engine {
    let (events, events_in) = mpsc::channel(EVENTS);
    let (policies_out, policies_in) = mpsc::channel(1);
    let mut state = State::default();
    state.configure(policies);
    let (desired, view) = state.publish();
    let (desired, desired_out) = watch::channel(desired);
    let (view, view_out) = watch::channel(view);
    tokio::spawn(
        Loop {
            state,
            window,
            desired,
            view,
            observe,
        }
        .run(events_in, policies_in),
    );
    Engine {
        events,
        policies: policies_out,
        desired: desired_out,
        view: view_out,
    }
}

struct Loop<O> {
    state: State,
    window: Window,
    desired: watch::Sender<Arc<Desired>>,
    view: watch::Sender<Arc<View>>,
    observe: O,
}

impl<O: Observe> Loop<O> {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Envelope>,
        mut policies: mpsc::Receiver<Policies>,
    ) {
        let mut first: Option<Instant> = None;
        let mut last = Instant::now();
        let mut burst = Vec::with_capacity(BURST);
        loop {
            let due =
                first.map(|first| (last + self.window.quiet).min(first + self.window.longest));
            tokio::select! {
                // What is due goes first, so that a steady stream of events cannot delay it.
                biased;
                () = sleep_until(due.unwrap_or(last)), if due.is_some() => {
                    first = None;
                    self.publish();
                }
                Some(new) = policies.recv() => self.state.configure(&new),
                count = events.recv_many(&mut burst, BURST) => {
                    if count == 0 {
                        return;
                    }
                    for envelope in burst.drain(..) {
                        self.observe.event(&envelope.registry, &envelope.event);
                        self.state.apply(envelope);
                    }
                }
            }
            if self.state.is_dirty() {
                last = Instant::now();
                first.get_or_insert(last);
            }
        }
    }

    fn publish(&mut self) {
        let started = Instant::now();
        let (desired, view) = self.state.publish();
        self.observe.published(started.elapsed());
        // The view first: whoever sees a new desired state can look up why it is so.
        self.view.send_replace(view);
        self.desired.send_replace(desired);
    }
}
