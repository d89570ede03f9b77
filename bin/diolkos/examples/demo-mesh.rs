//! `make demo-mesh`: Consul, the Kubernetes API, istiod and Envoy on this machine, Diolkos between
//! them, and requests that reach both versions of a service. Ctrl-C ends everything.

#![allow(clippy::print_stdout)] // a demonstration speaks to people

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use diolkos_testkit::{
    Consul, Envoy, EnvoyOptions, HttpUpstream, Istiod, Kubernetes, Program, ports,
};
use serde_json::{Value, json};

const HOST: &str = "web.service.consul";
/// Requests a round.
const ROUND: usize = 100;

#[tokio::main]
async fn main() -> Result<()> {
    diolkos_testkit::install_crypto();
    tokio::select! {
        ended = demo() => ended,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            println!("\nending the servers");
            Ok(())
        }
    }
}

async fn demo() -> Result<()> {
    println!("starting Consul and the Kubernetes API …");
    let (consul, kubernetes) = tokio::try_join!(Consul::start(), Kubernetes::start())?;
    println!("starting istiod and Envoy …");
    let istiod = Istiod::start(&kubernetes).await?;
    let envoy = Envoy::start(&istiod, EnvoyOptions::sidecar("client")).await?;
    let (v1, v2) = tokio::try_join!(HttpUpstream::start("v1"), HttpUpstream::start("v2"))?;
    for (version, upstream) in [("v1", &v1), ("v2", &v2)] {
        let address = upstream.address();
        println!("registering web {version} at {address} in Consul");
        consul
            .register(&json!({
                "ID": format!("web-{version}"), "Name": "web",
                "Address": address.ip().to_string(), "Port": address.port(),
                "Meta": {"version": version, "protocol": "http"},
            }))
            .await?;
    }
    kubernetes
        .kubectl(&["create", "namespace", "consul"])
        .await?;
    let (diolkos, api) = start_diolkos(&consul, &kubernetes)?;
    let port = v1.address().port();
    kubernetes.apply(&rules(&envoy, port)).await?;
    println!("\nDiolkos answers at http://{api}/api/v1/services; in another terminal:");
    println!("  target/release/diolkos status --server http://{api}");
    println!("  target/release/diolkos explain {HOST} --server http://{api}");
    println!(
        "  curl -X PUT {}/v1/agent/service/deregister/web-v2",
        consul.http_addr()
    );
    println!(
        "  kubectl --kubeconfig {} get serviceentries,workloadentries -A",
        kubernetes.kubeconfig().display()
    );
    println!(
        "\n{ROUND} requests a round to http://{HOST}:{port}/ through Envoy, 80 % to v1 and 20 % to v2:"
    );
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(2))
        .build()?;
    loop {
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..ROUND {
            let request = client
                .get(format!("http://{}:{port}/", envoy.ip()))
                .header("Host", format!("{HOST}:{port}"));
            let answer = match request.send().await {
                Ok(answer) if answer.status().is_success() => {
                    answer.text().await?.trim().to_owned()
                }
                Ok(answer) => answer.status().to_string(),
                Err(_) => "no answer".to_owned(),
            };
            *answers.entry(answer).or_default() += 1;
        }
        let both = answers.len() == 2 && answers.keys().all(|answer| answer.starts_with('v'));
        let counts: Vec<_> = answers
            .iter()
            .map(|(answer, count)| format!("{answer}: {count}"))
            .collect();
        println!("  {}", counts.join("   "));
        if std::env::var_os("DEMO_ONCE").is_some() && both {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        diolkos
            .ready(Duration::from_secs(1), async || Some(()))
            .await?;
    }
}

fn start_diolkos(consul: &Consul, kubernetes: &Kubernetes) -> Result<(Program, String)> {
    let binary: PathBuf = std::env::var_os("DIOLKOS_BIN")
        .context("DIOLKOS_BIN names the program; `make demo-mesh` sets it")?
        .into();
    let port = ports::port()?;
    let api = port.address().to_string();
    let prepared = Program::prepare("diolkos", &binary)?;
    let document = prepared.home().join("registry.yaml");
    let registry = json!({
        "apiVersion": "diolkos.io/v1alpha1", "kind": "Registry", "metadata": {"name": "consul"},
        "spec": {
            "consul": {"addresses": [consul.http_addr()]},
            "export": {"namespace": "consul"},
            "grant": {"hosts": ["service.consul"], "cidrs": ["127.0.0.0/8"]},
        },
    });
    std::fs::write(&document, registry.to_string())?;
    let args = [
        "run",
        "-f",
        &document.display().to_string(),
        "--kubeconfig",
        &kubernetes.kubeconfig().display().to_string(),
        "--listen",
        &api,
    ];
    Ok((prepared.start(&args.map(str::to_owned))?, api))
}

/// Subsets, the split, and a listener for Envoy.
fn rules(envoy: &Envoy, port: u16) -> String {
    let destination = |subset: &str, weight: u32| json!({"destination": {"host": HOST, "subset": subset, "port": {"number": port}}, "weight": weight});
    let documents = [
        json!({"kind": "DestinationRule", "metadata": {"name": "web"}, "spec": {"host": HOST, "subsets": [
            {"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}}),
        json!({"kind": "VirtualService", "metadata": {"name": "web"}, "spec": {"hosts": [HOST],
            "http": [{"route": [destination("v1", 80), destination("v2", 20)]}]}}),
        json!({"kind": "Sidecar", "metadata": {"name": "client"}, "spec": {
            "workloadSelector": {"labels": {"app": "client"}},
            "egress": [{"port": {"number": port, "protocol": "HTTP", "name": "http"},
                        "bind": envoy.ip().to_string(), "captureMode": "NONE", "hosts": ["*/*"]}]}}),
    ];
    let whole = |mut document: Value| {
        document["apiVersion"] = "networking.istio.io/v1".into();
        document["metadata"]["namespace"] = "default".into();
        document.to_string()
    };
    documents.map(whole).join("\n---\n")
}
