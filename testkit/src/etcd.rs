//! etcd, of one member or several.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use reqwest::Client;
use serde_json::{Value, json};

use crate::home::Home;
use crate::pki::{Authority, TlsFiles, Usage};
use crate::ports::{self, Port};
use crate::process::{Process, Spec, with_free_ports};
use crate::programs::program;

const START: Duration = Duration::from_secs(60);
/// How long a member may take to answer a call before the next one is asked.
const ANSWER: Duration = Duration::from_secs(10);
/// The password of `root`, when access control is on.
const ROOT: &str = "8f3b51c2";
/// Writes in one transaction; etcd takes 128.
const BATCH: usize = 100;

/// How an etcd is to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    members: usize,
    tls: bool,
    auth: bool,
}

impl Builder {
    /// The number of members, by default 1.
    #[must_use]
    pub fn members(mut self, count: usize) -> Self {
        self.members = count;
        self
    }

    /// HTTPS that asks for a client certificate, and nothing else; see [`Etcd::tls`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Access control with a user `root`, which this value's own calls use; see [`Etcd::add_reader`].
    #[must_use]
    pub fn auth(mut self) -> Self {
        self.auth = true;
        self
    }

    /// Starts the members and waits until all of them are healthy.
    ///
    /// # Errors
    /// When the program is missing or a member does not get ready; the error ends with its log.
    pub async fn start(self) -> Result<Etcd> {
        with_free_ports(async || Etcd::launch(&self).await).await
    }
}

/// A running etcd. Dropping it ends its members.
#[derive(Debug)]
pub struct Etcd {
    // The members end before their folder goes.
    members: Vec<Member>,
    http: Client,
    tls: Option<TlsFiles>,
    auth: bool,
    _home: Home,
}

#[derive(Debug)]
struct Member {
    process: Process,
    client: Port,
    _peer: Port,
}

/// The certificates of members and clients.
struct Certificates {
    server: TlsFiles,
    client: TlsFiles,
    /// Of a client without a name: the JSON gateway serves no other while access control is on.
    nameless: TlsFiles,
}

impl Certificates {
    fn sign(home: &Home) -> Result<Self> {
        let authority = Authority::new(home)?;
        let names = ["127.0.0.1", "localhost", "etcd.test"];
        Ok(Self {
            server: authority.sign("server", ("etcd", None), &names, Usage::Server)?,
            client: authority.sign("client", ("client", None), &[], Usage::Client)?,
            nameless: authority.sign("nameless", ("", None), &[], Usage::Client)?,
        })
    }

    fn args(&self) -> Vec<String> {
        let Self {
            server, nameless, ..
        } = self;
        let file = |flag: &str, path: &std::path::Path| format!("--{flag}={}", path.display());
        vec![
            "--client-cert-auth".into(),
            file("trusted-ca-file", &server.ca),
            file("cert-file", &server.cert),
            file("key-file", &server.key),
            // For the calls that its own JSON gateway makes.
            file("client-cert-file", &nameless.cert),
            file("client-key-file", &nameless.key),
        ]
    }
}

