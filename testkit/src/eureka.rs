//! Eureka: Spring Cloud's server, alone or with peers, and Netflix' own client.

mod client;

pub use client::{EurekaClient, Registration};

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::home::Home;
use crate::java::Class;
use crate::pki::{Authority, TlsFiles, Usage};
use crate::ports::{self, Port};
use crate::process::{Process, Spec, with_free_ports};
use crate::programs::data;

const START: Duration = Duration::from_secs(90);
/// Where `testbed/setup` leaves the jars.
const JARS: &str = "eureka";

/// How a Eureka is to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    cache: Duration,
    eviction: Duration,
    self_preservation: bool,
    delta: bool,
    closed: Option<Duration>,
    user: Option<(String, String)>,
    tls: bool,
    context: String,
    options: Vec<String>,
}

impl Builder {
    /// How old the server's answers may be (`response-cache-update-interval-ms`), by default 200 ms. Eureka's own
    /// default is 30 s.
    #[must_use]
    pub fn response_cache(mut self, interval: Duration) -> Self {
        self.cache = interval;
        self
    }

    /// How often instances with expired leases are removed, by default each second.
    #[must_use]
    pub fn eviction(mut self, interval: Duration) -> Self {
        self.eviction = interval;
        self
    }

    /// Removes nothing while more than 15 % of the renewals are missing. Off by default.
    #[must_use]
    pub fn self_preservation(mut self) -> Self {
        self.self_preservation = true;
        self
    }

    /// Refuses requests for changes with status 403 (`disable-delta`).
    #[must_use]
    pub fn without_delta(mut self) -> Self {
        self.delta = false;
        self
    }

    /// After each start, answers reads with status 403 for so long, as a server does that got no instances from a
    /// peer (`wait-time-in-ms-when-sync-empty`).
    #[must_use]
    pub fn closed_at_first(mut self, time: Duration) -> Self {
        self.closed = Some(time);
        self
    }

    /// Asks for this user (basic authentication), whom this value's own calls name.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// HTTPS that asks for a client certificate, and no plain HTTP; see [`Eureka::tls`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// What stands before `/eureka` in paths, such as `/registry`.
    #[must_use]
    pub fn context_path(mut self, path: &str) -> Self {
        self.context = path.to_owned();
        self
    }

    /// One more property of the server, stronger than ours: `eureka.server.batch-replication`, `true`.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.options.push(format!("--{name}={value}"));
        self
    }

    /// Starts a server that knows no other and waits until it answers.
    ///
    /// # Errors
    /// When Java or the jars are missing or the server does not get ready; the error ends with its log.
    pub async fn start(self) -> Result<Eureka> {
        with_free_ports(async || {
            let server = Eureka::launch(&self, ports::port()?, &[])?;
            server.ready().await?;
            Ok(server)
        })
        .await
    }

    /// Starts so many servers that pass on to each other what they are told, and waits until all answer.
    ///
    /// # Errors
    /// As [`start`](Self::start); not with [`tls`](Self::tls) or [`user`](Self::user).
    pub async fn peers(self, count: usize) -> Result<Vec<Eureka>> {
        ensure!(
            !self.tls && self.user.is_none(),
            "peers speak plain HTTP and name no user"
        );
        with_free_ports(async || {
            let ports: Vec<Port> = (0..count).map(|_| ports::port()).collect::<Result<_>>()?;
            let urls: Vec<String> = ports.iter().map(|port| self.url(port)).collect();
            let mut servers = Vec::new();
            for port in ports {
                let own = self.url(&port);
                let others: Vec<String> = urls.iter().filter(|u| **u != own).cloned().collect();
                servers.push(Eureka::launch(&self, port, &others)?);
            }
            for server in &servers {
                server.ready().await?;
            }
            Ok(servers)
        })
        .await
    }

    fn url(&self, port: &Port) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}/eureka", port.address(), self.context)
    }

    /// What the server is told of its configuration, but for TLS.
    fn arguments(&self, port: &Port, peers: &[String]) -> Vec<String> {
        let server = |name: &str, value: String| format!("--eureka.server.{name}={value}");
        // A server takes a peer with its own host name for itself, and there must be one peer.
        let host = format!("eureka-{port}");
        let urls: Vec<String> = [format!("http://{host}/eureka")]
            .into_iter()
            .chain(peers.iter().cloned())
            .collect();
        let mut arguments = vec![
            format!("--server.port={port}"),
            format!("--server.servlet.context-path={}", self.context),
            format!("--eureka.instance.hostname={host}"),
            format!("--eureka.client.service-url.defaultZone={}", urls.join(",")),
            server("response-cache-update-interval-ms", millis(self.cache)),
            // A change while the server makes an answer may be missing in that for so long; else 180 s.
            server("response-cache-auto-expiration-in-seconds", "1".to_owned()),
            server("eviction-interval-timer-in-ms", millis(self.eviction)),
            server(
                "enable-self-preservation",
                self.self_preservation.to_string(),
            ),
            server("disable-delta", (!self.delta).to_string()),
            server(
                "wait-time-in-ms-when-sync-empty",
                millis(self.closed.unwrap_or_default()),
            ),
        ];
        if self.closed.is_some() {
            arguments
                .push("--eureka.instance.registry.default-open-for-traffic-count=0".to_owned());
        }
        if let Some((name, password)) = &self.user {
            arguments.push(format!("--testbed.user={name}"));
            arguments.push(format!("--testbed.password={password}"));
        }
        arguments.extend(self.options.iter().cloned());
        arguments
    }
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

