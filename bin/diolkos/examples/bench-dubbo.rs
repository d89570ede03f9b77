//! `make bench-dubbo`: 5,000 interfaces × 4 providers in one ZooKeeper and in one etcd, carried into
//! a directory. Prints time, memory, requests and watches.

#![allow(clippy::print_stdout)] // it prints its figures

mod bench;

use anyhow::{Context, Result};
use bench::{Run, condition};
use diolkos_testkit::{Etcd, ZooKeeper};
use serde_json::{Value, json};
use tokio::time::Instant;

const INTERFACES: usize = 5_000;
const PROVIDERS: usize = 4;
/// The interface that changes.
const CHANGED: usize = 2_500;

#[tokio::main]
async fn main() -> Result<()> {
    diolkos_testkit::install_crypto();
    zookeeper().await?;
    etcd().await
}

async fn zookeeper() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let nodes: Vec<(String, &str)> = keys().map(|key| (key, "host")).collect();
    writer.create_many(&nodes).await?;
    let of_zookeeper = json!({"zookeeper": {"addresses": [server.address()]}});
    drop(measure("ZooKeeper", &of_zookeeper, "WorkloadEntry").await?);
    let measured = measure("ZooKeeper", &of_zookeeper, "Inline").await?;
    let said = server.four_letter("mntr").await?;
    let watches = said
        .lines()
        .find_map(|line| line.strip_prefix("zk_watch_count"));
    println!(
        "ZooKeeper: {} watches",
        watches.with_context(|| said.clone())?.trim()
    );
    let before = measured.requests().await?;
    let changed = Instant::now();
    writer.create(&key(CHANGED, PROVIDERS), "host").await?;
    measured.seen("ZooKeeper", changed).await?;
    let cost = measured.requests().await? - before;
    println!("ZooKeeper: one change took {cost} request(s)");
    Ok(())
}

async fn etcd() -> Result<()> {
    let server = Etcd::start().await?;
    let pairs: Vec<(String, String)> = keys().map(|key| (key, "host".to_owned())).collect();
    server.put_all(&pairs).await?;
    let of_etcd = json!({"etcd": {"addresses": server.endpoints()}});
    let measured = measure("etcd", &of_etcd, "Inline").await?;
    let changed = Instant::now();
    server.put(&key(CHANGED, PROVIDERS), "host").await?;
    measured.seen("etcd", changed).await
}

fn keys() -> impl Iterator<Item = String> {
    (0..INTERFACES).flat_map(|i| (0..PROVIDERS).map(move |p| key(i, p)))
}

fn interface(number: usize) -> String {
    format!("com.example.shop.service{number}.OrderService")
}

/// A provider's node, as Dubbo 3 writes it.
fn key(number: usize, provider: usize) -> String {
    let interface = interface(number);
    let address = format!(
        "10.{}.{}.{}:20880",
        number / 250,
        number % 250,
        provider + 1
    );
    let parameters = "application%3Dshop%26deprecated%3Dfalse%26dubbo%3D2.0.2%26dynamic%3Dtrue%26env%3Dprod%26generic%3Dfalse%26methods%3Dadd%2CsayHello%26prefer.serialization%3Dhessian2%2Cfastjson2%26release%3D3.3.5%26revision%3D1%26service-name-mapping%3Dtrue%26side%3Dprovider%26timestamp%3D1795252150853%26version%3D1.0.0";
    let address = address.replace(':', "%3A");
    format!(
        "/dubbo/{interface}/providers/dubbo%3A%2F%2F{address}%2F{interface}%3Finterface%3D{interface}%26{parameters}"
    )
}

/// A Diolkos that is in step.
struct Measured {
    run: Run,
    _objects: tempfile::TempDir,
}

async fn measure(name: &str, registry: &Value, endpoints: &str) -> Result<Measured> {
    let mut spec = registry.clone();
    spec["export"] = json!({"endpoints": endpoints});
    let objects = tempfile::tempdir()?;
    let to = format!("directory:{}", objects.path().display());
    let started = Instant::now();
    let run = Run::start(&spec, &["--to".to_owned(), to])?;
    let read = run
        .until(|r| r["services"] == INTERFACES && r["phase"] == "Live")
        .await?;
    let read_after = started.elapsed();
    run.until(|r| condition(r, "Synced") == "True").await?;
    println!(
        "{name}, {endpoints}: {INTERFACES} interfaces x {PROVIDERS} providers read after {:.2} s from the start of the process, {} requests; in step after {:.2} s; memory {:.1} MiB",
        read_after.as_secs_f64(),
        read["requests"],
        started.elapsed().as_secs_f64(),
        run.resident()?,
    );
    Ok(Measured {
        run,
        _objects: objects,
    })
}

impl Measured {
    async fn requests(&self) -> Result<u64> {
        let registry = self.run.until(|_| true).await?;
        registry["requests"].as_u64().context("requests")
    }

    /// Waits until the changed interface has one provider more.
    async fn seen(&self, name: &str, changed: Instant) -> Result<()> {
        let host = interface(CHANGED).to_lowercase();
        let address = format!("10.{}.{}.{}", CHANGED / 250, CHANGED % 250, PROVIDERS + 1);
        self.run
            .explained(&host, |text| text.contains(&address))
            .await?;
        println!(
            "{name}: one new provider known after {:.0} ms",
            changed.elapsed().as_secs_f64() * 1e3
        );
        Ok(())
    }
}