impl Etcd {
    /// Starts one member without access control or TLS.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts so many members without access control or TLS.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn cluster(members: usize) -> Result<Self> {
        Self::builder().members(members).start().await
    }

    /// Options other than those of [`start`](Self::start).
    pub fn builder() -> Builder {
        Builder {
            members: 1,
            tls: false,
            auth: false,
        }
    }

    async fn launch(options: &Builder) -> Result<Self> {
        let home = Home::new("etcd")?;
        let certificates = options.tls.then(|| Certificates::sign(&home)).transpose()?;
        let extra = certificates.as_ref().map(Certificates::args);
        let members = start_members(&home, options, &extra.unwrap_or_default())?;
        let http = match &certificates {
            Some(certificates) => {
                let (ca, identity) = certificates.nameless.load()?;
                crate::http_client([ca], Some(identity))?
            }
            None => crate::http_client([], None)?,
        };
        let tls = certificates.map(|certificates| certificates.client);
        let mut etcd = Self {
            members,
            http,
            tls,
            auth: false,
            _home: home,
        };
        for member in 0..options.members {
            etcd.ready(member).await?;
        }
        if options.auth {
            etcd.enable_auth().await?;
        }
        Ok(etcd)
    }

    async fn ready(&self, member: usize) -> Result<()> {
        let url = format!("{}/health", self.endpoint(member));
        let healthy = async || crate::body_of(self.http.get(&url).send().await?).await;
        let process = &self.members[member].process;
        process.ready(START, healthy).await.map(drop)
    }

    async fn enable_auth(&mut self) -> Result<()> {
        let root = json!({"name": "root", "password": ROOT});
        self.call("auth/user/add", &root).await?;
        self.call("auth/role/add", &json!({"name": "root"})).await?;
        let grant = json!({"user": "root", "role": "root"});
        self.call("auth/user/grant", &grant).await?;
        self.call("auth/enable", &json!({})).await?;
        self.auth = true;
        Ok(())
    }

    /// The base URLs of all members, also of those that are down.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|m| self.endpoint(m)).collect()
    }

    /// The base URL of a member.
    pub fn endpoint(&self, member: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address(member))
    }

    /// Where a member listens for clients.
    pub fn address(&self, member: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.members[member].client.number()).into()
    }

    /// The client's files for HTTPS, after [`Builder::tls`]. With access control, the certificate
    /// is that of the user `client`. The servers' one is also good for `etcd.test`.
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// A call of the API as JSON (`POST /v3/PATH`), to the first member that answers it.
    ///
    /// # Errors
    /// When no member can be reached, or one answers with an error, which is in the message.
    pub async fn call(&self, path: &str, body: &Value) -> Result<Value> {
        let mut last = None;
        for endpoint in self.endpoints() {
            match self.call_at(&endpoint, path, body).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there are no members")?)
    }

    async fn call_at(&self, endpoint: &str, path: &str, body: &Value) -> Result<Value> {
        let post = |path: &str, body: &Value| {
            let request = self.http.post(format!("{endpoint}/v3/{path}"));
            request.json(body).timeout(ANSWER)
        };
        let mut request = post(path, body);
        if self.auth {
            let root = json!({"name": "root", "password": ROOT});
            let answer = json_of(post("auth/authenticate", &root)).await?;
            let token = answer["token"].as_str().context("no token in the answer")?;
            request = request.header("Authorization", token);
        }
        json_of(request).await
    }

    /// Writes a key.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        self.put_leased(key, value, 0).await
    }

    /// Writes a key that goes with a lease (0: none).
    ///
    /// # Errors
    /// As [`call`](Self::call); also without such a lease.
    pub async fn put_leased(&self, key: &str, value: &str, lease: i64) -> Result<()> {
        let body =
            json!({"key": BASE64.encode(key), "value": BASE64.encode(value), "lease": lease});
        self.call("kv/put", &body).await.map(drop)
    }

    /// Writes many keys, in transactions.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn put_all<K: AsRef<str>, V: AsRef<str>>(&self, pairs: &[(K, V)]) -> Result<()> {
        for batch in pairs.chunks(BATCH) {
            let put = |(key, value): &(K, V)| {
                let (key, value) = (BASE64.encode(key.as_ref()), BASE64.encode(value.as_ref()));
                json!({"request_put": {"key": key, "value": value}})
            };
            let puts: Vec<Value> = batch.iter().map(put).collect();
            self.call("kv/txn", &json!({"success": puts})).await?;
        }
        Ok(())
    }

    /// Deletes a key. It may be gone already.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn delete(&self, key: &str) -> Result<()> {
        let body = json!({"key": BASE64.encode(key)});
        self.call("kv/deleterange", &body).await.map(drop)
    }

    /// Deletes all keys that begin so.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn delete_prefix(&self, prefix: &str) -> Result<()> {
        self.call("kv/deleterange", &range(prefix)).await.map(drop)
    }

    /// The keys that begin so, in their order.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let mut body = range(prefix);
        body["keys_only"] = true.into();
        let answer = self.call("kv/range", &body).await?;
        let kvs = answer["kvs"].as_array().into_iter().flatten();
        kvs.map(|kv| {
            let key = kv["key"].as_str().context("a key is missing")?;
            Ok(String::from_utf8(BASE64.decode(key)?)?)
        })
        .collect()
    }

    /// A lease that ends after so many seconds, since nobody keeps it alive.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn grant(&self, seconds: u32) -> Result<i64> {
        let answer = self.call("lease/grant", &json!({"TTL": seconds})).await?;
        number(&answer["ID"])
    }

    /// Ends a lease: its keys go.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn revoke(&self, lease: i64) -> Result<()> {
        let body = json!({"ID": lease});
        self.call("lease/revoke", &body).await.map(drop)
    }

    /// The newest revision.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn revision(&self) -> Result<i64> {
        let answer = self.call("kv/range", &range("/")).await?;
        number(&answer["header"]["revision"])
    }

    /// Forgets all revisions but the newest.
    ///
    /// # Errors
    /// As [`call`](Self::call); also when there is nothing to forget.
    pub async fn compact(&self) -> Result<()> {
        let body = json!({"revision": self.revision().await?, "physical": true});
        self.call("kv/compaction", &body).await.map(drop)
    }

    /// The index of the member that leads.
    ///
    /// # Errors
    /// When no member says so.
    pub async fn leader(&self) -> Result<usize> {
        for (member, endpoint) in self.endpoints().iter().enumerate() {
            let status = self
                .call_at(endpoint, "maintenance/status", &json!({}))
                .await;
            if let Ok(status) = status
                && status["leader"] == status["header"]["member_id"]
            {
                return Ok(member);
            }
        }
        bail!("no member leads")
    }

    /// A user with a role of the same name, which may read keys that begin with one of these prefixes.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn add_reader(&self, name: &str, password: &str, prefixes: &[&str]) -> Result<()> {
        let user = json!({"name": name, "password": password});
        self.call("auth/user/add", &user).await?;
        self.call("auth/role/add", &json!({"name": name})).await?;
        let grant = json!({"user": name, "role": name});
        self.call("auth/user/grant", &grant).await?;
        for prefix in prefixes {
            self.allow(name, prefix).await?;
        }
        Ok(())
    }

    /// Lets a role read keys that begin so.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn allow(&self, role: &str, prefix: &str) -> Result<()> {
        let mut permission = range(prefix);
        permission["permType"] = "READ".into();
        let body = json!({"name": role, "perm": permission});
        self.call("auth/role/grant", &body).await.map(drop)
    }

    /// The end of [`allow`](Self::allow).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn forbid(&self, role: &str, prefix: &str) -> Result<()> {
        let mut body = range(prefix);
        body["role"] = role.into();
        self.call("auth/role/revoke", &body).await.map(drop)
    }

    /// Gives a user another password; the tokens that it has end.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn change_password(&self, name: &str, password: &str) -> Result<()> {
        let body = json!({"name": name, "password": password});
        self.call("auth/user/changepw", &body).await.map(drop)
    }

    /// SIGSTOP to a member: it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub fn stop_process(&self, member: usize) -> Result<()> {
        self.members[member].process.pause()
    }

    /// SIGCONT: the end of [`stop_process`](Self::stop_process).
    ///
    /// # Errors
    /// When it has ended.
    pub fn continue_process(&self, member: usize) -> Result<()> {
        self.members[member].process.resume()
    }

    /// SIGKILL to a member, and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self, member: usize) -> Result<()> {
        self.members[member].process.kill()
    }

    /// Kills a member if it runs, starts it with its data, and waits until it is healthy.
    ///
    /// # Errors
    /// When it does not get ready; the error ends with its log.
    pub async fn restart(&self, member: usize) -> Result<()> {
        self.members[member].process.restart()?;
        self.ready(member).await
    }

    /// The process id of a member.
    pub fn pid(&self, member: usize) -> u32 {
        self.members[member].process.pid()
    }
}

