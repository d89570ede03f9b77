//! Nacos' own client in a process of its own, which does what it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

use crate::home::Home;
use crate::java::Class;
use crate::ports::{self, Port};
use crate::process::{Process, with_free_ports};

const START: Duration = Duration::from_secs(60);

/// An instance, by default healthy, enabled and ephemeral, of weight 1 in cluster `DEFAULT`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NacosInstance {
    /// The address.
    pub ip: String,
    /// The port.
    pub port: u16,
    /// The weight, 0 to 10 000.
    pub weight: f64,
    /// Whether its health is good.
    pub healthy: bool,
    /// Whether it takes requests.
    pub enabled: bool,
    /// Whether it goes with its client's connection.
    pub ephemeral: bool,
    /// The cluster.
    pub cluster_name: String,
    /// The metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl NacosInstance {
    /// An instance with an address and a port.
    pub fn new(ip: &str, port: u16) -> Self {
        Self {
            ip: ip.to_owned(),
            port,
            weight: 1.0,
            healthy: true,
            enabled: true,
            ephemeral: true,
            cluster_name: "DEFAULT".to_owned(),
            metadata: BTreeMap::new(),
        }
    }

    /// Of this weight.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// In poor health.
    #[must_use]
    pub fn unhealthy(mut self) -> Self {
        self.healthy = false;
        self
    }

    /// That takes no requests.
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.enabled = false;
        self
    }

    /// That stays when its client goes.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.ephemeral = false;
        self
    }

    /// In this cluster.
    #[must_use]
    pub fn cluster(mut self, name: &str) -> Self {
        name.clone_into(&mut self.cluster_name);
        self
    }

    /// With one more piece of metadata, or another value of one.
    #[must_use]
    pub fn metadata(mut self, name: &str, value: &str) -> Self {
        self.metadata.insert(name.to_owned(), value.to_owned());
        self
    }

    /// As HTTP's parameters name it.
    pub(super) fn form(&self) -> Result<[(&'static str, String); 8]> {
        Ok([
            ("ip", self.ip.clone()),
            ("port", self.port.to_string()),
            ("weight", self.weight.to_string()),
            ("healthy", self.healthy.to_string()),
            ("enabled", self.enabled.to_string()),
            ("ephemeral", self.ephemeral.to_string()),
            ("clusterName", self.cluster_name.clone()),
            ("metadata", serde_json::to_string(&self.metadata)?),
        ])
    }
}

/// A service's name and the instances that [`NacosClient::put_all`] gives it: namespace, group, name, instances.
pub type NacosService<'a> = (&'a str, &'a str, &'a str, &'a [NacosInstance]);

/// A process with Nacos' own client, which has a connection to the server for each namespace. Dropping it or
/// [`kill`](Self::kill) ends it and, with its connections, its ephemeral instances.
#[derive(Debug)]
pub struct NacosClient {
    wire: Mutex<Wire>,
    // It ends before its folder goes.
    process: Process,
    _port: Port,
    _home: Home,
}

/// An order a line, and an answer a line in the same order.
#[derive(Debug)]
struct Wire {
    orders: BufWriter<OwnedWriteHalf>,
    answers: BufReader<OwnedReadHalf>,
}

impl NacosClient {
    /// A client of the servers `HOST:PORT`, separated by commas, perhaps with a user's name and password.
    ///
    /// # Errors
    /// When Java or the jars are missing or it does not start. It connects with the first order.
    pub async fn start(servers: &str, user: Option<(&str, &str)>) -> Result<Self> {
        with_free_ports(async || Self::launch(servers, user).await).await
    }

