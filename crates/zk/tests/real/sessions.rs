use std::time::Duration;

use anyhow::Result;
use diolkos_testkit::ZooKeeper;
use diolkos_zk::{Change, Error, Session, WatchMode};

use crate::support::{attempt, broken, config, connected, expired, proxy, told};

#[tokio::test]
async fn after_an_expiry_there_is_a_new_session() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer.create("/a", "").await?;
    let proxy = proxy(&server).await;
    let mut config = config([proxy.address()]);
    config.session_timeout = Duration::from_secs(1);
    let mut session = Session::default();
    let mut first = connected(&config, &mut session).await;
    let id = session.id().unwrap();
    first.connection.children("/a", true).await?;
    let recursive = WatchMode::PersistentRecursive;
    first.connection.add_watch("/a", recursive).await?;

    proxy.hang(true);
    let error = broken(&mut first).await;
    let silent = format!("{}: the server was silent", proxy.address());
    assert!(error.to_string().starts_with(&silent), "{error}");
    expired(&server, id).await;
    writer.create("/a/b", "").await?;
    proxy.hang(false);

    let mut second = connected(&config, &mut session).await;
    assert!(!second.resumed);
    assert_ne!(session.id(), Some(id));
    let watches = server.four_letter("wchs").await?;
    assert!(watches.contains("Total watches:0"), "{watches}");
    second.connection.add_watch("/a", recursive).await?;
    writer.create("/a/c", "").await?;
    told(&mut second.events, [(Change::Created, "/a/c")]).await;
    proxy.cut();
    broken(&mut second).await;
    assert!(connected(&config, &mut session).await.resumed);
    Ok(())
}

/// A server refuses those who have seen more than it has. If its data were lost, that is for ever.
#[tokio::test]
async fn a_server_that_lost_its_data_takes_us_in_the_end() -> Result<()> {
    let (server, empty) = tokio::try_join!(ZooKeeper::start(), ZooKeeper::start())?;
    let writer = server.writer().await?;
    writer.create("/a/b/c", "").await?;
    let proxy = proxy(&server).await;
    let mut config = config([proxy.address()]);
    config.session_timeout = Duration::from_secs(1);
    let mut session = Session::default();
    let mut first = connected(&config, &mut session).await;
    first.connection.children("/a", true).await?;
    proxy.redirect(empty.address().parse()?);
    proxy.cut();
    broken(&mut first).await;
    let error = attempt(&config, &mut session).await.unwrap_err();
    assert!(matches!(error, Error::Connection(_)), "{error}");
    let second = connected(&config, &mut session).await;
    assert!(!second.resumed);
    assert!(!second.connection.exists("/a", false).await?);
    Ok(())
}

#[tokio::test]
async fn a_new_connection_ends_the_former() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer.create("/a", "").await?;
    let proxy = proxy(&server).await;
    let config = config([proxy.address()]);
    let mut session = Session::default();
    let mut first = connected(&config, &mut session).await;
    first.connection.children("/a", true).await?;
    let mut second = connected(&config, &mut session).await;
    assert!(second.resumed);
    broken(&mut first).await;
    assert!(first.connection.exists("/a", false).await.is_err());
    writer.create("/a/b", "").await?;
    told(&mut second.events, [(Change::Children, "/a")]).await;
    Ok(())
}

#[tokio::test]
async fn errors_name_each_server() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let address = server.address();
    server.kill()?;
    let mut config = config([address.as_str(), "no-such-host.invalid:2181"]);
    let mut session = Session::default();
    let error = attempt(&config, &mut session).await.unwrap_err();
    assert!(matches!(error, Error::Connection(_)), "{error}");
    for server in &config.servers {
        assert!(error.to_string().contains(server), "{error}");
    }
    config.servers.clear();
    let error = attempt(&config, &mut session).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    Ok(())
}
