//! From a server's address to a connection on which the session is up, authenticated and has its watches.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::{
    Config, Error,
    error::Fault,
    messages::{self, Header, Ticket, code, xid},
    path::Chroot,
    session::{State, lock},
    watches::Watch,
    wire::{Tls, Wire},
};

use diolkos_net::TokenFile;

/// How many bytes of paths are in one request that sets watches again: no request may have more than 1 MiB, and
/// servers do them as a whole while others wait.
const CHUNK: usize = 120 << 10;

/// What connections to all servers share. The files of the configuration were read for it.
pub(crate) struct Setup<'a> {
    config: &'a Config,
    pub(crate) chroot: Chroot,
    tls: Option<TlsConnector>,
    /// `user:password`.
    credentials: Option<Vec<u8>>,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(config: &'a Config) -> Result<Self, Error> {
        if config.servers.is_empty() {
            return Err(Error::Config("no server is given".to_owned()));
        }
        let tls = match &config.tls {
            None => None,
            Some(tls) => Some(
                tls.client_config(&[])
                    .map_err(|error| Error::Config(error.to_string()))?,
            ),
        };
        let credentials = match &config.digest {
            None => None,
            Some(digest) => {
                let password = TokenFile::new(&digest.password_file)
                    .read()
                    .map_err(|error| Error::Config(error.to_string()))?;
                Some(format!("{}:{password}", digest.username).into_bytes())
            }
        };
        Ok(Self {
            config,
            chroot: Chroot::new(&config.chroot)?,
            tls: tls.map(|tls| TlsConnector::from(Arc::new(tls))),
            credentials,
        })
    }

    fn tls(&self, server: &str) -> Result<Option<Tls>, Fault> {
        let Some(connector) = self.tls.clone() else {
            return Ok(None);
        };
        let given = self.config.tls.as_ref();
        let name = match given.and_then(|tls| tls.server_name.as_deref()) {
            Some(name) => name,
            None => host(server),
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Fault::Broken(format!("{name} is no name that a certificate can have")))?;
        Ok(Some(Tls { connector, name }))
    }

    async fn open(&self, server: &str, address: SocketAddr) -> Result<Wire, Fault> {
        Wire::open(address, self.tls(server)?, self.config.frame_limit).await
    }
}

/// The host of `host:port`.
fn host(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// One try to be taken by a server.
pub(crate) struct Greeting<'a> {
    pub(crate) setup: &'a Setup<'a>,
    pub(crate) state: &'a Arc<Mutex<State>>,
    /// As configured.
    pub(crate) server: &'a str,
    pub(crate) address: SocketAddr,
    /// The session was not heard for so long that it cannot be alive.
    pub(crate) overdue: bool,
}

impl Greeting<'_> {
    /// Connects, goes on with the session or begins a new one, authenticates and sets the session's watches again.
    pub(crate) async fn run(&self) -> Result<Wire, Fault> {
        let mut wire = self.introduce().await?;
        if self.set_watches_again(&mut wire).await? {
            return Ok(wire);
        }
        // A session without its watches would be deaf. A new one has none.
        *lock(self.state) = State::default();
        self.introduce().await
    }

    async fn introduce(&self) -> Result<Wire, Fault> {
        let patience = self.setup.config.connect_timeout;
        let introduced = async {
            let mut wire = self.session().await?;
            self.authenticate(&mut wire).await?;
            Ok(wire)
        };
        timeout(patience, introduced)
            .await
            .unwrap_or_else(|_| Err(Fault::Broken(format!("not connected within {patience:?}"))))
    }

    /// A connection with a session: the former or, if it has expired, a new one.
    async fn session(&self) -> Result<Wire, Fault> {
        let ticket = lock(self.state).ticket.clone();
        if ticket.id != 0 {
            match self.ask_for(&ticket).await {
                Ok(Some(wire)) => return Ok(wire),
                Ok(None) => {}
                // Servers hang up on those who have seen later transactions than they have. If that is all of them,
                // their data were lost or are those of a backup, and the session with them.
                Err(Fault::Closed(why)) if self.overdue => {
                    tracing::debug!(server = self.server, why, "giving up an overdue session");
                }
                Err(fault) => return Err(fault),
            }
            tracing::debug!(server = self.server, "the zookeeper session has expired");
            *lock(self.state) = State::default();
        }
        self.ask_for(&Ticket::default())
            .await?
            .ok_or_else(|| Fault::Broken("the server grants no session".to_owned()))
    }

    /// Connects and shows a ticket. Nothing if its session has expired.
    async fn ask_for(&self, ticket: &Ticket) -> Result<Option<Wire>, Fault> {
        let config = self.setup.config;
        let mut wire = self.setup.open(self.server, self.address).await?;
        messages::hello(&mut wire.outbound.buffer, ticket, config.session_timeout);
        let answer = wire.exchange(config.connect_timeout).await?;
        Ok(messages::grant(&answer)?.map(|grant| {
            lock(self.state).granted(grant);
            wire
        }))
    }

    async fn authenticate(&self, wire: &mut Wire) -> Result<(), Fault> {
        let Some(credentials) = &self.setup.credentials else {
            return Ok(());
        };
        messages::auth(&mut wire.outbound.buffer, credentials);
        let patience = self.setup.config.connect_timeout;
        let header = self.reply(wire, xid::AUTH, patience).await?;
        match header.code {
            code::OK => Ok(()),
            code => Err(Fault::Refused(format!("error {code} of the server"))),
        }
    }

    /// Sets all watches of the session. Returns whether the server did.
    ///
    /// One request is under way at a time: their replies cannot be told apart. The newest transaction seen is noted
    /// when all is done: if the connection breaks before, what changed between the former and that one has to fire
    /// the watches that were not set yet.
    async fn set_watches_again(&self, wire: &mut Wire) -> Result<bool, Fault> {
        let (zxid, patience) = {
            let state = lock(self.state);
            (state.ticket.zxid, silence(state.timeout))
        };
        let mut newest = zxid;
        let mut last: Option<Watch> = None;
        loop {
            let chunk = lock(self.state).watches.chunk(last.as_ref(), CHUNK);
            if chunk.is_empty() {
                break;
            }
            messages::set_watches(&mut wire.outbound.buffer, zxid, &chunk);
            let header = self.reply(wire, xid::SET_WATCHES, patience).await?;
            if header.code != code::OK {
                tracing::debug!(
                    code = header.code,
                    "the server does not set the watches again"
                );
                return Ok(false);
            }
            newest = newest.max(header.zxid);
            last = chunk.into_iter().last();
        }
        lock(self.state).saw(newest);
        Ok(true)
    }

    /// The reply with this id; events before it are noted.
    async fn reply(&self, wire: &mut Wire, xid: i32, patience: Duration) -> Result<Header, Fault> {
        loop {
            let frame = wire.exchange(patience).await?;
            let (header, body) = Header::read(&frame)?;
            if header.xid == xid {
                return Ok(header);
            }
            if header.xid != xid::EVENT {
                let problem = format!("a reply to {} in place of {xid}", header.xid);
                return Err(Fault::Protocol(problem));
            }
            if let Some((kind, path)) = messages::event(body)? {
                lock(self.state).notice(&self.setup.chroot, kind, path);
            }
        }
    }
}

/// How long a server may be silent before it counts as gone: a third of the session's time is left to find another.
pub(crate) fn silence(timeout: Duration) -> Duration {
    timeout * 2 / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(host("zk:2181"), "zk");
        assert_eq!(host("10.0.0.1:2181"), "10.0.0.1");
        assert_eq!(host("[::1]:2181"), "::1");
    }
}
