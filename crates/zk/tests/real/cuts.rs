use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Result;
use diolkos_testkit::ZooKeeper;
use diolkos_zk::{Change, Connected, Error, Session, WatchMode};
use futures::future::try_join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::{PATIENCE, attempt, config, connected, told};

/// A proxy that ends each connection after so many bytes of the server.
struct Cutter {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Cutter {
    async fn start(server: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(u64::MAX));
        let limit = bytes.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server is up");
                tokio::spawn(carry(client, server, limit.load(Relaxed)));
            }
        });
        Ok(Self { address, bytes })
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, bytes: u64) {
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut some = from_server.take(bytes);
    // Which side ends first, and how, is what the test is about.
    tokio::select! {
        _ = copy(&mut some, &mut to_client) => {}
        _ = copy(&mut from_client, &mut to_server) => {}
    }
    to_client.shutdown().await.ok();
}

/// Asks until the connection breaks, as it must.
async fn exhaust(connected: &Connected) -> Error {
    loop {
        let asked = timeout(PATIENCE, connected.connection.data("/data", true)).await;
        if let Err(error) = asked.expect("no request hangs") {
            return error;
        }
    }
}

/// Watches that were not set again yet when the connection broke tell what changed before that.
#[tokio::test]
async fn cuts_while_many_watches_are_set_again_lose_nothing() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let name = |i: usize| format!("/{}{i:04}", "long".repeat(20));
    let nodes: Vec<_> = (0..4_000).map(|i| (name(i), "")).collect();
    writer.create_many(&nodes).await?;
    let cutter = Cutter::start(server.address()).await?;
    let mut config = config([cutter.address]);
    config.session_timeout = Duration::from_secs(30);
    let mut session = Session::default();
    let first = connected(&config, &mut session).await;
    let reads = nodes
        .iter()
        .map(|(path, _)| first.connection.children(path, true));
    try_join_all(reads).await?;
    drop(first);
    let (early, late) = (name(0), name(3_999));
    writer.create(&format!("{early}/child"), "").await?;
    writer.create(&format!("{late}/child"), "").await?;

    // The greeting, an event of 116 bytes with the first of three replies, another event before the last.
    for bytes in (41..300).step_by(15) {
        cutter.bytes.store(bytes, Relaxed);
        if attempt(&config, &mut session).await.is_ok() {
            break;
        }
    }
    cutter.bytes.store(u64::MAX, Relaxed);
    let mut last = connected(&config, &mut session).await;
    assert!(last.resumed);
    let wanted = [early, late];
    let wanted = wanted.iter().map(|path| (Change::Children, path.as_str()));
    told(&mut last.events, wanted).await;
    Ok(())
}

#[tokio::test]
async fn cuts_at_any_byte_lose_nothing() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    for path in ["/early", "/late", "/tree"] {
        writer.create(path, "").await?;
    }
    writer.create("/data", "0123456789").await?;
    let cutter = Cutter::start(server.address()).await?;
    let mut config = config([cutter.address]);
    config.session_timeout = Duration::from_secs(30);
    let mut session = Session::default();
    let first = connected(&config, &mut session).await;
    let id = session.id();
    first.connection.children("/early", true).await?;
    first.connection.children("/late", true).await?;
    let recursive = WatchMode::PersistentRecursive;
    first.connection.add_watch("/tree", recursive).await?;
    drop(first);
    writer.create("/early/child", "").await?;

    // The greeting has 41 bytes, the reply to SetWatches2 20, an event some 40, a read some 100.
    for bytes in (0..300).chain((300..1_000).step_by(13)) {
        cutter.bytes.store(bytes, Relaxed);
        let error = match attempt(&config, &mut session).await {
            Ok(connected) => {
                assert!(connected.resumed, "after {bytes} bytes");
                exhaust(&connected).await
            }
            Err(error) => error,
        };
        assert!(matches!(error, Error::Connection(_)), "{bytes}: {error}");
    }
    assert_eq!(session.id(), id);

    cutter.bytes.store(u64::MAX, Relaxed);
    let mut last = connected(&config, &mut session).await;
    assert!(last.resumed);
    told(&mut last.events, [(Change::Children, "/early")]).await;
    writer.create("/late/child", "").await?;
    writer.create("/tree/child", "").await?;
    let wanted = [
        (Change::Children, "/late"),
        (Change::Created, "/tree/child"),
    ];
    told(&mut last.events, wanted).await;
    Ok(())
}
