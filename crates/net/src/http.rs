//! An HTTP client for one service that has several addresses.

use std::{
    error::Error as StdError,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Method, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use tokio::time::Instant;

use crate::{ReloadingTls, TlsConfig, TlsError};

/// How long a TCP and TLS handshake may take before the next address is tried.
const CONNECT: Duration = Duration::from_secs(3);
/// A silent connection is probed after this time, and given up after three lost probes: a peer that
/// vanished without a word is noticed long before the deadline of a long poll.
const PROBE: Duration = Duration::from_secs(10);

/// What a client connects to.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Base URLs (`http://…` or `https://…`, a path before all paths is allowed), the preferred one first.
    pub addresses: Vec<String>,
    /// For `https` addresses.
    pub tls: TlsConfig,
    /// An answer larger than this is an error. In bytes.
    pub max_body: usize,
    /// Connections that are kept for later, per address.
    pub max_idle: usize,
}

impl HttpConfig {
    /// The usual limits: 64 MiB an answer, 16 idle connections.
    #[must_use]
    pub fn new(addresses: Vec<String>, tls: TlsConfig) -> Self {
        Self {
            addresses,
            tls,
            max_body: 64 << 20,
            max_idle: 16,
        }
    }
}

/// A request, before an address is chosen.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: Vec<String>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Option<Bytes>,
    deadline: Duration,
}

impl Request {
    /// A request for the path of these segments, each of which is percent-encoded. The deadline is
    /// 20 seconds unless set.
    #[must_use]
    pub fn new<'a>(method: Method, path: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            method,
            path: path.into_iter().map(str::to_owned).collect(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            deadline: Duration::from_secs(20),
        }
    }

    /// A `GET`.
    #[must_use]
    pub fn get<'a>(path: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, key: &str, value: impl Into<String>) -> Self {
        self.query.push((key.to_owned(), value.into()));
        self
    }

    /// Sets a header. Mark a secret value as sensitive.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the body. Its type goes into a header.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets how long everything together may take, from connecting to the last byte.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// One of the addresses of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressId(usize);

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The address that answered.
    pub from: AddressId,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The addresses or the TLS set-up cannot work.
    #[error("{0}")]
    Config(String),
    /// No address can be connected to; of several, the last one tried.
    #[error("cannot connect to {address}: {problem}")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        problem: String,
    },
    /// The connection broke.
    #[error("the connection to {address} broke: {problem}")]
    Broken {
        /// The address.
        address: String,
        /// Why.
        problem: String,
    },
    /// The deadline passed.
    #[error("no answer from {address} within {} s", after.as_secs_f32())]
    Timeout {
        /// The address.
        address: String,
        /// The deadline.
        after: Duration,
    },
    /// The answer is larger than the limit.
    #[error("the answer of {address} to {path} is larger than {limit} bytes")]
    TooLarge {
        /// The address.
        address: String,
        /// The path that was asked for.
        path: String,
        /// The limit in bytes.
        limit: usize,
    },
}

impl From<TlsError> for HttpError {
    fn from(error: TlsError) -> Self {
        Self::Config(error.to_string())
    }
}

/// An HTTP client over several addresses of one service. Cheap to clone.
///
/// It stays with the address that works. When one cannot be connected to, the others are tried at
/// once; when a connection breaks or times out, or the caller says [`HttpClient::fail_over`], the
/// *next request* goes elsewhere: what the lost request did is unknown, so it is not repeated.
///
/// No redirects are followed and no proxy is taken from the environment: credentials go to the
/// configured addresses only.
#[derive(Clone, Debug)]
pub struct HttpClient(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    addresses: Vec<Url>,
    /// The addresses as requests write them: with the TLS server name as host, if one is set.
    targets: Vec<Url>,
    max_body: usize,
    max_idle: usize,
    /// `None` if no address is `https`.
    tls: Option<ReloadingTls>,
    /// Whether a client certificate is shown to `https` addresses.
    certified: bool,
    /// Whether any address ever answered.
    answered: AtomicBool,
    clients: Mutex<Clients>,
    current: AtomicUsize,
    requests: AtomicU64,
    in_flight: AtomicUsize,
}

/// One client for each address, made for one generation of the TLS files.
#[derive(Debug)]
struct Clients {
    generation: u64,
    by_address: Vec<Client>,
}

