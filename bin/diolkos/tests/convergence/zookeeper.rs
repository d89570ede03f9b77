//! ZooKeeper as it is read and written here.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use diolkos_source_api::Source;
use diolkos_source_dubbo::Options;
use diolkos_source_zookeeper::{Config, ZooKeeper as ZooKeeperSource};
use diolkos_testkit::zookeeper::{Writer, ZooKeeper as Server};
use proptest::prelude::*;
use tokio::runtime::Handle;

use crate::{
    dubbo::{DubboStep, Store, Stores},
    sequence::{SERVICES, millis},
};

/// Shorter than many of the breaks: sessions expire.
const SESSION: Duration = Duration::from_millis(1_000);
/// Transactions of the empty server before anything happens: a client does not connect to one that has seen less
/// than itself.
const AHEAD: usize = 30_000;

/// A server, and a session to write with.
pub(crate) struct ZooKeeper {
    server: Server,
    writer: Writer,
}

impl ZooKeeper {
    /// Starts the servers of all sequences.
    pub(crate) async fn stores() -> Result<Stores<Self>> {
        let (store, empty) = tokio::try_join!(Self::start(), Self::start())?;
        let nodes: Vec<_> = (0..AHEAD).map(|n| (format!("/ahead/{n}"), "")).collect();
        empty.writer.create_many(&nodes).await?;
        Ok(Stores::new(store, empty))
    }

    async fn start() -> Result<Self> {
        let server = Server::start().await?;
        let writer = server.writer().await?;
        Ok(Self { server, writer })
    }
}

impl Store for ZooKeeper {
    type Config = Config;

    const FIELD: &'static str = "zookeeper: {addresses: ['127.0.0.1:1']}";

    fn own_steps() -> BoxedStrategy<DubboStep> {
        let time = millis(50..500);
        (0..SERVICES, time)
            .prop_map(|(service, time)| DubboStep::Hide(service, time))
            .boxed()
    }

    fn address(&self) -> Result<SocketAddr> {
        self.server.address().parse().context("an address")
    }

    fn config(address: SocketAddr, below: &str, options: Options) -> Config {
        Config {
            client: diolkos_zk::Config {
                servers: vec![address.to_string()],
                chroot: below.to_owned(),
                session_timeout: SESSION,
                connect_timeout: SESSION,
                digest: None,
                tls: None,
                frame_limit: 16 << 20,
            },
            root: "/dubbo".to_owned(),
            applications: "/services".to_owned(),
            dubbo: options,
            select: Arc::new(|_| true),
        }
    }

    fn source(config: Config) -> impl Source {
        ZooKeeperSource::new(config)
    }

    async fn put(&self, path: &str) -> Result<()> {
        if self.writer.exists(path).await? {
            return Ok(());
        }
        self.writer.create(path, "127.0.0.1").await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        if !self.writer.exists(path).await? {
            return Ok(());
        }
        self.writer.delete_all(path).await
    }

    async fn hide(&self, path: &str, hidden: bool) -> Result<()> {
        if hidden {
            self.writer.hide(path).await
        } else {
            self.writer.unhide(path).await
        }
    }

    async fn compact(&self) -> Result<()> {
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        // Its future is not `Send`.
        tokio::task::block_in_place(|| Handle::current().block_on(self.server.restart()))
    }

    fn pause(&self, paused: bool) -> Result<()> {
        if paused {
            self.server.stop_process()
        } else {
            self.server.continue_process()
        }
    }
}
