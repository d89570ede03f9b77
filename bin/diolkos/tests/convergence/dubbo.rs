//! Registries that Dubbo writes into: ZooKeeper and etcd, behind a proxy that breaks connections and leads astray.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use diolkos_source_api::Source;
use diolkos_source_dubbo::{Discovery, Options, Variants};
use diolkos_testkit::TcpProxy;
use proptest::prelude::*;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    provider::Provider,
    registry::{Registry, Way},
    sequence::{INSTANCES, Place, SERVICES, Shape, Step, api, millis, place, restart, shape},
    troubles::{LIE, Troubles},
    truth::Truth,
};

/// The server is in trouble for all sequences at once: not more often than this.
const SERVER_TROUBLE: Duration = Duration::from_secs(6);
/// See [`Registry::HOLD`]. An empty registry is asked for as long as it is there, however slow the machine is.
pub(crate) const HOLD: Duration = Duration::from_secs(3);
/// How long an empty registry waits for somebody who connects.
pub(crate) const CONNECTS: Duration = Duration::from_secs(5);
/// How long a change is tried while the server restarts, perhaps several times in a row.
const WRITES: Duration = Duration::from_secs(60);

/// A server that holds Dubbo's nodes, and a client to write them with.
pub(crate) trait Store: Sized + Send + Sync + 'static {
    /// How its source is made.
    type Config: Clone + Send + Sync + 'static;

    /// See [`Registry::FIELD`].
    const FIELD: &'static str;

    /// What can happen beside what happens to all.
    fn own_steps() -> BoxedStrategy<DubboStep>;

    /// Where the server listens.
    fn address(&self) -> Result<SocketAddr>;

    /// Settings of a source that reaches the server at the address, and reads below the path.
    fn config(address: SocketAddr, below: &str, options: Options) -> Self::Config;

    /// A source with these settings.
    fn source(config: Self::Config) -> impl Source;

    /// Makes a node, if it is not there.
    fn put(&self, path: &str) -> impl Future<Output = Result<()>> + Send;

    /// Deletes a node with all below it, if it is there.
    fn delete(&self, path: &str) -> impl Future<Output = Result<()>> + Send;

    /// Nobody can read a node from now on.
    fn hide(&self, path: &str, hidden: bool) -> impl Future<Output = Result<()>> + Send;

    /// Forgets what happened before now.
    fn compact(&self) -> impl Future<Output = Result<()>> + Send;

    /// Kills the server and starts it again with what it holds.
    fn restart(&self) -> impl Future<Output = Result<()>> + Send;

    /// The server does nothing from now on, or goes on.
    fn pause(&self, paused: bool) -> Result<()>;
}

/// What sequences share.
pub(crate) struct Stores<S> {
    store: S,
    /// One that holds nothing.
    empty: S,
    /// When the last trouble of the server ended.
    troubled: Mutex<Instant>,
    /// Makes the names of nodes different, as Dubbo's time stamps do.
    stamp: AtomicU64,
}

impl<S> Stores<S> {
    /// With a server for all sequences, and one that holds nothing.
    pub(crate) fn new(store: S, empty: S) -> Self {
        Self {
            store,
            empty,
            troubled: Mutex::new(Instant::now()),
            stamp: AtomicU64::new(1_700_000_000_000),
        }
    }
}

/// What happens in such a registry, and on the way to it.
#[derive(Clone, Debug)]
pub(crate) enum DubboStep {
    /// A provider comes, or registers anew.
    Register(Place, Shape),
    /// A provider goes.
    Deregister(Place),
    /// An interface goes with all its nodes.
    DeregisterService(u8),
    /// All goes, also what is above the interfaces, and some of it comes back.
    LoseTheRoot,
    /// The way to the registry is broken for some time.
    Wire(Break, Duration),
    /// The same, and providers come and go meanwhile.
    Away(Break, Vec<(Place, Blink)>, Duration),
    /// The server is in trouble.
    Server(ServerTrouble),
    /// An interface's providers cannot be read for some time, and it is tried.
    Hide(u8, Duration),
    /// The server forgets its history.
    Compact,
    /// An empty registry answers for a moment.
    Empty,
}

