//! Plays one sequence.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use diolkos_engine::{RegistryView, View};
use diolkos_istio::Kind;
use diolkos_model::Service;
use diolkos_plan::plan;
use diolkos_testkit::{HttpFault, Kubernetes};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    bridge::{Bridge, Settings, Target},
    mesh::{Mesh, Objects, SharedMesh, Watches, wanted},
    registry::{Registry, services},
    sequence::{Ending, Sequence, Step},
    troubles::{Troubles, api_requests},
    truth::lock,
};

/// How long after its faults a sequence may take: the longest wait of the source between two connections is 30 s.
const CONVERGES: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The servers of all sequences.
pub(crate) struct Servers<R: Registry> {
    pub(crate) registry: Arc<R::Servers>,
    pub(crate) kubernetes: Kubernetes,
    pub(crate) watches: Watches,
    /// Sequences so far: no two share a name.
    pub(crate) count: AtomicUsize,
    pub(crate) tally: Tally,
}

impl<R: Registry> Servers<R> {
    /// Takes away what sequences that failed have left behind. To be called while none runs.
    pub(crate) async fn sweep(&self) -> Result<()> {
        R::sweep(&self.registry).await?;
        let kinds = Kind::ALL.map(Kind::plural).join(",");
        let delete = ["delete", &kinds, "--all", "--all-namespaces"];
        self.kubernetes.kubectl(&delete).await.map(drop)
    }
}

/// What has happened in all sequences: a run in which no fault meets a request, or nothing ends, shows nothing.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests that met a fault.
    pub(crate) broken: AtomicUsize,
    /// Lies that were told.
    pub(crate) lies: AtomicUsize,
    /// Endpoints and services that went out of the mesh, as they had ended.
    pub(crate) removals: AtomicUsize,
}

/// Plays a sequence to its end. An error is what it breaks, with all that happened.
pub(crate) async fn play<R: Registry>(
    servers: &Servers<R>,
    sequence: &Sequence<R::Step>,
    kubernetes: bool,
) -> Result<(), String> {
    let number = servers.count.fetch_add(1, Ordering::SeqCst);
    let registry = R::start(&servers.registry, number).await;
    let registry = registry.map_err(|error| format!("{error:#}"))?;
    let mesh = Mesh::new(registry.truth().ends.clone());
    let name = format!("q{number}");
    let played = Player::start(servers, sequence, kubernetes, registry, &mesh, &name);
    let played = async { Box::pin(played.await?.play(sequence)).await };
    played.await.map_err(|error: anyhow::Error| {
        let mut text = format!("{error:#}\n");
        for line in &lock(&mesh).history {
            text += line;
            text.push('\n');
        }
        text
    })
}

struct Player<'a, R: Registry> {
    servers: &'a Servers<R>,
    registry: R,
    settings: Settings,
    mesh: SharedMesh,
    api: Option<HttpFault>,
    bridge: Bridge,
    troubles: Troubles,
    _directory: TempDir,
}

impl<'a, R: Registry> Player<'a, R> {
    async fn play(mut self, sequence: &Sequence<R::Step>) -> Result<()> {
        self.converge().await.context("at the start")?;
        for (step, pause) in &sequence.steps {
            lock(&self.mesh).note(&format!("{step:?}"));
            self.step(step).await?;
            sleep(*pause).await;
            self.check()?;
        }
        let tally = &self.servers.tally;
        self.troubles.over(tally).await?;
        lock(&self.mesh).note("the faults are over");
        self.converge().await?;
        let removals = lock(&self.mesh).removals();
        tally.removals.fetch_add(removals, Ordering::SeqCst);
        self.retire().await
    }

    async fn start(
        servers: &'a Servers<R>,
        sequence: &Sequence<R::Step>,
        kubernetes: bool,
        registry: R,
        mesh: &SharedMesh,
        name: &str,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (api, target) = if kubernetes {
            servers.watches.add(name, mesh);
            let proxy = servers.kubernetes.fault_proxy().await?;
            let config = servers.kubernetes.kubeconfig_through(&proxy)?;
            let client = diolkos_kube_ext::client(Some(&config)).await?;
            (Some(proxy), Target::Kubernetes(client))
        } else {
            (None, Target::Directory(directory.path().to_owned()))
        };
        let settings = Settings {
            registry: Settings::registry::<R>(name, sequence)?,
            start: Settings::start(&registry, &name.into()),
            target,
            mesh: mesh.clone(),
        };
        Ok(Self {
            servers,
            registry,
            bridge: Bridge::start(&settings),
            settings,
            mesh: mesh.clone(),
            api,
            troubles: Troubles::default(),
            _directory: directory,
        })
    }

