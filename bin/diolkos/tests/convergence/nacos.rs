//! Nacos: a real one behind proxies that break connections and lead astray.
//!
//! Instances are persistent, so that the registry holds what was told whatever becomes of the one who told it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use diolkos_source_api::Source;
use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_source_nacos::{Config, Groups, Nacos as NacosSource, Services, Transport};
use diolkos_testkit::{Nacos as Server, NacosInstance, nacos::NacosDoor};
use proptest::prelude::*;
use serde_json::Value;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    dubbo::{Blink, Break, CONNECTS, HOLD, blinks, breaks},
    registry::{Registry, Way},
    sequence::{INSTANCES, Place, SERVICES, Shape, Step, api, millis, place, restart, shape},
    troubles::{LIE, Troubles},
    truth::Truth,
};

const GROUP: &str = "DEFAULT_GROUP";
/// The server is in trouble for all sequences at once: not more often than this.
const SERVER_TROUBLE: Duration = Duration::from_secs(6);
/// How long a change is tried while the server does nothing, and looked for until the server shows it.
const WRITES: Duration = Duration::from_secs(30);
/// How soon each service has its turn to be asked for.
const SWEEP: Duration = Duration::from_secs(4);

/// What sequences share.
pub(crate) struct Nacoses {
    server: Server,
    /// One that holds nothing.
    empty: Server,
    /// When the last trouble of the server ended.
    troubled: Mutex<Instant>,
}

impl Nacoses {
    /// Starts the servers of all sequences.
    pub(crate) async fn start() -> Result<Self> {
        let (server, empty) = tokio::try_join!(Server::start(), Server::start())?;
        Ok(Self {
            server,
            empty,
            troubled: Mutex::new(Instant::now()),
        })
    }
}

/// What happens in a Nacos, and on the way to it.
#[derive(Clone, Debug)]
pub(crate) enum NacosStep {
    /// An instance comes, or changes.
    Register(Place, Shape),
    /// An instance goes.
    Deregister(Place),
    /// All instances of a service go; the service stays.
    DeregisterAll(u8),
    /// A service goes.
    Delete(u8),
    /// The health of an instance changes. Where none is healthy Nacos says that all are.
    Health(Place, bool),
    /// An instance is switched off or on.
    Enabled(Place, bool),
    /// The way to the registry is broken for some time, and instances come and go meanwhile.
    Away(Break, Vec<(Place, Blink)>, Duration),
    /// The server does nothing for some time.
    Pause(Duration),
    /// An empty registry answers for a moment.
    Empty,
}

/// An instance as it is registered.
#[derive(Clone, Debug)]
struct Instance {
    shape: Shape,
    healthy: bool,
    enabled: bool,
}

impl Instance {
    fn is_live(&self) -> bool {
        self.healthy && self.enabled
    }
}

/// The namespace of a sequence.
pub(crate) struct Nacos {
    nacoses: Arc<Nacoses>,
    door: Arc<Mutex<NacosDoor>>,
    url: String,
    grpc_offset: u16,
    namespace: String,
    /// Services that were created.
    created: BTreeSet<u8>,
    instances: BTreeMap<Place, Instance>,
    truth: Truth,
}

impl Registry for Nacos {
    type Servers = Nacoses;
    type Step = NacosStep;
    type Config = Config;

    const HOLD: Duration = HOLD;
    // A source whose connection broke is not back at once.
    const QUIET: Duration = Duration::from_secs(6);
    const FIELD: &'static str = "nacos: {addresses: ['http://127.0.0.1:1/nacos']}";

    fn steps() -> BoxedStrategy<Step<NacosStep>> {
        use NacosStep as N;
        let time = || millis(50..1_500);
        let step = prop_oneof![
            8 => (place(), shape()).prop_map(|(place, shape)| N::Register(place, shape)),
            6 => place().prop_map(N::Deregister),
            1 => (0..SERVICES).prop_map(N::DeregisterAll),
            2 => (0..SERVICES).prop_map(N::Delete),
            4 => (place(), any::<bool>()).prop_map(|(place, on)| N::Health(place, on)),
            2 => (place(), any::<bool>()).prop_map(|(place, on)| N::Enabled(place, on)),
            2 => (breaks(), time()).prop_map(|(how, time)| N::Away(how, Vec::new(), time)),
            4 => (breaks(), blinks(), time()).prop_map(|(how, blinks, time)| N::Away(how, blinks, time)),
            1 => millis(100..1_500).prop_map(N::Pause),
            2 => Just(N::Empty),
        ];
        prop_oneof![32 => step.prop_map(Step::Registry), 4 => api(), 2 => restart()].boxed()
    }

