//! A source under its supervisor.

use std::{ops::Deref, time::Duration};

use crate::dubbo::provider;
use diolkos_source_api::{
    Evidence, Phase, Stopped,
    testing::{self, Told},
};
use diolkos_source_zookeeper::{Config, ZooKeeper};
use diolkos_testkit::eventually;

/// What the registry is bound to have told by now, when tests wait for it.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// For servers that have to be found again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(60);

/// The node of a provider.
pub(crate) fn provider_path(interface: &str, address: &str) -> String {
    let name = provider(interface, address, "");
    format!("/dubbo/{interface}/providers/{name}")
}

/// A running source. Services are called by their names alone.
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
        let source = ZooKeeper::new(config);
        Self(testing::Running::start("zookeeper", source, told))
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

    /// How many requests were sent until the last event.
    pub(crate) fn requests(&self) -> u64 {
        self.health.borrow().requests
    }

    /// Forgets what went.
    pub(crate) fn forget(&self) {
        self.world().removed.clear();
    }

    /// Waits until so many snapshots came to their end, the last of them complete.
    pub(crate) async fn snapshots(&self, count: usize) {
        self.within(RECOVERY, "a complete snapshot", |world| {
            world.snapshots.len() >= count && world.snapshots.last() == Some(&Evidence::Complete)
        })
        .await;
    }

    /// Waits until the loss of the connection is told.
    pub(crate) async fn lost(&self) {
        eventually(RECOVERY, "the loss is told", async || {
            let phase = self.health.borrow().phase;
            phase != Phase::Connecting && !phase.is_connected()
        })
        .await;
    }

    /// Ends the source.
    pub(crate) async fn stop(self) -> Stopped {
        self.0.stop().await
    }
}