/// A running Eureka server. Dropping it ends it. It keeps nothing over a [`restart`](Self::restart).
#[derive(Debug)]
pub struct Eureka {
    // The server ends before its folder goes.
    process: Process,
    http: Client,
    url: String,
    user: Option<(String, String)>,
    tls: Option<TlsFiles>,
    port: Port,
    _home: Home,
}

impl Eureka {
    /// Starts a server that knows no other, with short intervals.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Options other than those of [`start`](Self::start).
    pub fn builder() -> Builder {
        Builder {
            cache: Duration::from_millis(200),
            eviction: Duration::from_secs(1),
            self_preservation: false,
            delta: true,
            closed: None,
            user: None,
            tls: false,
            context: String::new(),
            options: Vec::new(),
        }
    }

    fn launch(options: &Builder, port: Port, peers: &[String]) -> Result<Self> {
        let home = Home::new("eureka")?;
        let mut arguments = options.arguments(&port, peers);
        let (http, tls) = if options.tls {
            let (server, client) = sign(&home)?;
            arguments.extend(tls_arguments(&server));
            let (ca, identity) = client.load()?;
            (crate::http_client([ca], Some(identity))?, Some(client))
        } else {
            (crate::http_client([], None)?, None)
        };
        let spec = spec("eureka", "Server", 160, home.log("eureka"))?.args(arguments);
        Ok(Self {
            process: Process::start(spec)?,
            http,
            url: options.url(&port),
            user: options.user.clone(),
            tls,
            port,
            _home: home,
        })
    }

    async fn ready(&self) -> Result<()> {
        let answers = async || -> Result<()> {
            let status = self.request(Method::GET, "/apps").send().await?.status();
            // It answers so as long as it is told to be closed.
            let closed = status == StatusCode::FORBIDDEN;
            ensure!(closed || status.is_success(), "it answers {status}");
            Ok(())
        };
        self.process.ready(START, answers).await
    }