    async fn start(nacoses: &Arc<Nacoses>, number: usize) -> Result<Self> {
        let door = nacoses.server.door().await?;
        let name = |letter| format!("svc-{letter}");
        let mut nacos = Self {
            nacoses: nacoses.clone(),
            url: door.url(),
            grpc_offset: door.grpc_offset(),
            door: Arc::new(Mutex::new(door)),
            namespace: format!("q{number}"),
            created: BTreeSet::new(),
            instances: BTreeMap::new(),
            truth: Truth::new(number, name, |letter| {
                format!("{}.default-group.q{number}.nacos", name(letter))
            }),
        };
        nacos.fill().await?;
        Ok(nacos)
    }

    fn truth(&self) -> &Truth {
        &self.truth
    }

    fn config(&self, registry: Arc<str>, way: Way) -> Config {
        let server = &self.nacoses.server;
        let (url, grpc_offset) = match way {
            Way::Troubled => (self.url.clone(), self.grpc_offset),
            Way::Direct => {
                let http = server.http_address().port();
                (server.http_url(), server.grpc_port() - http)
            }
        };
        Config {
            registry: registry.clone(),
            client: diolkos_nacos::Config {
                addresses: vec![url],
                grpc_offset,
                auth: None,
                tls: Default::default(),
            },
            namespaces: vec![self.namespace.clone()],
            groups: Groups::Named(vec![GROUP.to_owned()]),
            clusters: Vec::new(),
            transport: Transport::Grpc,
            services: Services::Other,
            dubbo: Options {
                registry,
                variants: Variants::Labels,
                discovery: Discovery::Both,
                dubbo_protocol: "dubbo".into(),
                aeraki: false,
            },
            // An empty registry is to be the guard's work alone.
            settle: Duration::ZERO,
            select: Arc::new(|_| true),
        }
    }

    fn source(config: Config) -> impl Source {
        NacosSource::new(config).sweep(SWEEP)
    }

    fn is_lie(step: &NacosStep) -> bool {
        matches!(step, NacosStep::Empty)
    }

    async fn step(&mut self, step: &NacosStep, troubles: &mut Troubles) -> Result<()> {
        match step {
            NacosStep::Register(place, shape) => self.register(*place, shape).await,
            NacosStep::Deregister(place) => self.deregister(*place).await,
            NacosStep::DeregisterAll(service) => self.deregister_all(*service).await,
            NacosStep::Delete(service) => self.delete(*service).await,
            NacosStep::Health(place, on) => self.alter(*place, |i| i.healthy = *on).await,
            NacosStep::Enabled(place, on) => self.alter(*place, |i| i.enabled = *on).await,
            NacosStep::Away(how, blinks, time) => self.breaks(*how, blinks, *time, troubles).await,
            NacosStep::Pause(time) => {
                let (nacoses, time) = (self.nacoses.clone(), *time);
                troubles.fault(async move { nacoses.pause(time).await });
                Ok(())
            }
            NacosStep::Empty => self.empty(troubles).await,
        }
    }

    async fn clear(&mut self) -> Result<()> {
        for service in 0..SERVICES {
            self.delete(service).await?;
        }
        Ok(())
    }

    async fn sweep(_: &Nacoses) -> Result<()> {
        // Sequences have namespaces of their own: what failed ones left behind is in nobody's way.
        Ok(())
    }
}

/// What is true.
impl Nacos {
    fn record(&self, place: Place, instance: &Instance) -> NacosInstance {
        let Shape {
            port,
            version,
            weight,
        } = &instance.shape;
        let mut record = NacosInstance::new(&self.truth.address(place), *port)
            .weight(f64::from(*weight))
            .metadata("version", &format!("v{version}"))
            .persistent();
        record.healthy = instance.healthy;
        record.enabled = instance.enabled;
        record
    }

