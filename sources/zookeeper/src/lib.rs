//! ZooKeeper with Dubbo's layout as a source of services.
//!
//! One source follows one ensemble over any number of connections. How changes are found is described
//! in `session`; what becomes of a record is in [`diolkos_source_dubbo`].
//!
//! # What is believed
//!
//! - Any server of the ensemble. One that is behind what the session has seen takes no connection,
//!   and each full read begins with a `sync`.
//! - A node that is missing is an empty list, a missing root included: a snapshot without services is
//!   a complete one. Whether all of that may go at once is for the guard to say.
//! - An error is no answer. A list or record that cannot be read (no permission, larger than the
//!   limit) stays as it was last known, and is tried again after 5 s, more and more slowly up to a
//!   minute, and with each event that names it. Its services are [`Evidence::Partial`], and so is the
//!   snapshot. Those that are known to be gone are then removed by name, so that one service in
//!   trouble does not keep the others' endpoints. When all can be read again, a complete snapshot
//!   follows by itself.
//! - An application that cannot be read casts doubt on the interfaces whose mapping or metadata names
//!   it. Rules and configurators cast none: they set weights and switch instances off, and instances
//!   that are known stay known without them.
//! - Without the root (or, where only those are read, the applications) there is nothing to tell: the
//!   connection ends as denied or misconfigured, and the mesh stays as it is.
//! - A lost connection or session removes nothing.
//!
//! # What is read and watched
//!
//! | at | as | read |
//! |---|---|---|
//! | `ROOT` | interfaces | as a list |
//! | `ROOT/INTERFACE/providers`, `…/configurators` | encoded URLs | as lists |
//! | `ROOT/config/dubbo/KEY.configurators` | rules | each |
//! | `APPLICATIONS/APPLICATION/ID` | instances | each |
//! | `ROOT/mapping/INTERFACE` | its applications | each |
//! | `ROOT/metadata/…` | what applications provide | what instances refer to |
//!
//! The first two are for registration with interfaces, the last three for registration with
//! applications ([`Discovery`]). Consumers, routers and interfaces that are not selected cost no read.
//! Applications are read also if they are not selected, since their instances may be providers of an
//! interface that is.
//!
//! From ZooKeeper 3.6 on, one persistent recursive watch on each tree tells of everything below it, so
//! the server holds one or two watches for a source whatever the number of services. Older servers
//! know one-shot watches only: there each read leaves one behind, which is two for each interface and
//! one for each application, instance, mapping and rule. A change costs one read in both cases.
//!
//! Watches of a session that goes on may have missed something while it was not connected
//! (ZOOKEEPER-4698), so each connection begins with a full read, which is also done when asked for and
//! every 10 minutes. The last is for nodes that may not be read although the list that names them may:
//! from ZooKeeper 3.8.4 and 3.9.2 on, recursive watches do not tell of those, so that such a provider
//! comes and goes up to 10 minutes late.

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
#[cfg(doc)]
use diolkos_source_dubbo::Discovery;
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
        let first = connect(&self.config.client, &mut self.session).await;
        let first = first.map_err(|error| fatal(&error))?;
        let staying = watch(&first.connection, &self.layout).await?;
        if staying {
            return Ok((first, staying));
        }
        tracing::info!(
            registry = &*self.config.dubbo.registry,
            server = first.server,
            "older than ZooKeeper 3.6: each list and record is watched by itself"
        );
        self.requests += first.connection.requests();
        let second = connect(&self.config.client, &mut self.session).await;
        Ok((second.map_err(|error| fatal(&error))?, staying))
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
            requests: self.requests,
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
            never = report_contacts(&connection, &health) => match never {},
        };
        self.requests += connection.requests();
        health.traffic(0, self.requests);
        ended
    }
}

/// Reports that the server answers, pings among all else.
async fn report_contacts(connection: &Connection, health: &HealthReporter) -> Infallible {
    let mut contact = connection.contact();
    while contact.changed().await.is_ok() {
        health.contact();
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
