//! Plays one sequence.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use diolkos_istio::Kind;
use diolkos_model::Service;
use diolkos_plan::plan;
use diolkos_testkit::{Consul, Fault, HttpFault, Kubernetes, On, Reply, TcpProxy};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    bridge::{Bridge, Settings, Target},
    mesh::{Mesh, Objects, SharedMesh, Watches, wanted},
    registry::{Registry, lock, nodes},
    sequence::{Asked, Ending, Place, SERVICES, Sequence, Shape, Step, Trouble},
};

/// How long after its faults a sequence may take: the longest wait of the source between two connections is 30 s.
const CONVERGES: Duration = Duration::from_secs(90);
/// How long a lie waits until the mesh is as it should be; then there is none.
const QUIET: Duration = Duration::from_secs(2);
/// How long a lie is kept ready, to be told once. All that the guard measures is longer.
const LIE: Duration = Duration::from_millis(400);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The servers of all sequences.
pub(crate) struct Servers {
    pub(crate) consul: Arc<Consul>,
    pub(crate) kubernetes: Kubernetes,
    pub(crate) watches: Watches,
    /// Sequences so far: no two share a name.
    pub(crate) count: AtomicUsize,
    pub(crate) tally: Tally,
}

impl Servers {
    /// Takes away what sequences that failed have left behind. To be called while none runs.
    pub(crate) async fn sweep(&self) -> Result<()> {
        for node in nodes() {
            let node = json!({"Node": node});
            self.consul.catalog_deregister(&node).await?;
        }
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
pub(crate) async fn play(
    servers: &Servers,
    sequence: &Sequence,
    kubernetes: bool,
) -> Result<(), String> {
    let number = servers.count.fetch_add(1, Ordering::SeqCst);
    let registry = Registry::new(servers.consul.clone(), number);
    let mesh = Mesh::new(registry.ends.clone());
    let played = Box::pin(Player::play(servers, sequence, kubernetes, registry, &mesh)).await;
    played.map_err(|error| {
        let mut text = format!("{error:#}\n");
        for line in &lock(&mesh).history {
            text += line;
            text.push('\n');
        }
        text
    })
}

struct Player<'a> {
    servers: &'a Servers,
    registry: Registry,
    settings: Settings,
    mesh: SharedMesh,
    /// The source reaches Consul through both.
    wire: Arc<Mutex<TcpProxy>>,
    consul: Arc<HttpFault>,
    api: Option<Arc<HttpFault>>,
    bridge: Bridge,
    /// Each ends with the number of requests that met it.
    troubles: JoinSet<Result<usize>>,
    lies: JoinSet<usize>,
    _directory: TempDir,
}

impl<'a> Player<'a> {
    async fn play(
        servers: &'a Servers,
        sequence: &Sequence,
        kubernetes: bool,
        mut registry: Registry,
        mesh: &SharedMesh,
    ) -> Result<()> {
        registry.fill().await?;
        let mut player = Self::start(servers, sequence, kubernetes, registry, mesh).await?;
        player.converge().await.context("at the start")?;
        for (step, pause) in &sequence.steps {
            lock(mesh).note(&format!("{step:?}"));
            player.step(step).await?;
            sleep(*pause).await;
            player.check()?;
        }
        let tally = &servers.tally;
        while let Some(hits) = player.troubles.join_next().await {
            tally.broken.fetch_add(hits??, Ordering::SeqCst);
        }
        while let Some(hits) = player.lies.join_next().await {
            tally.lies.fetch_add(hits?, Ordering::SeqCst);
        }
        lock(mesh).note("the faults are over");
        player.converge().await?;
        let removals = lock(mesh).removals();
        tally.removals.fetch_add(removals, Ordering::SeqCst);
        player.retire().await
    }

    async fn start(
        servers: &'a Servers,
        sequence: &Sequence,
        kubernetes: bool,
        registry: Registry,
        mesh: &SharedMesh,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let consul = HttpFault::start(&servers.consul.http_addr()).await?;
        let wire = TcpProxy::start(consul.address()).await?;
        let name = registry.prefix().trim_end_matches('-').to_owned();
        let (api, target) = if kubernetes {
            servers.watches.add(&name, mesh);
            let proxy = servers.kubernetes.fault_proxy().await?;
            let config = servers.kubernetes.kubeconfig_through(&proxy)?;
            let client = diolkos_kube_ext::client(Some(&config)).await?;
            (Some(Arc::new(proxy)), Target::Kubernetes(client))
        } else {
            (None, Target::Directory(directory.path().to_owned()))
        };
        let settings = Settings {
            registry: Settings::registry(&name, sequence)?,
            prefix: registry.prefix(),
            consul: url(wire.address()),
            target,
            mesh: mesh.clone(),
        };
        Ok(Self {
            servers,
            registry,
            bridge: Bridge::start(&settings),
            settings,
            mesh: mesh.clone(),
            wire: Arc::new(Mutex::new(wire)),
            consul: Arc::new(consul),
            api,
            troubles: JoinSet::new(),
            lies: JoinSet::new(),
            _directory: directory,
        })
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        let registry = &mut self.registry;
        match step {
            Step::Register(place, shape) => registry.register(*place, shape).await,
            Step::Deregister(place) => registry.deregister(*place).await,
            Step::DeregisterService(service) => registry.deregister_service(*service).await,
            Step::Check(place, status) => registry.check(*place, *status).await,
            Step::Maintenance(place, on) => registry.maintain(*place, *on).await,
            Step::Registry(trouble, asked, time) => {
                self.registry_trouble(trouble, *asked, *time);
                Ok(())
            }
            Step::Api(trouble, asked, time) => {
                if let Some(proxy) = self.api.clone() {
                    self.trouble(&proxy, trouble, api_requests(trouble, *asked), *time);
                }
                Ok(())
            }
            Step::Nothing(service) => self.lie(&[*service], false).await,
            Step::NothingAtAll => {
                let all: Vec<u8> = (0..SERVICES).collect();
                self.lie(&all, true).await
            }
            Step::Old(place, shape, time) => self.old(*place, shape, *time).await,
            Step::Restart(ending) => {
                self.bridge.end(*ending).await?;
                self.bridge = Bridge::start(&self.settings);
                Ok(())
            }
        }
    }