    /// Three instances of each service but the last one.
    async fn fill(&mut self) -> Result<()> {
        for service in 0..SERVICES - 1 {
            for instance in 0..INSTANCES - 1 {
                self.register((service, instance), &Shape::FIRST).await?;
            }
        }
        Ok(())
    }

    /// An instance comes, or changes. One with another port is another instance.
    async fn register(&mut self, place: Place, shape: &Shape) -> Result<()> {
        let known = self.instances.get(&place);
        if known.is_some_and(|known| known.shape.port != shape.port) {
            self.deregister(place).await?;
        }
        let mut instance = self.instances.get(&place).cloned().unwrap_or(Instance {
            shape: shape.clone(),
            healthy: true,
            enabled: true,
        });
        instance.shape = shape.clone();
        self.create(place.0).await?;
        self.write(place, instance).await
    }

    async fn alter(
        &mut self,
        place: Place,
        change: impl FnOnce(&mut Instance) + Send,
    ) -> Result<()> {
        let Some(mut instance) = self.instances.get(&place).cloned() else {
            return Ok(());
        };
        change(&mut instance);
        self.write(place, instance).await
    }

    async fn write(&mut self, place: Place, instance: Instance) -> Result<()> {
        self.truth.change(place, Some(instance.is_live()));
        let record = self.record(place, &instance);
        self.instances.insert(place, instance);
        let (server, name) = (&self.nacoses.server, self.truth.name(place.0));
        insist(name, async || {
            server.register(&self.namespace, GROUP, name, &record).await
        })
        .await?;
        self.until_shown(place.0).await
    }

    /// Services whose instances nobody checks: Nacos cannot reach them.
    async fn create(&mut self, service: u8) -> Result<()> {
        if !self.created.insert(service) {
            return Ok(());
        }
        let (server, name) = (&self.nacoses.server, self.truth.name(service));
        insist(name, async || {
            // It may be there: the answer to the first attempt may be lost.
            server
                .create_service(&self.namespace, GROUP, name, 0.0)
                .await
                .ok();
            server
                .without_checks(&self.namespace, GROUP, name, "DEFAULT")
                .await
        })
        .await
    }

    /// An instance goes, if it is there.
    async fn deregister(&mut self, place: Place) -> Result<()> {
        let Some(instance) = self.instances.remove(&place) else {
            return Ok(());
        };
        let record = self.record(place, &instance);
        self.truth.change(place, None);
        let (server, name) = (&self.nacoses.server, self.truth.name(place.0));
        insist(name, async || {
            server
                .deregister(&self.namespace, GROUP, name, &record)
                .await
        })
        .await?;
        self.until_shown(place.0).await
    }

    async fn deregister_all(&mut self, service: u8) -> Result<()> {
        for instance in 0..INSTANCES {
            self.deregister((service, instance)).await?;
        }
        Ok(())
    }

    /// A service goes with all its instances, if it is there.
    async fn delete(&mut self, service: u8) -> Result<()> {
        self.deregister_all(service).await?;
        if !self.created.remove(&service) {
            return Ok(());
        }
        let (server, name) = (&self.nacoses.server, self.truth.name(service));
        insist(name, async || {
            server.delete_service(&self.namespace, GROUP, name).await
        })
        .await
    }

    /// Waits until the server shows a service to everybody as it was told: it takes a moment.
    async fn until_shown(&self, service: u8) -> Result<()> {
        let (server, name) = (&self.nacoses.server, self.truth.name(service));
        let of_service = self
            .instances
            .iter()
            .filter(|(place, _)| place.0 == service);
        let told: Vec<NacosInstance> = of_service
            .filter(|(_, instance)| instance.enabled)
            .map(|(place, instance)| self.record(*place, instance))
            .collect();
        let none_healthy = told.iter().all(|instance| !instance.healthy);
        let mut told: Vec<String> = told
            .iter()
            .map(|one| {
                let healthy = one.healthy || none_healthy;
                let version = &one.metadata["version"];
                format!("{}:{} {} {healthy} {version}", one.ip, one.port, one.weight)
            })
            .collect();
        told.sort();
        insist(name, async || {
            let query = [
                ("namespaceId", &*self.namespace),
                ("groupName", GROUP),
                ("serviceName", name),
            ];
            let answer = server.get("/v1/ns/instance/list", &query).await?;
            let shown = shown(&serde_json::from_str(&answer)?)?;
            ensure!(shown == told, "{shown:?} instead of {told:?}");
            Ok(())
        })
        .await
    }

