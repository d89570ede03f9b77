//! A Consul agent in server mode.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::home::Home;
use crate::pki::{Authority, TlsFiles, Usage};
use crate::ports::{self, Port};
use crate::process::{Process, Spec, with_free_ports};
use crate::programs::program;

const START: Duration = Duration::from_secs(60);
/// The token with all rights, when access control is on.
const BOOTSTRAP_TOKEN: &str = "8a2f4c3e-0d5b-4e6f-9c1a-7b3d2e1f0a9b";

/// How a Consul is to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    datacenter: String,
    persistent: bool,
    acl: bool,
    tls: bool,
    extra: Value,
}

impl Builder {
    /// The datacenter's name, by default `dc1`.
    #[must_use]
    pub fn datacenter(mut self, name: &str) -> Self {
        self.datacenter = name.to_owned();
        self
    }

    /// Keeps its state on disk, so that [`Consul::restart`] finds it again. It starts some seconds later than the
    /// default, a `-dev` agent, which forgets everything.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Access control with default policy `deny`; see [`Consul::token`] and [`Consul::create_token`].
    #[must_use]
    pub fn acl(mut self) -> Self {
        self.acl = true;
        self
    }

    /// HTTPS that asks for a client certificate, beside plain HTTP; see [`Consul::tls`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// More configuration (the form of Consul's JSON files), stronger than ours.
    #[must_use]
    pub fn config(mut self, extra: Value) -> Self {
        self.extra = extra;
        self
    }

    /// Starts the agent and waits until it has a leader and its own node in the catalogue.
    ///
    /// # Errors
    /// When the program is missing or the agent does not get ready; the error ends with the agent's log.
    pub async fn start(self) -> Result<Consul> {
        with_free_ports(async || Consul::launch(&self).await).await
    }
}

/// A running Consul. Dropping it ends the agent.
#[derive(Debug)]
pub struct Consul {
    // The agent ends before its folder goes.
    process: Process,
    client: Client,
    datacenter: String,
    token: Option<&'static str>,
    tls: Option<TlsFiles>,
    ports: Ports,
    home: Home,
}

#[derive(Debug)]
struct Ports {
    http: Port,
    https: Port,
    server: Port,
    serf_lan: Port,
    serf_wan: Port,
}

impl Consul {
    /// Starts a `-dev` agent for datacenter `dc1` without access control or TLS.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Options other than those of [`start`](Self::start).
    pub fn builder() -> Builder {
        Builder {
            datacenter: "dc1".to_owned(),
            persistent: false,
            acl: false,
            tls: false,
            extra: json!({}),
        }
    }

    async fn launch(options: &Builder) -> Result<Self> {
        let program = program("consul")?;
        let home = Home::new("consul")?;
        let [http, https, server, serf_lan, serf_wan] = ports::free()?;
        let ports = Ports {
            http,
            https,
            server,
            serf_lan,
            serf_wan,
        };
        let (agent_tls, tls) = if options.tls {
            let (agent, client) = sign(&home, "ca")?;
            (Some(agent), Some(client))
        } else {
            (None, None)
        };
        let config = configuration(options, &ports, agent_tls.as_ref());
        let spec = Spec::new("consul", program, home.log("consul"))
            .arg("agent")
            .args((!options.persistent).then_some("-dev"))
            .arg("-config-file")
            .arg(home.write("consul.json", config.to_string())?)
            .arg("-config-file")
            .arg(home.write("extra.json", options.extra.to_string())?);
        let spec = if options.persistent {
            spec.arg("-data-dir").arg(home.data().join("state"))
        } else {
            spec
        };
        let consul = Self {
            process: Process::start(spec)?,
            client: crate::http_client([], None)?,
            datacenter: options.datacenter.clone(),
            token: options.acl.then_some(BOOTSTRAP_TOKEN),
            tls,
            ports,
            home,
        };
        consul.ready().await?;
        Ok(consul)
    }

    async fn ready(&self) -> Result<()> {
        let registered = async || -> Result<()> {
            let nodes = self.get("/v1/catalog/service/consul").await?;
            ensure!(
                nodes.as_array().is_some_and(|a| !a.is_empty()),
                "the agent is not in its catalogue yet"
            );
            Ok(())
        };
        self.process.ready(START, registered).await
    }

    /// The base URL of plain HTTP, `http://127.0.0.1:PORT`.
    pub fn http_addr(&self) -> String {
        format!("http://{}", self.ports.http.address())
    }

    /// The base URL of HTTPS, `https://127.0.0.1:PORT`; it answers only after [`Builder::tls`].
    pub fn https_addr(&self) -> String {
        format!("https://{}", self.ports.https.address())
    }