    async fn step(&mut self, step: &Step<R::Step>) -> Result<()> {
        match step {
            Step::Registry(step) => {
                if R::is_lie(step) {
                    // Two lies without the truth between them are one that lasts longer.
                    self.troubles.lies_over(&self.servers.tally).await?;
                    if !self.is_quiet().await? {
                        lock(&self.mesh).note("no lie, since there is no quiet");
                        return Ok(());
                    }
                }
                self.registry.step(step, &mut self.troubles).await
            }
            Step::Api(trouble, asked, time) => {
                if let Some(proxy) = &self.api {
                    let on = api_requests(trouble, *asked);
                    self.troubles.http(proxy, trouble, on, *time);
                }
                Ok(())
            }
            Step::Restart(ending) => {
                self.bridge.end(*ending).await?;
                self.bridge = Bridge::start(&self.settings);
                Ok(())
            }
        }
    }

    /// Whether the engine soon knows all that is true, and holds nothing back.
    async fn is_quiet(&self) -> Result<bool> {
        let name = &self.settings.registry.policy.registry;
        let truth = services(&self.registry, name).await?;
        let quiet = || {
            let view = self.bridge.engine.view.borrow();
            let calm = view
                .services
                .values()
                .all(|known| known.held.is_empty() && known.hold.is_none());
            let known = |service: &Service| {
                let mut all = view.services.values();
                all.any(|known| !known.gone && *known.service == *service)
            };
            calm && view.registries.values().all(|r| r.remembered == 0) && truth.iter().all(known)
        };
        until(R::QUIET, || Ok(quiet())).await
    }

    /// Fails if something was taken away that lives.
    fn check(&self) -> Result<()> {
        self.servers.watches.healthy()?;
        let mesh = lock(&self.mesh);
        ensure!(mesh.violations.is_empty(), "{}", mesh.violations.join("; "));
        Ok(())
    }

    /// Waits until the mesh holds exactly what the registry's state gives.
    async fn converge(&self) -> Result<()> {
        let registry = &self.settings.registry;
        let services = services(&self.registry, &registry.policy.registry).await?;
        let plans = services
            .iter()
            .map(|service| plan(&registry.policy, service));
        let wanted: Objects = plans
            .flat_map(|plan| plan.objects)
            .map(|object| wanted(&object))
            .collect();
        let converged = until(CONVERGES, || {
            self.check()?;
            let mut mesh = lock(&self.mesh);
            if let Target::Directory(path) = &self.settings.target {
                mesh.look(path)?;
            }
            // It may be right already, and the source not be back yet.
            let view = self.bridge.engine.view.borrow();
            let synced = view.registries.values().all(|r| r.complete);
            Ok(synced && mesh.objects == wanted)
        })
        .await?;
        let mesh = lock(&self.mesh);
        ensure!(
            converged,
            "not read again, or not converged, after {CONVERGES:?}: {}\n{}",
            difference(&wanted, &mesh.objects),
            held_back(&self.bridge.engine.view.borrow()),
        );
        let (there, live) = (mesh.endpoints(), self.registry.truth().live());
        ensure!(there == live, "endpoints {there:?}, instances {live:?}");
        Ok(())
    }

    /// The registry goes out of the configuration: nothing is left.
    async fn retire(mut self) -> Result<()> {
        lock(&self.mesh).retired = true;
        self.bridge.retire().await?;
        let left = || {
            let mut mesh = lock(&self.mesh);
            if let Target::Directory(path) = &self.settings.target {
                mesh.look(path)?;
            }
            Ok(mesh.objects.is_empty())
        };
        let empty = until(CONVERGES, left).await?;
        ensure!(
            empty,
            "objects of a registry that is not configured are left"
        );
        self.bridge.end(Ending::Orderly).await?;
        self.registry.clear().await
    }
}

/// Whether `look` says yes within this time.
async fn until(limit: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<bool> {
    let end = Instant::now() + limit;
    while !look()? {
        if Instant::now() > end {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
    Ok(true)
}

/// Why the mesh may still be different, as the engine sees it.
fn held_back(view: &View) -> String {
    let mut text = String::new();
    for registry in view.registries.values() {
        let RegistryView {
            complete,
            partial,
            remembered,
            hold,
            ..
        } = registry;
        text += &format!(
            "complete: {complete}, partial: {partial:?}, remembered: {remembered}, hold: {hold:?}"
        );
    }
    for (key, known) in &view.services {
        if !known.held.is_empty() || known.hold.is_some() {
            text += &format!("\n{key} held {:?}: {:?}", known.held, known.hold);
        }
    }
    text
}

fn difference(wanted: &Objects, there: &Objects) -> String {
    let names: BTreeSet<&String> = wanted.keys().chain(there.keys()).collect();
    let mut text = String::new();
    for name in names {
        let (wanted, there) = (wanted.get(name), there.get(name));
        if wanted != there {
            text += &format!("\n{name}\n  wanted {wanted:?}\n  there  {there:?}");
        }
    }
    text
}
