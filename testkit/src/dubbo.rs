//! Dubbo's own providers and consumers, of the two lines that are in use.
//!
//! Dubbo refuses loopback addresses: use it inside of [`netns::isolated`].

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::home::Home;
use crate::java::Class;
use crate::netns;
use crate::process::{Process, Spec};

const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);
const STARTED: &str = "PROVIDER STARTED";
const ANSWER: &str = "ANSWER ";
const FAILED: &str = "FAILED ";

/// A release of Dubbo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// 3.3.5: registers interfaces, applications or both.
    D3,
    /// 2.7.23: registers interfaces.
    D27,
}

impl Line {
    fn jars(self) -> &'static str {
        match self {
            Self::D3 => "dubbo/d3",
            Self::D27 => "dubbo/d27",
        }
    }
}

/// What a program is started with.
#[derive(Debug, Clone)]
struct Settings {
    line: Line,
    ip: Ipv4Addr,
    options: Vec<(String, String)>,
}

impl Settings {
    fn new(line: Line) -> Self {
        Self {
            line,
            ip: netns::ADDRESSES[0],
            options: Vec::new(),
        }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.options.push((name.to_owned(), value.to_owned()));
        self
    }

    fn spec(&self, main: &str, home: &Home) -> Result<Spec> {
        let class = Class {
            jars: self.line.jars(),
            main: &format!("org.apache.dubbo.demo.{main}"),
            heap: 128,
        };
        // Both lines reach into the JDK's own classes, and keep files in the user's folder.
        let opens = ["java.lang", "java.math", "java.util"]
            .map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED"));
        let folder = format!("-Duser.home={}", home.data().display());
        // How long it waits for calls that nobody makes before it ends.
        let wait = "-Ddubbo.service.shutdown.wait=500".to_owned();
        let machine: Vec<String> = opens.into_iter().chain([folder, wait]).collect();
        let name = format!("dubbo-{}", main.to_lowercase());
        let arguments = self.options.iter().map(|(k, v)| format!("{k}={v}"));
        let spec = class
            .spec(&name, &machine, home.log(&name))?
            .args(arguments)
            .env("DUBBO_IP_TO_BIND", self.ip.to_string())
            .env("DUBBO_IP_TO_REGISTRY", self.ip.to_string());
        Ok(spec)
    }
}

/// How a provider is to be started; by default one of `org.apache.dubbo.demo.DemoService` on 10.77.0.1:20880.
#[derive(Debug, Clone)]
pub struct Provider {
    settings: Settings,
    interfaces: Vec<String>,
    protocols: Vec<String>,
}

impl Provider {
    /// Where it registers: `zookeeper://127.0.0.1:2181`, `nacos://127.0.0.1:8848` or, with Dubbo 2.7,
    /// `etcd3://127.0.0.1:2379`; several are separated by commas.
    #[must_use]
    pub fn registry(self, url: &str) -> Self {
        self.set("registry", url)
    }

    /// The address that it listens on and registers.
    #[must_use]
    pub fn ip(mut self, ip: Ipv4Addr) -> Self {
        self.settings.ip = ip;
        self
    }

    /// The port of protocol `dubbo`.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.protocol("dubbo", port)
    }

    /// One more protocol (`dubbo`, `tri`) with its port; the first call replaces the default.
    #[must_use]
    pub fn protocol(mut self, name: &str, port: u16) -> Self {
        self.protocols.push(format!("{name}:{port}"));
        self
    }

    /// One more interface, `DemoService` or `GreetingService`; the first call replaces the default.
    #[must_use]
    pub fn interface(mut self, name: &str) -> Self {
        self.interfaces.push(name.to_owned());
        self
    }

    /// The time-out of its ZooKeeper session or of its lease in etcd (whole seconds), by default 3 s: so long are its
    /// nodes or keys there after it was killed. From Nacos it goes with its connection.
    #[must_use]
    pub fn session(self, time_out: Duration) -> Self {
        self.set("session", &time_out.as_millis().to_string())
    }

    /// The application's name, by default `demo-provider`.
    #[must_use]
    pub fn application(self, name: &str) -> Self {
        self.set("application", name)
    }

    /// The version of its interfaces.
    #[must_use]
    pub fn version(self, version: &str) -> Self {
        self.set("version", version)
    }

    /// The group of its interfaces.
    #[must_use]
    pub fn group(self, group: &str) -> Self {
        self.set("group", group)
    }

    /// The weight, which Dubbo takes for 100 when there is none.
    #[must_use]
    pub fn weight(self, weight: u32) -> Self {
        self.set("weight", &weight.to_string())
    }

    /// Registers persistent nodes (`dynamic=false`).
    #[must_use]
    pub fn persistent(self) -> Self {
        self.set("dynamic", "false")
    }

    /// One more parameter of its URLs.
    #[must_use]
    pub fn parameter(self, name: &str, value: &str) -> Self {
        self.set(&format!("parameter.{name}"), value)
    }

    /// `interface`, `instance` or `all`, which is Dubbo 3's default.
    #[must_use]
    pub fn register_mode(self, mode: &str) -> Self {
        self.set("register-mode", mode)
    }

    /// `remote`: metadata lie in the registry; by default the provider itself is asked.
    #[must_use]
    pub fn metadata_type(self, kind: &str) -> Self {
        self.set("metadata-type", kind)
    }

    /// The last word of its answers, `hello call 1 from NAME`.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.set("name", name)
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.settings = self.settings.set(name, value);
        self
    }

    /// Starts it and waits until it says that it has registered.
    ///
    /// # Errors
    /// When Java or the jars are missing, or it does not start; the error ends with its log.
    pub async fn start(self) -> Result<Dubbo> {
        let mut settings = self.settings;
        for (name, values) in [
            ("interfaces", self.interfaces),
            ("protocols", self.protocols),
        ] {
            if !values.is_empty() {
                settings = settings.set(name, &values.join(","));
            }
        }
        let dubbo = Dubbo::launch(&settings, "Provider")?;
        dubbo.started(0).await?;
        Ok(dubbo)
    }
}