    /// The port of plain HTTP.
    pub fn http_port(&self) -> u16 {
        self.ports.http.number()
    }

    /// The client's files for HTTPS, after [`Builder::tls`].
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// The token with all rights, after [`Builder::acl`].
    pub fn token(&self) -> Option<&str> {
        self.token
    }

    /// The datacenter's name.
    pub fn datacenter(&self) -> &str {
        &self.datacenter
    }

    /// GET of a path with its query, such as `/v1/health/service/orders?passing`.
    ///
    /// # Errors
    /// When Consul cannot be reached or answers with an error, which is in the message.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.request(Method::GET, path, None).await
    }

    /// PUT of a path with its query.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn put(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        self.request(Method::PUT, path, body).await
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.http_addr()));
        if let Some(token) = self.token {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let text = crate::body_of(request.send().await?).await?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("{path} answered no JSON: {text}"))
    }

    /// Registers a service with the agent (`PUT /v1/agent/service/register`), replacing its checks.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn register(&self, service: &Value) -> Result<()> {
        self.put(
            "/v1/agent/service/register?replace-existing-checks=true",
            Some(service),
        )
        .await
        .map(drop)
    }

    /// Removes a service from the agent.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn deregister(&self, service_id: &str) -> Result<()> {
        self.put(&format!("/v1/agent/service/deregister/{service_id}"), None)
            .await
            .map(drop)
    }

    /// Writes a node, service or check straight to the catalogue (`PUT /v1/catalog/register`).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn catalog_register(&self, entry: &Value) -> Result<()> {
        self.put("/v1/catalog/register", Some(entry))
            .await
            .map(drop)
    }

    /// Removes a node, service or check from the catalogue (`PUT /v1/catalog/deregister`).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn catalog_deregister(&self, entry: &Value) -> Result<()> {
        self.put("/v1/catalog/deregister", Some(entry))
            .await
            .map(drop)
    }

    /// Sets a TTL check to passing.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn pass(&self, check_id: &str) -> Result<()> {
        self.put(&format!("/v1/agent/check/pass/{check_id}"), None)
            .await
            .map(drop)
    }

    /// Sets a TTL check to warning.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn warn(&self, check_id: &str) -> Result<()> {
        self.put(&format!("/v1/agent/check/warn/{check_id}"), None)
            .await
            .map(drop)
    }

    /// Sets a TTL check to critical.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn fail(&self, check_id: &str) -> Result<()> {
        self.put(&format!("/v1/agent/check/fail/{check_id}"), None)
            .await
            .map(drop)
    }

    /// Puts a service into maintenance mode or takes it out.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn maintenance(&self, service_id: &str, on: bool) -> Result<()> {
        self.put(
            &format!("/v1/agent/service/maintenance/{service_id}?enable={on}"),
            None,
        )
        .await
        .map(drop)
    }

    /// Creates a policy with the rules (HCL, such as `service_prefix "" { policy = "read" }`) and a token that has
    /// it, and returns the token's secret.
    ///
    /// # Errors
    /// As [`get`](Self::get); also without [`Builder::acl`].
    pub async fn create_token(&self, policy: &str, rules: &str) -> Result<String> {
        self.put(
            "/v1/acl/policy",
            Some(&json!({"Name": policy, "Rules": rules})),
        )
        .await?;
        let token = self
            .put(
                "/v1/acl/token",
                Some(&json!({"Policies": [{"Name": policy}]})),
            )
            .await?;
        token["SecretID"]
            .as_str()
            .map(str::to_owned)
            .context("the new token has no SecretID")
    }

    /// Removes a token by its secret: whoever uses it is refused from now on.
    ///
    /// # Errors
    /// As [`get`](Self::get); also when there is no such token.
    pub async fn delete_token(&self, secret: &str) -> Result<()> {
        let tokens = self.get("/v1/acl/tokens").await?;
        let tokens = tokens.as_array().into_iter().flatten();
        let accessor = tokens
            .filter(|token| token["SecretID"] == secret)
            .find_map(|token| token["AccessorID"].as_str())
            .context("no such token")?;
        let path = format!("/v1/acl/token/{accessor}");
        self.request(Method::DELETE, &path, None).await.map(drop)
    }

    /// The agent gets a certificate of a new authority, and takes client certificates of that one, and of those
    /// before it as long as `trust_former`. Returns the client's files for the new authority; the former ones stay
    /// as they are. `name` is the new authority's and is not to be used twice. It holds for new connections.
    ///
    /// # Errors
    /// Without [`Builder::tls`]; as [`get`](Self::get).
    pub async fn rotate_tls(&self, name: &str, trust_former: bool) -> Result<TlsFiles> {
        ensure!(self.tls.is_some(), "this Consul speaks no TLS");
        let former = fs::read(self.home.data().join(AGENT_TRUST))?;
        let (agent, client) = sign(&self.home, name)?;
        if trust_former {
            let both = [fs::read(&agent.ca)?, former].concat();
            self.home.write(AGENT_TRUST, both)?;
        }
        self.put("/v1/agent/reload", None).await?;
        Ok(client)
    }

    /// Joins another datacenter over the WAN pool, and waits until each of the two answers for the other.
    ///
    /// # Errors
    /// When they do not find each other within 30 s.
    pub async fn join(&self, other: &Self) -> Result<()> {
        self.put(
            &format!("/v1/agent/join/{}?wan=1", other.ports.serf_wan.address()),
            None,
        )
        .await?;
        for (here, there) in [(self, other), (other, self)] {
            let path = format!("/v1/catalog/service/consul?dc={}", there.datacenter);
            here.process
                .ready(Duration::from_secs(30), async || here.get(&path).await)
                .await?;
        }
        Ok(())
    }

    /// The number of established TCP connections to the HTTP port, seen from Consul's side. Calls of this value's
    /// own methods do not stay connected, so between calls these are other clients' connections.
    ///
    /// # Errors
    /// When `/proc/net/tcp` cannot be read.
    pub fn connections(&self) -> Result<usize> {
        // Columns: slot, local address, remote address, state; addresses are hexadecimal, state 01 is ESTABLISHED.
        const ESTABLISHED: &str = "01";
        let table = fs::read_to_string("/proc/net/tcp").context("cannot read /proc/net/tcp")?;
        let port = format!(":{:04X}", self.http_port());
        let ours = |line: &&str| {
            let mut columns = line.split_whitespace().skip(1);
            columns.next().is_some_and(|local| local.ends_with(&port))
                && columns.nth(1) == Some(ESTABLISHED)
        };
        Ok(table.lines().filter(ours).count())
    }

    /// The agent's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGSTOP: connections stay open and nothing answers.
    ///
    /// # Errors
    /// When the agent has ended.
    pub fn stop_process(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT: the end of [`stop_process`](Self::stop_process).
    ///
    /// # Errors
    /// When the agent has ended.
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

    /// Kills the agent if it runs, starts it again on the same ports and waits until it is ready. Its state is kept
    /// after [`Builder::persistent`] only.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }
}

