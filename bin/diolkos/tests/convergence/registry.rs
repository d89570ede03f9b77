//! The registry's side: what each kind of registry has to offer, so that sequences can be played with it.

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use diolkos_model::Service;
use diolkos_source_api::{Event, EventSender, HealthReporter, Source, SourceCx};
use proptest::strategy::BoxedStrategy;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{sequence::Step, troubles::Troubles, truth::Truth};

/// How long the test itself tries to read a registry that other sequences trouble.
const READS: Duration = Duration::from_secs(20);

/// How a source reaches the registry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// Through all that breaks.
    Troubled,
    /// Past it.
    Direct,
}

/// The part of a real registry that belongs to one sequence, and what stands between it and the bridge.
pub(crate) trait Registry: Sized + Send + Sync + 'static {
    /// The servers that all sequences share.
    type Servers: Send + Sync + 'static;
    /// What can happen.
    type Step: Clone + Debug + Send + Sync + 'static;
    /// How its source is made.
    type Config: Clone + Send + Sync + 'static;

    /// How long the guard does not believe that nothing is left: longer than any lie lasts.
    const HOLD: Duration;

    /// How long a lie waits until the mesh is as it should be; then there is none.
    const QUIET: Duration;

    /// The document's field for the registry. The connection that it tells of is not used.
    const FIELD: &'static str;

    /// How steps are drawn.
    fn steps() -> BoxedStrategy<Step<Self::Step>>;

    /// The part of a sequence, with the instances that there are from the beginning.
    fn start(
        servers: &Arc<Self::Servers>,
        number: usize,
    ) -> impl Future<Output = Result<Self>> + Send;

    /// What is true.
    fn truth(&self) -> &Truth;

    /// Settings of a source that sees the sequence's part only.
    fn config(&self, registry: Arc<str>, way: Way) -> Self::Config;

    /// A source with these settings.
    fn source(config: Self::Config) -> impl Source;

    /// Whether the registry says what is not true in this step. Only what is known can be denied: such a step needs
    /// quiet before.
    fn is_lie(step: &Self::Step) -> bool;

    /// Lets something happen; what takes time goes on in `troubles`.
    fn step(
        &mut self,
        step: &Self::Step,
        troubles: &mut Troubles,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Takes everything of the sequence out of the registry.
    fn clear(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Takes away what sequences that failed have left behind. Called while none runs.
    fn sweep(servers: &Self::Servers) -> impl Future<Output = Result<()>> + Send;
}

/// Reads the registry as it is now, past all that breaks.
pub(crate) async fn services<R: Registry>(registry: &R, name: &Arc<str>) -> Result<Vec<Service>> {
    let read = async {
        loop {
            match read_once(registry, name).await {
                Ok(services) => return services,
                // Its server may be restarting for all sequences.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    match tokio::time::timeout(READS, read).await {
        Ok(services) => Ok(services),
        Err(_) => read_once(registry, name).await,
    }
}

async fn read_once<R: Registry>(registry: &R, name: &Arc<str>) -> Result<Vec<Service>> {
    let (sender, mut events) = mpsc::channel(64);
    let (health, _watch) = HealthReporter::new();
    let (_resync, resync) = mpsc::channel(1);
    let mut cx = SourceCx {
        events: EventSender::new(name.clone(), sender),
        health,
        resync,
        cancel: CancellationToken::new(),
    };
    let mut source = R::source(registry.config(name.clone(), Way::Direct));
    let mut services = Vec::new();
    let read = async {
        while let Some(envelope) = events.recv().await {
            match envelope.event {
                Event::Upsert { service, .. } => services.push(Arc::unwrap_or_clone(service)),
                Event::SnapshotEnd { evidence, .. } => {
                    ensure!(evidence.is_complete(), "{evidence:?}");
                    return Ok(());
                }
                Event::SnapshotStart { .. } | Event::Remove { .. } => {}
            }
        }
        bail!("no snapshot")
    };
    tokio::select! {
        read = read => read?,
        ended = source.run(1, &mut cx) => ended.context("reading the registry")?,
    }
    Ok(services)
}
