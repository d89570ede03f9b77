//! `make bench-smoke`: 2,000 services × 5 instances in one Consul agent, carried into a real
//! Kubernetes API. Prints time, memory, connections and requests, and what the API server does
//! without Diolkos as the measure.

#![allow(clippy::print_stdout)] // it prints its figures

mod bench;

use anyhow::Result;
use bench::{Run, condition};
use diolkos_testkit::{Consul, Kubernetes, fill};
use serde_json::json;
use tokio::time::Instant;

const SERVICES: usize = 2_000;
const INSTANCES: usize = 5;

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
        let run = start(&consul, &kubernetes, mode)?;
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
            run.resident()?,
            consul.connections()?,
            read["requests"],
        );
        let changed = Instant::now();
        let service = 1_000;
        fill::move_port(&consul, service, 0, 9_999).await?;
        explained(&run, service, 9_999).await?;
        println!(
            "{mode}: one changed port known after {:.0} ms",
            changed.elapsed().as_secs_f64() * 1e3
        );
        fill::move_port(&consul, service, 0, fill::PORT).await?;
        explained(&run, service, fill::PORT).await?;
        run.until(|r| condition(r, "Synced") == "True").await?;
        drop(run);

        let before = kubernetes.count_writes("diolkos")?;
        let again = start(&consul, &kubernetes, mode)?;
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

fn start(consul: &Consul, kubernetes: &Kubernetes, endpoints: &str) -> Result<Run> {
    let spec =
        json!({"consul": {"addresses": [consul.http_addr()]}, "export": {"endpoints": endpoints}});
    let kubeconfig = kubernetes.kubeconfig().display().to_string();
    Run::start(&spec, &["--kubeconfig".to_owned(), kubeconfig])
}

async fn explained(run: &Run, service: usize, port: u16) -> Result<()> {
    let wanted = format!("\"{port}/http\"");
    run.explained(&format!("svc-{service}"), |text| {
        text.contains(&wanted) && (port == 9_999 || !text.contains("\"9999/http\""))
    })
    .await
}
