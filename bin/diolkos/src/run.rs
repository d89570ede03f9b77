//! `run`: everything wired together until a signal comes.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use diolkos_api::CheckedRegistry;
use diolkos_console::{Holders, Observer};
use diolkos_engine::{Command, Engine, Options, SystemClock, spawn};
use diolkos_plan::Desired;
use diolkos_sink_api::{Authority, Driving, Ledger, OnApplied, Sink, drive};
use diolkos_sink_directory::{DirectorySink, write_stream};
use diolkos_sink_kubernetes::KubernetesSink;
use diolkos_telemetry::Metrics;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    Ended,
    cli::{Run, To},
    cluster::{self, ClusterDocuments},
    documents,
    leases::Replica,
    memory, observe, oneshot, output, sinks,
    sources::Supervisor,
    workloads::Workloads,
};

pub(crate) async fn run(options: Run) -> anyhow::Result<Ended> {
    let needs_cluster = options.files.is_empty() || options.to == To::Kubernetes;
    let client = if needs_cluster {
        Some(diolkos_kube_ext::client(options.cluster.kubeconfig.as_deref()).await?)
    } else {
        None
    };
    let documents = match &client {
        Some(client) if options.files.is_empty() => {
            Documents::Cluster(Box::new(ClusterDocuments::start(client.clone()).await))
        }
        _ => Documents::Files(documents::Files::new(options.files.clone())),
    };
    let Some(registries) = documents.current()? else {
        return Ok(Ended::Faulty);
    };
    let client = match client {
        Some(client) => Some(client),
        None => documents::client(&registries, options.cluster.kubeconfig.as_deref()).await?,
    };
    let listener = TcpListener::bind(options.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; choose another address with --listen",
            options.listen
        )
    })?;
    if let To::Directory(path) = &options.to {
        sinks::create(path)?;
    }
    let mut app = App::start(&registries, client, &options.to, listener)?;
    tracing::info!(address = %options.listen, registries = registries.len(), "diolkos runs");
    app.replica = Replica::start(
        &options,
        app.client.as_ref(),
        &registries,
        &app.observer.holders,
    )?;
    app.workloads.configure(&registries).await?;
    app.start_memory(&options).await?;
    app.start_writer(&options.to);
    let ended = if options.once {
        app.once(&options, &registries).await
    } else {
        app.follow(documents).await
    };
    app.stop().await?;
    ended
}

/// Where documents come from.
enum Documents {
    Cluster(Box<ClusterDocuments>),
    Files(documents::Files),
}

impl Documents {
    /// The documents in force; `None` if files are faulty, which is reported.
    fn current(&self) -> anyhow::Result<Option<Vec<CheckedRegistry>>> {
        match self {
            Self::Cluster(cluster) => Ok(Some(cluster.current())),
            Self::Files(files) => documents::load_or_report(files.paths()),
        }
    }

    /// Waits for a change; gives all documents in force. Dropping the future loses nothing.
    async fn changed(&mut self) -> Vec<CheckedRegistry> {
        match self {
            Self::Cluster(cluster) => {
                cluster.changed().await;
                cluster.current()
            }
            Self::Files(files) => files.changed().await,
        }
    }

    /// The registries whose held removals somebody released by annotation since the last time.
    fn released(&mut self) -> Vec<Arc<str>> {
        match self {
            Self::Cluster(cluster) => cluster.released(),
            Self::Files(_) => Vec::new(),
        }
    }

    /// Writes the status of resources.
    async fn tell(&mut self, observer: &Observer, replica: Option<&Replica>) {
        if let Self::Cluster(cluster) = self {
            let ours = |name: &str| replica.is_none_or(|replica| replica.tells(name));
            cluster.tell(observer, ours).await;
        }
    }
}

/// All that runs.
struct App {
    engine: Engine,
    supervisor: Supervisor,
    workloads: Workloads,
    ledger: Ledger,
    observer: Observer,
    metrics: Arc<Metrics>,
    client: Option<diolkos_kube_ext::Client>,
    /// Where several replicas share the work.
    replica: Option<Replica>,
    cancel: CancellationToken,
    api: JoinHandle<std::io::Result<()>>,
    tasks: Vec<JoinHandle<()>>,
}

impl App {
    fn start(
        registries: &[CheckedRegistry],
        client: Option<diolkos_kube_ext::Client>,
        sink: &To,
        listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
        let cancel = CancellationToken::new();
        let options = Options::<SystemClock> {
            memory: sink.has_memory(),
            ..Options::default()
        };
        let (engine, asked) = spawn(
            &documents::policies(registries),
            options,
            observe::Engine(metrics.clone()),
        );
        let mut supervisor = Supervisor::new(engine.events.clone(), client.clone())?;
        supervisor.configure(registries);
        tokio::spawn(supervisor.resyncs().forward(asked));
        let ledger = Ledger::new();
        let observer = Observer {
            view: engine.view.clone(),
            sources: supervisor.sources().clone(),
            ledger: Some(ledger.clone()),
            holders: Holders::default(),
        };
        let encode: diolkos_console::Encode = {
            let (metrics, observer) = (metrics.clone(), observer.clone());
            let sink = sink.name();
            Arc::new(move || {
                observe::levels(&observer, sink, &metrics);
                metrics.encode()
            })
        };
        let api = tokio::spawn(diolkos_console::serve(
            listener,
            observer.clone(),
            encode,
            engine.commands.clone(),
            cancel.clone(),
        ));
        Ok(Self {
            workloads: Workloads::new(client.clone(), engine.commands.clone()),
            engine,
            supervisor,
            ledger,
            observer,
            metrics,
            client,
            replica: None,
            cancel,
            api,
            tasks: Vec::new(),
        })
    }