    async fn launch(servers: &str, user: Option<(&str, &str)>) -> Result<Self> {
        let home = Home::new("nacos-client")?;
        let port = ports::port()?;
        let class = Class {
            jars: "nacos/client",
            main: "io.diolkos.testbed.NacosWriter",
            heap: 128,
        };
        let folder = home.data().display().to_string();
        let machine = [
            format!("-Duser.home={folder}"),
            format!("-DJM.LOG.PATH={folder}"),
            format!("-DJM.SNAPSHOT.PATH={folder}"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
        ];
        let mut spec = class
            .spec("nacos-client", &machine, home.log("nacos-client"))?
            .arg(format!("server={servers}"))
            .arg(format!("port={port}"));
        if let Some((name, password)) = user {
            spec = spec
                .arg(format!("username={name}"))
                .arg(format!("password={password}"));
        }
        let process = Process::start(spec)?;
        let connect = async || TcpStream::connect(port.address()).await;
        let stream = process.ready(START, connect).await?;
        stream.set_nodelay(true)?;
        let (answers, orders) = stream.into_split();
        let wire = Wire {
            orders: BufWriter::new(orders),
            answers: BufReader::new(answers),
        };
        Ok(Self {
            wire: Mutex::new(wire),
            process,
            _port: port,
            _home: home,
        })
    }

    /// From now on this client has registered these ephemeral instances of the service, and no others.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn put(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
        instances: &[NacosInstance],
    ) -> Result<()> {
        self.put_all(&[(namespace, group, service, instances)])
            .await
    }

    /// As [`put`](Self::put), of many services.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_all(&self, services: &[NacosService<'_>]) -> Result<()> {
        let orders = services.iter().map(|service| order("put", *service));
        self.wire.lock().await.ask(orders.collect()).await.map(drop)
    }

    /// Takes out what [`put`](Self::put) has registered of the service.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn delete(&self, namespace: &str, group: &str, service: &str) -> Result<()> {
        self.put(namespace, group, service, &[]).await
    }

    /// `registerInstance`: for persistent instances. An ephemeral one takes the place of what this client has
    /// registered of the service.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn register(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
        instance: &NacosInstance,
    ) -> Result<()> {
        let one = std::slice::from_ref(instance);
        self.tell("register", (namespace, group, service, one))
            .await
    }

    /// `deregisterInstance`: the end of [`register`](Self::register).
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn deregister(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
        instance: &NacosInstance,
    ) -> Result<()> {
        let one = std::slice::from_ref(instance);
        self.tell("deregister", (namespace, group, service, one))
            .await
    }

    /// The instances of a service as a consumer sees them, whoever registered them.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn list(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
    ) -> Result<Vec<NacosInstance>> {
        let orders = vec![order("list", (namespace, group, service, &[]))];
        let mut answers = self.wire.lock().await.ask(orders).await?;
        let mut answer = answers.pop().context("no answer")?;
        Ok(serde_json::from_value(answer["instances"].take())?)
    }

    async fn tell(&self, what: &str, service: NacosService<'_>) -> Result<()> {
        let orders = vec![order(what, service)];
        self.wire.lock().await.ask(orders).await.map(drop)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL: its connections break, and its ephemeral instances go at once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// SIGSTOP: its connections stay open, and after some time the server takes it for dead.
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
}

fn order(what: &str, (namespace, group, service, instances): NacosService<'_>) -> String {
    let order = json!({
        "do": what,
        "namespace": namespace,
        "group": group,
        "service": service,
        "instances": instances,
    });
    format!("{order}\n")
}

impl Wire {
    /// Sends the orders without waiting for answers between them, and returns these.
    async fn ask(&mut self, orders: Vec<String>) -> Result<Vec<Value>> {
        let Self {
            orders: sender,
            answers: receiver,
        } = self;
        let count = orders.len();
        let send = async {
            for order in orders {
                sender.write_all(order.as_bytes()).await?;
            }
            sender.flush().await?;
            anyhow::Ok(())
        };
        let receive = async {
            let mut answers = Vec::with_capacity(count);
            for _ in 0..count {
                answers.push(answer(receiver).await?);
            }
            Ok(answers)
        };
        let ((), answers) = tokio::try_join!(send, receive)?;
        Ok(answers)
    }
}

async fn answer(receiver: &mut BufReader<OwnedReadHalf>) -> Result<Value> {
    let mut line = String::new();
    receiver.read_line(&mut line).await?;
    let answer: Value = serde_json::from_str(&line).context("the client has gone")?;
    if let Some(error) = answer["error"].as_str() {
        bail!("Nacos' client says {error}");
    }
    Ok(answer)
}
