use std::time::Duration;

use anyhow::Result;
use diolkos_testkit::ZooKeeper;
use diolkos_zk::{Change, Error, Session, WatchMode};
use futures::future::try_join_all;

use crate::support::{broken, config, connected, proxy, told};

#[tokio::test]
async fn a_recursive_watch_sees_all_below() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer.create("/a/old", "").await?;
    let mut first = connected(&config([server.address()]), &mut Session::default()).await;
    let watch = first
        .connection
        .add_watch("/a", WatchMode::PersistentRecursive);
    watch.await?;
    for _ in 0..2 {
        writer.create("/a/b/c", "").await?;
        let created = [(Change::Created, "/a/b"), (Change::Created, "/a/b/c")];
        told(&mut first.events, created).await;
        writer.set("/a/old", "x").await?;
        writer.delete_all("/a/b").await?;
        let deleted = [
            (Change::Data, "/a/old"),
            (Change::Deleted, "/a/b"),
            (Change::Deleted, "/a/b/c"),
        ];
        told(&mut first.events, deleted).await;
    }
    // A node that came and went while nobody asked is gone.
    writer.create("/a/d", "").await?;
    writer.delete("/a/d").await?;
    writer.create("/a/last", "").await?;
    told(&mut first.events, [(Change::Deleted, "/a/d")]).await;
    Ok(())
}

#[tokio::test]
async fn one_shot_and_persistent_watches() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer.create("/a", "").await?;
    writer.create("/p", "").await?;
    let mut first = connected(&config([server.address()]), &mut Session::default()).await;
    let connection = first.connection.clone();
    assert!(!connection.exists("/new", true).await?);
    connection.children("/a", true).await?;
    connection.data("/a", true).await?;
    connection.add_watch("/p", WatchMode::Persistent).await?;
    writer.create("/new", "").await?;
    writer.create("/a/b", "").await?;
    writer.set("/a", "x").await?;
    writer.create("/p/q", "").await?;
    let wanted = [
        (Change::Created, "/new"),
        (Change::Children, "/a"),
        (Change::Data, "/a"),
        (Change::Children, "/p"),
    ];
    told(&mut first.events, wanted).await;
    // One-shot ones are spent, the persistent one is not.
    writer.set("/a", "y").await?;
    writer.set("/p", "y").await?;
    let changes = first.events.next().await;
    let changes: Vec<_> = changes.iter().map(|c| (c.kind, c.path.as_str())).collect();
    assert_eq!(changes, [(Change::Data, "/p")]);
    connection.data("/a", true).await?;
    writer.delete_all("/a").await?;
    told(&mut first.events, [(Change::Deleted, "/a")]).await;
    Ok(())
}

#[tokio::test]
async fn watches_live_on_after_a_cut() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    for path in ["/children", "/gone", "/data", "/quiet", "/tree"] {
        writer.create(path, "").await?;
    }
    let mut proxy = proxy(&server).await;
    let config = config([proxy.address()]);
    let mut session = Session::default();
    let mut first = connected(&config, &mut session).await;
    let connection = first.connection.clone();
    connection.children("/children", true).await?;
    connection.children("/gone", true).await?;
    connection.data("/data", true).await?;
    connection.children("/quiet", true).await?;
    connection.exists("/new", true).await?;
    connection.exists("/later", true).await?;
    connection
        .add_watch("/tree", WatchMode::PersistentRecursive)
        .await?;
    connection
        .add_watch("/quiet", WatchMode::Persistent)
        .await?;

    proxy.refuse(true).await?;
    proxy.cut();
    broken(&mut first).await;
    assert!(connection.children("/data", false).await.is_err());
    writer.create("/children/x", "").await?;
    writer.delete("/gone").await?;
    writer.set("/data", "x").await?;
    writer.create("/new", "").await?;
    proxy.refuse(false).await?;

    let mut second = connected(&config, &mut session).await;
    assert!(second.resumed);
    let wanted = [
        (Change::Children, "/children"),
        (Change::Deleted, "/gone"),
        (Change::Data, "/data"),
        (Change::Created, "/new"),
    ];
    told(&mut second.events, wanted).await;
    writer.create("/tree/x", "").await?;
    writer.create("/later", "").await?;
    writer.create("/quiet/x", "").await?;
    let wanted = [
        (Change::Created, "/tree/x"),
        (Change::Created, "/later"),
        (Change::Children, "/quiet"),
    ];
    told(&mut second.events, wanted).await;
    Ok(())
}

