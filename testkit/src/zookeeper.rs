//! ZooKeeper: one server or an ensemble, and an independent client to write with.

mod ensemble;
mod writer;

pub use ensemble::Ensemble;
pub use writer::Writer;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::home::Home;
use crate::java::Class;
use crate::pki::{Authority, TlsFiles, Usage};
use crate::ports::{self, Port};
use crate::process::{Process, with_free_ports};

const START: Duration = Duration::from_secs(60);
/// A four-letter word is answered at once, or the server hangs.
const WORD: Duration = Duration::from_secs(2);
/// The user whom no access control list stops, as scheme `digest` has it, with the password that follows.
pub const SUPER_USER: &str = "super:diolkos-super";
/// `SUPER_USER` as the server is told it: base64 of the SHA-1 of the whole.
const SUPER_DIGEST: &str = "super:hBezEpoByWoMx1rWRsiNzcF0gqA=";

/// How a ZooKeeper is to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    old: bool,
    tls: bool,
    tick: Duration,
    max_buffer: Option<usize>,
}

impl Builder {
    /// ZooKeeper 3.5.10 in place of 3.9.4: it has no persistent watches.
    #[must_use]
    pub fn old(mut self) -> Self {
        self.old = true;
        self
    }

    /// A second port with TLS that wants a client certificate; see [`ZooKeeper::tls_address`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The server's unit of time (default 200 ms). No session time-out is shorter than two; sessions are looked
    /// after once in each.
    #[must_use]
    pub fn tick_time(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// `jute.maxbuffer`: the server refuses requests, and so nodes, of this many bytes (its default is 1 MiB).
    #[must_use]
    pub fn max_buffer(mut self, bytes: usize) -> Self {
        self.max_buffer = Some(bytes);
        self
    }

    /// Starts the server and waits until it serves.
    ///
    /// # Errors
    /// When Java or the jars are missing or the server does not get ready; the error ends with its log.
    pub async fn start(self) -> Result<ZooKeeper> {
        with_free_ports(async || {
            let server = ZooKeeper::launch(&self, Seat::free()?, "")?;
            server.ready().await?;
            Ok(server)
        })
        .await
    }

    /// Starts an ensemble of so many servers and waits until all serve.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn ensemble(self, members: usize) -> Result<Ensemble> {
        with_free_ports(async || Ensemble::launch(&self, members).await).await
    }
}

/// The ports of one server and its number in the ensemble.
#[derive(Debug)]
struct Seat {
    id: usize,
    client: Port,
    secure: Port,
    quorum: Port,
    election: Port,
}

impl Seat {
    fn free() -> Result<Self> {
        Self::numbered(1)
    }

    fn numbered(id: usize) -> Result<Self> {
        let [client, secure, quorum, election] = ports::free()?;
        Ok(Self {
            id,
            client,
            secure,
            quorum,
            election,
        })
    }

    /// The line of the configuration by which all members know this one.
    fn line(&self) -> String {
        let Self {
            id,
            quorum,
            election,
            ..
        } = self;
        format!("server.{id}=127.0.0.1:{quorum}:{election}\n")
    }
}

/// A running ZooKeeper server, alone or a member of an [`Ensemble`]. Dropping it ends it. Its data are kept over
/// [`restart`](Self::restart), sessions and their ephemeral nodes included.
#[derive(Debug)]
pub struct ZooKeeper {
    // The server ends before its folder goes.
    process: Process,
    seat: Seat,
    tls: Option<TlsFiles>,
    _home: Home,
}

