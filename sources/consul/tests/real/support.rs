//! A source under its supervisor.

use std::{ops::Deref, time::Duration};

use diolkos_source_api::{
    Stopped,
    testing::{self, Told},
};
use diolkos_source_consul::{Config, Consul};

/// What the registry is bound to have told by now, when tests wait for it.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A running source. Services are called `DATACENTER/NAME`.
pub(crate) struct Running(testing::Running<Told>);

impl Deref for Running {
    type Target = testing::Running<Told>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Running {
    pub(crate) fn start(config: Config) -> Self {
        let told = Told::by(|key| format!("{}/{}", key.namespace, key.name));
        Self(testing::Running::start("consul", Consul::new(config), told))
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

    /// Ends the source.
    pub(crate) async fn stop(self) -> Stopped {
        self.0.stop().await
    }
}

/// The settings for an agent's address.
pub(crate) fn config(address: impl Into<String>) -> Config {
    Config::new("consul", vec![address.into()])
}
