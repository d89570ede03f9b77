//! Consul: a real one behind a proxy that breaks HTTP, and one that refuses connections.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use diolkos_source_api::Source;
use diolkos_source_consul::{Config, Consul as ConsulSource};
use diolkos_testkit::{Consul as Server, Fault, HttpFault, On, Reply, TcpProxy};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::sleep};

use crate::{
    registry::{Registry, Way},
    sequence::{
        Asked, INSTANCES, Place, SERVICES, Shape, Step, Trouble, api, broken, millis, place,
        restart, shape,
    },
    troubles::{LIE, Troubles},
    truth::Truth,
};

/// Instances are on few nodes, so that the source compares what it knows with inventories of them.
const NODES: u8 = 2;
/// How often the source compares everything with an inventory, though nothing changes.
const COMPARE: Duration = Duration::from_secs(2);

/// What happens in a Consul, and on the way to it.
#[derive(Clone, Debug)]
pub(crate) enum ConsulStep {
    /// An instance comes, or changes.
    Register(Place, Shape),
    /// An instance goes.
    Deregister(Place),
    /// All instances of a service go.
    DeregisterService(u8),
    /// A check of an instance changes.
    Check(Place, Status),
    /// An instance goes into maintenance or comes out of it.
    Maintenance(Place, bool),
    /// The way to the registry is broken for some time.
    Wire(Trouble, Asked, Duration),
    /// The registry says for a moment that a service has no instances.
    Nothing(u8),
    /// The registry says for a moment that there are no services, and that those with several instances have none.
    NothingAtAll,
    /// The registry tells an instance's coming or change late: with the answers of before.
    Old(Place, Shape, Duration),
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Passing,
    Warning,
    Critical,
}

impl Status {
    /// As Consul writes it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// An instance as it is registered.
#[derive(Clone, Debug)]
struct Instance {
    shape: Shape,
    check: Status,
    maintenance: bool,
}

impl Instance {
    fn is_live(&self) -> bool {
        self.check != Status::Critical && !self.maintenance
    }
}

/// The part of one Consul that belongs to one sequence.
pub(crate) struct Consul {
    server: Arc<Server>,
    /// The source reaches Consul through both.
    wire: Arc<Mutex<TcpProxy>>,
    proxy: Arc<HttpFault>,
    /// Of `wire`.
    url: String,
    /// Of all services' names.
    prefix: String,
    instances: BTreeMap<Place, Instance>,
    truth: Truth,
}

impl Registry for Consul {
    type Servers = Server;
    type Step = ConsulStep;
    type Config = Config;

    const HOLD: Duration = Duration::from_millis(1_200);
    const QUIET: Duration = Duration::from_secs(2);
    const FIELD: &'static str = "consul: {addresses: ['http://127.0.0.1:1']}";

    fn steps() -> BoxedStrategy<Step<ConsulStep>> {
        use ConsulStep as S;
        prop_oneof![
            6 => (place(), shape()).prop_map(|(place, shape)| Step::Registry(S::Register(place, shape))),
            5 => place().prop_map(|place| Step::Registry(S::Deregister(place))),
            2 => (0..SERVICES).prop_map(|service| Step::Registry(S::DeregisterService(service))),
            4 => (place(), status()).prop_map(|(place, status)| Step::Registry(S::Check(place, status))),
            2 => (place(), any::<bool>()).prop_map(|(place, on)| Step::Registry(S::Maintenance(place, on))),
            7 => broken(trouble()).prop_map(|(t, asked, time)| Step::Registry(S::Wire(t, asked, time))),
            5 => api(),
            2 => (0..SERVICES).prop_map(|service| Step::Registry(S::Nothing(service))),
            2 => Just(Step::Registry(S::NothingAtAll)),
            2 => (place(), shape(), millis(50..500)).prop_map(|(p, s, time)| Step::Registry(S::Old(p, s, time))),
            2 => restart(),
        ]
        .boxed()
    }

    async fn start(server: &Arc<Server>, number: usize) -> Result<Self> {
        let proxy = HttpFault::start(&server.http_addr()).await?;
        let wire = TcpProxy::start(proxy.address()).await?;
        let prefix = format!("q{number}-");
        let name = |letter| format!("{prefix}{letter}");
        let mut consul = Self {
            server: server.clone(),
            url: format!("http://{}", wire.address()),
            wire: Arc::new(Mutex::new(wire)),
            proxy: Arc::new(proxy),
            instances: BTreeMap::new(),
            truth: Truth::new(number, name, |letter| {
                format!("{}.service.consul", name(letter))
            }),
            prefix,
        };
        consul.fill().await?;
        Ok(consul)
    }