    async fn blink(&mut self, place: Place, blink: &Blink) -> Result<()> {
        match blink {
            Blink::Comes(shape) => self.register(place, shape).await,
            Blink::Goes => self.deregister(place).await,
            Blink::Blinks(shape) => {
                let was = self.instances.contains_key(&place);
                if was {
                    self.deregister(place).await?;
                }
                self.register(place, shape).await?;
                if !was {
                    self.deregister(place).await?;
                }
                Ok(())
            }
        }
    }
}

/// What an answer says of instances, in order.
fn shown(answer: &Value) -> Result<Vec<String>> {
    let hosts = answer["hosts"].as_array().context("no hosts")?;
    let mut shown: Vec<String> = hosts
        .iter()
        .map(|host| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (ip, version) = (text(&host["ip"]), text(&host["metadata"]["version"]));
            let weight = host["weight"].as_f64().unwrap_or_default();
            format!(
                "{ip}:{} {weight} {} {version}",
                host["port"], host["healthy"]
            )
        })
        .collect();
    shown.sort();
    Ok(shown)
}

/// What breaks, and what is not true.
impl Nacos {
    /// Breaks the way to the registry, and changes the registry while nobody can see it.
    async fn breaks(
        &mut self,
        how: Break,
        blinks: &[(Place, Blink)],
        time: Duration,
        troubles: &mut Troubles,
    ) -> Result<()> {
        let door = self.door.clone();
        let mut door = door.lock_owned().await;
        let met = door.grpc().open();
        match how {
            // Whoever is away for changes cannot be let in before they are made.
            Break::Cut if blinks.is_empty() => door.cut(),
            Break::Cut | Break::Refuse => door.outage().await?,
            Break::Hang => door.hang(true),
        }
        for (place, blink) in blinks {
            self.blink(*place, blink).await?;
        }
        troubles.fault(async move {
            if how != Break::Cut {
                sleep(time).await;
            }
            door.recover().await?;
            Ok(met)
        });
        Ok(())
    }

    /// An empty registry answers who connects, for a moment.
    async fn empty(&mut self, troubles: &mut Troubles) -> Result<()> {
        let (nacoses, door) = (self.nacoses.clone(), self.door.clone());
        let door = door.lock_owned().await;
        let before = door.grpc().total();
        door.redirect(&nacoses.empty);
        door.cut();
        troubles.lie(async move {
            let end = Instant::now() + CONNECTS;
            while door.grpc().total() == before && Instant::now() < end {
                sleep(Duration::from_millis(10)).await;
            }
            let told = Instant::now();
            sleep(LIE).await;
            door.redirect(&nacoses.server);
            door.cut();
            let lasted = told.elapsed();
            ensure!(lasted < HOLD / 2, "too slow: a lie lasted for {lasted:?}");
            Ok(door.grpc().total() - before)
        });
        Ok(())
    }
}

impl Nacoses {
    /// Not if the server was in trouble a short time ago.
    async fn pause(&self, time: Duration) -> Result<usize> {
        let Ok(mut last) = self.troubled.try_lock() else {
            return Ok(0);
        };
        if last.elapsed() < SERVER_TROUBLE {
            return Ok(0);
        }
        self.server.stop_process()?;
        sleep(time).await;
        self.server.continue_process()?;
        *last = Instant::now();
        Ok(1)
    }
}

/// Tries something until it is so: the server may be doing nothing.
async fn insist<F: Future<Output = Result<()>> + Send>(
    what: &str,
    attempt: impl Fn() -> F,
) -> Result<()> {
    let end = Instant::now() + WRITES;
    loop {
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > end => bail!("{what}: {error:#}"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
