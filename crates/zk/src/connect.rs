//! One round over the servers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::lookup_host,
    sync::{Notify, mpsc, watch},
    time::timeout,
};

use crate::{
    Config, Connection, Error, Events, Session,
    connection::Shared,
    driver::{Driver, Ending, Exchange, WINDOW},
    error::Fault,
    greeting::{Greeting, Setup},
    session::lock,
    wire::Wire,
};

/// A connection that was made.
#[derive(Debug)]
pub struct Connected {
    /// For requests.
    pub connection: Connection,
    /// For what the watches say.
    pub events: Events,
    /// Whether the session is the one from before. If not, it has no watches, and changes were missed. If so,
    /// one-shot watches tell what they missed, persistent ones do not.
    pub resumed: bool,
    /// The server, `host:port`.
    pub server: String,
    /// The session's life without contact, as the server granted it.
    pub session_timeout: Duration,
}

/// Connects: goes on with the session if the ensemble still has it, else begins a new one.
///
/// The servers are tried in turn, each once; one that stands for several addresses at each of them. The watches of a
/// session that goes on are set again before this returns. What is left of the session's last connection ends.
///
/// # Errors
/// If no server takes us; the error names each with its reason. [`Error::AuthFailed`] if it was the credentials,
/// [`Error::Config`] if the configuration or its files cannot be used.
pub async fn connect(config: &Config, session: &mut Session) -> Result<Connected, Error> {
    session.disconnect().await;
    let setup = Setup::new(config)?;
    let first = session.turn;
    let mut failures = Vec::new();
    for turn in 0..config.servers.len() {
        let server = &config.servers[(first.wrapping_add(turn)) % config.servers.len()];
        let addresses = match resolve(server, config.connect_timeout).await {
            Ok(addresses) => addresses,
            Err(fault) => {
                failures.push(fault.at(server));
                continue;
            }
        };
        for address in rotated(addresses, first) {
            let greeting = Greeting {
                setup: &setup,
                state: &session.state,
                server,
                address,
                overdue: session.overdue(),
            };
            tracing::debug!(server, %address, "connecting to zookeeper");
            match greeting.run().await {
                Ok(wire) => {
                    session.turn = first.wrapping_add(turn + 1);
                    return Ok(start(config, &setup, session, server, wire));
                }
                Err(fault) => {
                    tracing::debug!(server, %address, ?fault, "zookeeper does not take us");
                    failures.push(fault.at(server));
                }
            }
        }
    }
    Err(sum(&failures))
}

/// The addresses of `host:port`.
async fn resolve(server: &str, patience: Duration) -> Result<Vec<SocketAddr>, Fault> {
    let found = timeout(patience, lookup_host(server)).await;
    let found = found
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| Fault::Broken(format!("cannot resolve it: {error}")))?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() {
        return Err(Fault::Broken("it resolves to no address".to_owned()));
    }
    Ok(addresses)
}

fn rotated(mut addresses: Vec<SocketAddr>, by: usize) -> Vec<SocketAddr> {
    // In an order of our own: resolvers shuffle.
    addresses.sort_unstable();
    addresses.dedup();
    let by = by % addresses.len();
    addresses.rotate_left(by);
    addresses
}

/// One error of all servers'.
fn sum(failures: &[Error]) -> Error {
    let refused = failures
        .iter()
        .any(|error| matches!(error, Error::AuthFailed(_)));
    let reasons: Vec<_> = failures
        .iter()
        .map(|error| match error {
            Error::AuthFailed(reason) => reason.clone(),
            other => other.to_string(),
        })
        .collect();
    let reasons = reasons.join("; ");
    if refused {
        Error::AuthFailed(reasons)
    } else {
        Error::Connection(reasons)
    }
}

/// Starts the task of a connection.
fn start(
    config: &Config,
    setup: &Setup<'_>,
    session: &mut Session,
    server: &str,
    wire: Wire,
) -> Connected {
    let (resumed, timeout) = {
        let mut state = lock(&session.state);
        (std::mem::replace(&mut state.known, true), state.timeout)
    };
    let bell = Arc::new(Notify::new());
    let (requests, queue) = mpsc::channel(WINDOW);
    let (contact, contact_watch) = watch::channel(std::time::Instant::now());
    let (closed, closed_watch) = watch::channel(None);
    let label: Arc<str> = server.into();
    let driver = Driver {
        wire,
        exchange: Exchange::new(
            setup.chroot.clone(),
            session.state.clone(),
            bell.clone(),
            config.frame_limit,
        ),
        requests: queue,
        contact,
        ending: Ending {
            server: label.clone(),
            closed,
        },
        timeout,
    };
    let shared = Arc::new(Shared {
        server: label,
        chroot: setup.chroot.clone(),
        state: session.state.clone(),
        sent: 0.into(),
        contact: contact_watch.clone(),
        closed: closed_watch,
    });
    session.contact = Some(contact_watch);
    session.driver = Some(tokio::spawn(driver.run()));
    tracing::debug!(server, resumed, ?timeout, "connected to zookeeper");
    Connected {
        connection: Connection {
            shared: shared.clone(),
            requests: requests.clone(),
        },
        events: Events {
            shared,
            bell,
            _requests: requests,
        },
        resumed,
        server: server.to_owned(),
        session_timeout: timeout,
    }
}
