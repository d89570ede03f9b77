//! A Nacos made of answers: for faults, and for versions, that no real server here can show.
//!
//! It speaks Nacos' HTTP and gRPC as they were recorded from 2.2.4 and 3.0.3, over real connections, on loopback
//! ports of its own. It is for faults on the wire only: what a real server can show is shown with
//! the real one, whose pushes, health checks and lists this knows nothing of.
//!
//! ```no_run
//! use diolkos_testkit::nacos_stub::{Host, NacosStub, Version};
//!
//! # async fn test() -> anyhow::Result<()> {
//! let nacos = NacosStub::start(Version::V2).await?;
//! nacos.put("orders", &[Host::new("10.0.0.1", 8080)]);
//! nacos.faults(|faults| faults.drop_pushes = true);
//! nacos.put("orders", &[]); // nobody is told
//! # Ok(())
//! # }
//! ```

mod grpc;
mod http;
mod state;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::state::{Login, Name, Service, State, name};
use crate::lock;
use crate::ports::{self, Port};

/// What the stub speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP alone; nobody listens on the gRPC port.
    V1,
    /// As 2.2.4.
    V2,
    /// As 3.0.3: abilities are negotiated, names are watched, the old administration paths are gone.
    V3,
}

/// An instance as it is registered.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are Nacos' own")]
pub struct Host {
    pub ip: String,
    pub port: u16,
    pub weight: f64,
    pub healthy: bool,
    pub enabled: bool,
    pub ephemeral: bool,
    pub cluster: String,
    pub metadata: BTreeMap<String, String>,
}

impl Host {
    /// A healthy one that nobody has set up in any way.
    #[must_use]
    pub fn new(ip: &str, port: u16) -> Self {
        Self {
            ip: ip.to_owned(),
            port,
            weight: 1.0,
            healthy: true,
            enabled: true,
            ephemeral: true,
            cluster: "DEFAULT".to_owned(),
            metadata: BTreeMap::new(),
        }
    }

    /// One that fails its checks.
    #[must_use]
    pub fn unhealthy(self) -> Self {
        Self {
            healthy: false,
            ..self
        }
    }

    fn truth(&self, group: &str, service: &str) -> Value {
        json!({
            "ip": self.ip, "port": self.port, "weight": self.weight, "healthy": self.healthy,
            "enabled": self.enabled, "ephemeral": self.ephemeral, "clusterName": self.cluster,
            "serviceName": format!("{group}@@{service}"), "metadata": self.metadata,
            "instanceHeartBeatInterval": 5000, "instanceHeartBeatTimeOut": 15000,
            "ipDeleteTimeout": 30000,
        })
    }
}

/// What goes wrong, from now on, until it is taken back. Services are named `GROUP@@service`.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Changes of services are told to nobody.
    pub drop_pushes: bool,
    /// A push says what was true when it was due, so much later.
    pub delay_pushes: Duration,
    /// Each push comes so often once more, with the same id.
    pub repeat_pushes: usize,
    /// Lists lack these services, which are there if somebody asks for them.
    pub hidden: BTreeSet<String>,
    /// Questions about these services are answered with that error.
    pub refused: BTreeMap<String, u16>,
    /// Lists are answered with that error.
    pub refused_lists: Option<u16>,
    /// Requests of these types (gRPC) or to these paths (HTTP, without `/nacos`) are never answered. With
    /// `ConnectionSetupRequest` no connection gets ready; with `SetupAckRequest` nobody says that one is.
    pub silent: BTreeSet<String>,
    /// A connection is set up so long after it asked for that.
    pub late_setup: Duration,
    /// How long tokens are said to live.
    pub token_ttl: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            drop_pushes: false,
            delay_pushes: Duration::ZERO,
            repeat_pushes: 0,
            hidden: BTreeSet::new(),
            refused: BTreeMap::new(),
            refused_lists: None,
            silent: BTreeSet::new(),
            late_setup: Duration::ZERO,
            token_ttl: Duration::from_secs(18_000),
        }
    }
}

impl Faults {
    /// See [`Faults::silent`].
    pub fn silence(&mut self, what: &str) {
        self.silent.insert(what.to_owned());
    }

    /// See [`Faults::refused`].
    pub fn refuse(&mut self, service: &str, code: u16) {
        let (group, service) = name(service);
        self.refused.insert(format!("{group}@@{service}"), code);
    }