impl ZooKeeper {
    /// Starts a single server.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts an ensemble of so many servers.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn ensemble(members: usize) -> Result<Ensemble> {
        Self::builder().ensemble(members).await
    }

    /// Options other than those of [`start`](Self::start).
    pub fn builder() -> Builder {
        Builder {
            old: false,
            tls: false,
            tick: Duration::from_millis(200),
            max_buffer: None,
        }
    }

    /// Starts the server; `members` are the lines that name the ensemble's.
    fn launch(options: &Builder, seat: Seat, members: &str) -> Result<Self> {
        let home = Home::new("zookeeper")?;
        let folder = home.data().join("state");
        fs::create_dir(&folder)?;
        fs::write(folder.join("myid"), seat.id.to_string())?;
        let mut config = configuration(options, &seat, &folder) + members;
        let tls = if options.tls {
            let (lines, client) = secure(&home, &seat)?;
            config += &lines;
            Some(client)
        } else {
            None
        };
        let class = Class {
            jars: if options.old {
                "zookeeper/old"
            } else {
                "zookeeper/current"
            },
            main: "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            heap: 192,
        };
        let max_buffer = options.max_buffer.map(|n| format!("-Djute.maxbuffer={n}"));
        let machine: Vec<String> = max_buffer.into_iter().collect();
        let spec = class
            .spec("zookeeper", &machine, home.log("zookeeper"))?
            .arg(home.write("zoo.cfg", config)?);
        Ok(Self {
            process: Process::start(spec)?,
            seat,
            tls,
            _home: home,
        })
    }

    async fn ready(&self) -> Result<()> {
        self.process
            .ready(START, async || self.mode().await)
            .await
            .map(drop)
    }

    /// `standalone`, `leader` or `follower`.
    ///
    /// # Errors
    /// When the server does not answer, or has no quorum.
    pub async fn mode(&self) -> Result<String> {
        let said = self.four_letter("srvr").await?;
        let mode = said.lines().find_map(|line| line.strip_prefix("Mode: "));
        Ok(mode.with_context(|| said.clone())?.to_owned())
    }

    /// `127.0.0.1:PORT` for clients without TLS.
    pub fn address(&self) -> String {
        self.seat.client.address().to_string()
    }

    /// `127.0.0.1:PORT` for clients with TLS; it answers only after [`Builder::tls`].
    pub fn tls_address(&self) -> String {
        self.seat.secure.address().to_string()
    }

    /// The client's files for TLS, after [`Builder::tls`].
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// A session to write with; it ends, and its ephemeral nodes go, when it is dropped.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn writer(&self) -> Result<Writer> {
        Writer::connect(&self.address()).await
    }

    /// A session that nobody closes, as that of a program that crashed: its ephemeral nodes go when the time-out
    /// has passed since it was dropped.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn mortal(&self, time_out: Duration) -> Result<Writer> {
        Writer::mortal(&self.address(), time_out).await
    }

    /// What the server answers to a four-letter word, such as `srvr`, `wchs` (sums of watches) or `cons`
    /// (connections).
    ///
    /// # Errors
    /// When it does not answer within 2 s.
    pub async fn four_letter(&self, word: &str) -> Result<String> {
        let ask = async {
            let mut stream = TcpStream::connect(self.seat.client.address()).await?;
            stream.write_all(word.as_bytes()).await?;
            let mut said = String::new();
            stream.read_to_string(&mut said).await?;
            anyhow::Ok(said)
        };
        let said = timeout(WORD, ask)
            .await
            .with_context(|| format!("no answer to {word}"))??;
        ensure!(!said.is_empty(), "an empty answer to {word}");
        Ok(said)
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

    /// Kills the server if it runs, starts it again on the same ports with the same data and waits until it serves
    /// (a member of an ensemble: until there is a quorum).
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }
}

/// The server's configuration but for its ensemble and TLS. What the server does not know itself, it makes system
/// properties with the prefix `zookeeper.`.
fn configuration(options: &Builder, seat: &Seat, folder: &Path) -> String {
    let tick = options.tick.as_millis();
    [
        format!("tickTime={tick}"),
        // In ticks: the time a member has to join, and that in which the others must hear from it.
        "initLimit=50".to_owned(),
        "syncLimit=15".to_owned(),
        // Sessions are as short as a test asks for, and as long.
        format!("minSessionTimeout={}", 2 * tick),
        "maxSessionTimeout=60000".to_owned(),
        format!("dataDir={}", folder.display()),
        format!("clientPort={}", seat.client),
        "clientPortAddress=127.0.0.1".to_owned(),
        "maxClientCnxns=0".to_owned(),
        "admin.enableServer=false".to_owned(),
        "4lw.commands.whitelist=*".to_owned(),
        // State is thrown away: no waiting for the disk, and no 64 MiB a log file.
        "forceSync=no".to_owned(),
        "preAllocSize=1024".to_owned(),
        format!("DigestAuthenticationProvider.superDigest={SUPER_DIGEST}"),
        String::new(),
    ]
    .join("\n")
}

/// The lines of the configuration for a port with TLS, and the client's files.
fn secure(home: &Home, seat: &Seat) -> Result<(String, TlsFiles)> {
    let authority = Authority::new(home)?;
    let names = ["127.0.0.1", "localhost"];
    let server = authority.sign("server", ("zookeeper", None), &names, Usage::Server)?;
    let client = authority.sign("client", ("client", None), &[], Usage::Client)?;
    let both = [fs::read(&server.key)?, fs::read(&server.cert)?].concat();
    let lines = [
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
        format!("secureClientPort={}", seat.secure),
        "secureClientPortAddress=127.0.0.1".to_owned(),
        "ssl.keyStore.type=PEM".to_owned(),
        format!(
            "ssl.keyStore.location={}",
            home.write("server.pem", both)?.display()
        ),
        "ssl.trustStore.type=PEM".to_owned(),
        format!("ssl.trustStore.location={}", server.ca.display()),
        // Clients have no names that a server could look up.
        "ssl.hostnameVerification=false".to_owned(),
        String::new(),
    ];
    Ok((lines.join("\n"), client))
}
