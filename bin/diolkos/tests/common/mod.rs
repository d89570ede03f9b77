//! A running `diolkos` for tests.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use diolkos_testkit::{Program, SmallDisk, ports};
use serde_json::Value;

/// How soon something must show that needs the whole way. A limit, not a wait.
pub const SOON: Duration = Duration::from_secs(20);

/// The program under test.
pub const BIN: &str = env!("CARGO_BIN_EXE_diolkos");

/// A running `diolkos run`. Dropping it ends it.
pub struct Diolkos {
    program: Program,
    address: String,
    client: reqwest::Client,
    _port: ports::Port,
}

impl Diolkos {
    /// Runs with these documents and further arguments, and waits until the API answers.
    pub async fn run(documents: &str, args: &[&str]) -> Result<Self> {
        Self::run_with(Some(documents), args, None).await
    }

    /// Runs with the documents of the cluster.
    pub async fn run_in_cluster(args: &[&str]) -> Result<Self> {
        Self::run_with(None, args, None).await
    }

    /// Runs with these documents where the disk is mounted.
    pub async fn run_on(disk: &SmallDisk, documents: &str, args: &[&str]) -> Result<Self> {
        Self::run_with(Some(documents), args, Some(disk)).await
    }

    async fn run_with(
        documents: Option<&str>,
        args: &[&str],
        disk: Option<&SmallDisk>,
    ) -> Result<Self> {
        diolkos_testkit::install_crypto();
        let port = ports::port()?;
        let address = format!("127.0.0.1:{}", port.number());
        let mut arguments: Vec<String> = vec!["run".into(), "--listen".into(), address.clone()];
        arguments.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut program = Program::prepare("diolkos", Path::new(BIN))?;
        if let Some(disk) = disk {
            program = program.on(disk);
        }
        if let Some(documents) = documents {
            let file = program.home().join("registry.yaml");
            std::fs::write(&file, documents)?;
            arguments.extend(["-f".to_owned(), file.display().to_string()]);
        }
        let program = program.start(&arguments)?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()?;
        let diolkos = Self {
            program,
            address,
            client,
            _port: port,
        };
        diolkos
            .program
            .ready(SOON, async || diolkos.get("/api/v1/registries").await)
            .await?;
        Ok(diolkos)
    }

    /// `127.0.0.1:PORT` of the API.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process, to stop, continue and kill it.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// The file with the registry document.
    pub fn document(&self) -> std::path::PathBuf {
        self.program.home().join("registry.yaml")
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// An answer of the API.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let url = format!("http://{}{path}", self.address);
        let answer = self.client.get(&url).send().await?;
        let text = answer.error_for_status()?.text().await?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// A page of the API as text, whatever its status.
    pub async fn page(&self, path: &str) -> Result<(u16, String)> {
        let answer = self
            .client
            .get(format!("http://{}{path}", self.address))
            .send()
            .await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// The condition of a registry, as (status, reason, message).
    pub async fn condition(&self, registry: &str, kind: &str) -> Result<(String, String, String)> {
        let registries = self.get("/api/v1/registries").await?;
        let found = registries
            .as_array()
            .into_iter()
            .flatten()
            .find(|r| r["name"] == registry)
            .with_context(|| format!("no registry {registry} in {registries}"))?;
        let condition = found["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == kind)
            .with_context(|| format!("no condition {kind} in {found}"))?;
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("reason"), text("message")))
    }

    /// Fails unless everything of the registry is written.
    pub async fn synced(&self, registry: &str) -> Result<()> {
        let (status, reason, message) = self.condition(registry, "Synced").await?;
        anyhow::ensure!(status == "True", "{registry}: {reason}: {message}");
        Ok(())
    }

    /// The decisions on a service as (subject, reason) pairs.
    pub async fn reasons(&self, query: &str) -> Result<Vec<String>> {
        let found = self.get(&format!("/api/v1/explain?host={query}")).await?;
        Ok(found[0]["decisions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|d| d["reason"].as_str())
            .map(str::to_owned)
            .collect())
    }
}

/// Runs the program to its end: exit code, standard output, standard error.
pub fn diolkos(args: &[&str]) -> (i32, String, String) {
    let out = std::process::Command::new(BIN)
        .args(args)
        .env("NO_COLOR", "1")
        .env_remove("KUBECONFIG")
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        out.status.code().unwrap_or(-1),
        text(out.stdout),
        text(out.stderr),
    )
}