    /// See [`Faults::hidden`].
    pub fn hide(&mut self, service: &str) {
        let (group, service) = name(service);
        self.hidden.insert(format!("{group}@@{service}"));
    }
}

/// A request of a client, or its answer to a push.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The gRPC connection, from 1; 0 stands for HTTP.
    pub connection: u64,
    /// The type of a message of gRPC, the path of HTTP without `/nacos`.
    pub kind: String,
    /// The body, or the parameters.
    pub body: Value,
    /// What came beside the body.
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    fn new(connection: u64, kind: &str, body: Value, headers: BTreeMap<String, String>) -> Self {
        Self {
            connection,
            kind: kind.to_owned(),
            body,
            headers,
        }
    }
}

struct Inner {
    state: Mutex<State>,
    /// Counts the cuts: a connection ends when this changes.
    cuts: watch::Sender<u64>,
}

/// A running stub. It ends, with its connections, on drop.
pub struct NacosStub {
    shared: Arc<Inner>,
    http: Port,
    grpc: Port,
    servers: Vec<JoinHandle<()>>,
}

impl NacosStub {
    /// A stub that holds nothing and lets everybody in.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(version: Version) -> Result<Self> {
        let [one, other] = ports::free()?;
        // Clients come to the gRPC port by adding to the other one.
        let (http, grpc) = if one.number() < other.number() {
            (one, other)
        } else {
            (other, one)
        };
        let shared = Arc::new(Inner {
            state: Mutex::new(State::new(version)),
            cuts: watch::channel(0).0,
        });
        let mut servers = vec![tokio::spawn(http::serve(
            listen(&http).await?,
            shared.clone(),
        ))];
        if version != Version::V1 {
            let serve = grpc::serve(listen(&grpc).await?, shared.clone());
            servers.push(tokio::spawn(serve));
        }
        Ok(Self {
            shared,
            http,
            grpc,
            servers,
        })
    }

    /// The URL with the context path.
    pub fn url(&self) -> String {
        format!("http://{}/nacos", self.http.address())
    }

    /// What is added to the URL's port to come to the gRPC port.
    pub fn grpc_offset(&self) -> u16 {
        self.grpc.number() - self.http.number()
    }

    /// The HTTP port.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// The gRPC port.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Changes what goes wrong.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.shared.state).faults);
    }
}

/// What the registry holds. Services are named `GROUP@@service`, or `service` in `DEFAULT_GROUP`.
impl NacosStub {
    /// A service comes or changes, and who asked for it is told.
    pub fn put(&self, service: &str, hosts: &[Host]) {
        let name = name(service);
        let mut state = lock(&self.shared.state);
        let entry = state.services.entry(name.clone());
        let is_new = matches!(entry, std::collections::btree_map::Entry::Vacant(_));
        entry.or_default().hosts = hosts.to_vec();
        if is_new {
            state.name_changed(&name, "ADD_SERVICE");
        }
        state.push(&name);
    }

    /// A service goes, and who asked for it is told that it has no instances.
    pub fn remove(&self, service: &str) {
        let name = name(service);
        let mut state = lock(&self.shared.state);
        if state.services.remove(&name).is_some() {
            state.name_changed(&name, "DELETE_SERVICE");
        }
        state.push(&name);
    }

    /// All is forgotten, and nobody is told: as after a restart.
    pub fn forget(&self) -> Forgotten {
        let mut state = lock(&self.shared.state);
        Forgotten(std::mem::take(&mut state.services))
    }

    /// What was forgotten is there again, and nobody is told.
    pub fn remember(&self, forgotten: Forgotten) {
        lock(&self.shared.state).services = forgotten.0;
    }

    /// The protection threshold of a service is reached, or is not any more: of all its instances it is said that they
    /// are healthy.
    pub fn protect(&self, service: &str, protected: bool) {
        let name = name(service);
        let mut state = lock(&self.shared.state);
        let entry: &mut Service = state.services.entry(name.clone()).or_default();
        entry.protected = protected;
        state.push(&name);
    }

    /// A configuration item.
    pub fn put_config(&self, group: &str, data_id: &str, content: &str) {
        let key = (group.to_owned(), data_id.to_owned());
        let mut state = lock(&self.shared.state);
        state.configs.insert(key, content.to_owned());
    }