/// How connections break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// At once; new ones are accepted.
    Cut,
    /// At once; new ones are refused until it is over.
    Refuse,
    /// Nothing is carried until it is over.
    Hang,
}

/// What happens to a provider that nobody watches.
#[derive(Clone, Debug)]
pub(crate) enum Blink {
    /// It is there in the end.
    Comes(Shape),
    /// It is not.
    Goes,
    /// It was there meanwhile, if it was not before; else it was away.
    Blinks(Shape),
}

/// What happens to the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServerTrouble {
    /// It is killed, and comes back.
    Restart,
    /// It does nothing for some time.
    Pause(Duration),
}

/// The part of one server that belongs to one sequence.
pub(crate) struct Dubbo<S> {
    stores: Arc<Stores<S>>,
    wire: Arc<Mutex<TcpProxy>>,
    wire_address: SocketAddr,
    /// All is below this path.
    below: String,
    /// The providers' nodes, and what they say.
    nodes: BTreeMap<Place, (String, Shape)>,
    truth: Truth,
}

impl<S: Store> Registry for Dubbo<S> {
    type Servers = Stores<S>;
    type Step = DubboStep;
    type Config = S::Config;

    const HOLD: Duration = HOLD;
    // A source whose connection broke is not back at once.
    const QUIET: Duration = Duration::from_secs(6);
    const FIELD: &'static str = S::FIELD;

    fn steps() -> BoxedStrategy<Step<DubboStep>> {
        use DubboStep as D;
        let time = || millis(50..1_500);
        let step = prop_oneof![
            8 => (place(), shape()).prop_map(|(place, shape)| D::Register(place, shape)),
            6 => place().prop_map(D::Deregister),
            2 => (0..SERVICES).prop_map(D::DeregisterService),
            1 => Just(D::LoseTheRoot),
            2 => (breaks(), time()).prop_map(|(how, time)| D::Wire(how, time)),
            4 => (breaks(), blinks(), time()).prop_map(|(how, blinks, time)| D::Away(how, blinks, time)),
            1 => server_trouble().prop_map(D::Server),
            2 => S::own_steps(),
            2 => Just(D::Empty),
        ];
        prop_oneof![31 => step.prop_map(Step::Registry), 4 => api(), 2 => restart()].boxed()
    }

    async fn start(stores: &Arc<Stores<S>>, number: usize) -> Result<Self> {
        let wire = TcpProxy::start(stores.store.address()?).await?;
        let name = |letter| format!("org.q{number}.{letter}");
        let mut dubbo = Self {
            stores: stores.clone(),
            wire_address: wire.address(),
            wire: Arc::new(Mutex::new(wire)),
            below: format!("/q{number}"),
            nodes: BTreeMap::new(),
            truth: Truth::new(number, name, name),
        };
        dubbo.fill().await?;
        Ok(dubbo)
    }

    fn truth(&self) -> &Truth {
        &self.truth
    }

    fn config(&self, registry: Arc<str>, way: Way) -> S::Config {
        let address = match way {
            Way::Troubled => self.wire_address,
            // It was known at the start.
            Way::Direct => self.stores.store.address().unwrap_or(self.wire_address),
        };
        let options = Options {
            registry,
            variants: Variants::Labels,
            discovery: Discovery::Both,
            dubbo_protocol: "dubbo".into(),
            aeraki: false,
        };
        S::config(address, &self.below, options)
    }

    fn source(config: S::Config) -> impl Source {
        S::source(config)
    }

    fn is_lie(step: &DubboStep) -> bool {
        matches!(step, DubboStep::Empty)
    }

    async fn step(&mut self, step: &DubboStep, troubles: &mut Troubles) -> Result<()> {
        match step {
            DubboStep::Register(place, shape) => self.register(*place, shape).await,
            DubboStep::Deregister(place) => self.deregister(*place).await,
            DubboStep::DeregisterService(service) => self.deregister_service(*service).await,
            DubboStep::LoseTheRoot => self.lose_the_root().await,
            DubboStep::Wire(how, time) => self.breaks(*how, &[], *time, troubles).await,
            DubboStep::Away(how, blinks, time) => self.breaks(*how, blinks, *time, troubles).await,
            DubboStep::Server(trouble) => {
                let (stores, trouble) = (self.stores.clone(), *trouble);
                troubles.fault(async move { stores.trouble(trouble).await });
                Ok(())
            }
            DubboStep::Hide(service, time) => self.hide(*service, *time, troubles).await,
            DubboStep::Compact => self.stores.store.compact().await,
            DubboStep::Empty => self.empty(troubles).await,
        }
    }

