//! A source under its supervisor, and all that its events ever said.

use std::{ops::Deref, sync::Arc, time::Duration};

use anyhow::ensure;
use diolkos_model::Service;
use diolkos_source_api::{
    Event, Evidence, Phase,
    testing::{self, Told, World},
};
use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_source_nacos::{Config, Groups, Nacos, Services, Transport};
use diolkos_testkit::{
    eventually,
    nacos_stub::{Host, NacosStub},
};

/// What the registry is bound to have told by now, when tests wait for it. A source that was denied
/// waits for up to 10 s.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// How long each service takes its turn to be asked for.
const SWEEP: Duration = Duration::from_millis(1_500);

/// What the events said last, and what they said before.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) told: Told,
    /// Services as they were said, with the addresses of their instances.
    pub(crate) history: Vec<(String, Vec<String>)>,
}

impl World for Seen {
    fn apply(&mut self, event: Event) {
        if let Event::Upsert { service, .. } = &event {
            let name = service.key.name.to_string();
            self.history.push((name, addresses(service)));
        }
        self.told.apply(event);
    }

    fn snapshots(&self) -> &[Evidence] {
        self.told.snapshots()
    }

    fn summary(&self) -> String {
        format!("{:?}; {:?}", self.told, self.history)
    }
}

impl Deref for Seen {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.told
    }
}

/// The addresses of instances that may get traffic.
fn addresses(service: &Service) -> Vec<String> {
    let healthy = service.instances.iter().filter(|i| i.health.is_healthy());
    let mut all: Vec<String> = healthy.map(|i| i.address.to_string()).collect();
    all.sort();
    all
}

impl Seen {
    /// The addresses of a service's instances that may get traffic.
    pub(crate) fn live(&self, name: &str) -> Vec<String> {
        let service = self.services.get(name);
        service
            .map(|service| addresses(service))
            .unwrap_or_default()
    }

    /// How a service was said so far, without what was said twice in a row.
    pub(crate) fn steps(&self, name: &str) -> Vec<Vec<String>> {
        let of_service = self.history.iter().filter(|(of, _)| of == name);
        let mut steps: Vec<_> = of_service.map(|(_, addresses)| addresses.clone()).collect();
        steps.dedup();
        steps
    }

    /// How many snapshots were complete.
    pub(crate) fn complete(&self) -> usize {
        self.snapshots().iter().filter(|e| e.is_complete()).count()
    }
}

/// An instance on the host of that number.
pub(crate) fn host(number: u8) -> Host {
    Host::new(&ip(number), 8080)
}

pub(crate) fn ip(number: u8) -> String {
    format!("10.0.0.{number}")
}

pub(crate) fn hosts(numbers: &[u8]) -> Vec<Host> {
    numbers.iter().copied().map(host).collect()
}

/// Services `a` to `c` of two instances each.
pub(crate) fn fill(stub: &NacosStub) {
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let number = 10 * u8::try_from(number).unwrap_or_default();
        stub.put(name, &hosts(&[number + 1, number + 2]));
    }
}

pub(crate) fn config(stub: &NacosStub) -> Config {
    let options = Options {
        registry: "nacos".into(),
        variants: Variants::Labels,
        discovery: Discovery::Both,
        dubbo_protocol: "dubbo".into(),
        aeraki: false,
    };
    Config {
        registry: "nacos".into(),
        client: diolkos_nacos::Config {
            addresses: vec![stub.url()],
            grpc_offset: stub.grpc_offset(),
            auth: None,
            tls: Default::default(),
        },
        namespaces: vec!["public".into()],
        groups: Groups::Named(vec!["DEFAULT_GROUP".into()]),
        clusters: Vec::new(),
        transport: Transport::Auto,
        services: Services::All,
        dubbo: options,
        settle: Duration::ZERO,
        select: Arc::new(|_| true),
    }
}

/// A running source. It ends with this.
pub(crate) struct Running(testing::Running<Seen>);

impl Deref for Running {
    type Target = testing::Running<Seen>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel.cancel();
    }
}

impl Running {
    /// Starts a source that sweeps soon.
    pub(crate) fn start(config: Config) -> Self {
        Self::of(Nacos::new(config).sweep(SWEEP))
    }

    /// Starts a source that leaves what a lost push told until long after the test.
    pub(crate) async fn without_sweep(config: Config) -> Self {
        let running = Self::of(Nacos::new(config));
        running.synced(SOON).await;
        running
    }

    fn of(source: Nacos) -> Self {
        let seen = Seen {
            told: Told::by(|key| key.name.to_string()),
            history: Vec::new(),
        };
        Self(testing::Running::start("nacos", source, seen))
    }

    /// Starts a source and waits for its first snapshot.
    pub(crate) async fn synced(config: Config) -> Self {
        let running = Self::start(config);
        running.0.synced(SOON).await;
        running
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Seen) -> bool) {
        self.within(SOON, what, so).await;
    }

    /// Waits until a service has these instances that may get traffic.
    pub(crate) async fn shows(&self, what: &str, service: &str, numbers: &[u8]) {
        let expected: Vec<String> = numbers.iter().copied().map(ip).collect();
        self.until(what, |seen| seen.live(service) == expected)
            .await;
    }

    /// Waits until the source is in this phase, in at least this connection.
    pub(crate) async fn phase(&self, phase: Phase, epoch: u64) {
        let mut health = self.health.clone();
        let so = health.wait_for(|health| health.phase == phase && health.epoch >= epoch);
        let so = tokio::time::timeout(SOON, so).await;
        assert!(so.is_ok(), "never {phase:?}: {:?}", self.health);
    }

    /// What happens from now on is seen.
    pub(crate) async fn follows(&self, stub: &NacosStub, number: u8) {
        stub.put("marker", &[host(number)]);
        self.shows("what happens now is seen", "marker", &[number])
            .await;
    }
}

/// Waits until the source has read so many more lists.
pub(crate) async fn lists(stub: &NacosStub, kind: &str, more: usize) {
    let before = stub.count(kind);
    eventually(SOON, "lists are read", async || {
        let now = stub.count(kind);
        ensure!(now >= before + more, "{now} of {kind}, before {before}");
        Ok(())
    })
    .await;
}

/// All that the server asked was answered.
pub(crate) async fn all_is_acknowledged(stub: &NacosStub) {
    eventually(SOON, "all is acknowledged", async || {
        let (pushed, acknowledged) = (stub.pushed(), stub.acknowledged());
        ensure!(pushed == acknowledged, "{pushed:?} {acknowledged:?}");
        Ok(())
    })
    .await;
}