    fn truth(&self) -> &Truth {
        &self.truth
    }

    fn config(&self, registry: Arc<str>, way: Way) -> Config {
        let prefix = self.prefix.clone();
        let url = match way {
            Way::Troubled => self.url.clone(),
            Way::Direct => self.server.http_addr(),
        };
        Config {
            select: Arc::new(move |name, _| name.starts_with(&prefix)),
            wait: COMPARE,
            ..Config::new(registry, vec![url])
        }
    }

    fn source(config: Config) -> impl Source {
        ConsulSource::new(config)
    }

    fn is_lie(step: &ConsulStep) -> bool {
        matches!(step, ConsulStep::Nothing(_) | ConsulStep::NothingAtAll)
    }

    async fn step(&mut self, step: &ConsulStep, troubles: &mut Troubles) -> Result<()> {
        match step {
            ConsulStep::Register(place, shape) => self.register(*place, shape).await,
            ConsulStep::Deregister(place) => self.deregister(*place).await,
            ConsulStep::DeregisterService(service) => self.deregister_service(*service).await,
            ConsulStep::Check(place, status) => self.check(*place, *status).await,
            ConsulStep::Maintenance(place, on) => self.maintain(*place, *on).await,
            ConsulStep::Wire(trouble, asked, time) => {
                self.wire(trouble, *asked, *time, troubles);
                Ok(())
            }
            ConsulStep::Nothing(service) => self.lie(&[*service], false, troubles).await,
            ConsulStep::NothingAtAll => {
                let all: Vec<u8> = (0..SERVICES).collect();
                self.lie(&all, true, troubles).await
            }
            ConsulStep::Old(place, shape, time) => self.old(*place, shape, *time, troubles).await,
        }
    }

    async fn clear(&mut self) -> Result<()> {
        for service in 0..SERVICES {
            self.deregister_service(service).await?;
        }
        Ok(())
    }

    async fn sweep(server: &Server) -> Result<()> {
        for number in 0..NODES {
            let node = json!({"Node": format!("ext-{number}")});
            server.catalog_deregister(&node).await?;
        }
        Ok(())
    }
}

/// What is true.
impl Consul {
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

    /// Three instances of each service but the last one.
    async fn fill(&mut self) -> Result<()> {
        for service in 0..SERVICES - 1 {
            for instance in 0..INSTANCES - 1 {
                self.register((service, instance), &Shape::FIRST).await?;
            }
        }
        Ok(())
    }

    /// An instance comes, or changes and keeps its checks.
    async fn register(&mut self, place: Place, shape: &Shape) -> Result<()> {
        let mut instance = self.instances.get(&place).cloned().unwrap_or(Instance {
            shape: shape.clone(),
            check: Status::Passing,
            maintenance: false,
        });
        instance.shape = shape.clone();
        self.change(place, Some(instance));
        let Shape {
            port,
            version,
            weight,
        } = shape;
        let entry = json!({"Service": {
            "ID": self.id(place), "Service": self.truth.name(place.0), "Address": self.truth.address(place),
            "Port": port, "Tags": [format!("v{version}")],
            "Weights": {"Passing": weight, "Warning": 1},
        }});
        self.tell(place, entry).await
    }

    /// One of a service's instances changes a little.
    async fn touch(&mut self, service: u8) -> Result<()> {
        let mut of_service = self.instances.iter().filter(|(p, _)| p.0 == service);
        let Some((place, instance)) = of_service.next() else {
            return Ok(());
        };
        let (place, mut shape) = (*place, instance.shape.clone());
        shape.version += 1;
        self.register(place, &shape).await
    }

    /// An instance goes, if it is there.
    async fn deregister(&mut self, place: Place) -> Result<()> {
        if !self.instances.contains_key(&place) {
            return Ok(());
        }
        self.change(place, None);
        let entry = json!({"Node": node(place), "ServiceID": self.id(place)});
        self.server.catalog_deregister(&entry).await
    }

    /// All instances of a service go.
    async fn deregister_service(&mut self, service: u8) -> Result<()> {
        for instance in 0..INSTANCES {
            self.deregister((service, instance)).await?;
        }
        Ok(())
    }

