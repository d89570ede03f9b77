//! `make bench-nacos`: 5,000 services × 10 instances in one Nacos, carried into a directory. Prints
//! time, memory and requests.

#![allow(clippy::print_stdout)] // it prints its figures

mod bench;

use anyhow::{Context, Result};
use bench::{Run, condition};
use diolkos_testkit::nacos::{Nacos, NacosClient, NacosInstance, NacosService};
use diolkos_testkit::netns;
use serde_json::json;
use tokio::time::Instant;

const SERVICES: usize = 5_000;
const INSTANCES: usize = 10;
/// The service that changes.
const CHANGED: usize = 2_500;
/// Services that are registered with one order.
const BULK: usize = 250;

fn main() -> Result<()> {
    netns::program(async {
        diolkos_testkit::install_crypto();
        let nacos = Nacos::builder().start().await?;
        let client = nacos.client().await?;
        fill(&client).await?;
        for (transport, endpoints) in [
            ("Grpc", "WorkloadEntry"),
            ("Grpc", "Inline"),
            ("Http", "Inline"),
        ] {
            measure(&nacos, &client, transport, endpoints).await?;
        }
        Ok(())
    })
}

fn service(number: usize) -> String {
    format!("shop-service-{number}")
}

fn instances(number: usize, count: usize) -> Vec<NacosInstance> {
    let ip = |i| format!("10.{}.{}.{}", number / 250, number % 250, i + 1);
    let of = |i| {
        NacosInstance::new(&ip(i), 8080)
            .metadata("version", if i % 2 == 0 { "v1" } else { "v2" })
            .metadata("preserved.register.source", "SPRING_CLOUD")
    };
    (0..count).map(of).collect()
}

async fn fill(client: &NacosClient) -> Result<()> {
    let started = Instant::now();
    let all: Vec<_> = (0..SERVICES)
        .map(|number| (service(number), instances(number, INSTANCES)))
        .collect();
    for bulk in all.chunks(BULK) {
        let services: Vec<NacosService<'_>> = bulk
            .iter()
            .map(|(name, instances)| ("public", "DEFAULT_GROUP", &**name, &**instances))
            .collect();
        client.put_all(&services).await?;
    }
    let taken = started.elapsed().as_secs_f64();
    println!("Nacos' own client registered {SERVICES} x {INSTANCES} in {taken:.1} s");
    Ok(())
}

async fn measure(
    nacos: &Nacos,
    client: &NacosClient,
    transport: &str,
    endpoints: &str,
) -> Result<()> {
    let spec = json!({
        "nacos": {"addresses": [nacos.http_url()], "transport": transport},
        "export": {"endpoints": endpoints},
    });
    let objects = tempfile::tempdir()?;
    let to = format!("directory:{}", objects.path().display());
    let started = Instant::now();
    let run = Run::start(&spec, &["--to".to_owned(), to])?;
    let read = run
        .until(|r| r["services"] == SERVICES && r["phase"] == "Live")
        .await?;
    let read_after = started.elapsed().as_secs_f64();
    run.until(|r| condition(r, "Synced") == "True").await?;
    println!(
        "{transport}, {endpoints}: {SERVICES} services x {INSTANCES} instances read after {read_after:.2} s from the start of the process, {} requests; in step after {:.2} s; memory {:.1} MiB",
        read["requests"],
        started.elapsed().as_secs_f64(),
        run.resident()?,
    );
    let changed = Instant::now();
    let name = service(CHANGED);
    let more = instances(CHANGED, INSTANCES + 1);
    client.put("public", "DEFAULT_GROUP", &name, &more).await?;
    let host = format!("{name}.default-group.public.nacos");
    let address = more.last().context("one more")?.ip.clone();
    run.explained(&host, |text| text.contains(&address)).await?;
    println!(
        "{transport}, {endpoints}: one new instance known after {:.0} ms",
        changed.elapsed().as_secs_f64() * 1e3
    );
    let fewer = instances(CHANGED, INSTANCES);
    client.put("public", "DEFAULT_GROUP", &name, &fewer).await
}
