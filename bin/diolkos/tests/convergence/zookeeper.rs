//! ZooKeeper as it is read and written here.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use diolkos_source_api::Source;
use diolkos_source_dubbo::Options;
use diolkos_source_zookeeper::{Config, ZooKeeper as ZooKeeperSource};
use diolkos_testkit::zookeeper::{Writer, ZooKeeper as Server};
use proptest::prelude::*;
use tokio::{runtime::Handle, sync::RwLock, time::timeout};

use crate::{
    dubbo::{DubboStep, Store, Stores},
    sequence::{SERVICES, millis},
};

/// Shorter than many of the breaks: sessions expire.
const SESSION: Duration = Duration::from_millis(1_000);
/// Longer than a server that is asked by all sequences at once takes to take a client.
const CONNECT: Duration = Duration::from_secs(5);
/// Transactions of the empty server before anything happens: a client does not connect to one that has seen less
/// than itself.
const AHEAD: usize = 30_000;

/// A server, and a session to write with.
pub(crate) struct ZooKeeper {
    server: Server,
    writer: RwLock<Arc<Writer>>,
}

impl ZooKeeper {
    /// Starts the servers of all sequences.
    pub(crate) async fn stores() -> Result<Stores<Self>> {
        let (store, empty) = tokio::try_join!(Self::start(), Self::start())?;
        let nodes: Vec<_> = (0..AHEAD).map(|n| (format!("/ahead/{n}"), "")).collect();
        empty.writer().await.create_many(&nodes).await?;
        Ok(Stores::new(store, empty))
    }

    async fn start() -> Result<Self> {
        let server = Server::start().await?;
        let writer = RwLock::new(Arc::new(server.writer().await?));
        Ok(Self { server, writer })
    }

    async fn writer(&self) -> Arc<Writer> {
        self.writer.read().await.clone()
    }

    /// A session does not outlive every restart of the server. One that is asked for while the
    /// server still loads its data may never be answered.
    async fn renewed<T>(&self, done: Result<T>) -> Result<T> {
        if done.is_err()
            && let Ok(writer) = timeout(CONNECT, self.server.writer()).await
        {
            *self.writer.write().await = Arc::new(writer?);
        }
        done
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
                connect_timeout: CONNECT,
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
        let writer = self.writer().await;
        let put = async {
            if writer.exists(path).await? {
                return Ok(());
            }
            writer.create(path, "127.0.0.1").await
        };
        self.renewed(put.await).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let writer = self.writer().await;
        let delete = async {
            if !writer.exists(path).await? {
                return Ok(());
            }
            writer.delete_all(path).await
        };
        self.renewed(delete.await).await
    }

    async fn hide(&self, path: &str, hidden: bool) -> Result<()> {
        let writer = self.writer().await;
        let changed = if hidden {
            writer.hide(path).await
        } else {
            writer.unhide(path).await
        };
        self.renewed(changed).await
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
