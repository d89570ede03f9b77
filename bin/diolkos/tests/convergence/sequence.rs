//! What a sequence is made of, whatever the registry, and how one is drawn from a seed and made smaller.

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
pub(crate) struct Sequence<S> {
    /// Endpoints inside of the service entries, instead of as objects of their own.
    pub(crate) inline: bool,
    /// How long a service without endpoints stays.
    pub(crate) grace: Duration,
    /// What happens, with the pause after each.
    pub(crate) steps: Vec<(Step<S>, Duration)>,
}

/// One thing that happens. `S` is what can happen in a registry and on the way to it.
#[derive(Clone, Debug)]
pub(crate) enum Step<S> {
    /// Something of the registry.
    Registry(S),
    /// The way to the API server is broken for some time. Nothing where the sink is a directory.
    Api(Trouble, Asked, Duration),
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

impl Shape {
    /// Of the instances that there are from the beginning.
    pub(crate) const FIRST: Self = Self {
        port: 8080,
        version: 1,
        weight: 1,
    };
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

impl<S: Clone + fmt::Debug + 'static> Sequence<S> {
    /// How sequences of such steps are drawn.
    fn strategy(step: BoxedStrategy<Step<S>>) -> impl Strategy<Value = Self> {
        let grace = prop_oneof![Just(0), Just(200)].prop_map(Duration::from_millis);
        let steps = prop::collection::vec((step, millis(0..250)), 8..24);
        (any::<bool>(), grace, steps).prop_map(|(inline, grace, steps)| Self {
            inline,
            grace,
            steps,
        })
    }

    /// The sequence of a seed, with the way to smaller ones.
    pub(crate) fn draw(seed: u64, step: BoxedStrategy<Step<S>>) -> impl ValueTree<Value = Self> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        Self::strategy(step)
            .new_tree(&mut runner)
            .expect("nothing is filtered out")
    }
}

impl<S: fmt::Debug> fmt::Display for Sequence<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "inline: {}, grace: {:?}", self.inline, self.grace)?;
        for (step, pause) in &self.steps {
            writeln!(f, "  {step:?}, then {pause:?}")?;
        }
        Ok(())
    }
}

/// The way to the API server breaks.
pub(crate) fn api<S: fmt::Debug>() -> impl Strategy<Value = Step<S>> {
    broken(api_trouble()).prop_map(|(trouble, asked, time)| Step::Api(trouble, asked, time))
}

/// The process ends and another one begins.
pub(crate) fn restart<S: fmt::Debug>() -> impl Strategy<Value = Step<S>> {
    prop_oneof![Just(Ending::Orderly), Just(Ending::Killed)].prop_map(Step::Restart)
}

pub(crate) fn place() -> impl Strategy<Value = Place> {
    (0..SERVICES, 0..INSTANCES)
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let port = prop_oneof![4 => Just(8080), 1 => Just(8081), 1 => Just(9090)];
    (port, 1..4_u8, 1..5_u8).prop_map(|(port, version, weight)| Shape {
        port,
        version,
        weight,
    })
}

pub(crate) fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

pub(crate) fn broken(
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
