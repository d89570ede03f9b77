//! A running `diolkos` from a registry to a directory, and everything that it wrote there.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use diolkos_testkit::{Consul, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::common::{Diolkos, SOON};

/// The files of a directory: when they were written, and what they hold.
pub type Files = BTreeMap<String, (SystemTime, String)>;

/// A guard that decides soon: what it holds back for longer would look like a test that passes.
pub const GUARD: &str = "guard: {emptyHold: 1s, confirmAfter: 2, emptyGrace: 0s}";

/// A running bridge.
pub struct Bridge {
    pub diolkos: Diolkos,
    /// The name of its registry.
    name: String,
    out: TempDir,
}

impl Bridge {
    /// Starts with `consul` as the settings of the registry (in braces), into a new directory, and waits until
    /// everything is written once.
    pub async fn synced(consul: &str) -> Result<Self> {
        let bridge = Self::start(consul, tempfile::tempdir()?).await?;
        bridge.until_live().await;
        Ok(bridge)
    }

    /// Starts into a directory that may hold what an earlier one wrote.
    pub async fn start(consul: &str, out: TempDir) -> Result<Self> {
        let spec = format!("consul: {consul}, export: {{endpoints: Inline}}, {GUARD}");
        Self::start_registry("consul", &spec, out).await
    }

    /// Starts a registry of that name with the fields of its `spec`, into a directory that may hold what an earlier
    /// one wrote.
    pub async fn start_registry(name: &str, spec: &str, out: TempDir) -> Result<Self> {
        let document = format!(
            "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
        );
        let target = format!("directory:{}", out.path().display());
        Ok(Self {
            diolkos: Diolkos::run(&document, &["--to", &target]).await?,
            name: name.to_owned(),
            out,
        })
    }

    /// Ends it, and keeps the directory.
    pub fn stop(self) -> TempDir {
        self.out
    }

    /// The status of the registry.
    pub async fn status(&self) -> Result<Value> {
        let registries = self.diolkos.get("/api/v1/registries").await?;
        Ok(registries[0].clone())
    }

    /// Fails unless the source follows the registry, in at least this connection, and everything is written.
    pub async fn live(&self, epoch: u64) -> Result<()> {
        let status = self.status().await?;
        ensure!(
            status["phase"] == "Live" && status["epoch"].as_u64() >= Some(epoch),
            "{status}"
        );
        self.diolkos.synced(&self.name).await
    }

    /// Waits until it follows the registry and everything is written.
    pub async fn until_live(&self) {
        eventually(SOON, "the registry is followed", async || {
            self.live(1).await
        })
        .await;
    }

    /// Waits until the source is in this phase. Looks seldom: answers cost processor time, too.
    pub async fn until_phase(&self, limit: Duration, phase: &str) -> Result<Value> {
        let end = tokio::time::Instant::now() + limit;
        loop {
            let status = self.status().await?;
            if status["phase"] == phase {
                return Ok(status);
            }
            ensure!(
                tokio::time::Instant::now() < end,
                "not {phase} within {limit:?}: {status}"
            );
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// What is in the directory.
    pub fn files(&self) -> Result<Files> {
        let mut files = Files::new();
        for entry in std::fs::read_dir(self.out.path())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let content = std::fs::read_to_string(entry.path())?;
            files.insert(name, (entry.metadata()?.modified()?, content));
        }
        Ok(files)
    }

    /// The condition of the registry, as (status, reason, message).
    pub async fn condition(&self, kind: &str) -> Result<(String, String, String)> {
        self.diolkos.condition(&self.name, kind).await
    }

    /// Whether a file carries this service of Consul.
    pub fn has(&self, service: &str) -> Result<bool> {
        self.has_host(&format!("{service}.service.consul"))
    }

    /// Whether a file carries this host.
    pub fn has_host(&self, host: &str) -> Result<bool> {
        let files = self.files()?;
        Ok(files.values().any(|(_, content)| content.contains(host)))
    }

    /// The sum of a metric's series.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, page) = self.diolkos.page("/metrics").await?;
        let series = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        page.lines()
            .filter(series)
            .map(|line| {
                let (_, value) = line.rsplit_once(' ').context("a value")?;
                Ok(value.parse::<f64>()?)
            })
            .sum()
    }

    /// Objects that were created, changed or deleted, once that number rests: a file is there a moment before it is
    /// counted.
    pub async fn writes(&self) -> Result<f64> {
        let mut writes = self.metric("diolkos_sink_writes_total").await?;
        // Where somebody writes all the time, it never does.
        for _ in 0..20 {
            sleep(Duration::from_millis(25)).await;
            let before = writes;
            writes = self.metric("diolkos_sink_writes_total").await?;
            if writes == before {
                break;
            }
        }
        Ok(writes)
    }

    /// Fails unless `/readyz` says yes.
    pub async fn ready(&self) -> Result<()> {
        let (status, text) = self.diolkos.page("/readyz").await?;
        ensure!(status == 200, "{status}: {text}");
        Ok(())
    }
}

/// Registers a service of two instances that no agent checks.
pub async fn register(consul: &Consul, name: &str, subnet: usize) -> Result<()> {
    for instance in 1..=2 {
        let service = json!({
            "ID": format!("{name}-{instance}"), "Service": name,
            "Address": format!("10.0.{subnet}.{instance}"), "Port": 80,
        });
        let entry = json!({"Node": "ext", "Address": "10.9.9.9", "SkipNodeUpdate": true, "Service": service});
        consul.catalog_register(&entry).await?;
    }
    Ok(())
}

/// Removes what [`register`] registered.
pub async fn deregister(consul: &Consul, name: &str) -> Result<()> {
    for instance in 1..=2 {
        let entry = json!({"Node": "ext", "ServiceID": format!("{name}-{instance}")});
        consul.catalog_deregister(&entry).await?;
    }
    Ok(())
}
