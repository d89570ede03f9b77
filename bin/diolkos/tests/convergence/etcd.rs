//! etcd as it is read and written here.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use diolkos_source_api::Source;
use diolkos_source_dubbo::Options;
use diolkos_source_etcd::{Config, Etcd as EtcdSource};
use diolkos_testkit::Etcd as Server;
use proptest::prelude::*;
use tokio::runtime::Handle;

use crate::dubbo::{DubboStep, Store, Stores};

/// How often the source looks for signs of life.
const PULSE: Duration = Duration::from_millis(500);

/// One member.
pub(crate) struct Etcd(Server);

impl Etcd {
    /// Starts the servers of all sequences.
    pub(crate) async fn stores() -> Result<Stores<Self>> {
        let (store, empty) = tokio::try_join!(Server::start(), Server::start())?;
        Ok(Stores::new(Self(store), Self(empty)))
    }
}

impl Store for Etcd {
    type Config = Config;

    const FIELD: &'static str = "etcd: {addresses: ['http://127.0.0.1:1']}";

    fn own_steps() -> BoxedStrategy<DubboStep> {
        Just(DubboStep::Compact).boxed()
    }

    fn address(&self) -> Result<SocketAddr> {
        Ok(self.0.address(0))
    }

    fn config(address: SocketAddr, below: &str, options: Options) -> Config {
        Config {
            endpoints: vec![format!("http://{address}")],
            user: None,
            tls: Default::default(),
            prefix: format!("{below}/dubbo"),
            applications: format!("{below}/services"),
            dubbo: options,
            select: Arc::new(|_| true),
        }
    }

    fn source(config: Config) -> impl Source {
        EtcdSource::new(config).pulse(PULSE)
    }

    async fn put(&self, path: &str) -> Result<()> {
        self.0.put(path, "127.0.0.1").await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.0.delete(path).await?;
        self.0.delete_prefix(&format!("{path}/")).await
    }

    async fn hide(&self, _: &str, _: bool) -> Result<()> {
        anyhow::bail!("etcd knows rights of users only")
    }

    async fn compact(&self) -> Result<()> {
        // Another sequence may have forgotten the same a moment ago, which is an error.
        self.0.compact().await.ok();
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        // Its future is not `Send`.
        tokio::task::block_in_place(|| Handle::current().block_on(self.0.restart(0)))
    }

    fn pause(&self, paused: bool) -> Result<()> {
        if paused {
            self.0.stop_process(0)
        } else {
            self.0.continue_process(0)
        }
    }
}