/// The authorities whose client certificates the agent takes, apart from those that the client trusts.
const AGENT_TRUST: &str = "agent-trust.crt";

/// The agent's files and the client's, signed by an authority of this name. The agent's are written over those of
/// an earlier one.
fn sign(home: &Home, authority: &str) -> Result<(TlsFiles, TlsFiles)> {
    let client = format!("{authority}-client");
    let authority = Authority::named(home, authority)?;
    let mut agent = authority.sign(
        "agent",
        ("server.consul", None),
        &["127.0.0.1", "localhost"],
        Usage::Server,
    )?;
    agent.ca = home.write(AGENT_TRUST, fs::read(authority.cert())?)?;
    let client = authority.sign(&client, ("client", None), &[], Usage::Client)?;
    Ok((agent, client))
}

fn configuration(options: &Builder, ports: &Ports, tls: Option<&TlsFiles>) -> Value {
    let numbers: BTreeMap<&str, i32> = [
        ("http", i32::from(ports.http.number())),
        (
            "https",
            if tls.is_some() {
                i32::from(ports.https.number())
            } else {
                -1
            },
        ),
        ("server", ports.server.number().into()),
        ("serf_lan", ports.serf_lan.number().into()),
        ("serf_wan", ports.serf_wan.number().into()),
        ("dns", -1),
        ("grpc", -1),
        ("grpc_tls", -1),
    ]
    .into();
    let mut config = json!({
        "datacenter": options.datacenter,
        "primary_datacenter": options.datacenter,
        "node_name": "n1",
        "server": true,
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "disable_update_check": true,
        "ports": numbers,
    });
    if options.persistent {
        config["bootstrap_expect"] = json!(1);
        config["performance"] = json!({"raft_multiplier": 1});
    }
    if options.acl {
        config["acl"] = json!({
            "enabled": true,
            "default_policy": "deny",
            "tokens": {"initial_management": BOOTSTRAP_TOKEN, "agent": BOOTSTRAP_TOKEN},
        });
    }
    if let Some(files) = tls {
        // Under `https`, not `defaults`: a -dev agent does not start with the latter.
        config["tls"] = json!({"https": {
            "ca_file": files.ca, "cert_file": files.cert, "key_file": files.key, "verify_incoming": true,
        }});
    }
    config
}