    /// What is there before the registries answer: the files of `--state`, and the hosts of the cluster's Services.
    async fn start_memory(&mut self, options: &Run) -> anyhow::Result<()> {
        let commands = &self.engine.commands;
        if let Some(directory) = &options.state {
            let view = self.engine.view.clone();
            let keeper = memory::of_the_disk(directory, commands, view, self.cancel.clone());
            self.tasks.push(keeper.await?);
        }
        if let (To::Kubernetes, Some(client)) = (&options.to, &self.client) {
            let (client, commands) = (client.clone(), commands.clone());
            tokio::spawn(cluster::reserve_hosts(
                client,
                commands,
                self.cancel.clone(),
            ));
        }
        Ok(())
    }

    fn start_writer(&mut self, to: &To) {
        let task = match (to, self.client.clone()) {
            (To::Kubernetes, Some(client)) => self.writer(KubernetesSink::new(client)),
            (To::Directory(path), _) => self.writer(DirectorySink::new(path.clone())),
            // `run` makes a client whenever the sink is Kubernetes.
            (To::Stdout | To::Kubernetes, _) => tokio::spawn(print_changes(
                self.engine.desired.clone(),
                self.ledger.clone(),
                self.cancel.clone(),
            )),
        };
        self.tasks.push(task);
    }

    fn writer<S: Sink>(&self, sink: S) -> JoinHandle<()> {
        let (name, metrics) = (sink.name(), self.metrics.clone());
        let count: OnApplied = Box::new(move |key, result| match result {
            Ok(outcome) => metrics.sink_write(name, key.kind.name(), outcome.as_str()),
            Err(error) => metrics.sink_error(name, error.category()),
        });
        let (desired, ledger) = (self.engine.desired.clone(), self.ledger.clone());
        let driving = Driving {
            on_applied: count,
            remember: Some(memory::of_the_mesh(self.engine.commands.clone())),
            authority: self
                .replica
                .as_ref()
                .map_or_else(Authority::always, Replica::authority),
            ..Driving::new(desired, ledger, self.cancel.clone())
        };
        tokio::spawn(drive(sink, driving))
    }

    /// Until everything is written once.
    async fn once(&self, options: &Run, registries: &[CheckedRegistry]) -> anyhow::Result<Ended> {
        let all = async {
            oneshot::synchronised(&self.engine).await;
            sinks::settled(&self.ledger, self.engine.desired.borrow().generation).await;
        };
        tokio::select! {
            done = tokio::time::timeout(options.timeout, all) => if done.is_err() {
                let why = oneshot::waiting(&self.engine, self.supervisor.sources());
                let sink = self.ledger.unreadable().map(|e| format!("the sink cannot be read: {e}"));
                let why: Vec<String> = why.into_iter().chain(sink).collect();
                bail!("not done within {} s: {}", options.timeout.as_secs_f64(), why.join("; "));
            },
            signal = signalled() => return signal,
        }
        sinks::report_failures(&self.ledger, registries)?;
        for (name, registry) in &self.observer.view.borrow().registries {
            if registry.held_services > 0 || registry.empty_services > 0 {
                tracing::warn!(registry = %name, held = registry.held_services, empty = registry.empty_services, "the registry lacks services that the mesh has; they stay until a run that lasts has had that confirmed (see guard in the documents)");
            }
        }
        Ok(Ended::Well)
    }

    /// Until a signal comes; follows the documents and, in a cluster, tells their status.
    async fn follow(&mut self, mut documents: Documents) -> anyhow::Result<Ended> {
        let signal = signalled();
        tokio::pin!(signal);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            let changed = tokio::select! {
                ended = &mut signal => return ended,
                registries = documents.changed() => registries,
                _ = tick.tick() => {
                    if let Some(replica) = &mut self.replica {
                        replica.tidy(&self.ledger);
                    }
                    documents.tell(&self.observer, self.replica.as_ref()).await;
                    continue;
                }
            };
            tracing::info!(registries = changed.len(), "the documents changed");
            for registry in documents.released() {
                let released = Command::Release(registry);
                let sent = self.engine.commands.send(released).await;
                sent.context("the engine stopped")?;
            }
            if let Some(replica) = &mut self.replica {
                let generation = self.engine.desired.borrow().generation;
                replica.configure(&changed, generation);
            }
            self.workloads.configure(&changed).await?;
            self.supervisor.configure(&changed);
            self.engine
                .commands
                .send(Command::Configure(documents::policies(&changed)))
                .await
                .context("the engine stopped")?;
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        tracing::info!("diolkos stops");
        self.supervisor.stop().await;
        self.cancel.cancel();
        for task in self.tasks {
            task.await.context("the writer panicked")?;
        }
        if let Some(replica) = self.replica {
            replica.release().await;
        }
        self.api
            .await
            .context("the HTTP API panicked")?
            .context("the HTTP API failed")
    }
}

/// `--to stdout`: all objects whenever something changed.
async fn print_changes(
    mut desired: watch::Receiver<Arc<Desired>>,
    ledger: Ledger,
    cancel: CancellationToken,
) {
    loop {
        let now = desired.borrow_and_update().clone();
        let mut objects: Vec<_> = now
            .services
            .values()
            .flat_map(|planned| planned.build())
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        let mut text = Vec::new();
        let written = write_stream(&objects, &mut text)
            .map_err(anyhow::Error::from)
            .and_then(|()| output::print(&String::from_utf8_lossy(&text)));
        if let Err(error) = written {
            tracing::error!(%error, "cannot print");
        }
        ledger.finished(now.generation);
        tokio::select! {
            changed = desired.changed() => if changed.is_err() { return },
            () = cancel.cancelled() => return,
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn signalled() -> anyhow::Result<Ended> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C")?,
        _ = terminate.recv() => {}
    }
    Ok(Ended::Well)
}
