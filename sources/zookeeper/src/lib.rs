//! ZooKeeper with Dubbo's layout as a source of services.

#![forbid(unsafe_code)]

mod config;
mod layout;
mod read;
mod session;
mod state;

use std::{convert::Infallible, time::Duration};

#[cfg(doc)]
use diolkos_source_api::Evidence;
use diolkos_source_api::{Epoch, HealthReporter, Source, SourceCx, SourceError};
use diolkos_zk::{Connected, Connection, connect};

pub use config::{Config, Select};

use crate::{
    layout::Layout,
    read::{Reader, fatal},
    session::{Out, Session, watch},
    state::State,
};

/// The shortest time between two reports of a contact.
const CONTACTS: Duration = Duration::from_millis(200);

/// ZooKeeper as a [`Source`].
#[derive(Debug)]
pub struct ZooKeeper {
    config: Config,
    layout: Layout,
    /// Goes on over several connections.
    session: diolkos_zk::Session,
    state: State,
    /// Requests over earlier connections.
    requests: u64,
}

impl ZooKeeper {
    /// A source with these settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            layout: Layout::new(&config),
            session: diolkos_zk::Session::default(),
            state: State::new(config.dubbo.clone()),
            requests: 0,
            config,
        }
    }

    /// Connects and sets the watches, if the server knows watches that stay. One that does not
    /// hangs up when it is asked for one, so there it takes a second connection.
    async fn connect(&mut self) -> Result<(Connected, bool), SourceError> {
        let connect = connect(&self.config.client, &mut self.session);
        let first = connect.await.map_err(|error| fatal(&error))?;
        let staying = watch(&first.connection, &self.layout).await?;
        if staying {
            return Ok((first, staying));
        }
        self.requests += first.connection.requests();
        let connect = diolkos_zk::connect(&self.config.client, &mut self.session);
        let second = connect.await.map_err(|error| fatal(&error))?;
        Ok((second, staying))
    }

    async fn connection(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let (connected, staying) = self.connect().await?;
        let Connected {
            connection,
            mut events,
            resumed,
            server,
            ..
        } = connected;
        let registry = &*self.config.dubbo.registry;
        tracing::debug!(registry, server, resumed, staying, "connected");
        let health = cx.health.clone();
        health.syncing(format!("reading {server}"));
        let reader = Reader {
            connection: &connection,
            layout: &self.layout,
            one_shot: !staying,
        };
        let out = Out {
            registry,
            events: cx.events.clone(),
            health: health.clone(),
        };
        let mut session = Session::new(reader, &mut self.state, out);
        let work = async {
            loop {
                // All requests so far are served by one snapshot.
                while cx.resync.try_recv().is_ok() {}
                session.snapshot(epoch).await?;
                tokio::select! {
                    ended = session.follow(&mut events) => ended?,
                    Some(()) = cx.resync.recv() => {}
                }
            }
        };
        let ended = tokio::select! {
            ended = work => ended,
            error = connection.closed() => Err(fatal(&error)),
            never = report_contacts(&connection, &health, self.requests) => match never {},
        };
        self.requests += connection.requests();
        health.traffic(0, self.requests);
        ended
    }
}

/// Reports each answer, pings among them, and the requests so far.
async fn report_contacts(
    connection: &Connection,
    health: &HealthReporter,
    before: u64,
) -> Infallible {
    let mut contact = connection.contact();
    while contact.changed().await.is_ok() {
        health.contact();
        health.traffic(1, before + connection.requests());
        tokio::time::sleep(CONTACTS).await;
    }
    // The connection says itself why it ended.
    std::future::pending().await
}

impl Source for ZooKeeper {
    async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let cancel = cx.cancel.clone();
        tokio::select! {
            ended = self.connection(epoch, cx) => ended,
            () = cancel.cancelled() => Err(SourceError::Stopped),
        }
    }
}
