//! Nacos as a source of services.
//!
//! How changes are found is described in `link`, which answer counts in `namespace`, and what becomes
//! of a record in `mapping`.
//!
//! # What is believed
//!
//! - One server, the one that answered last; another one only when that fails.
//! - An answer to a question that was asked when all that is known had been seen. A push that is older
//!   than what was seen before is not believed, whatever the reason.
//! - No list removes a service: what two whole lists lack is asked for, and is gone if it has no
//!   instances. A list that changed each time while it was read makes [`Evidence::Partial`].
//! - A service that cannot be read stays as it was last known, with [`Evidence::Partial`], and is tried
//!   again. So does a namespace.
//! - Of a service at its protection threshold Nacos says that all instances are healthy. That is not
//!   believed: which of them are is asked for, and while that cannot be read stays as it was known.
//! - After a connection that had been live was lost, nothing counts as gone for a time
//!   ([`Config::settle`]): a restarted server answers with what has registered again so far. A complete
//!   snapshot follows.
//!
//! # What it costs Nacos
//!
//! One gRPC connection and one subscription a service; a list of all names a second or, if that takes
//! more than 50 ms, for a twentieth of the time, but each 15 s; and one question for each service a minute, or 50 a
//! second if there are more than 3,000. A server that tells of new services (Nacos 3) is asked for the
//! names 30 times more seldom.
//!
//! By HTTP, which is all that Nacos 1 has, everything is polled for a quarter of the time, at most each
//! 2 s and at least each minute.

#![forbid(unsafe_code)]

mod config;
mod link;
#[doc(hidden)]
pub mod mapping;
mod metadata;
mod meter;
mod namespace;
mod reader;
mod session;
mod told;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use diolkos_nacos::{Client, Error};
#[cfg(doc)]
use diolkos_source_api::Evidence;
use diolkos_source_api::{Epoch, Source, SourceCx, SourceError};
use futures::future::join_all;

pub use config::{Config, Groups, Select, Services, Transport};
pub use mapping::Directory;

use crate::{
    link::Line,
    meter::Meter,
    namespace::Namespace,
    session::{Server, Session, fatal},
};

/// How soon gRPC is tried again where it could not be reached and HTTP could, and how late at most.
const GRPC: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// Nacos as a [`Source`].
#[derive(Debug)]
pub struct Nacos {
    config: Config,
    namespaces: Vec<Namespace>,
    /// The server that answered last, by its place in the configuration.
    server: usize,
    /// Whether a connection was ever live.
    was_live: bool,
    /// Requests since the start.
    requests: Arc<AtomicU64>,
    sweep: Duration,
}

impl Nacos {
    /// A source with these settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let namespaces = config.namespaces.iter();
        Self {
            namespaces: namespaces.map(|id| Namespace::new(&config, id)).collect(),
            config,
            server: 0,
            was_live: false,
            requests: Arc::default(),
            sweep: link::SWEEP,
        }
    }

    /// Asks for each service once within this time. For tests: it finds what lost pushes told.
    #[doc(hidden)]
    #[must_use]
    pub fn sweep(mut self, sweep: Duration) -> Self {
        self.sweep = sweep;
        self
    }

    async fn connection(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let meter = Arc::new(Meter::new(cx.health.clone(), self.requests.clone()));
        let client = Client::new(self.config.client.clone(), meter.clone())
            .map_err(|error| SourceError::Config(error.to_string()))?;
        let (server, lines) = connect(&self.config, client, self.server).await?;
        cx.health.syncing(format!("reading {}", server.address()));
        let servers = server.client.servers();
        self.server = server.index;
        let (config, health) = (&self.config, cx.health.clone());
        let mut session = Session::new(config, server.clone(), meter, health, epoch);
        session.sweep = self.sweep;
        if self.was_live && !config.settle.is_zero() {
            session.settle(config.settle);
        }
        for (namespace, line) in self.namespaces.iter_mut().zip(lines) {
            session.add(namespace, line)?;
        }
        let probes = server.http_only && config.transport == Transport::Auto;
        let ended = tokio::select! {
            ended = session.run(cx) => ended.map(|never| match never {}),
            () = grpc_is_back(&server, config), if probes => Err(SourceError::Transport(format!(
                "{}: gRPC can be reached by now, changing over from polling by HTTP",
                server.address()
            ))),
        };
        let live = session.is_live();
        self.was_live |= live;
        if !live {
            // It answers, but not so that it is of use.
            self.server = (self.server + 1) % servers;
        }
        ended
    }
}

impl Source for Nacos {
    async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let cancel = cx.cancel.clone();
        tokio::select! {
            ended = self.connection(epoch, cx) => ended,
            () = cancel.cancelled() => Err(SourceError::Stopped),
        }
    }
}

/// Connects to the first server that answers, beginning with the one that answered last: by gRPC, and
/// where no server has that, by HTTP.
async fn connect(
    config: &Config,
    client: Client,
    last: usize,
) -> Result<(Server, Vec<Result<Line, Error>>), SourceError> {
    let mut faults = Vec::new();
    for http_only in [false, true] {
        let wanted = match config.transport {
            Transport::Auto => true,
            Transport::Grpc => !http_only,
            Transport::Http => http_only,
        };
        if !wanted {
            continue;
        }
        for offset in 0..client.servers() {
            let server = Server {
                client: client.clone(),
                index: (last + offset) % client.servers(),
                http_only,
            };
            match greet(config, &server).await {
                Ok(lines) => return Ok((server, lines)),
                // Another server would say the same.
                Err(error @ (SourceError::Config(_) | SourceError::Denied(_))) => {
                    return Err(error);
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
    }
    Err(SourceError::Transport(faults.join("; ")))
}

/// Connects to a server, for each namespace. One of them has to succeed.
async fn greet(config: &Config, server: &Server) -> Result<Vec<Result<Line, Error>>, SourceError> {
    let connects = config.namespaces.iter().map(async |id| {
        let line = server.connect(id.as_str().into()).await?;
        if server.http_only {
            // There is no connection yet that would show that it can be reached.
            line.reader.probe(&config.groups).await?;
        }
        Ok(line)
    });
    let lines: Vec<Result<Line, Error>> = join_all(connects).await;
    let failed = lines.iter().zip(&config.namespaces);
    let first = failed
        .filter_map(|(line, id)| Some((line.as_ref().err()?, id)))
        .next();
    match first {
        Some((error, id)) if lines.iter().all(Result::is_err) => {
            Err(fatal(server.address(), id, error))
        }
        _ => Ok(lines),
    }
}

/// Returns when a server can be reached by gRPC.
async fn grpc_is_back(server: &Server, config: &Config) {
    let mut wait = GRPC.0;
    let Some(namespace) = config.namespaces.first() else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(GRPC.1);
        for index in 0..server.client.servers() {
            if server.client.connect(index, namespace).await.is_ok() {
                return;
            }
        }
    }
}
