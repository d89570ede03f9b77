//! A large registry: what it costs to read, to watch and to follow.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use diolkos_source_dubbo::Discovery;
use diolkos_testkit::ZooKeeper;

use crate::{
    dubbo::config,
    support::{Running, provider_path},
};

const INTERFACES: usize = 5_000;
const PROVIDERS: usize = 4;
const CHANGES: usize = 20;
/// For the first snapshot, in a debug build on a busy machine.
const SYNC: Duration = Duration::from_secs(60);

fn interface(number: usize) -> String {
    format!("com.example.shop.service{number}.OrderService")
}

fn node(interface: usize, provider: usize) -> String {
    let address = format!(
        "10.{}.{}.{provider}:20880",
        interface / 250,
        interface % 250
    );
    provider_path(&self::interface(interface), &address)
}

/// How many watches the server holds, of nodes and of lists of children.
async fn watches(server: &ZooKeeper) -> Result<usize> {
    let said = server.four_letter("mntr").await?;
    let count = said
        .lines()
        .find_map(|line| line.strip_prefix("zk_watch_count"));
    Ok(count.with_context(|| said.clone())?.trim().parse()?)
}

/// What a registry of this size costs.
struct Costs {
    sync: Duration,
    requests: u64,
    watches: usize,
    /// Requests for [`CHANGES`], one after the other.
    changes: u64,
}

async fn costs(server: &ZooKeeper) -> Result<Costs> {
    let writer = server.writer().await?;
    let nodes: Vec<(String, &str)> = (0..INTERFACES)
        .flat_map(|i| (0..PROVIDERS).map(move |p| (node(i, p), "h")))
        .collect();
    writer.create_many(&nodes).await?;
    let mut settings = config("zk", vec![server.address()]);
    settings.dubbo.discovery = Discovery::Interface;
    settings.client.session_timeout = Duration::from_secs(10);
    let start = Instant::now();
    let source = Running::start(settings);
    source
        .within(SYNC, "the first snapshot", |world| {
            !world.snapshots.is_empty()
        })
        .await;
    let sync = start.elapsed();
    assert_eq!(source.world().services.len(), INTERFACES);
    let requests = source.requests();
    for number in 0..CHANGES {
        writer.create(&node(number, PROVIDERS), "h").await?;
        source
            .until("the change is seen", |world| {
                world.count(&interface(number)) == Some(PROVIDERS + 1)
            })
            .await;
    }
    let changes = source.requests() - requests;
    let watches = watches(server).await?;
    let costs = Costs {
        sync,
        requests,
        watches,
        changes,
    };
    figure(&costs);
    Ok(costs)
}

#[expect(clippy::print_stdout, reason = "a figure for those who look for it")]
fn figure(costs: &Costs) {
    let Costs {
        sync,
        requests,
        watches,
        changes,
    } = costs;
    println!(
        "figure: {INTERFACES} interfaces with {PROVIDERS} providers: {sync:.1?} to the first snapshot, \
         {requests} requests, {watches} watches; {changes} requests for {CHANGES} changes"
    );
}

#[tokio::test]
async fn a_large_registry_takes_one_watch_and_a_change_takes_one_read() -> Result<()> {
    let costs = costs(&ZooKeeper::start().await?).await?;
    assert_eq!(costs.watches, 1);
    assert_eq!(costs.changes, 20);
    // Two lists an interface; the watch, a sync, the interfaces and the rules.
    assert_eq!(costs.requests, 10_004);
    Ok(())
}

#[tokio::test]
async fn without_persistent_watches_it_takes_two_an_interface() -> Result<()> {
    let costs = costs(&ZooKeeper::builder().old().start().await?).await?;
    assert_eq!(costs.watches, 10_002);
    assert_eq!(costs.changes, 20);
    Ok(())
}
