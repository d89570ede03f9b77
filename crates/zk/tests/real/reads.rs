use std::time::{Duration, Instant};

use anyhow::Result;
use diolkos_testkit::{ZooKeeper, eventually};
use diolkos_zk::{Change, Error, Session};
use futures::future::{join_all, try_join_all};

use crate::support::{PATIENCE, attempt, config, connected, proxy, told};

#[tokio::test]
async fn reads_and_refusals() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    for child in ["b", "a", "c%2F:ü"] {
        writer.create(&format!("/parent/{child}"), child).await?;
    }
    let mut session = Session::default();
    assert_eq!(session.id(), None);
    let first = connected(&config([server.address()]), &mut session).await;
    assert!(!first.resumed);
    assert!(session.id().is_some());
    assert_eq!(first.server, server.address());
    assert_eq!(first.session_timeout, Duration::from_secs(10));

    let connection = &first.connection;
    let children = connection.children("/parent", false).await?;
    assert_eq!(children.names, ["a", "b", "c%2F:ü"]);
    assert_eq!(connection.data("/parent/b", false).await?, "b");
    assert!(connection.data("/parent", false).await?.is_empty());
    assert!(connection.exists("/parent", false).await?);
    assert!(!connection.exists("/none", false).await?);
    connection.sync("/parent").await?;
    connection.sync("/none").await?;
    let path = "/none".to_owned();
    for error in [
        connection.children("/none", true).await.err(),
        connection.data("/none", true).await.err(),
    ] {
        assert_eq!(error, Some(Error::NoNode { path: path.clone() }));
    }
    assert_eq!(connection.requests(), 9);
    for path in ["", "parent", "/parent/", "/a//b", "/a/../b", "/a\0"] {
        let error = connection.children(path, false).await.unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{error}");
    }
    assert_eq!(connection.requests(), 9, "nothing was sent");
    Ok(())
}

#[tokio::test]
async fn below_a_chroot() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer.create("/some/base/node", "data").await?;
    let mut config = config([server.address()]);
    config.chroot = "/some/base".to_owned();
    let mut first = connected(&config, &mut Session::default()).await;
    let connection = &first.connection;
    assert_eq!(connection.children("/", true).await?.names, ["node"]);
    assert_eq!(connection.data("/node", true).await?, "data");
    let path = "/some".to_owned();
    let error = connection.children("/some", false).await.unwrap_err();
    assert_eq!(error, Error::NoNode { path });
    writer.create("/some/base/other", "").await?;
    writer.set("/some/base/node", "more").await?;
    told(
        &mut first.events,
        [(Change::Children, "/"), (Change::Data, "/node")],
    )
    .await;

    config.chroot = "/some/base/".to_owned();
    let error = attempt(&config, &mut Session::default()).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_too_large_fails_its_request_only() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let nodes: Vec<_> = (0..16_000)
        .map(|i| (format!("/large/{}{i:06}", "provider".repeat(10)), ""))
        .collect();
    writer.create_many(&nodes).await?;
    writer.create("/small/child", "").await?;
    let mut config = config([server.address()]);
    let mut session = Session::default();
    let mut first = connected(&config, &mut session).await;
    let connection = &first.connection;
    // Others are under way before and after it.
    let (before, large, after) = tokio::join!(
        connection.children("/small", false),
        connection.children("/large", true),
        connection.children("/small", false),
    );
    assert_eq!(before?.names, ["child"]);
    assert_eq!(after?.names, ["child"]);
    assert_eq!(
        large.unwrap_err(),
        Error::TooLarge {
            path: "/large".to_owned(),
            // The header, the count, each name behind its length. The server's own limit (1 MiB) is none.
            bytes: 16 + 4 + 16_000 * (4 + 86),
            limit: 1 << 20,
        }
    );
    // The watch is set all the same: it may become smaller.
    writer.delete(&nodes[0].0).await?;
    told(&mut first.events, [(Change::Children, "/large")]).await;

    config.frame_limit = 2 << 20;
    let second = connected(&config, &mut session).await;
    assert!(second.resumed);
    let children = second.connection.children("/large", false).await?;
    assert_eq!(children.names.len(), nodes.len() - 1);
    Ok(())
}

#[tokio::test]
async fn thousands_of_requests_at_once() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let nodes: Vec<_> = (0..5_000)
        .map(|i| (format!("/n{i}"), i.to_string()))
        .collect();
    writer.create_many(&nodes).await?;
    let first = connected(&config([server.address()]), &mut Session::default()).await;
    let connection = &first.connection;
    let reads = nodes.iter().map(|(path, _)| connection.data(path, false));
    let read = try_join_all(reads).await?;
    assert!(
        read.iter()
            .zip(&nodes)
            .all(|(read, (_, data))| read == data)
    );

    // Those that nobody waits for do not disturb the others.
    let dropped = nodes.iter().map(|(path, _)| async move {
        let read = connection.data(path, false);
        tokio::time::timeout(Duration::from_micros(200), read)
            .await
            .ok()
    });
    join_all(dropped).await;
    assert_eq!(connection.data("/n7", false).await?, "7");
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_lives() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let mut config = config([server.address()]);
    config.session_timeout = Duration::from_millis(600);
    let first = connected(&config, &mut Session::default()).await;
    let mut contact = first.connection.contact();
    let start = Instant::now();
    while start.elapsed() < 3 * config.session_timeout {
        tokio::time::timeout(PATIENCE, contact.changed()).await??;
        assert!(contact.borrow_and_update().elapsed() < Duration::from_secs(1));
    }
    assert!(first.connection.exists("/", false).await?);
    assert_eq!(first.connection.requests(), 1);
    Ok(())
}

#[tokio::test]
async fn it_ends_when_nobody_holds_it() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer.create("/a", "").await?;
    let proxy = proxy(&server).await;
    let config = config([proxy.address()]);
    let first = connected(&config, &mut Session::default()).await;
    assert_eq!(proxy.open(), 1);
    first.connection.children("/a", true).await?;
    let (connection, mut events) = (first.connection, first.events);
    drop(connection);
    writer.create("/a/b", "").await?;
    told(&mut events, [(Change::Children, "/a")]).await;
    drop(events);
    eventually(PATIENCE, "the connection ends", async || proxy.open() == 0).await;
    Ok(())
}
