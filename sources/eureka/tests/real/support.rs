//! A source under its supervisor.

use std::{ops::Deref, sync::Arc, time::Duration};

use diolkos_model::{Instance, Service};
use diolkos_source_api::{
    Evidence, Phase,
    testing::{self, Told},
};
use diolkos_source_eureka::{Config, Eureka, TlsConfig};
use diolkos_testkit::eventually;

/// What the registry is bound to have told by now, when tests wait for it.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How often tests ask for changes.
pub(crate) const POLL: Duration = Duration::from_millis(200);

/// A running source. Services are called by their names.
pub(crate) struct Running(testing::Running<Told>);

impl Deref for Running {
    type Target = testing::Running<Told>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Running {
    pub(crate) fn start(config: Config) -> Self {
        let told = Told::by(|key| key.name.to_string());
        Self(testing::Running::start("eureka", Eureka::new(config), told))
    }

    /// Starts a source and waits for its first snapshot.
    pub(crate) async fn synced(config: Config) -> Self {
        let running = Self::start(config);
        running.0.synced(SOON).await;
        running
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Told) -> bool) {
        self.within(SOON, what, so).await;
    }

    /// Waits until the only instance of a service is so.
    pub(crate) async fn shows(&self, name: &str, what: &str, so: impl Fn(&Instance) -> bool) {
        self.until(what, |world| world.only(name).is_some_and(&so))
            .await;
    }

    /// Waits for the health to say this.
    pub(crate) async fn says(&self, phase: Phase, detail: &str) {
        eventually(SOON, detail, async || {
            let health = self.health.borrow().clone();
            let so = health.phase == phase && health.detail.contains(detail);
            so.then_some(()).ok_or(format!("{health:?}"))
        })
        .await;
    }

    /// A service as it was named last.
    pub(crate) fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.world().services.get(name).cloned()
    }

    /// Waits for one more snapshot with that evidence.
    pub(crate) async fn snapshot(&self, what: &str, complete: bool) {
        let before = self.world().snapshots.len();
        self.until(what, |world| {
            let new = world.snapshots.iter().skip(before);
            new.map(Evidence::is_complete).any(|is| is == complete)
        })
        .await;
    }
}

/// The settings for these base URLs.
pub(crate) fn config(addresses: &[String]) -> Config {
    Config {
        registry: "eureka".into(),
        addresses: addresses.to_vec(),
        region: "".into(),
        statuses: ["UP".to_owned()].into(),
        user: None,
        tls: TlsConfig::default(),
        poll: POLL,
        settle: Duration::ZERO,
        select: Arc::new(|_| true),
    }
}
