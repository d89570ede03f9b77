//! Agents that fail, restart, hang or are replaced.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use diolkos_source_api::{Evidence, Phase, Stopped};
use diolkos_testkit::{Consul, Fault, HttpFault, On, TcpProxy, eventually};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Running, config};

/// An agent that is killed needs some seconds to lead again.
const RECOVERY: Duration = Duration::from_secs(60);

async fn lost(source: &Running) {
    eventually(RECOVERY, "the loss is told", async || {
        let phase = source.health.borrow().phase;
        phase != Phase::Connecting && !phase.is_connected()
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_the_agent_removes_nothing_and_is_recovered_from() -> Result<()> {
    let consul = Consul::builder().persistent().start().await?;
    for name in ["web", "db"] {
        consul.register(&json!({"Name": name, "Port": 1})).await?;
    }
    let source = Running::synced(config(consul.http_addr())).await;
    consul.kill()?;
    lost(&source).await;
    assert_eq!(source.health.borrow().phase, Phase::Unreachable);
    consul.restart().await?;
    source
        .within(RECOVERY, "a new connection", |world| {
            world.snapshots.last() == Some(&Evidence::Complete)
                && world.snapshots.len() > 1
                && world.named.len() == 2
        })
        .await;
    assert!(source.health.borrow().epoch > 1);
    assert!(source.world().removed.is_empty());
    consul.register(&json!({"Name": "web", "Port": 2})).await?;
    source
        .until("followed again", |world| {
            world
                .only("dc1/web")
                .is_some_and(|i| i.ports[0].number == 2)
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_lost_its_data_is_read_anew() -> Result<()> {
    let consul = Consul::start().await?;
    for index in 0..20 {
        consul
            .register(&json!({"Name": format!("svc-{index}"), "Port": 1}))
            .await?;
    }
    let source = Running::synced(config(consul.http_addr())).await;
    // A -dev agent forgets everything, so its index starts anew, far below ours.
    consul.restart().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    source
        .within(RECOVERY, "the new catalogue", |world| {
            world.snapshots.len() > 1 && world.count("dc1/web") == Some(1)
        })
        .await;
    consul.deregister("web").await?;
    source
        .until("followed from the new index", |world| {
            world.removed.contains(&"dc1/web".to_owned())
        })
        .await;
    // What the new catalogue lacks is for the snapshot's end to tell, not for removals.
    assert_eq!(source.world().removed, ["dc1/web"]);
    Ok(())
}

#[tokio::test]
async fn the_second_address_is_used_when_the_first_is_gone() -> Result<()> {
    let consul = Consul::start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    let mut proxy = TcpProxy::start(consul.http_addr()[7..].parse()?).await?;
    let mut settings = config(format!("http://{}", proxy.address()));
    settings.addresses.push(consul.http_addr());
    let source = Running::synced(settings).await;
    assert!(proxy.open() > 0, "the first address is preferred");
    proxy.refuse(true).await?;
    proxy.cut();
    source
        .within(RECOVERY, "a snapshot from the second address", |world| {
            world.snapshots.len() > 1
        })
        .await;
    consul.register(&json!({"Name": "web", "Port": 2})).await?;
    source
        .until("followed there", |world| {
            world
                .only("dc1/web")
                .is_some_and(|i| i.ports[0].number == 2)
        })
        .await;
    assert_eq!(proxy.open(), 0);
    Ok(())
}

#[tokio::test]
async fn an_agent_that_hangs_is_given_up_in_time() -> Result<()> {
    let consul = Consul::start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    let mut settings = config(consul.http_addr());
    settings.wait = Duration::from_secs(1);
    let source = Running::synced(settings).await;
    consul.stop_process()?;
    lost(&source).await;
    assert!(source.world().removed.is_empty());
    consul.continue_process()?;
    source
        .within(RECOVERY, "recovered", |world| world.snapshots.len() > 1)
        .await;
    assert!(source.world().removed.is_empty());
    Ok(())
}

#[tokio::test]
async fn no_consul_at_all_is_reported_and_retried() -> Result<()> {
    let consul = Consul::start().await?;
    let address = consul.http_addr();
    consul.kill()?;
    let source = Running::start(config(address.clone()));
    lost(&source).await;
    let health = source.health.borrow().clone();
    assert_eq!(health.phase, Phase::Unreachable);
    assert!(health.detail.contains(&address), "{}", health.detail);
    assert_eq!(source.world().snapshots.len(), 0);
    consul.restart().await?;
    source
        .within(RECOVERY, "it comes", |world| {
            world.snapshots == [Evidence::Complete]
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn a_rate_limit_slows_down_and_loses_nothing() -> Result<()> {
    let limits = json!({"limits": {"request_limits": {
        "mode": "enforcing", "read_rate": 20.0, "write_rate": 10000.0,
    }}});
    let consul = Consul::builder().config(limits).start().await?;
    for index in 0..100 {
        let service = json!({"Service": format!("svc-{index}"), "Port": 1});
        let entry = json!({"Node": "legacy", "Address": "10.1.0.1", "Service": service});
        consul.catalog_register(&entry).await?;
    }
    let source = Running::start(config(consul.http_addr()));
    source
        .within(RECOVERY, "a snapshot", |world| !world.snapshots.is_empty())
        .await;
    assert_eq!(source.world().services.len(), 100);
    assert_eq!(source.world().started, 1, "the first connection did it");
    Ok(())
}

#[tokio::test]
async fn an_unknown_datacenter_and_a_foreign_server_are_told_apart() -> Result<()> {
    let consul = Consul::start().await?;
    let mut unknown = config(consul.http_addr());
    unknown.datacenters = vec!["nowhere".into()];
    let mut enterprise = config(consul.http_addr());
    enterprise.namespace = Some("team".into());
    let mut foreign = config(format!("{}/ui", consul.http_addr()));
    foreign.datacenters = vec!["dc1".into()];
    for (settings, phase, text) in [
        (unknown, Phase::Unreachable, "No path to datacenter"),
        (enterprise, Phase::Misconfigured, "Enterprise"),
        (foreign, Phase::Unreachable, "/ui"),
    ] {
        let source = Running::start(settings);
        lost(&source).await;
        let health = source.health.borrow().clone();
        assert_eq!(health.phase, phase, "{}", health.detail);
        assert!(health.detail.contains(text), "{}", health.detail);
        assert!(source.world().snapshots.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn ends_at_once_when_told_to() -> Result<()> {
    let consul = Consul::start().await?;
    let following = Running::synced(config(consul.http_addr())).await;
    let at = Instant::now();
    assert_eq!(following.stop().await, Stopped);
    assert!(at.elapsed() < Duration::from_secs(1), "{:?}", at.elapsed());
    eventually(
        Duration::from_secs(2),
        "no connection is left",
        async || consul.connections().is_ok_and(|open| open == 0),
    )
    .await;

    consul.stop_process()?;
    let reading = Running::start(config(consul.http_addr()));
    let at = Instant::now();
    assert_eq!(reading.stop().await, Stopped);
    assert!(at.elapsed() < Duration::from_secs(1), "{:?}", at.elapsed());
    consul.continue_process()?;
    Ok(())
}

/// An agent with `discovery_max_stale` may answer plain reads from a server that was cut off.
#[tokio::test]
async fn an_old_answer_is_told_as_stale_and_asked_for_again() -> Result<()> {
    const PATH: &str = "/v1/health/service/web?dc=dc1";
    let consul = Consul::start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    let proxy = HttpFault::start(&consul.http_addr()).await?;
    let mut settings = config(proxy.url());
    settings.wait = Duration::from_secs(1);
    let source = Running::synced(settings).await;
    assert_eq!(source.world().snapshots, [Evidence::Complete]);

    let old = proxy.record(PATH).await?;
    let old = old.header("X-Consul-LastContact", "60000");
    let replay = proxy.rule(On::reads().path(PATH), Fault::Reply(old));
    consul.register(&json!({"Name": "web", "Port": 2})).await?;
    source
        .until("the old answer is told as stale", |world| {
            matches!(&world.evidence["dc1/web"], Evidence::Stale(why) if why.contains("60 s ago"))
        })
        .await;
    assert!(replay.hits() > 0);
    source.resync.send(()).await?;
    source
        .until("a snapshot with an old answer is stale", |world| {
            matches!(&*world.snapshots, [_, Evidence::Stale(_)])
        })
        .await;

    // Nothing changes in Consul any more.
    replay.end();
    source
        .until("it is asked for again", |world| {
            world.evidence["dc1/web"] == Evidence::Complete
                && world
                    .only("dc1/web")
                    .is_some_and(|i| i.ports[0].number == 2)
        })
        .await;
    Ok(())
}

/// The connections and requests of a source in ten minutes against an address that is of no use, on a clock that
/// jumps over each wait.
async fn ten_minutes_against(address: SocketAddr) -> (u64, u64) {
    let mut settings = config(format!("http://{address}"));
    settings.datacenters = vec!["dc1".into()];
    let source = Running::start(settings);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let health = source.health.borrow().clone();
    assert_eq!(health.phase, Phase::Unreachable, "{}", health.detail);
    assert!(source.world().snapshots.is_empty());
    (health.epoch, health.requests)
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_a_registry_cost_few_connections() -> Result<()> {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await?;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await?;
    let closed_address = closed.local_addr()?;
    drop(closed);
    // At least half of 30 s between two of them, once the waits have grown.
    for address in [silent.local_addr()?, closed_address] {
        let (connections, requests) = ten_minutes_against(address).await;
        assert!(
            (10..=50).contains(&connections),
            "{connections} connections"
        );
        assert!(requests <= connections + 1, "{requests} requests");
    }
    Ok(())
}

/// A Consul whose every connection breaks right after the snapshot, which is the costly part.
#[tokio::test]
async fn a_registry_that_breaks_after_each_snapshot_is_read_ever_less_often() -> Result<()> {
    let consul = Consul::start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    let proxy = HttpFault::start(&consul.http_addr()).await?;
    let source = Running::synced(config(proxy.url())).await;
    proxy.rule(On::reads().path("index="), Fault::Reset);
    proxy.cut();
    let begin = source.world().started;
    let at = Instant::now();
    let snapshots = || source.world().started - begin;
    // Waits of 0.1 to 0.2 s at first, then doubling: 6 of them take at least 6.3 s.
    eventually(RECOVERY, "six more snapshots", async || snapshots() >= 6).await;
    assert!(at.elapsed() >= Duration::from_secs(6), "{:?}", at.elapsed());
    assert!(source.world().removed.is_empty());
    Ok(())
}
