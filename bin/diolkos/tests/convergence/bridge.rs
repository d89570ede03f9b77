//! The bridge: source, engine and sink, wired as the program wires them, in this process.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use diolkos_api::{CheckedRegistry, Limits};
use diolkos_engine::{Command, Configured, Engine, Options, Policies, SystemClock, spawn};
use diolkos_sink_api::{Driving, Ledger, Pace, Sink, drive};
use diolkos_sink_directory::DirectorySink;
use diolkos_sink_kubernetes::KubernetesSink;
use diolkos_source_api::{EventSender, HealthReporter, SourceCx, supervise};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    mesh::SharedMesh,
    registry::{Registry, Way},
    sequence::{Ending, Sequence},
    truth::lock,
};

/// Reaction times, scaled down. The guard still waits for longer than any lie of a sequence lasts.
fn limits<R: Registry>(empty_grace: Duration) -> Limits {
    Limits {
        empty_hold: R::HOLD,
        confirm_after: 3,
        max_service_shrink: diolkos_api::Shrink::Percent(30),
        max_instance_shrink: diolkos_api::Shrink::Percent(15),
        empty_grace,
    }
}
const PACE: Pace = Pace {
    gap: Duration::from_millis(20),
    burst: Duration::from_secs(5),
    retry: Duration::from_millis(50),
    slowest: Duration::from_millis(500),
};
/// Where objects go.
#[derive(Clone)]
pub(crate) enum Target {
    Directory(PathBuf),
    Kubernetes(diolkos_kube_ext::Client),
}

/// Starts a source, that reaches the registry through all that breaks.
type Start = dyn Fn(SourceCx) -> JoinHandle<()> + Send + Sync;

/// What outlives a process.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) registry: CheckedRegistry,
    pub(crate) start: Arc<Start>,
    pub(crate) target: Target,
    pub(crate) mesh: SharedMesh,
}

impl Settings {
    /// How the registry's source is started.
    pub(crate) fn start<R: Registry>(registry: &R, name: &Arc<str>) -> Arc<Start> {
        let (name, config) = (name.clone(), registry.config(name.clone(), Way::Troubled));
        Arc::new(move |cx| {
            let (name, source) = (name.clone(), R::source(config.clone()));
            tokio::spawn(async move {
                supervise(&name, source, cx).await;
            })
        })
    }

    /// The checked form of a document.
    pub(crate) fn registry<R: Registry>(
        name: &str,
        sequence: &Sequence<R::Step>,
    ) -> Result<CheckedRegistry> {
        let endpoints = if sequence.inline {
            "Inline"
        } else {
            "WorkloadEntry"
        };
        let document = format!(
            "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: {name}}}, spec: {{\
              {}, export: {{endpoints: {endpoints}}}}}}}",
            R::FIELD
        );
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        std::fs::write(file.path(), document)?;
        let loaded = diolkos_api::load(&[file.path().to_owned()]);
        ensure!(loaded.faults.is_empty(), "{:?}", loaded.faults);
        let mut registry = loaded
            .registries
            .into_iter()
            .next()
            .context("no document")?;
        registry.guard = limits::<R>(sequence.grace);
        Ok(registry)
    }
}

/// One life of the bridge. Its engine ends with the senders, that is when it is dropped.
pub(crate) struct Bridge {
    pub(crate) engine: Engine,
    cancel: CancellationToken,
    source: JoinHandle<()>,
    sink: JoinHandle<()>,
    /// Small tasks that join the others.
    wires: Vec<JoinHandle<()>>,
}

impl Bridge {
    pub(crate) fn start(settings: &Settings) -> Self {
        let registry = &settings.registry;
        let configured = Configured {
            policy: Arc::new(registry.policy.clone()),
            limits: registry.guard.clone(),
        };
        let policies = Policies::from([(registry.policy.registry.clone(), configured)]);
        let options = Options::<SystemClock> {
            memory: true,
            ..Options::default()
        };
        let (engine, mut asked) = spawn(&policies, options, ());
        let cancel = CancellationToken::new();
        let (resync_in, resync) = mpsc::channel(1);
        let source = start_source(settings, &engine, resync, cancel.clone());
        let asks = tokio::spawn(async move {
            while asked.recv().await.is_some() {
                // Full: it was asked and has not begun.
                resync_in.try_send(()).ok();
            }
        });
        let (remember, mut remembered) = mpsc::channel(1);
        let commands = engine.commands.clone();
        let remembers = tokio::spawn(async move {
            while let Some(all) = remembered.recv().await {
                // An engine that has ended needs no memory.
                commands.send(Command::Remember(all)).await.ok();
            }
        });
        let driving = Driving {
            pace: PACE,
            remember: Some(remember),
            ..Driving::new(engine.desired.clone(), Ledger::new(), cancel.clone())
        };
        Self {
            sink: start_sink(settings, driving),
            engine,
            cancel,
            source,
            wires: vec![asks, remembers],
        }
    }

    /// Ends it.
    pub(crate) async fn end(&mut self, ending: Ending) -> Result<()> {
        match ending {
            Ending::Orderly => self.cancel.cancel(),
            Ending::Killed => {
                self.source.abort();
                self.sink.abort();
            }
        }
        for task in [&mut self.source, &mut self.sink] {
            match task.await {
                Err(error) if error.is_panic() => return Err(error).context("the bridge panicked"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the registry out of the configuration.
    pub(crate) async fn retire(&self) -> Result<()> {
        let nothing = Command::Configure(Policies::new());
        self.engine
            .commands
            .send(nothing)
            .await
            .context("the engine has ended")
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let tasks = self.wires.iter().chain([&self.source, &self.sink]);
        tasks.for_each(JoinHandle::abort);
    }
}

fn start_source(
    settings: &Settings,
    engine: &Engine,
    resync: mpsc::Receiver<()>,
    cancel: CancellationToken,
) -> JoinHandle<()> {
    let name = settings.registry.policy.registry.clone();
    let (health, _watch) = HealthReporter::new();
    (settings.start)(SourceCx {
        events: EventSender::new(name, engine.events.clone()),
        health,
        resync,
        cancel,
    })
}

fn start_sink(settings: &Settings, driving: Driving) -> JoinHandle<()> {
    let mesh = settings.mesh.clone();
    match &settings.target {
        Target::Kubernetes(client) => {
            let options = diolkos_sink_kubernetes::Options {
                deadline: Duration::from_secs(2),
                ..Default::default()
            };
            run(
                KubernetesSink::with_options(client.clone(), options),
                driving,
            )
        }
        Target::Directory(path) => {
            let seen = path.clone();
            // One write at a time, and the next one begins only after this: no state stays unseen.
            let on_applied = Box::new(move |_: &_, _: &_| {
                let mut mesh = lock(&mesh);
                if let Err(error) = mesh.look(&seen) {
                    mesh.violations.push(format!("{error:#}"));
                }
            });
            let driving = Driving {
                on_applied,
                ..driving
            };
            run(DirectorySink::new(path.clone()), driving)
        }
    }
}

fn run<S: Sink>(sink: S, driving: Driving) -> JoinHandle<()> {
    tokio::spawn(drive(sink, driving))
}