impl HttpClient {
    /// Checks the addresses and reads the TLS files. Connects to nothing.
    ///
    /// # Errors
    /// [`HttpError::Config`] with what to change.
    pub fn new(config: HttpConfig) -> Result<Self, HttpError> {
        let HttpConfig {
            addresses,
            tls,
            max_body,
            max_idle,
        } = config;
        if addresses.is_empty() {
            return Err(HttpError::Config("there is no address".into()));
        }
        let addresses = addresses
            .iter()
            .map(|address| parse_address(address))
            .collect::<Result<Vec<_>, _>>()?;
        let targets = addresses
            .iter()
            .map(|address| target(address, tls.server_name.as_deref()))
            .collect::<Result<Vec<_>, _>>()?;
        let certified = tls.cert_file.is_some();
        let secure = addresses.iter().any(|address| address.scheme() == "https");
        let tls = secure
            .then(|| ReloadingTls::new(tls, &["h2", "http/1.1"]))
            .transpose()?;
        let mut shared = Shared {
            addresses,
            targets,
            max_body,
            max_idle,
            tls,
            certified,
            answered: AtomicBool::new(false),
            clients: Mutex::new(Clients {
                generation: 0,
                by_address: Vec::new(),
            }),
            current: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
        };
        let by_address = shared.build_clients()?.1;
        shared.clients = Mutex::new(Clients {
            generation: 0,
            by_address,
        });
        Ok(Self(Arc::new(shared)))
    }

    /// The address that the next request goes to.
    #[must_use]
    pub fn address(&self) -> &str {
        self.name(self.current())
    }

    /// The text of an address.
    #[must_use]
    pub fn name(&self, id: AddressId) -> &str {
        self.0.addresses[id.0].as_str().trim_end_matches('/')
    }