/// What an event that came before the cut said is not lost with the connection.
#[tokio::test]
async fn changes_that_nobody_took_are_told_by_the_next_connection() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer.create("/a", "").await?;
    let proxy = proxy(&server).await;
    let config = config([proxy.address()]);
    let mut session = Session::default();
    let first = connected(&config, &mut session).await;
    first.connection.children("/a", true).await?;
    writer.create("/a/b", "").await?;
    // The event is before the answer.
    first.connection.sync("/").await?;
    first.connection.exists("/", false).await?;
    proxy.cut();
    first.connection.closed().await;
    let mut second = connected(&config, &mut session).await;
    assert!(second.resumed);
    told(&mut second.events, [(Change::Children, "/a")]).await;
    Ok(())
}

const MANY: usize = 16_000;

fn service(i: usize) -> String {
    format!(
        "/dubbo/com.example.company.department.product.api.v1.SomeFairlyLongServiceName{i:06}/providers"
    )
}

#[tokio::test]
async fn a_restart_with_16_000_watched_paths() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let nodes: Vec<_> = (0..MANY).map(|i| (service(i), "")).collect();
    writer.create_many(&nodes).await?;
    let mut config = config([server.address()]);
    config.session_timeout = Duration::from_secs(30);
    let mut session = Session::default();
    let mut first = connected(&config, &mut session).await;
    let reads = nodes
        .iter()
        .map(|(path, _)| first.connection.children(path, true));
    try_join_all(reads).await?;
    drop(writer);

    // A sample, then all.
    for step in [157, 1] {
        server.restart().await?;
        broken(&mut first).await;
        first = connected(&config, &mut session).await;
        assert!(first.resumed);
        let writer = server.writer().await?;
        let sample: Vec<_> = (0..MANY).step_by(step).map(service).collect();
        let children: Vec<_> = sample
            .iter()
            .map(|path| (format!("{path}/x{step}"), ""))
            .collect();
        writer.create_many(&children).await?;
        let wanted = sample.iter().map(|path| (Change::Children, path.as_str()));
        told(&mut first.events, wanted).await;
        let reads = sample
            .iter()
            .map(|path| first.connection.children(path, true));
        for children in try_join_all(reads).await? {
            assert!(children.names.contains(&format!("x{step}")));
        }
    }
    Ok(())
}

/// ZooKeeper 3.5 says that it does not know `addWatch`, and hangs up.
#[tokio::test]
async fn without_persistent_watches() -> Result<()> {
    let server = ZooKeeper::builder().old().start().await?;
    let writer = server.writer().await?;
    writer.create("/a", "").await?;
    let config = config([server.address()]);
    let mut session = Session::default();
    let mut first = connected(&config, &mut session).await;
    first.connection.children("/a", true).await?;
    let unsupported = Err(Error::Unsupported("addWatch"));
    let watch = first.connection.add_watch("/a", WatchMode::Persistent);
    assert_eq!(watch.await, unsupported);
    broken(&mut first).await;

    let mut second = connected(&config, &mut session).await;
    assert!(second.resumed);
    let watch = second
        .connection
        .add_watch("/a", WatchMode::PersistentRecursive);
    assert_eq!(watch.await, unsupported);
    assert_eq!(second.connection.requests(), 0);
    writer.create("/a/b", "").await?;
    told(&mut second.events, [(Change::Children, "/a")]).await;
    let told_again = second.connection.children("/a", true).await?;
    assert_eq!(told_again.names, ["b"]);
    Ok(())
}