    /// A check changes, if the instance is there.
    async fn check(&mut self, place: Place, status: Status) -> Result<()> {
        let Some(mut instance) = self.instances.get(&place).cloned() else {
            return Ok(());
        };
        instance.check = status;
        self.change(place, Some(instance));
        let id = self.id(place);
        let check = json!({"CheckID": format!("{id}-check"), "Name": "check", "ServiceID": id, "Status": status.as_str()});
        self.tell(place, json!({"Check": check})).await
    }

    /// Maintenance begins or ends, if the instance is there.
    async fn maintain(&mut self, place: Place, on: bool) -> Result<()> {
        let Some(mut instance) = self.instances.get(&place).cloned() else {
            return Ok(());
        };
        if instance.maintenance == on {
            return Ok(());
        }
        instance.maintenance = on;
        self.change(place, Some(instance));
        let id = self.id(place);
        let check = format!("_service_maintenance:{id}");
        if on {
            let check = json!({"CheckID": check, "Name": "maintenance", "ServiceID": id, "Status": "critical"});
            return self.tell(place, json!({"Check": check})).await;
        }
        let entry = json!({"Node": node(place), "CheckID": check});
        self.server.catalog_deregister(&entry).await
    }

    async fn tell(&self, place: Place, mut entry: Value) -> Result<()> {
        entry["Node"] = json!(node(place));
        entry["Address"] = json!("10.255.0.1");
        entry["SkipNodeUpdate"] = json!(true);
        self.server.catalog_register(&entry).await
    }
}

/// What breaks, and what is not true.
impl Consul {
    fn wire(&self, trouble: &Trouble, asked: Asked, time: Duration, troubles: &mut Troubles) {
        if !matches!(trouble, Trouble::Refuse) {
            troubles.http(&self.proxy, trouble, requests(asked), time);
            // It happens to queries that wait as well: they are asked again.
            if matches!(asked, Asked::All) {
                self.proxy.cut();
            }
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

    /// The registry says once that services have no instances, and if `names` that they do not exist. Only of
    /// services that have several instances: that one of them is gone is believed at once.
    async fn lie(&mut self, services: &[u8], names: bool, troubles: &mut Troubles) -> Result<()> {
        let proxy = self.proxy.clone();
        if names {
            let truth = proxy.record("/v1/catalog/services").await?;
            let nothing = truth.header("content-length", "2").body("{}");
            let on = On::reads().path("/v1/catalog/services");
            lie_once(&proxy, on, nothing, troubles);
        }
        for service in services {
            if self.truth.count(*service) < 2 {
                continue;
            }
            let nothing = proxy.record("/v1/health/service/there-is-none").await?;
            let on = On::reads().path(&self.path(*service));
            lie_once(&proxy, on, nothing, troubles);
            // Else nobody would ask.
            self.touch(*service).await?;
        }
        Ok(())
    }

    /// An instance comes or changes, and is told of late.
    async fn old(
        &mut self,
        place: Place,
        shape: &Shape,
        time: Duration,
        troubles: &mut Troubles,
    ) -> Result<()> {
        let path = self.path(place.0);
        let answer = self.proxy.record(&path).await?;
        let on = On::reads().path(&path);
        troubles.rule(&self.proxy, on, Fault::Reply(answer), time);
        self.register(place, shape).await
    }

    /// How a service is asked for.
    fn path(&self, service: u8) -> String {
        format!("/v1/health/service/{}?", self.truth.name(service))
    }
}

fn lie_once(proxy: &HttpFault, on: On, lie: Reply, troubles: &mut Troubles) {
    let rule = proxy.rule(on.first(1), Fault::Reply(lie));
    troubles.lie(async move {
        sleep(LIE).await;
        rule.end();
        Ok(rule.hits())
    });
}

fn node((_, instance): Place) -> String {
    format!("ext-{}", instance % NODES)
}

fn requests(asked: Asked) -> On {
    match asked {
        Asked::All => On::every(),
        Asked::First => On::reads().path("/v1/catalog/services"),
        Asked::Second => On::reads().path("/v1/health/service/"),
        Asked::Third => On::reads().path("/v1/health/state/"),
    }
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Passing),
        Just(Status::Warning),
        Just(Status::Critical)
    ]
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let status = prop_oneof![5 => Just(500), 5 => Just(503), 5 => Just(429), 1 => Just(403)];
    prop_oneof![
        2 => Just(Trouble::Cut),
        1 => Just(Trouble::Refuse),
        2 => Just(Trouble::Hang),
        2 => millis(20..300).prop_map(Trouble::Slow),
        3 => status.prop_map(Trouble::Status),
        3 => (0..400_u16).prop_map(Trouble::Half),
        1 => Just(Trouble::Reset),
    ]
}
