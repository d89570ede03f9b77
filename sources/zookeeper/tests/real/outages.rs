//! Connections that break, sessions that expire, servers that are lost.

use std::time::Duration;

use anyhow::{Context as _, Result};
use diolkos_source_api::Evidence;
use diolkos_testkit::{TcpProxy, ZooKeeper, eventually, zookeeper::Writer};

use crate::{
    dubbo::config,
    support::{RECOVERY, Running, provider_path},
};

async fn register(writer: &Writer, interface: &str, address: &str) -> Result<()> {
    writer.create(&provider_path(interface, address), "h").await
}

/// The sessions that a server knows but for the writer's own.
async fn sessions(server: &ZooKeeper, writer: &Writer) -> Result<Vec<String>> {
    let said = server.four_letter("dump").await?;
    let sessions = said.lines().map(str::trim).filter(|line| {
        line.strip_prefix("0x")
            .is_some_and(|id| id.chars().all(|c| c.is_ascii_hexdigit()))
    });
    let own = number(&writer.session())?;
    let mut others = Vec::new();
    for session in sessions {
        if number(session)? != own {
            others.push(session.to_owned());
        }
    }
    Ok(others)
}

fn number(session: &str) -> Result<u64> {
    let digits = session.trim_start_matches("0x");
    u64::from_str_radix(digits, 16).with_context(|| format!("{session} is no session"))
}

/// A source behind a proxy that knows the interfaces `a` and `b`.
async fn two_interfaces() -> Result<(ZooKeeper, TcpProxy, Writer, Running)> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    for interface in ["a", "b"] {
        register(&writer, interface, "10.1.0.1:20880").await?;
    }
    let proxy = TcpProxy::start(server.address().parse()?).await?;
    let source = Running::synced(config("zk", vec![proxy.address().to_string()])).await;
    assert_eq!(source.world().named, ["a", "b"]);
    Ok((server, proxy, writer, source))
}

#[tokio::test]
async fn after_a_short_cut_the_session_goes_on_and_nothing_is_removed() -> Result<()> {
    let (server, proxy, writer, source) = two_interfaces().await?;
    let before = sessions(&server, &writer).await?;
    assert_eq!(before.len(), 1);
    proxy.cut();
    source.snapshots(2).await;
    assert_eq!(sessions(&server, &writer).await?, before);
    assert!(source.world().removed.is_empty());
    assert_eq!(source.world().named, ["a", "b"]);
    register(&writer, "c", "10.1.0.1:20880").await?;
    source
        .until("the watches are still there", |world| {
            world.count("c") == Some(1)
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn after_an_expiry_all_is_read_anew_and_nothing_is_removed() -> Result<()> {
    let (server, mut proxy, writer, source) = two_interfaces().await?;
    let before = sessions(&server, &writer).await?;
    proxy.refuse(true).await?;
    proxy.cut();
    eventually(RECOVERY, "the session expires", async || {
        let left = sessions(&server, &writer).await?;
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    register(&writer, "c", "10.1.0.1:20880").await?;
    proxy.refuse(false).await?;
    source.snapshots(2).await;
    let after = sessions(&server, &writer).await?;
    assert!(after.len() == 1 && after != before, "{before:?}, {after:?}");
    assert!(source.world().removed.is_empty());
    assert_eq!(source.world().named, ["a", "b", "c"]);
    writer.delete(&provider_path("a", "10.1.0.1:20880")).await?;
    source
        .until("there are watches again", |world| world.removed == ["a"])
        .await;
    Ok(())
}

#[tokio::test]
async fn what_came_and_went_during_a_cut_is_found() -> Result<()> {
    let (_server, mut proxy, writer, source) = two_interfaces().await?;
    proxy.refuse(true).await?;
    proxy.cut();
    source.lost().await;
    // An exists-watch misses a node that is created and deleted while nobody is connected.
    register(&writer, "ghost", "10.1.0.1:20880").await?;
    writer.delete_all("/dubbo/ghost").await?;
    register(&writer, "new", "10.1.0.1:20880").await?;
    register(&writer, "a", "10.1.0.2:20880").await?;
    writer.delete(&provider_path("a", "10.1.0.1:20880")).await?;
    writer.delete_all("/dubbo/b").await?;
    proxy.refuse(false).await?;
    source.snapshots(2).await;
    let world = source.world().clone();
    assert_eq!(world.named, ["a", "new"]);
    assert_eq!(world.snapshots, [Evidence::Complete, Evidence::Complete]);
    assert!(world.removed.is_empty());
    let a = world.only("a").context("a has one provider")?;
    assert_eq!(&*a.id, "10.1.0.2:20880");
    register(&writer, "ghost", "10.1.0.1:20880").await?;
    source
        .until("the ghost comes for good", |world| {
            world.count("ghost") == Some(1)
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_stands_still_beyond_the_session_changes_nothing() -> Result<()> {
    let (server, _proxy, writer, source) = two_interfaces().await?;
    server.stop_process()?;
    source.lost().await;
    let epoch = source.health.borrow().epoch;
    eventually(RECOVERY, "it tries again", async || {
        source.health.borrow().epoch > epoch
    })
    .await;
    server.continue_process()?;
    source.snapshots(2).await;
    assert!(source.world().removed.is_empty());
    assert_eq!(source.world().named, ["a", "b"]);
    register(&writer, "c", "10.1.0.1:20880").await?;
    source
        .until("followed again", |world| world.count("c") == Some(1))
        .await;
    Ok(())
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_nothing_is_removed() -> Result<()> {
    let ensemble = ZooKeeper::ensemble(3).await?;
    let writer = ensemble.writer().await?;
    for interface in ["a", "b"] {
        register(&writer, interface, "10.1.0.1:20880").await?;
    }
    let leader = ensemble.leader().await?;
    // Its server is the one that goes, so that it has to find another one.
    let mut servers = ensemble.addresses();
    servers.swap(0, leader);
    let source = Running::synced(config("zk", servers)).await;
    ensemble[leader].kill()?;
    source.snapshots(2).await;
    assert!(source.world().removed.is_empty());
    assert_eq!(source.world().named, ["a", "b"]);
    eventually(RECOVERY, "a write after the election", async || {
        register(&writer, "c", "10.1.0.1:20880").await
    })
    .await;
    source
        .until("followed on another server", |world| {
            world.count("c") == Some(1)
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn a_deleted_chroot_is_an_empty_registry() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let node = |interface| format!("/mesh{}", provider_path(interface, "10.1.0.1:20880"));
    for interface in ["a", "b"] {
        writer.create(&node(interface), "h").await?;
    }
    let mut settings = config("zk", vec![server.address()]);
    "/mesh".clone_into(&mut settings.client.chroot);
    let source = Running::synced(settings).await;
    writer.delete_all("/mesh").await?;
    source
        .until("each deletion is told", |world| world.removed.len() == 2)
        .await;
    source.resync.send(()).await?;
    source.snapshots(2).await;
    assert_eq!(source.world().snapshots[1], Evidence::Complete);
    assert!(source.world().named.is_empty());
    writer.create(&node("a"), "h").await?;
    source
        .until("it is back", |world| world.count("a") == Some(1))
        .await;
    assert_eq!(source.health.borrow().epoch, 1);
    Ok(())
}

#[tokio::test]
async fn contacts_are_told_while_nothing_happens() -> Result<()> {
    let (_server, _proxy, _writer, source) = two_interfaces().await?;
    let before = source.health.borrow().last_contact;
    eventually(Duration::from_secs(5), "a ping is answered", async || {
        source.health.borrow().last_contact > before
    })
    .await;
    Ok(())
}
