//! Netflix' own client in a process of its own.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Client;

use super::spec;
use crate::home::Home;
use crate::ports::{self, Port};
use crate::process::{Process, with_free_ports};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// What a client registers; by default an instance that is `UP` on port 8080, with a lease of 3 s that it renews
/// each second.
#[derive(Debug, Clone)]
pub struct Registration {
    options: Vec<(String, String)>,
}

impl Registration {
    /// The instance's address (by default 127.0.0.1), which is its host name too.
    #[must_use]
    pub fn ip(self, ip: Ipv4Addr) -> Self {
        self.set("ip", &ip.to_string())
    }

    /// The port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.set("port", &port.to_string())
    }

    /// A secure port beside the plain one.
    #[must_use]
    pub fn secure_port(self, port: u16) -> Self {
        self.set("secure", &port.to_string())
    }

    /// The plain port is not enabled.
    #[must_use]
    pub fn only_secure(self) -> Self {
        self.set("plain", "false")
    }

    /// The instance's id, by default `IP:APP:PORT`.
    #[must_use]
    pub fn id(self, id: &str) -> Self {
        self.set("id", id)
    }

    /// The virtual host names, separated by commas; by default the application's name.
    #[must_use]
    pub fn vip(self, names: &str) -> Self {
        self.set("vip", names)
    }

    /// One more value of the metadata.
    #[must_use]
    pub fn metadata(self, key: &str, value: &str) -> Self {
        self.set(&format!("metadata.{key}"), value)
    }

    /// How long the registration holds without a renewal, in whole seconds.
    #[must_use]
    pub fn lease(self, time: Duration) -> Self {
        self.set("lease", &time.as_secs().to_string())
    }

    /// Its status is `STARTING` until [`EurekaClient::set_status`] says otherwise.
    #[must_use]
    pub fn starting(self) -> Self {
        self.set("enabled", "false")
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.options.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the client and waits until it has registered.
    ///
    /// # Errors
    /// When Java or the jars are missing, or it cannot register; the error ends with its log.
    pub async fn start(self) -> Result<EurekaClient> {
        with_free_ports(async || EurekaClient::launch(&self.options).await).await
    }
}

/// A running client. Dropping it ends it, with little time to deregister.
#[derive(Debug)]
pub struct EurekaClient {
    // It ends before its folder goes.
    process: Process,
    control: Port,
    http: Client,
    _home: Home,
}

impl EurekaClient {
    /// A client of the servers at these URLs; it goes to the next one when one fails.
    pub fn of(servers: &[String], app: &str) -> Registration {
        Registration {
            options: Vec::new(),
        }
        .set("eureka", &servers.join(","))
        .set("app", app)
        .ip(Ipv4Addr::LOCALHOST)
    }

    async fn launch(options: &[(String, String)]) -> Result<Self> {
        let home = Home::new("eureka-client")?;
        let control = ports::port()?;
        let arguments = options.iter().map(|(k, v)| format!("{k}={v}"));
        let spec = spec("eureka-client", "Client", 64, home.log("eureka-client"))?
            .args(arguments)
            .arg(format!("control={control}"));
        let client = Self {
            process: Process::start(spec)?,
            control,
            http: crate::http_client([], None)?,
            _home: home,
        };
        client.ready().await?;
        Ok(client)
    }

    /// It takes orders as soon as it has registered.
    async fn ready(&self) -> Result<()> {
        let url = self.order("");
        let listens = async || self.http.get(&url).send().await;
        self.process.ready(START, listens).await.map(drop)
    }

    fn order(&self, path: &str) -> String {
        format!("http://{}{path}", self.control.address())
    }

    async fn put(&self, path: &str) -> Result<()> {
        let answer = self.http.put(self.order(path)).send().await?;
        crate::body_of(answer).await.map(drop)
    }

    /// Sets the instance's status (`UP`, `DOWN`, `STARTING`, `OUT_OF_SERVICE`), of which it tells the server at once.
    ///
    /// # Errors
    /// When the client has ended, or there is no such status.
    pub async fn set_status(&self, status: &str) -> Result<()> {
        self.put(&format!("/status/{status}")).await
    }

    /// Sets a value of its metadata, of which it tells the server within 1 s.
    ///
    /// # Errors
    /// When the client has ended.
    pub async fn set_metadata(&self, key: &str, value: &str) -> Result<()> {
        self.put(&format!("/metadata/{key}/{value}")).await
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL: the registration expires.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and waits until it has ended: it deregisters.
    ///
    /// # Errors
    /// When it does not end within 20 s.
    pub async fn stop(&self) -> Result<()> {
        self.process.terminate()?;
        self.process.ended(STOP).await.context("it does not stop")
    }

    /// SIGSTOP: it renews nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub fn stop_process(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT: the end of [`stop_process`](Self::stop_process).
    ///
    /// # Errors
    /// When it has ended.
    pub fn continue_process(&self) -> Result<()> {
        self.process.resume()
    }

    /// Kills it if it runs, starts it again and waits until it has registered.
    ///
    /// # Errors
    /// As [`Registration::start`].
    pub async fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }
}