    /// The base URL with the context path: `http://127.0.0.1:PORT/eureka`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The base URL without any path: `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.port.address())
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The client's files for TLS, after [`Builder::tls`].
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// GET of a path under [`url`](Self::url), such as `/apps/delta`, as JSON.
    ///
    /// # Errors
    /// When Eureka cannot be reached or answers with an error, which is in the message.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.request(Method::GET, path).send().await?;
        let text = crate::body_of(answer).await?;
        serde_json::from_str(&text).with_context(|| format!("{path} answered no JSON: {text}"))
    }

    /// Registers an instance, such as one of [`instance`], or replaces it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn register(&self, app: &str, instance: &Value) -> Result<()> {
        let path = format!("/apps/{app}");
        let request = self.request(Method::POST, &path);
        send(request.json(&json!({"instance": instance}))).await
    }

    /// Renews an instance's lease.
    ///
    /// # Errors
    /// As [`get`](Self::get); also when there is no such instance.
    pub async fn renew(&self, app: &str, id: &str) -> Result<()> {
        send(self.request(Method::PUT, &format!("/apps/{app}/{id}"))).await
    }

    /// Removes an instance.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub async fn deregister(&self, app: &str, id: &str) -> Result<()> {
        send(self.request(Method::DELETE, &format!("/apps/{app}/{id}"))).await
    }

    /// Sets a status (`OUT_OF_SERVICE`) that is stronger than what the instance itself says.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub async fn set_status(&self, app: &str, id: &str, status: &str) -> Result<()> {
        let path = format!("/apps/{app}/{id}/status?value={status}");
        send(self.request(Method::PUT, &path)).await
    }

    /// Takes back [`set_status`](Self::set_status); until the instance says something the status is `UP`.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub async fn remove_status(&self, app: &str, id: &str) -> Result<()> {
        let path = format!("/apps/{app}/{id}/status?value=UP");
        send(self.request(Method::DELETE, &path)).await
    }

    /// Sets one value of an instance's metadata.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub async fn set_metadata(&self, app: &str, id: &str, key: &str, value: &str) -> Result<()> {
        let path = format!("/apps/{app}/{id}/metadata?{key}={value}");
        send(self.request(Method::PUT, &path)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("Accept", "application/json");
        match &self.user {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGSTOP: connections stay open and nothing answers.
    ///
    /// # Errors
    /// When the server has ended.
    pub fn stop_process(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT: the end of [`stop_process`](Self::stop_process).
    ///
    /// # Errors
    /// When the server has ended.
    pub fn continue_process(&self) -> Result<()> {
        self.process.resume()
    }

    /// SIGKILL: connections are reset, and the port refuses until [`restart`](Self::restart).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Kills the server if it runs, starts it again on the same port and waits until it answers. It knows no
    /// instances.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }
}

/// An instance that is `UP`, as clients register it, with id `IP:APP:PORT` and a lease that outlives the test.
/// Everything in it may be changed before it is registered.
pub fn instance(app: &str, ip: &str, port: u16) -> Value {
    json!({
        "instanceId": format!("{ip}:{app}:{port}"),
        "hostName": ip,
        "app": app.to_uppercase(),
        "ipAddr": ip,
        "vipAddress": app,
        "secureVipAddress": app,
        "status": "UP",
        "port": {"$": port, "@enabled": "true"},
        "securePort": {"$": 443, "@enabled": "false"},
        "dataCenterInfo": {
            "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
            "name": "MyOwn",
        },
        "leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": 3600},
        "metadata": {},
    })
}

async fn send(request: RequestBuilder) -> Result<()> {
    crate::body_of(request.send().await?).await.map(drop)
}

/// The command of one of the programs.
fn spec(name: &str, main: &str, heap: u32, log: PathBuf) -> Result<Spec> {
    let class = Class {
        jars: JARS,
        main: &format!("io.diolkos.testbed.eureka.{main}"),
        heap,
    };
    // The classes as they lie in memory: a start takes half the time.
    let classes = data(JARS)?.join("classes.jsa");
    let option = format!("-XX:SharedArchiveFile={}", classes.display());
    class.spec(name, &[option], log)
}

/// The server's files and the client's.
fn sign(home: &Home) -> Result<(TlsFiles, TlsFiles)> {
    let authority = Authority::new(home)?;
    let names = ["127.0.0.1", "localhost"];
    Ok((
        authority.sign("server", ("eureka", None), &names, Usage::Server)?,
        authority.sign("client", ("client", None), &[], Usage::Client)?,
    ))
}

fn tls_arguments(files: &TlsFiles) -> [String; 4] {
    let file =
        |name: &str, path: &std::path::Path| format!("--server.ssl.{name}=file:{}", path.display());
    [
        file("certificate", &files.cert),
        file("certificate-private-key", &files.key),
        file("trust-certificate", &files.ca),
        "--server.ssl.client-auth=need".to_owned(),
    ]
}
