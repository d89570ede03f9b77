//! Eureka: a real one behind a proxy that breaks HTTP, and one that refuses connections.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use diolkos_source_api::{Epoch, Source, SourceCx, SourceError};
use diolkos_source_eureka::{Config, Eureka as EurekaSource};
use diolkos_testkit::{Eureka as Server, Fault, HttpFault, On, Reply, TcpProxy, eureka::instance};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    registry::{Registry, Way},
    sequence::{
        Asked, INSTANCES, Place, SERVICES, Shape, Step, Trouble, api, broken, millis, place,
        restart, shape,
    },
    troubles::{LIE, Troubles},
    truth::Truth,
};

/// How old the server's answers may be: those to everybody, and one that was made while something changed.
const CACHE: Duration = Duration::from_millis(100);
const STALE: Duration = Duration::from_millis(1_300);
/// How often the source asks.
const POLL: Duration = Duration::from_millis(250);
const SERVERS: usize = 4;
/// For how many milliseconds a server tells of a change, by default three minutes: longer than a connection lasts
/// without an answer here.
const REMEMBERS: &str = "8000";
/// See [`Config::settle`].
const SETTLE: Duration = Duration::from_millis(300);
/// How long a lie waits for somebody who asks.
const TOLD: Duration = Duration::from_secs(2);
/// The server is in trouble for all sequences at once: not more often than this.
const SERVER_TROUBLE: Duration = Duration::from_secs(6);
const APPS: &str = "/eureka/apps";
const DELTA: &str = "/eureka/apps/delta";

/// What happens in a Eureka, and on the way to it.
#[derive(Clone, Debug)]
pub(crate) enum EurekaStep {
    /// An instance comes, or registers anew.
    Register(Place, Shape),
    /// An instance goes.
    Deregister(Place),
    /// All instances of an application go.
    DeregisterService(u8),
    /// An instance says how it is.
    Status(Place, Status),
    /// An operator takes an instance out of service, or takes that back.
    OutOfService(Place, bool),
    /// The way to the registry is broken for some time.
    Wire(Trouble, Asked, Duration),
    /// The server does nothing for some time.
    Pause(Duration),
    /// The registry says for a moment that it has no instances, with the counts of that.
    Nothing,
    /// The registry's changes are those of before for some time, or its full answer is.
    Old(&'static str, Place, Shape, Duration),
}

/// What an instance says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Up,
    Down,
    Starting,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Starting => "STARTING",
        }
    }
}

/// An instance as it is registered.
#[derive(Clone, Debug)]
struct Instance {
    shape: Shape,
    status: Status,
    out: bool,
}

impl Instance {
    fn is_live(&self) -> bool {
        self.status == Status::Up && !self.out
    }
}

/// The servers, each for some of the sequences: each answer tells of the changes of all of them.
pub(crate) struct Servers([Arc<Shared>; SERVERS]);

impl Servers {
    pub(crate) async fn start() -> Result<Self> {
        let start = Shared::start;
        let (a, b, c, d) = tokio::try_join!(start(), start(), start(), start())?;
        Ok(Self([a, b, c, d].map(Arc::new)))
    }
}

/// A server of many sequences.
struct Shared {
    server: Server,
    /// When the last trouble of the server ended.
    troubled: Mutex<Instant>,
}

impl Shared {
    async fn start() -> Result<Self> {
        let server = Server::builder()
            .response_cache(CACHE)
            .property(
                "eureka.server.retention-time-in-m-s-in-delta-queue",
                REMEMBERS,
            )
            .property("eureka.server.delta-retention-timer-interval-in-ms", "1000");
        Ok(Self {
            server: server.start().await?,
            troubled: Mutex::new(Instant::now()),
        })
    }