    fn registry_trouble(&mut self, trouble: &Trouble, asked: Asked, time: Duration) {
        if !matches!(trouble, Trouble::Refuse) {
            let proxy = self.consul.clone();
            self.trouble(&proxy, trouble, consul_requests(asked), time);
            // It happens to queries that wait as well: they are asked again.
            if matches!(asked, Asked::All) {
                proxy.cut();
            }
            return;
        }
        let wire = self.wire.clone();
        self.troubles.spawn(async move {
            let mut wire = wire.lock().await;
            wire.refuse(true).await?;
            wire.cut();
            sleep(time).await;
            wire.refuse(false).await?;
            Ok(0)
        });
    }

    /// Breaks what goes through a proxy, for some time.
    fn trouble(&mut self, proxy: &HttpFault, trouble: &Trouble, on: On, time: Duration) {
        let fault = match trouble {
            Trouble::Cut => return proxy.cut(),
            Trouble::Hang => Fault::Hang,
            Trouble::Slow(time) => Fault::Delay(*time),
            Trouble::Status(code) => Fault::Reply(refusal(*code)),
            Trouble::Half(bytes) => Fault::Cut((*bytes).into()),
            Trouble::Refuse | Trouble::Reset => Fault::Reset,
            Trouble::LoseReply => Fault::LoseReply,
        };
        self.rule(proxy, on, fault, time);
    }

    fn rule(&mut self, proxy: &HttpFault, on: On, fault: Fault, time: Duration) {
        let rule = proxy.rule(on, fault);
        self.troubles.spawn(async move {
            sleep(time).await;
            rule.end();
            Ok(rule.hits())
        });
    }

    /// The registry says once that services have no instances, and if `names` that they do not exist. Only of
    /// services that have several instances, all of which are known: that one of them is gone is believed at once.
    async fn lie(&mut self, services: &[u8], names: bool) -> Result<()> {
        if !self.is_quiet().await? {
            lock(&self.mesh).note("no lie, since there is no quiet");
            return Ok(());
        }
        let proxy = self.consul.clone();
        if names {
            let truth = proxy.record("/v1/catalog/services").await?;
            let nothing = truth.header("content-length", "2").body("{}");
            let on = On::reads().path("/v1/catalog/services");
            self.lie_once(&proxy, on, nothing);
        }
        for service in services {
            if self.registry.addresses(*service).len() < 2 {
                continue;
            }
            let nothing = proxy.record("/v1/health/service/there-is-none").await?;
            let on = On::reads().path(&self.path(*service));
            self.lie_once(&proxy, on, nothing);
            // Else nobody would ask.
            self.registry.touch(*service).await?;
        }
        Ok(())
    }

    fn lie_once(&mut self, proxy: &HttpFault, on: On, lie: Reply) {
        let rule = proxy.rule(on.first(1), Fault::Reply(lie));
        self.lies.spawn(async move {
            sleep(LIE).await;
            rule.end();
            rule.hits()
        });
    }

    /// An instance comes or changes, and is told of late.
    async fn old(&mut self, place: Place, shape: &Shape, time: Duration) -> Result<()> {
        let proxy = self.consul.clone();
        let path = self.path(place.0);
        let answer = proxy.record(&path).await?;
        self.rule(&proxy, On::reads().path(&path), Fault::Reply(answer), time);
        self.registry.register(place, shape).await
    }

    /// How a service is asked for.
    fn path(&self, service: u8) -> String {
        format!("/v1/health/service/{}?", self.registry.name(service))
    }

    /// Whether the engine soon knows all that is true, and holds nothing back.
    async fn is_quiet(&self) -> Result<bool> {
        let name = &self.settings.registry.policy.registry;
        let truth = self.registry.services(name).await?;
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
        until(QUIET, || Ok(quiet())).await
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
        let services = self.registry.services(&registry.policy.registry).await?;
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
            "not read again, or not converged, after {CONVERGES:?}: {}",
            difference(&wanted, &mesh.objects)
        );
        let (there, live) = (mesh.endpoints(), self.registry.live());
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

fn consul_requests(asked: Asked) -> On {
    match asked {
        Asked::All => On::every(),
        Asked::First => On::reads().path("/v1/catalog/services"),
        Asked::Second => On::reads().path("/v1/health/service/"),
        Asked::Third => On::reads().path("/v1/health/state/"),
    }
}

fn api_requests(trouble: &Trouble, asked: Asked) -> On {
    match (trouble, asked) {
        // The reply to a watch has no end to wait for before it is lost.
        (Trouble::LoseReply, _) | (_, Asked::First) => On::writes(),
        (_, Asked::All) => On::every(),
        (_, Asked::Second) => On::reads(),
        (_, Asked::Third) => On::every().path("/serviceentries"),
    }
}

/// An answer that both Consul and an API server give, in the latter's form.
fn refusal(code: u16) -> Reply {
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let reply = Reply::kubernetes(code, reason);
    if code == 429 {
        return reply.header("retry-after", "1");
    }
    reply
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}