    async fn clear(&mut self) -> Result<()> {
        delete(&self.stores.store, &self.below).await
    }

    async fn sweep(stores: &Stores<S>) -> Result<()> {
        // Sequences have paths of their own: what failed ones left behind is in nobody's way.
        stores.store.compact().await
    }
}

/// What is true.
impl<S: Store> Dubbo<S> {
    fn interface(&self, service: u8) -> String {
        format!("{}/dubbo/{}", self.below, self.truth.name(service))
    }

    /// A node of a provider, as Dubbo names it: different each time.
    fn node(&self, place: Place, shape: &Shape) -> String {
        let stamp = self.stores.stamp.fetch_add(1, Ordering::SeqCst).to_string();
        let name = self.truth.name(place.0);
        let address = format!("{}:{}", self.truth.address(place), shape.port);
        Provider::new(name, &address)
            .with("timestamp", &stamp)
            .with("version", &format!("{}.0.0", shape.version))
            .with("weight", &format!("{}00", shape.weight))
            .path_in(&format!("{}/dubbo", self.below))
    }

    /// Three providers of each interface but the last one.
    async fn fill(&mut self) -> Result<()> {
        for service in 0..SERVICES - 1 {
            for instance in 0..INSTANCES - 1 {
                self.register((service, instance), &Shape::FIRST).await?;
            }
        }
        Ok(())
    }

    /// A provider comes, or registers anew: after it was away, or while its former node is still there.
    async fn register(&mut self, place: Place, shape: &Shape) -> Result<()> {
        let overlaps = shape.weight.is_multiple_of(2);
        if !overlaps {
            self.deregister(place).await?;
        }
        let node = self.node(place, shape);
        self.truth.change(place, Some(true));
        put(&self.stores.store, &node).await?;
        let Some((former, was)) = self.nodes.insert(place, (node, shape.clone())) else {
            return Ok(());
        };
        // A provider is its address, port and version; another weight or time stamp are no end of it.
        if (was.port, was.version) != (shape.port, shape.version) {
            self.truth.replace(place);
        }
        delete(&self.stores.store, &former).await
    }

    /// A provider goes, if it is there.
    async fn deregister(&mut self, place: Place) -> Result<()> {
        self.truth.change(place, None);
        match self.nodes.remove(&place) {
            Some((node, _)) => delete(&self.stores.store, &node).await,
            None => Ok(()),
        }
    }

    /// All providers of an interface go with its nodes.
    async fn deregister_service(&mut self, service: u8) -> Result<()> {
        self.ends(service);
        delete(&self.stores.store, &self.interface(service)).await
    }

    fn ends(&mut self, service: u8) {
        for instance in 0..INSTANCES {
            self.truth.change((service, instance), None);
            self.nodes.remove(&(service, instance));
        }
    }

    /// The first provider of each interface is made again.
    async fn lose_the_root(&mut self) -> Result<()> {
        (0..SERVICES).for_each(|service| self.ends(service));
        delete(&self.stores.store, &self.below).await?;
        for service in 0..SERVICES {
            self.register((service, 0), &Shape::FIRST).await?;
        }
        Ok(())
    }