/// How a consumer of `org.apache.dubbo.demo.DemoService` is to be started. It answers to 10.77.0.9.
#[derive(Debug, Clone)]
pub struct Consumer {
    settings: Settings,
}

impl Consumer {
    /// Where it looks for providers.
    #[must_use]
    pub fn registry(self, url: &str) -> Self {
        self.set("registry", url)
    }

    /// The provider to call without a registry: `dubbo://ADDRESS:PORT/INTERFACE`.
    #[must_use]
    pub fn url(self, url: &str) -> Self {
        self.set("url", url)
    }

    /// The version that it wants.
    #[must_use]
    pub fn version(self, version: &str) -> Self {
        self.set("version", version)
    }

    /// The group that it wants.
    #[must_use]
    pub fn group(self, group: &str) -> Self {
        self.set("group", group)
    }

    /// How often it calls, by default once; each call is tried once. It ends after the last.
    #[must_use]
    pub fn calls(self, count: u32) -> Self {
        self.set("calls", &count.to_string())
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.settings = self.settings.set(name, value);
        self
    }

    /// Makes the calls and returns the answers in their order.
    ///
    /// # Errors
    /// When it does not end in time, or a call has failed.
    pub async fn run(self) -> Result<Vec<String>> {
        let dubbo = Dubbo::launch(&self.settings, "Consumer")?;
        dubbo.process.ended(START).await?;
        let failures = dubbo.said(FAILED);
        ensure!(failures.is_empty(), "calls failed: {failures:?}");
        Ok(dubbo.answers())
    }

    /// Calls ten times a second until it is dropped; see [`Dubbo::answers`].
    ///
    /// # Errors
    /// When it cannot be started, or ends.
    pub async fn start(self) -> Result<Dubbo> {
        let settings = self.settings.set("calls", "0").set("interval", "100");
        let dubbo = Dubbo::launch(&settings, "Consumer")?;
        let said = async || dubbo.answers().len() + dubbo.failures().len() > 0;
        dubbo.process.ready(START, said).await?;
        Ok(dubbo)
    }
}

/// A running provider or consumer. Dropping it ends it without time to say good-bye to the registry.
#[derive(Debug)]
pub struct Dubbo {
    // It ends before its folder goes.
    process: Process,
    _home: Home,
}

impl Dubbo {
    /// A provider.
    pub fn provider(line: Line) -> Provider {
        Provider {
            settings: Settings::new(line).set("session", "3000"),
            interfaces: Vec::new(),
            protocols: Vec::new(),
        }
    }

    /// A consumer.
    pub fn consumer(line: Line) -> Consumer {
        let mut settings = Settings::new(line);
        settings.ip = netns::ADDRESSES[netns::ADDRESSES.len() - 1];
        Consumer { settings }
    }

    fn launch(settings: &Settings, main: &str) -> Result<Self> {
        let home = Home::new("dubbo")?;
        let process = Process::start(settings.spec(main, &home)?)?;
        Ok(Self {
            process,
            _home: home,
        })
    }

    /// Waits until a provider has said once more than so often that it has started.
    async fn started(&self, before: usize) -> Result<()> {
        let said = async || self.said(STARTED).len() > before;
        self.process.ready(START, said).await
    }

    /// The answers to a consumer's calls so far.
    pub fn answers(&self) -> Vec<String> {
        self.said(ANSWER)
    }

    /// Why calls of a consumer failed so far.
    pub fn failures(&self) -> Vec<String> {
        self.said(FAILED)
    }

    /// The rests of the lines that start so.
    fn said(&self, start: &str) -> Vec<String> {
        let log = fs::read(self.process.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines()
            .filter_map(|line| line.strip_prefix(start))
            .map(str::to_owned)
            .collect()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL: its ephemeral nodes go when the time-out of its session or lease has passed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and waits until it has ended: it takes itself out of the registry.
    ///
    /// # Errors
    /// When it does not end within 20 s.
    pub async fn stop(&self) -> Result<()> {
        self.process.terminate()?;
        self.process.ended(STOP).await.context("it does not stop")
    }

    /// SIGSTOP: connections stay open, and its session ends.
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

    /// Kills a provider if it runs, starts it again and waits until it has registered.
    ///
    /// # Errors
    /// As [`Provider::start`].
    pub async fn restart(&self) -> Result<()> {
        let before = self.said(STARTED).len();
        self.process.restart()?;
        self.started(before).await
    }
}
