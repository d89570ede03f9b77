//! What a sequence is made of, and how one is drawn from a seed and made smaller.

use std::{fmt, time::Duration};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// Services of a sequence.
pub(crate) const SERVICES: u8 = 4;
/// The most instances of a service.
pub(crate) const INSTANCES: u8 = 4;

/// Which instance: of which service, and the how manieth.
pub(crate) type Place = (u8, u8);

/// A run of the bridge, from its settings to the last change.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    /// Endpoints inside of the service entries, instead of as objects of their own.
    pub(crate) inline: bool,
    /// How long a service without endpoints stays.
    pub(crate) grace: Duration,
    /// What happens, with the pause after each.
    pub(crate) steps: Vec<(Step, Duration)>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
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
    Registry(Trouble, Asked, Duration),
    /// The way to the API server is broken for some time. Nothing where the sink is a directory.
    Api(Trouble, Asked, Duration),
    /// The registry says for a moment that a service has no instances.
    Nothing(u8),
    /// The registry says for a moment that there are no services, and that those with several instances have none.
    NothingAtAll,
    /// The registry tells an instance's coming or change late: with the answers of before.
    Old(Place, Shape, Duration),
    /// The process ends and another one begins.
    Restart(Ending),
}

/// How an instance is registered.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) port: u16,
    pub(crate) version: u8,
    pub(crate) weight: u8,
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
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What happens on the wire.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// All connections break, once.
    Cut,
    /// New connections are refused, and those that are open break.
    Refuse,
    /// No answer comes until it is over.
    Hang,
    /// Everything takes longer.
    Slow(Duration),
    /// Requests are answered by the proxy.
    Status(u16),
    /// Answers break off.
    Half(u16),
    /// The connection breaks instead of a request.
    Reset,
    /// The connection breaks instead of an answer.
    LoseReply,
}

/// Which requests it happens to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    All,
    /// Consul: the catalogue. API server: writes.
    First,
    /// Consul: single services. API server: reads.
    Second,
    /// Consul: checks. API server: service entries.
    Third,
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// It is told to, and finishes its writes.
    Orderly,
    /// At once.
    Killed,
}

impl Sequence {
    /// How sequences are drawn.
    fn strategy() -> impl Strategy<Value = Self> {
        let grace = prop_oneof![Just(0), Just(200)].prop_map(Duration::from_millis);
        let steps = prop::collection::vec((step(), millis(0..250)), 8..24);
        (any::<bool>(), grace, steps).prop_map(|(inline, grace, steps)| Self {
            inline,
            grace,
            steps,
        })
    }

    /// The sequence of a seed, with the way to smaller ones.
    pub(crate) fn draw(seed: u64) -> impl ValueTree<Value = Self> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        Self::strategy()
            .new_tree(&mut runner)
            .expect("nothing is filtered out")
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "inline: {}, grace: {:?}", self.inline, self.grace)?;
        for (step, pause) in &self.steps {
            writeln!(f, "  {step:?}, then {pause:?}")?;
        }
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (place(), shape()).prop_map(|(place, shape)| Step::Register(place, shape)),
        5 => place().prop_map(Step::Deregister),
        2 => (0..SERVICES).prop_map(Step::DeregisterService),
        4 => (place(), status()).prop_map(|(place, status)| Step::Check(place, status)),
        2 => (place(), any::<bool>()).prop_map(|(place, on)| Step::Maintenance(place, on)),
        7 => broken(registry_trouble()).prop_map(|(t, asked, time)| Step::Registry(t, asked, time)),
        5 => broken(api_trouble()).prop_map(|(t, asked, time)| Step::Api(t, asked, time)),
        2 => (0..SERVICES).prop_map(Step::Nothing),
        2 => Just(Step::NothingAtAll),
        2 => (place(), shape(), millis(50..500)).prop_map(|(p, s, time)| Step::Old(p, s, time)),
        2 => prop_oneof![Just(Ending::Orderly), Just(Ending::Killed)].prop_map(Step::Restart),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    (0..SERVICES, 0..INSTANCES)
}

fn shape() -> impl Strategy<Value = Shape> {
    let port = prop_oneof![4 => Just(8080), 1 => Just(8081), 1 => Just(9090)];
    (port, 1..4_u8, 1..5_u8).prop_map(|(port, version, weight)| Shape {
        port,
        version,
        weight,
    })
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Passing),
        Just(Status::Warning),
        Just(Status::Critical)
    ]
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn broken(
    trouble: impl Strategy<Value = Trouble>,
) -> impl Strategy<Value = (Trouble, Asked, Duration)> {
    let asked = prop_oneof![
        Just(Asked::All),
        Just(Asked::First),
        Just(Asked::Second),
        Just(Asked::Third),
    ];
    (trouble, asked, millis(50..1_000))
}

fn registry_trouble() -> impl Strategy<Value = Trouble> {
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

fn api_trouble() -> impl Strategy<Value = Trouble> {
    let status = prop_oneof![Just(429), Just(500), Just(503), Just(409)];
    prop_oneof![
        2 => Just(Trouble::Cut),
        1 => Just(Trouble::Hang),
        2 => millis(20..300).prop_map(Trouble::Slow),
        4 => status.prop_map(Trouble::Status),
        1 => (0..400_u16).prop_map(Trouble::Half),
        1 => Just(Trouble::Reset),
        3 => Just(Trouble::LoseReply),
    ]
}