    /// Requests sent so far, over all addresses.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Requests that wait for their answer. Over HTTP/1.1 each holds a connection.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// Later requests go to the address after `from`, unless they already go elsewhere.
    pub fn fail_over(&self, from: AddressId) {
        let next = self.after(from);
        if next == from {
            return;
        }
        let moved =
            self.0
                .current
                .compare_exchange(from.0, next.0, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            tracing::info!(
                from = self.name(from),
                to = self.name(next),
                "going over to the next address"
            );
        }
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// See [`HttpError`]. A status such as 500 is an answer, not an error.
    pub async fn send(&self, request: &Request) -> Result<Answer, HttpError> {
        let end = Instant::now() + request.deadline;
        let first = self.current();
        let mut id = first;
        loop {
            let answer = tokio::time::timeout_at(end, self.send_to(id, request))
                .await
                .unwrap_or_else(|_| {
                    Err(HttpError::Timeout {
                        address: self.name(id).to_owned(),
                        after: request.deadline,
                    })
                });
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match &error {
                HttpError::Connect { .. } => self.fail_over(id),
                HttpError::Broken { .. } | HttpError::Timeout { .. } => {
                    self.fail_over(id);
                    return Err(error);
                }
                HttpError::Config(_) | HttpError::TooLarge { .. } => return Err(error),
            }
            id = self.after(id);
            if id == first {
                return Err(error);
            }
        }
    }

    fn current(&self) -> AddressId {
        AddressId(self.0.current.load(Ordering::Relaxed))
    }

    fn after(&self, id: AddressId) -> AddressId {
        AddressId((id.0 + 1) % self.0.addresses.len())
    }

    async fn send_to(&self, id: AddressId, request: &Request) -> Result<Answer, HttpError> {
        let client = self.0.client(id)?;
        let url = self.0.url(id, request);
        let mut builder = client
            .request(request.method.clone(), url)
            .headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let _counted = InFlight::start(&self.0);
        let mut response = builder.send().await.map_err(|e| self.error(id, &e))?;
        self.0.answered.store(true, Ordering::Relaxed);
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.error(id, &e))? {
            if body.len() + chunk.len() > self.0.max_body {
                return Err(HttpError::TooLarge {
                    address: self.name(id).to_owned(),
                    path: format!("/{}", request.path.join("/")),
                    limit: self.0.max_body,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers,
            body: body.freeze(),
            from: id,
        })
    }

    fn error(&self, id: AddressId, error: &reqwest::Error) -> HttpError {
        let address = self.name(id).to_owned();
        let problem = root_cause(error);
        if error.is_connect() {
            return HttpError::Connect { address, problem };
        }
        // In TLS 1.3 a server refuses a client after the handshake, and closes before its alert is
        // read as often as not.
        let uncertified = address.starts_with("https:") && !self.0.certified;
        let problem = if uncertified && !self.0.answered.load(Ordering::Relaxed) {
            format!("{problem}; perhaps it asks for a client certificate, and none is configured")
        } else {
            problem
        };
        HttpError::Broken { address, problem }
    }
}

impl Shared {
    /// The client for an address; all are made anew after the TLS files changed.
    fn client(&self, id: AddressId) -> Result<Client, HttpError> {
        let generation = self.tls.as_ref().map_or(0, |tls| tls.current().1);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.generation != generation {
            let (generation, by_address) = self.build_clients()?;
            *clients = Clients {
                generation,
                by_address,
            };
        }
        Ok(clients.by_address[id.0].clone())
    }

    fn build_clients(&self) -> Result<(u64, Vec<Client>), HttpError> {
        let (tls, generation) = match &self.tls {
            Some(tls) => {
                let (config, generation) = tls.current();
                (rustls::ClientConfig::clone(&config), generation)
            }
            None => (crate::tls::without_roots()?, 0),
        };
        let clients = std::iter::zip(&self.addresses, &self.targets)
            .map(|(address, target)| self.build_client(address, target, tls.clone()))
            .collect::<Result<_, _>>()?;
        Ok((generation, clients))
    }

    fn build_client(
        &self,
        address: &Url,
        target: &Url,
        tls: rustls::ClientConfig,
    ) -> Result<Client, HttpError> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(redirect::Policy::none())
            // Registries are near: compression costs both sides more than it saves.
            .no_gzip()
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(self.max_idle)
            .tcp_nodelay(true)
            .tcp_keepalive(PROBE)
            .tcp_keepalive_interval(PROBE / 2)
            .tcp_keepalive_retries(3)
            .http2_keep_alive_interval(PROBE)
            .http2_keep_alive_timeout(PROBE);
        if address.host() != target.host() {
            builder = builder.dns_resolver(Fixed::new(address));
        }
        builder
            .build()
            .map_err(|error| HttpError::Config(root_cause(&error)))
    }

    fn url(&self, id: AddressId, request: &Request) -> Url {
        let mut url = self.targets[id.0].clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        url
    }
}

/// Counts a request, and that it is under way until dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn start(shared: &'a Shared) -> Self {
        shared.requests.fetch_add(1, Ordering::Relaxed);
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(&shared.in_flight)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Resolves every name to the host of one address. With it a URL can carry the TLS server name, so
/// that name indication and verification both use it, while the connection goes to the address.
struct Fixed {
    host: String,
}

impl Fixed {
    fn new(address: &Url) -> Arc<Self> {
        let host = address.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Arc::new(Self {
            host: bare.to_owned(),
        })
    }
}

impl Resolve for Fixed {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            // The port comes from the URL.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn parse_address(text: &str) -> Result<Url, HttpError> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else {
        return Err(HttpError::Config(format!(
            "`{text}` is not an address: write http://HOST:PORT or https://HOST:PORT"
        )));
    };
    if !url.username().is_empty() || url.password().is_some() {
        // The text is not repeated: it holds the password.
        return Err(HttpError::Config(
            "an address must not hold a user or password: name a credential file".into(),
        ));
    }
    Ok(url)
}

/// The address with the TLS server name, if one is set, in the place of its host.
fn target(address: &Url, server_name: Option<&str>) -> Result<Url, HttpError> {
    let mut url = address.clone();
    let Some(name) = server_name.filter(|_| url.scheme() == "https") else {
        return Ok(url);
    };
    let replaced = url.set_host(Some(name)).is_ok() && url.domain().is_some();
    replaced
        .then_some(url)
        .ok_or_else(|| HttpError::Config(format!("the TLS server name `{name}` is not a DNS name")))
}

/// The innermost message. Those around it only say that a request failed, and repeat its long URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    if text.is_empty() {
        text = error.to_string();
    }
    text
}

#[cfg(test)]
mod tests;
