//! A running Diolkos, for benchmarks.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use diolkos_testkit::{Program, ports};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(600);

/// The status of a condition of a registry.
pub(crate) fn condition<'a>(registry: &'a Value, kind: &str) -> &'a str {
    let conditions = registry["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str()).unwrap_or_default()
}

/// A running Diolkos.
pub(crate) struct Run {
    pub(crate) program: Program,
    api: String,
    client: reqwest::Client,
}

impl Run {
    /// Carries one registry over, with more arguments that say where to.
    pub(crate) fn start(spec: &Value, to: &[String]) -> Result<Self> {
        let binary: PathBuf = std::env::var_os("DIOLKOS_BIN")
            .context("DIOLKOS_BIN names the program; `make bench-smoke` and its siblings set it")?
            .into();
        let api = ports::port()?.address().to_string();
        let prepared = Program::prepare("diolkos", &binary)?;
        let document = prepared.home().join("registry.yaml");
        let registry = json!({
            "apiVersion": "diolkos.io/v1alpha1", "kind": "Registry", "metadata": {"name": "bench"},
            "spec": spec,
        });
        std::fs::write(&document, registry.to_string())?;
        let document = document.display().to_string();
        let mut args = ["run", "-f", &document, "--listen", &api]
            .map(str::to_owned)
            .to_vec();
        args.extend_from_slice(to);
        Ok(Self {
            program: prepared.start(&args)?,
            client: reqwest::Client::builder().no_proxy().build()?,
            api,
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let answer = self
            .client
            .get(format!("http://{}{path}", self.api))
            .send()
            .await?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    /// The registry's status once `done` holds.
    pub(crate) async fn until(&self, done: impl Fn(&Value) -> bool) -> Result<Value> {
        self.program
            .ready(LIMIT, async || {
                let registries = self.get("/api/v1/registries").await?;
                ensure!(done(&registries[0]), "{registries}");
                Ok(registries[0].clone())
            })
            .await
    }

    /// Waits until what is said of a host satisfies `done`.
    pub(crate) async fn explained(&self, host: &str, done: impl Fn(&str) -> bool) -> Result<()> {
        self.program
            .ready(LIMIT, async || {
                let found = self.get(&format!("/api/v1/explain?host={host}")).await?;
                let text = found.to_string();
                ensure!(done(&text), "{text}");
                Ok(())
            })
            .await
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        Ok(self.program.memory()? as f64 / f64::from(1 << 20))
    }
}