    async fn sweep(&self) -> Result<()> {
        let all = self.server.get("/apps").await?;
        let applications = all["applications"]["application"].as_array();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for application in applications.into_iter().flatten() {
            for instance in application["instance"].as_array().into_iter().flatten() {
                let (app, id) = (text(&application["name"]), text(&instance["instanceId"]));
                self.server.deregister(&app, &id).await?;
            }
        }
        Ok(())
    }

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

/// The part of one Eureka that belongs to one sequence.
pub(crate) struct Eureka {
    shared: Arc<Shared>,
    /// The source reaches Eureka through both.
    wire: Arc<Mutex<TcpProxy>>,
    proxy: Arc<HttpFault>,
    /// Of `wire`.
    url: String,
    /// Of all applications' names.
    prefix: String,
    instances: BTreeMap<Place, Instance>,
    truth: Truth,
}

/// How the source is made, and after what time it begins.
#[derive(Clone)]
pub(crate) struct Settings {
    config: Config,
    after: Duration,
}

/// A source that begins late, when no answer is older than it.
struct Late {
    source: EurekaSource,
    after: Duration,
}

impl Source for Late {
    async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        sleep(self.after).await;
        self.source.run(epoch, cx).await
    }
}

impl Registry for Eureka {
    type Servers = Servers;
    type Step = EurekaStep;
    type Config = Settings;

    // A lie is found out with the poll after it, which asks for everything again after some time.
    const HOLD: Duration = Duration::from_secs(3);
    const QUIET: Duration = Duration::from_secs(3);
    const FIELD: &'static str = "eureka: {addresses: ['http://127.0.0.1:1']}";

    fn steps() -> BoxedStrategy<Step<EurekaStep>> {
        use EurekaStep as S;
        let old = prop_oneof![Just(APPS), Just(DELTA)];
        let step = prop_oneof![
            6 => (place(), shape()).prop_map(|(place, shape)| S::Register(place, shape)),
            5 => place().prop_map(S::Deregister),
            2 => (0..SERVICES).prop_map(S::DeregisterService),
            4 => (place(), status()).prop_map(|(place, status)| S::Status(place, status)),
            3 => (place(), any::<bool>()).prop_map(|(place, out)| S::OutOfService(place, out)),
            7 => broken(trouble()).prop_map(|(t, asked, time)| S::Wire(t, asked, time)),
            1 => millis(100..1_500).prop_map(S::Pause),
            2 => Just(S::Nothing),
            4 => (old, place(), shape(), millis(50..800)).prop_map(|(o, p, s, time)| S::Old(o, p, s, time)),
        ];
        prop_oneof![34 => step.prop_map(Step::Registry), 5 => api(), 2 => restart()].boxed()
    }

    async fn start(servers: &Arc<Servers>, number: usize) -> Result<Self> {
        let shared = &servers.0[number % SERVERS];
        let proxy = HttpFault::start(&shared.server.origin()).await?;
        let wire = TcpProxy::start(proxy.address()).await?;
        let prefix = format!("q{number}-");
        let name = |letter| format!("{prefix}{letter}");
        let mut eureka = Self {
            shared: shared.clone(),
            url: format!("http://{}/eureka", wire.address()),
            wire: Arc::new(Mutex::new(wire)),
            proxy: Arc::new(proxy),
            instances: BTreeMap::new(),
            truth: Truth::new(number, name, |letter| format!("{}.eureka", name(letter))),
            prefix,
        };
        eureka.fill().await?;
        Ok(eureka)
    }

    fn truth(&self) -> &Truth {
        &self.truth
    }

    fn config(&self, registry: Arc<str>, way: Way) -> Settings {
        let prefix = self.prefix.clone();
        let (url, after) = match way {
            Way::Troubled => (self.url.clone(), Duration::ZERO),
            Way::Direct => (self.shared.server.url(), STALE),
        };
        let config = Config {
            registry,
            addresses: vec![url],
            region: "".into(),
            statuses: ["UP".to_owned()].into(),
            user: None,
            tls: Default::default(),
            poll: POLL,
            settle: SETTLE,
            select: Arc::new(move |name| name.starts_with(&prefix)),
        };
        Settings { config, after }
    }

    fn source(settings: Settings) -> impl Source {
        Late {
            source: EurekaSource::new(settings.config),
            after: settings.after,
        }
    }

    fn is_lie(step: &EurekaStep) -> bool {
        matches!(step, EurekaStep::Nothing)
    }