    /// The time that the next answer has, in milliseconds since 1970.
    pub fn clock(&self) -> i64 {
        lock(&self.shared.state).clock + 1
    }

    /// Sets the server's clock.
    pub fn set_clock(&self, time: i64) {
        lock(&self.shared.state).clock = time - 1;
    }

    /// Pushes something that need not be true, as of that time by the server's clock.
    pub fn push_lie(&self, service: &str, hosts: &[Host], time: i64) {
        let name: Name = name(service);
        let mut state = lock(&self.shared.state);
        let lie = Service {
            hosts: hosts.to_vec(),
            protected: false,
        };
        let truth = state.services.insert(name.clone(), lie);
        let info = state.info_at(&name, time);
        match truth {
            Some(truth) => state.services.insert(name.clone(), truth),
            None => state.services.remove(&name),
        };
        state.push_info(&name, &info);
    }

    /// When the next page of a list has been made, this service goes: all that are listed behind it move. Nobody
    /// is told.
    pub fn remove_after_next_page(&self, service: &str) {
        let name = name(service);
        lock(&self.shared.state).tear = Some(Box::new(move |state| {
            state.services.remove(&name);
        }));
    }
}

/// What a stub held. See [`NacosStub::forget`].
pub struct Forgotten(BTreeMap<Name, Service>);

/// Who may ask, and how connections end.
impl NacosStub {
    /// From now on only this user may ask, with a token.
    pub fn require_login(&self, username: &str, password: &str) {
        lock(&self.shared.state).login = Some(Login {
            username: username.to_owned(),
            password: password.to_owned(),
            tokens: BTreeSet::new(),
            count: 0,
        });
    }

    /// All tokens end.
    pub fn expire_tokens(&self) {
        if let Some(login) = &mut lock(&self.shared.state).login {
            login.tokens.clear();
        }
    }

    /// How often somebody logged in.
    pub fn logins(&self) -> usize {
        let state = lock(&self.shared.state);
        state.login.as_ref().map_or(0, |login| login.count)
    }

    /// Sends all clients away, as a server does that has too many, or that goes.
    pub fn reset_connections(&self) {
        self.send_all("ConnectResetRequest", &json!({"module": "internal"}));
    }

    /// Asks all clients whether they are there.
    pub fn detect_clients(&self) {
        self.send_all("ClientDetectionRequest", &json!({"module": "internal"}));
    }

    fn send_all(&self, kind: &str, body: &Value) {
        let mut state = lock(&self.shared.state);
        for id in state.links.keys().copied().collect::<Vec<_>>() {
            state.send(id, kind, body.clone());
        }
    }

    /// Ends the streams of pushes. The connections stay.
    pub fn close_streams(&self) {
        for link in lock(&self.shared.state).links.values_mut() {
            link.pushes = None;
        }
    }

    /// Breaks all gRPC connections.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// What was asked and said.
impl NacosStub {
    /// All requests so far, and all answers to pushes.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.state).asked.clone()
    }

    /// Forgets what was asked so far.
    pub fn forget_asked(&self) {
        lock(&self.shared.state).asked.clear();
    }

    /// The number of requests of that type or to that path so far.
    pub fn count(&self, kind: &str) -> usize {
        let state = lock(&self.shared.state);
        state.asked.iter().filter(|a| a.kind == kind).count()
    }

    /// The ids of all that the server asked of clients, in their order.
    pub fn pushed(&self) -> Vec<String> {
        lock(&self.shared.state).pushed.clone()
    }

    /// The ids of the server's requests that clients answered, in the order of the answers.
    pub fn acknowledged(&self) -> Vec<String> {
        lock(&self.shared.state).acknowledged.clone()
    }

    /// gRPC connections so far.
    pub fn connections(&self) -> u64 {
        lock(&self.shared.state).connections
    }

    /// The services that are subscribed now, over any connection, each once for each.
    pub fn subscribed(&self) -> Vec<String> {
        let state = lock(&self.shared.state);
        let all = state.links.values().flat_map(|link| &link.subscribed);
        let mut all: Vec<String> = all.map(|(g, s)| format!("{g}@@{s}")).collect();
        all.sort();
        all
    }
}

impl Drop for NacosStub {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

async fn listen(port: &Port) -> Result<TcpListener> {
    let address = port.address();
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}
