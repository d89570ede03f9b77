//! etcd and a Kubernetes API server, with certificates, RBAC and an audit log.

mod audit;
mod launch;

pub use audit::AuditRecord;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::fault::HttpFault;
use crate::home::Home;
use crate::pki::TlsFiles;
use crate::ports::Port;
use crate::process::{Process, with_free_ports};
use crate::programs::data;

const START: Duration = Duration::from_secs(120);

/// How a Kubernetes API is to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    controller_manager: bool,
    nodes: usize,
    users: Vec<(String, Vec<String>)>,
    api_server_args: Vec<String>,
}

impl Builder {
    /// No controller manager: namespaces get no default service account and are never finally deleted, owned
    /// objects are not collected, Deployments make no Pods, and the aggregated roles (`view`, `edit`, `admin`) are
    /// empty. It saves about a second and 100 MB.
    #[must_use]
    pub fn without_controller_manager(mut self) -> Self {
        self.controller_manager = false;
        self
    }

    /// Runs the scheduler and kwok with so many pretended nodes, on which Pods get Running and Ready.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = count;
        self
    }

    /// Adds a user who may do nothing until RBAC says so; see [`Kubernetes::kubeconfig_of`].
    #[must_use]
    pub fn user(mut self, name: &str, groups: &[&str]) -> Self {
        self.users.push((
            name.to_owned(),
            groups.iter().map(ToString::to_string).collect(),
        ));
        self
    }

    /// One more argument for kube-apiserver.
    #[must_use]
    pub fn api_server_arg(mut self, arg: &str) -> Self {
        self.api_server_args.push(arg.to_owned());
        self
    }

    /// Starts the servers and waits until the API server is ready, and with the controller manager until the
    /// `default` namespace has its service account.
    ///
    /// # Errors
    /// When a program is missing or a server does not get ready; the error ends with that server's log.
    pub async fn start(self) -> Result<Kubernetes> {
        with_free_ports(async || launch::launch(&self).await).await
    }
}

/// A running Kubernetes API. Dropping it ends its servers.
#[derive(Debug)]
pub struct Kubernetes {
    // Dropped in this order: clients before the servers that they call, the folder last.
    others: Vec<Process>,
    api_server: Process,
    _etcd: Process,
    client: Client,
    admin: TlsFiles,
    port: Port,
    /// Held until the servers that listen there have ended.
    other_ports: Vec<Port>,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    home: Home,
}

impl Kubernetes {
    /// Starts etcd, the API server and the controller manager.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Options other than those of [`start`](Self::start).
    pub fn builder() -> Builder {
        Builder {
            controller_manager: true,
            nodes: 0,
            users: Vec::new(),
            api_server_args: Vec::new(),
        }
    }

    /// The API server's base URL, `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.port.address())
    }

    /// The administrator's kubeconfig (a client certificate in group `system:masters`).
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The kubeconfig of a user of [`Builder::user`].
    pub fn kubeconfig_of(&self, user: &str) -> PathBuf {
        launch::kubeconfig_path(&self.home, user)
    }

    /// A fault proxy in front of the API server, which is the administrator to it; see
    /// [`kubeconfig_through`](Self::kubeconfig_through).
    ///
    /// # Errors
    /// When no port is free.
    pub async fn fault_proxy(&self) -> Result<HttpFault> {
        HttpFault::start_tls(&self.url(), &self.admin).await
    }

    /// The kubeconfig for clients that reach the API server through a [`fault_proxy`](Self::fault_proxy): plain
    /// HTTP, no credentials.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig_through(&self, proxy: &HttpFault) -> Result<PathBuf> {
        launch::write_plain_kubeconfig(&self.home, proxy.address())
    }

    /// Runs kubectl as the administrator and returns what it prints.
    ///
    /// # Errors
    /// When kubectl fails; the message holds what it wrote to its standard error.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.run_kubectl(args, None).await
    }

    /// Applies a YAML or JSON stream as the administrator (`kubectl apply --server-side`).
    ///
    /// # Errors
    /// As [`kubectl`](Self::kubectl).
    pub async fn apply(&self, documents: &str) -> Result<()> {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.run_kubectl(&args, Some(documents)).await.map(drop)
    }

    /// Runs kubectl with `-o json`: `get_json(&["get", "serviceentries", "-A"])`.
    ///
    /// # Errors
    /// As [`kubectl`](Self::kubectl).
    pub async fn get_json(&self, args: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[args, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text)
            .with_context(|| format!("kubectl {args:?} printed no JSON: {text}"))
    }

    async fn run_kubectl(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        let mut child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(args)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start kubectl")?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // kubectl may end early; its own message says more than a broken pipe does.
            stdin.write_all(input.as_bytes()).await.ok();
        }
        let output = child.wait_with_output().await?;
        let text = String::from_utf8(output.stdout)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl {args:?} failed: {}{}",
            text.trim(),
            errors.trim()
        );
        Ok(text)
    }

    /// GET of a path of the API as the administrator, without kubectl's start time.
    ///
    /// # Errors
    /// When the server cannot be reached or answers with an error, which is in the message.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get_text(path).await?)?)
    }

    async fn get_text(&self, path: &str) -> Result<String> {
        crate::body_of(
            self.client
                .get(format!("{}{path}", self.url()))
                .send()
                .await?,
        )
        .await
    }

    /// Installs Istio's custom resource definitions and waits until the API serves them.
    ///
    /// # Errors
    /// When kubectl fails or a definition is not established within 60 s.
    pub async fn install_istio_crds(&self) -> Result<()> {
        let file = data("istio-crds.yaml")?;
        let file = file
            .to_str()
            .context("the path of istio-crds.yaml is not UTF-8")?;
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file])
            .await?;
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "-f",
            file,
        ])
        .await?;
        Ok(())
    }

    /// The requests that the API server completed, oldest first. A watch counts when it ends. The log follows the
    /// answer by some milliseconds: poll for what must be there.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests(&self) -> Result<Vec<AuditRecord>> {
        audit::read(&self.audit_log())
    }

    /// How many requests with a writing verb came from clients whose `User-Agent` starts so, failed ones included.
    ///
    /// # Errors
    /// As [`requests`](Self::requests).
    pub fn count_writes(&self, user_agent_prefix: &str) -> Result<usize> {
        let ours = |r: &&AuditRecord| r.is_write() && r.user_agent.starts_with(user_agent_prefix);
        Ok(self.requests()?.iter().filter(ours).count())
    }

    /// The audit log: one JSON `audit.k8s.io/v1` event a line.
    pub fn audit_log(&self) -> PathBuf {
        launch::audit_log(&self.home)
    }

    /// The API server's process id.
    pub fn pid(&self) -> u32 {
        self.api_server.pid()
    }

    /// SIGSTOP to the API server: connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it has ended.
    pub fn stop_process(&self) -> Result<()> {
        self.api_server.pause()
    }

    /// SIGCONT: the end of [`stop_process`](Self::stop_process).
    ///
    /// # Errors
    /// When it has ended.
    pub fn continue_process(&self) -> Result<()> {
        self.api_server.resume()
    }

    /// SIGKILL to the API server: connections are reset, and the port refuses until [`restart`](Self::restart).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.api_server.kill()
    }

    /// Kills the API server if it runs, starts it on the same port and waits until it is ready. Objects stay: etcd
    /// has them.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn restart(&self) -> Result<()> {
        self.api_server.restart()?;
        self.ready().await
    }

    async fn ready(&self) -> Result<()> {
        self.api_server
            .ready(START, async || self.get_text("/readyz").await)
            .await
            .map(drop)
    }
}