    async fn blink(&mut self, place: Place, blink: &Blink) -> Result<()> {
        match blink {
            Blink::Comes(shape) => self.register(place, shape).await,
            Blink::Goes => self.deregister(place).await,
            Blink::Blinks(shape) => {
                let was = self.nodes.contains_key(&place);
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

/// What breaks, and what is not true.
impl<S: Store> Dubbo<S> {
    /// Breaks the way to the registry, and changes the registry while nobody can see it.
    async fn breaks(
        &mut self,
        how: Break,
        blinks: &[(Place, Blink)],
        time: Duration,
        troubles: &mut Troubles,
    ) -> Result<()> {
        let wire = self.wire.clone();
        let mut wire = wire.lock_owned().await;
        let met = wire.open();
        match how {
            // Whoever is away for changes cannot be let in before they are made.
            Break::Cut if blinks.is_empty() => {}
            Break::Cut | Break::Refuse => wire.refuse(true).await?,
            Break::Hang => wire.hang(true),
        }
        if how != Break::Hang {
            wire.cut();
        }
        for (place, blink) in blinks {
            self.blink(*place, blink).await?;
        }
        troubles.fault(async move {
            if how != Break::Cut {
                sleep(time).await;
            }
            wire.refuse(false).await?;
            wire.hang(false);
            Ok(met)
        });
        Ok(())
    }

    /// An interface cannot be read when somebody comes who has to read it.
    async fn hide(&mut self, service: u8, time: Duration, troubles: &mut Troubles) -> Result<()> {
        let path = format!("{}/providers", self.interface(service));
        if self.truth.count(service) == 0 {
            return Ok(());
        }
        hide(&self.stores.store, &path, true).await?;
        self.wire.lock().await.cut();
        sleep(time).await;
        hide(&self.stores.store, &path, false).await?;
        // ACLs are not watched.
        let wire = self.wire.clone();
        troubles.fault(async move {
            let wire = wire.lock().await;
            wire.cut();
            Ok(1)
        });
        Ok(())
    }

    /// An empty registry answers who connects, for a moment.
    async fn empty(&mut self, troubles: &mut Troubles) -> Result<()> {
        let (stores, wire) = (self.stores.clone(), self.wire.clone());
        let wire = wire.lock_owned().await;
        let before = wire.total();
        wire.redirect(stores.empty.address()?);
        wire.cut();
        troubles.lie(async move {
            let end = Instant::now() + CONNECTS;
            while wire.total() == before && Instant::now() < end {
                sleep(Duration::from_millis(10)).await;
            }
            let told = Instant::now();
            sleep(LIE).await;
            wire.redirect(stores.store.address()?);
            wire.cut();
            let lasted = told.elapsed();
            ensure!(lasted < HOLD / 2, "too slow: a lie lasted for {lasted:?}");
            Ok(wire.total() - before)
        });
        Ok(())
    }
}

impl<S: Store> Stores<S> {
    /// Not if the server was in trouble a short time ago.
    async fn trouble(&self, trouble: ServerTrouble) -> Result<usize> {
        let Ok(mut last) = self.troubled.try_lock() else {
            return Ok(0);
        };
        if last.elapsed() < SERVER_TROUBLE {
            return Ok(0);
        }
        match trouble {
            ServerTrouble::Restart => self.store.restart().await?,
            ServerTrouble::Pause(time) => {
                self.store.pause(true)?;
                sleep(time).await;
                self.store.pause(false)?;
            }
        }
        *last = Instant::now();
        Ok(1)
    }
}

async fn put<S: Store>(store: &S, path: &str) -> Result<()> {
    insist(path, async || store.put(path).await).await
}

async fn delete<S: Store>(store: &S, path: &str) -> Result<()> {
    insist(path, async || store.delete(path).await).await
}

async fn hide<S: Store>(store: &S, path: &str, hidden: bool) -> Result<()> {
    insist(path, async || store.hide(path, hidden).await).await
}

/// Tries to change something until it is so: the server may be restarting.
async fn insist<F: Future<Output = Result<()>> + Send>(
    path: &str,
    change: impl Fn() -> F,
) -> Result<()> {
    let end = Instant::now() + WRITES;
    loop {
        match change().await {
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(50)).await,
            ended => return ended.with_context(|| format!("cannot change {path}")),
        }
    }
}

pub(crate) fn breaks() -> impl Strategy<Value = Break> {
    prop_oneof![Just(Break::Cut), Just(Break::Refuse), Just(Break::Hang)]
}

pub(crate) fn blinks() -> impl Strategy<Value = Vec<(Place, Blink)>> {
    let blink = prop_oneof![
        1 => shape().prop_map(Blink::Comes),
        1 => Just(Blink::Goes),
        2 => shape().prop_map(Blink::Blinks),
    ];
    prop::collection::vec((place(), blink), 1..5)
}

fn server_trouble() -> impl Strategy<Value = ServerTrouble> {
    prop_oneof![
        Just(ServerTrouble::Restart),
        millis(100..1_500).prop_map(ServerTrouble::Pause),
    ]
}