    async fn step(&mut self, step: &EurekaStep, troubles: &mut Troubles) -> Result<()> {
        match step {
            EurekaStep::Register(place, shape) => self.register(*place, shape).await,
            EurekaStep::Deregister(place) => self.deregister(*place).await,
            EurekaStep::DeregisterService(service) => self.deregister_service(*service).await,
            EurekaStep::Status(place, status) => self.says(*place, *status).await,
            EurekaStep::OutOfService(place, out) => self.take_out(*place, *out).await,
            EurekaStep::Wire(trouble, asked, time) => {
                self.wire(trouble, *asked, *time, troubles);
                Ok(())
            }
            EurekaStep::Pause(time) => {
                let (shared, time) = (self.shared.clone(), *time);
                troubles.fault(async move { shared.pause(time).await });
                Ok(())
            }
            EurekaStep::Nothing => self.nothing(troubles).await,
            EurekaStep::Old(path, place, shape, time) => {
                let old = self.proxy.record(path).await?;
                troubles.rule(&self.proxy, on(path), Fault::Reply(old), *time);
                self.register(*place, shape).await
            }
        }
    }

    async fn clear(&mut self) -> Result<()> {
        for service in 0..SERVICES {
            self.deregister_service(service).await?;
        }
        Ok(())
    }

    async fn sweep(servers: &Servers) -> Result<()> {
        for shared in &servers.0 {
            shared.sweep().await?;
        }
        Ok(())
    }
}

/// What is true.
impl Eureka {
    fn id(&self, (service, instance): Place) -> String {
        format!("{}-{instance}", self.truth.name(service))
    }

    /// Takes over a change.
    fn change(&mut self, place: Place, now: Option<Instance>) {
        self.truth
            .change(place, now.as_ref().map(Instance::is_live));
        match now {
            Some(now) => self.instances.insert(place, now),
            None => self.instances.remove(&place),
        };
    }

    /// Three instances of each application but the last one.
    async fn fill(&mut self) -> Result<()> {
        for service in 0..SERVICES - 1 {
            for instance in 0..INSTANCES - 1 {
                self.register((service, instance), &Shape::FIRST).await?;
            }
        }
        Ok(())
    }

    /// An instance comes, or registers anew as it was but for its shape.
    async fn register(&mut self, place: Place, shape: &Shape) -> Result<()> {
        let mut now = self.instances.get(&place).cloned().unwrap_or(Instance {
            shape: shape.clone(),
            status: Status::Up,
            out: false,
        });
        now.shape = shape.clone();
        self.tell(place, now).await
    }

    /// An instance says how it is, if it is there. What an operator has said is left alone: it would be forgotten.
    async fn says(&mut self, place: Place, status: Status) -> Result<()> {
        let Some(mut now) = self.instances.get(&place).filter(|i| !i.out).cloned() else {
            return Ok(());
        };
        now.status = status;
        self.tell(place, now).await
    }

    async fn tell(&mut self, place: Place, now: Instance) -> Result<()> {
        let app = self.truth.name(place.0).to_owned();
        let mut record = instance(&app, &self.truth.address(place), now.shape.port);
        record["instanceId"] = json!(self.id(place));
        record["status"] = json!(now.status.as_str());
        record["metadata"] = json!({
            "version": format!("v{}", now.shape.version), "weight": now.shape.weight.to_string(),
        });
        self.change(place, Some(now));
        self.shared.server.register(&app, &record).await
    }

    /// An instance that says that it is well is taken out of service, or back.
    async fn take_out(&mut self, place: Place, out: bool) -> Result<()> {
        let known = self.instances.get(&place).cloned();
        let Some(mut now) = known.filter(|i| i.status == Status::Up && i.out != out) else {
            return Ok(());
        };
        now.out = out;
        self.change(place, Some(now));
        let (app, id) = (self.truth.name(place.0), self.id(place));
        if out {
            let server = &self.shared.server;
            server.set_status(app, &id, "OUT_OF_SERVICE").await
        } else {
            self.shared.server.remove_status(app, &id).await
        }
    }

