//! What the tests share.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use diolkos_testkit::{TcpProxy, ZooKeeper, eventually};
use diolkos_zk::{Change, Changed, Config, Connected, Error, Events, Session, connect};
use tokio::time::{Instant, timeout, timeout_at};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn config(servers: impl IntoIterator<Item = impl ToString>) -> Config {
    Config {
        servers: servers
            .into_iter()
            .map(|server| server.to_string())
            .collect(),
        chroot: String::new(),
        session_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(2),
        digest: None,
        tls: None,
        frame_limit: 1 << 20,
    }
}

pub(crate) async fn proxy(server: &ZooKeeper) -> TcpProxy {
    let target: SocketAddr = server.address().parse().unwrap();
    TcpProxy::start(target).await.unwrap()
}

/// One try, which has to come to an end.
pub(crate) async fn attempt(config: &Config, session: &mut Session) -> Result<Connected, Error> {
    timeout(PATIENCE, connect(config, session))
        .await
        .expect("it does not hang")
}

/// Connects as often as it takes.
pub(crate) async fn connected(config: &Config, session: &mut Session) -> Connected {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt(config, session).await {
            Ok(connected) => return connected,
            Err(error) => assert!(Instant::now() < end, "no connection: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the connection says that it is broken.
pub(crate) async fn broken(connected: &mut Connected) -> Error {
    let error = timeout(PATIENCE, connected.connection.closed())
        .await
        .expect("the connection breaks");
    assert!(connected.events.next().await.is_empty());
    error
}

/// Waits until all of these were told; others may be told too.
pub(crate) async fn told(events: &mut Events, wanted: impl IntoIterator<Item = (Change, &str)>) {
    let mut wanted: BTreeSet<Changed> = wanted
        .into_iter()
        .map(|(kind, path)| Changed {
            path: path.to_owned(),
            kind,
        })
        .collect();
    let end = Instant::now() + PATIENCE;
    while !wanted.is_empty() {
        let Ok(changes) = timeout_at(end, events.next()).await else {
            panic!("nobody told of {wanted:?}");
        };
        assert!(!changes.is_empty(), "broken before {wanted:?}");
        for changed in changes {
            wanted.remove(&changed);
        }
    }
}

/// Waits until the server has forgotten a session.
pub(crate) async fn expired(server: &ZooKeeper, session: i64) {
    let id = format!("{session:#x}");
    eventually(PATIENCE, "the session expires", async || {
        let dump = server.four_letter("dump").await;
        dump.is_ok_and(|dump| dump.contains("Session") && !dump.contains(&id))
    })
    .await;
}
