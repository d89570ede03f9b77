//! Nacos: a server, Nacos' own client, and two proxies between both.
//!
//! The server opens ports on all addresses: it runs inside of [`netns::isolated`] only. There are no namespaces to
//! be made: any name will do, and tests that share a server take one each.

mod admin;
mod door;
mod writer;

pub use door::NacosDoor;
pub use writer::{NacosClient, NacosInstance, NacosService};

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::home::Home;
use crate::java::Class;
use crate::netns;
use crate::process::Process;
use crate::programs::data;

const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);
const JARS: &str = "nacos/server";
/// The gRPC port is the HTTP port and this.
const GRPC_OFFSET: u16 = 1000;
/// The user that each server has from the start.
pub const USER: &str = "nacos";
/// That user's password.
pub const PASSWORD: &str = "nacos";
/// A header by which servers know each other, and which may do anything; the test bed's `application.properties` has
/// it, too.
const IDENTITY: (&str, &str) = ("serverIdentity", "diolkos");

/// How a Nacos is to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    auth: bool,
    properties: Vec<(String, String)>,
}

impl Builder {
    /// Asks everybody for a user; see [`USER`] and [`Nacos::add_reader`].
    #[must_use]
    pub fn auth(mut self) -> Self {
        self.auth = true;
        self.property("nacos.core.auth.enabled", "true")
    }

    /// How long a token holds: whole seconds, by default five hours.
    #[must_use]
    pub fn token_life(self, life: Duration) -> Self {
        let seconds = life.as_secs().to_string();
        self.property(
            "nacos.core.auth.plugin.nacos.token.expire.seconds",
            &seconds,
        )
    }

    /// One more line of its `application.properties`.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server and waits until it takes registrations, persistent ones too.
    ///
    /// # Errors
    /// Outside of [`netns::isolated`]; when Java or the jars are missing or the server does not get ready; the error
    /// ends with its log.
    pub async fn start(self) -> Result<Nacos> {
        ensure!(
            netns::is_inside(),
            "Nacos opens ports on all addresses: start it inside of netns::isolated"
        );
        let server = Nacos::launch(&self, next_port())?;
        server.ready().await?;
        Ok(server)
    }
}

/// A port that no other server of this process has, with those that belong to it. All lie below [`crate::ports`] and
/// nobody else is in the namespace.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(8848);
    NEXT.fetch_add(10, Ordering::Relaxed)
}

/// To make a database costs a server more time than to open one.
fn copy_database(home: &Path) -> Result<()> {
    let to = home.join("data");
    fs::create_dir(&to)?;
    let copied = Command::new("cp")
        .arg("-r")
        .args([data(JARS)?.join("derby-data"), to])
        .status()
        .context("cannot start cp")?;
    ensure!(copied.success(), "the database cannot be copied");
    Ok(())
}

/// A running Nacos server. Dropping it ends it. Persistent instances, configurations and users are kept over
/// [`restart`](Self::restart).
#[derive(Debug)]
pub struct Nacos {
    // The server ends before its folder goes.
    process: Process,
    port: u16,
    auth: bool,
    http: reqwest::Client,
    _home: Home,
}

impl Nacos {
    /// Starts a server that asks nobody who they are.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Options other than those of [`start`](Self::start).
    pub fn builder() -> Builder {
        Builder {
            auth: false,
            properties: Vec::new(),
        }
    }

    fn launch(options: &Builder, port: u16) -> Result<Self> {
        let home = Home::new("nacos")?;
        let folder = home.data();
        // It watches this one for changes.
        fs::create_dir(folder.join("conf"))?;
        copy_database(&folder)?;
        let folder = folder.display();
        let class = Class {
            jars: JARS,
            main: "com.alibaba.nacos.Nacos",
            heap: 512,
        };
        let opens = ["io", "lang", "net", "util"]
            .map(|package| format!("--add-opens=java.base/java.{package}=ALL-UNNAMED"));
        let archive = data(JARS)?.join("classes.jsa");
        let machine = [
            format!("-XX:SharedArchiveFile={}", archive.display()),
            "-Dnacos.standalone=true".to_owned(),
            "-Dnacos.server.ip=127.0.0.1".to_owned(),
            "-Dlogging.config=classpath:logback.xml".to_owned(),
            format!("-Dnacos.home={folder}"),
            format!("-Duser.home={folder}"),
            format!("-Dderby.stream.error.file={folder}/derby.log"),
        ];
        let machine: Vec<String> = opens.into_iter().chain(machine).collect();
        let properties = options.properties.iter().map(|(k, v)| format!("--{k}={v}"));
        let spec = class
            .spec("nacos", &machine, home.log("nacos"))?
            .arg(format!("--server.port={port}"))
            .arg(format!("--server.tomcat.basedir={folder}"))
            .args(properties);
        Ok(Self {
            process: Process::start(spec)?,
            port,
            auth: options.auth,
            http: crate::http_client([], None)?,
            _home: home,
        })
    }

    async fn ready(&self) -> Result<()> {
        let serves = async || {
            let metrics = self.get("/v1/ns/operator/metrics", &[]).await?;
            ensure!(metrics.contains(r#""status":"UP""#), "{metrics}");
            anyhow::Ok(())
        };
        self.process.ready(START, serves).await
    }

    /// `127.0.0.1:PORT`, as Nacos' own clients are told it.
    pub fn address(&self) -> String {
        self.http_address().to_string()
    }

    /// Where HTTP is answered.
    pub fn http_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where gRPC is answered.
    pub fn grpc_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.grpc_port()).into()
    }

    /// The base URL of the HTTP API, `http://127.0.0.1:PORT/nacos`.
    pub fn http_url(&self) -> String {
        format!("http://{}/nacos", self.address())
    }

    /// The port of gRPC: that of HTTP and 1000.
    pub fn grpc_port(&self) -> u16 {
        self.port + GRPC_OFFSET
    }

    /// Nacos' own client in a process of its own; with [`Builder::auth`] it is [`USER`].
    ///
    /// # Errors
    /// When Java or the jars are missing or it does not start.
    pub async fn client(&self) -> Result<NacosClient> {
        let user = self.auth.then_some((USER, PASSWORD));
        NacosClient::start(&self.address(), user).await
    }

    /// Two proxies in front of this server.
    ///
    /// # Errors
    /// When no ports are free.
    pub async fn door(&self) -> Result<NacosDoor> {
        NacosDoor::start(self).await
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

    /// SIGKILL: connections are reset, and the ports refuse until [`restart`](Self::restart).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// When it does not end within 20 s.
    pub async fn stop(&self) -> Result<()> {
        self.process.terminate()?;
        self.process.ended(STOP).await.context("it does not stop")
    }

    /// Kills the server if it runs, starts it again on the same ports with the same data and waits until it serves.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn restart(&self) -> Result<()> {
        self.start_again()?;
        self.ready().await
    }

    /// As [`restart`](Self::restart), but does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&self) -> Result<()> {
        self.process.restart()
    }
}