    /// An instance goes, if it is there.
    async fn deregister(&mut self, place: Place) -> Result<()> {
        if !self.instances.contains_key(&place) {
            return Ok(());
        }
        self.change(place, None);
        let app = self.truth.name(place.0);
        self.shared.server.deregister(app, &self.id(place)).await
    }

    /// All instances of an application go.
    async fn deregister_service(&mut self, service: u8) -> Result<()> {
        for instance in 0..INSTANCES {
            self.deregister((service, instance)).await?;
        }
        Ok(())
    }
}

/// What breaks, and what is not true.
impl Eureka {
    fn wire(&self, trouble: &Trouble, asked: Asked, time: Duration, troubles: &mut Troubles) {
        if !matches!(trouble, Trouble::Refuse) {
            troubles.http(&self.proxy, trouble, requests(asked), time);
            return;
        }
        let wire = self.wire.clone();
        troubles.fault(async move {
            let mut wire = wire.lock().await;
            wire.refuse(true).await?;
            wire.cut();
            sleep(time).await;
            wire.refuse(false).await?;
            Ok(0)
        });
    }

    /// The registry says for a moment that applications of several instances are not there: that one instance is gone
    /// is believed at once.
    async fn nothing(&mut self, troubles: &mut Troubles) -> Result<()> {
        let mut all = self.shared.server.get("/apps").await?;
        let mut denied = Vec::new();
        for service in 0..SERVICES {
            let of_service = self
                .instances
                .iter()
                .filter(|(place, _)| place.0 == service);
            if of_service
                .filter(|(_, instance)| instance.is_live())
                .count()
                > 1
            {
                denied.push(json!(self.truth.name(service).to_uppercase()));
            }
        }
        let list = all["applications"]["application"].as_array_mut();
        let list = list.context("no applications")?;
        list.retain(|app| !denied.contains(&app["name"]));
        let hash = counts(list);
        all["applications"]["apps__hashcode"] = json!(hash);
        let mut changes = all.clone();
        changes["applications"]["application"] = json!([]);
        let rules = [(APPS, all), (DELTA, changes)].map(|(path, body)| {
            let reply = Reply::status(200).header("content-type", "application/json");
            let lie = Fault::Reply(reply.body(body.to_string()));
            self.proxy.rule(on(path), lie)
        });
        troubles.lie(async move {
            let end = Instant::now() + TOLD;
            while rules[0].hits() == 0 && Instant::now() < end {
                sleep(Duration::from_millis(10)).await;
            }
            sleep(LIE).await;
            rules.iter().for_each(diolkos_testkit::fault::Rule::end);
            Ok(rules[0].hits())
        });
        Ok(())
    }
}

/// The counts by status that a server gives with these applications.
fn counts(applications: &[Value]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let instances = applications
        .iter()
        .filter_map(|app| app["instance"].as_array());
    for instance in instances.flatten() {
        *counts
            .entry(instance["status"].as_str().unwrap_or_default())
            .or_default() += 1;
    }
    counts
        .iter()
        .map(|(status, count)| format!("{status}_{count}_"))
        .collect()
}

fn on(path: &'static str) -> On {
    On::reads().test(move |_, asked| asked == path)
}

fn requests(asked: Asked) -> On {
    match asked {
        Asked::All | Asked::Third => On::every(),
        Asked::First => on(APPS),
        Asked::Second => on(DELTA),
    }
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Up), Just(Status::Down), Just(Status::Starting)]
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let status = prop_oneof![5 => Just(500), 5 => Just(503), 5 => Just(429), 1 => Just(403)];
    prop_oneof![
        2 => Just(Trouble::Cut),
        1 => Just(Trouble::Refuse),
        2 => Just(Trouble::Hang),
        2 => millis(20..300).prop_map(Trouble::Slow),
        3 => status.prop_map(Trouble::Status),
        2 => (0..2_000_u16).prop_map(Trouble::Half),
        1 => Just(Trouble::Reset),
        1 => Just(Trouble::LoseReply),
    ]
}
