//! An HTTP proxy that breaks single requests on demand.
//!
//! [`HttpFault`] stands in front of one server (a Consul, an API server) and passes every request on, bodies
//! unbuffered, until a rule says otherwise. A rule is *which* requests ([`On`]) and *what* happens to them
//! ([`Fault`]):
//!
//! ```no_run
//! # use diolkos_testkit::{Consul, fault::{Fault, HttpFault, On, Reply}};
//! # async fn test() -> anyhow::Result<()> {
//! let consul = Consul::start().await?;
//! let proxy = HttpFault::start(&consul.http_addr()).await?;
//! // The third read of a service breaks off after 10 bytes; each write is refused for a second.
//! let cut = proxy.rule(On::reads().path("/v1/health/service/").nth(3), Fault::Cut(10));
//! let busy = Reply::status(429).header("Retry-After", "1").body("busy");
//! proxy.rule(On::writes(), Fault::Reply(busy));
//! // … use proxy.url() …
//! assert_eq!(cut.hits(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! It speaks HTTP/1.1 on both sides, in plain text to the client, and with TLS to the server where
//! [`HttpFault::start_tls`] says so. [`TcpProxy`](crate::TcpProxy) is for what happens below HTTP: refused
//! connections, and silence without a look at the requests.

mod rules;
mod serve;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::Method;
use reqwest::{Certificate, Client, Identity};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use rules::{On, Reply, Rule};

use crate::lock;
use crate::pki::TlsFiles;
use rules::{Entry, Hook};

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The proxy answers in the server's place. The server does not see the request.
    Reply(Reply),
    /// The request waits for so long. What happens then, the following rules say.
    Delay(Duration),
    /// The server executes the request, and its answer breaks off after so many bytes of the body. An answer that
    /// is not longer passes whole.
    Cut(usize),
    /// Nothing answers until the rule ends. Then the request goes on to the server.
    Hang,
    /// Nothing ever answers on this connection, and it stays open, as behind a firewall that forgot it; also after
    /// the rule's end.
    HalfOpen,
    /// The connection is reset (RST). The server does not see the request.
    Reset,
    /// The server executes the request; then the connection is reset instead of an answer.
    LoseReply,
}

/// On which side of a write [`HttpFault::on_nth_write`] does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The server never sees the write.
    Before,
    /// The server has executed the write, and the client has no answer.
    After,
}

/// One request that reached the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub path: String,
    /// The status that the client was told; `None` while it waits, and when it got no answer.
    pub told: Option<u16>,
    /// The status that the server gave; `None` if it was not asked or gave none.
    pub server: Option<u16>,
}

impl Logged {
    /// Whether this may change something: POST, PUT, PATCH, DELETE.
    pub fn is_write(&self) -> bool {
        rules::is_write(&self.method)
    }
}

/// A proxy on a loopback port in front of one HTTP server; see [`fault`](self). It ends, with its connections, on drop.
#[derive(Debug)]
pub struct HttpFault {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What the test's side and the connections share.
struct Shared {
    client: Client,
    target: String,
    rules: Mutex<Vec<Arc<Entry>>>,
    hooks: Mutex<Vec<Hook>>,
    log: Mutex<Vec<Logged>>,
    /// Counts the cuts: a connection is reset when this changes.
    cuts: watch::Sender<u64>,
}

impl HttpFault {
    /// Listens on a free port of 127.0.0.1 and passes on to a server of plain HTTP, `http://HOST:PORT`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: &str) -> Result<Self> {
        Self::listen(target, client([], None)?).await
    }

    /// Like [`start`](Self::start) for a server of `https://…`, which is shown a client certificate: whoever may
    /// connect to the proxy has the rights of that certificate.
    ///
    /// # Errors
    /// When no port is free or a file cannot be used.
    pub async fn start_tls(target: &str, files: &TlsFiles) -> Result<Self> {
        let (roots, identity) = files.load()?;
        Self::listen(target, client([roots], Some(identity))?).await
    }

    async fn listen(target: &str, client: Client) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("no port for the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            client,
            target: target.trim_end_matches('/').to_owned(),
            rules: Mutex::default(),
            hooks: Mutex::default(),
            log: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let server = tokio::spawn(serve::serve(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for clients, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule, from now on and until [`Rule::end`] or [`clear`](Self::clear); dropping the returned value
    /// changes nothing. A request meets the rules in the order in which they were added; the first one that takes it
    /// decides, except that a [`Fault::Delay`] lets it go on to the next.
    pub fn rule(&self, on: On, fault: Fault) -> Rule {
        let entry = Arc::new(Entry::new(on, fault));
        lock(&self.shared.rules).push(Arc::clone(&entry));
        Rule(entry)
    }

    /// Ends all rules.
    pub fn clear(&self) {
        for entry in lock(&self.shared.rules).drain(..) {
            entry.end();
        }
    }

    /// Resets all connections. New ones are accepted.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Calls `act` once, at the `n`-th write (POST, PUT, PATCH, DELETE) from now, counted from 1 as they arrive.
    /// That write's connection is reset after it. Meant to kill the client at every write of a run in turn; see
    /// [`Program::killer`](crate::Program::killer).
    pub fn on_nth_write(&self, n: usize, moment: Moment, act: impl FnOnce() + Send + 'static) {
        let hook = Hook::new(n, moment, Box::new(act));
        lock(&self.shared.hooks).push(hook);
    }

    /// Asks the server itself, and keeps its answer to be told again later with [`Fault::Reply`], when it is old.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn record(&self, path: &str) -> Result<Reply> {
        let url = format!("{}{path}", self.shared.target);
        Reply::of(self.shared.client.get(url).send().await?).await
    }

    /// All requests so far, in the order of their arrival.
    pub fn log(&self) -> Vec<Logged> {
        lock(&self.shared.log).clone()
    }

    /// The number of requests so far of which `test` is true.
    pub fn count(&self, test: impl Fn(&Logged) -> bool) -> usize {
        lock(&self.shared.log).iter().filter(|r| test(r)).count()
    }
}

impl Drop for HttpFault {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("target", &self.target)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// A client that adds nothing of its own: no deadline, no redirects, no compression, no name.
fn client(
    roots: impl IntoIterator<Item = Certificate>,
    identity: Option<Identity>,
) -> Result<Client> {
    crate::install_crypto();
    let mut builder = Client::builder()
        .no_proxy()
        .no_gzip()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only(roots);
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    Ok(builder.build()?)
}
