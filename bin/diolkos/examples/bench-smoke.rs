//! `make bench-smoke`: 2,000 services × 5 instances in one Consul agent, carried into a real
//! Kubernetes API. Prints time, memory, connections and requests, and what the API server does
//! without Diolkos as the measure.

#![allow(clippy::print_stdout)] // it prints its figures

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use diolkos_testkit::{Consul, Kubernetes, Program, fill, ports};
use serde_json::{Value, json};
use tokio::time::Instant;

const SERVICES: usize = 2_000;
const INSTANCES: usize = 5;
const LIMIT: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> Result<()> {
    diolkos_testkit::install_crypto();
    let (consul, kubernetes) = tokio::try_join!(Consul::start(), Kubernetes::start())?;
    kubernetes.install_istio_crds().await?;
    kubernetes
        .kubectl(&["create", "namespace", "diolkos"])
        .await?;
    let started = Instant::now();
    fill::fill(&consul, SERVICES, INSTANCES).await?;
    println!(
        "registered {SERVICES} services x {INSTANCES} in {:.1} s",
        started.elapsed().as_secs_f64()
    );

    for mode in ["Inline", "WorkloadEntry"] {
        let run = Run::start(&consul, &kubernetes, mode)?;
        let started = Instant::now();
        let read = run
            .until(|r| r["services"] == SERVICES && r["phase"] == "Live")
            .await?;
        let read_after = started.elapsed();
        let done = run.until(|r| condition(r, "Synced") == "True").await?;
        let objects = done["objects"].as_u64().unwrap_or_default();
        let took = started.elapsed();
        println!(
            "{mode}: read after {:.2} s; {objects} objects written after {:.1} s ({:.0}/s); memory {:.1} MiB; connections to Consul {}; requests to Consul {}",
            read_after.as_secs_f64(),
            took.as_secs_f64(),
            objects as f64 / took.as_secs_f64(),
            resident(run.program.pid())?,
            consul.connections()?,
            read["requests"],
        );
        let changed = Instant::now();
        let service = 1_000;
        fill::move_port(&consul, service, 0, 9_999).await?;
        run.explained(service, 9_999).await?;
        println!(
            "{mode}: one changed port known after {:.0} ms",
            changed.elapsed().as_secs_f64() * 1e3
        );
        fill::move_port(&consul, service, 0, fill::PORT).await?;
        run.explained(service, fill::PORT).await?;
        run.until(|r| condition(r, "Synced") == "True").await?;
        drop(run);

        let before = kubernetes.count_writes("diolkos")?;
        let again = Run::start(&consul, &kubernetes, mode)?;
        let started = Instant::now();
        again.until(|r| condition(r, "Synced") == "True").await?;
        println!(
            "{mode}: restart with nothing changed: in step after {:.2} s, {} writes",
            started.elapsed().as_secs_f64(),
            kubernetes.count_writes("diolkos")? - before
        );
        drop(again);
        kubernetes
            .kubectl(&[
                "delete",
                "serviceentries,workloadentries",
                "--all",
                "-n",
                "diolkos",
                "--wait=false",
            ])
            .await?;
    }
    Ok(())
}

fn condition<'a>(registry: &'a Value, kind: &str) -> &'a str {
    let conditions = registry["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str()).unwrap_or_default()
}

/// Resident memory of a process, in MiB.
fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .context("VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

/// A running Diolkos.
struct Run {
    program: Program,
    api: String,
    client: reqwest::Client,
}

impl Run {
    fn start(consul: &Consul, kubernetes: &Kubernetes, endpoints: &str) -> Result<Self> {
        let binary: PathBuf = std::env::var_os("DIOLKOS_BIN")
            .context("DIOLKOS_BIN names the program; `make bench-smoke` sets it")?
            .into();
        let api = ports::port()?.address().to_string();
        let prepared = Program::prepare("diolkos", &binary)?;
        let document = prepared.home().join("registry.yaml");
        let registry = json!({
            "apiVersion": "diolkos.io/v1alpha1", "kind": "Registry", "metadata": {"name": "consul"},
            "spec": {"consul": {"addresses": [consul.http_addr()]}, "export": {"endpoints": endpoints}},
        });
        std::fs::write(&document, registry.to_string())?;
        let kubeconfig = kubernetes.kubeconfig().display().to_string();
        let document = document.display().to_string();
        let args = [
            "run",
            "-f",
            &document,
            "--kubeconfig",
            &kubeconfig,
            "--listen",
            &api,
        ];
        Ok(Self {
            program: prepared.start(&args.map(str::to_owned))?,
            client: reqwest::Client::builder().no_proxy().build()?,
            api,
        })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self
            .client
            .get(format!("http://{}{path}", self.api))
            .send()
            .await?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    /// The registry's status once `done` holds.
    async fn until(&self, done: impl Fn(&Value) -> bool) -> Result<Value> {
        self.program
            .ready(LIMIT, async || {
                let registries = self.get("/api/v1/registries").await?;
                ensure!(done(&registries[0]), "{registries}");
                Ok(registries[0].clone())
            })
            .await
    }

    async fn explained(&self, service: usize, port: u16) -> Result<()> {
        self.program
            .ready(LIMIT, async || {
                let found = self
                    .get(&format!("/api/v1/explain?host=svc-{service}"))
                    .await?;
                let text = found.to_string();
                let wanted = format!("\"{port}/http\"");
                let there =
                    text.contains(&wanted) && (port == 9_999 || !text.contains("\"9999/http\""));
                ensure!(there, "{text}");
                Ok(())
            })
            .await
    }
}