fn start_members(home: &Home, options: &Builder, extra: &[String]) -> Result<Vec<Member>> {
    let scheme = if options.tls { "https" } else { "http" };
    let seats = (0..options.members)
        .map(|_| ports::free())
        .collect::<Result<Vec<[Port; 2]>>>()?;
    let peer_url = |[_, peer]: &[Port; 2]| format!("http://{}", peer.address());
    let cluster: Vec<String> = seats
        .iter()
        .enumerate()
        .map(|(member, seat)| format!("m{member}={}", peer_url(seat)))
        .collect();
    let cluster = cluster.join(",");
    let start = |(member, seat): (usize, [Port; 2])| {
        let name = format!("m{member}");
        let folder = home.data().join(&name);
        fs::create_dir(&folder)?;
        let peer_url = peer_url(&seat);
        let [client, peer] = seat;
        let client_url = format!("{scheme}://{}", client.address());
        let spec = Spec::new("etcd", program("etcd")?, home.log(&name))
            .args(["--name", &name])
            .arg("--data-dir")
            .arg(folder.join("state"))
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &cluster])
            // A new leader within a second.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--unsafe-no-fsync", "--bcrypt-cost=4"])
            .args(extra);
        Ok(Member {
            process: Process::start(spec)?,
            client,
            _peer: peer,
        })
    };
    seats.into_iter().enumerate().map(start).collect()
}

/// All keys that begin so, as the API takes it.
fn range(prefix: &str) -> Value {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        // Test keys end in ASCII.
        *last += 1;
    }
    json!({"key": BASE64.encode(prefix), "range_end": BASE64.encode(end)})
}

/// The gateway writes 64-bit numbers as strings.
fn number(value: &Value) -> Result<i64> {
    let text = value.as_str().context("a number is missing")?;
    Ok(text.parse()?)
}

async fn json_of(request: reqwest::RequestBuilder) -> Result<Value> {
    let text = crate::body_of(request.send().await?).await?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}
