use std::time::Duration;

use anyhow::Result;
use diolkos_testkit::{ZooKeeper, zookeeper::Ensemble};
use diolkos_zk::{Change, Connected, Session, WatchMode};

use crate::support::{broken, config, connected, told};

fn member<'a>(ensemble: &'a Ensemble, connected: &Connected) -> &'a ZooKeeper {
    let mut members = ensemble.members().iter();
    let found = members.find(|member| member.address() == connected.server);
    found.expect("the connection is to a member")
}

/// Creates a node through another member than this one.
async fn create(ensemble: &Ensemble, path: &str, but: &ZooKeeper) -> Result<()> {
    let mut members = ensemble.members().iter();
    let other = members.find(|member| member.address() != but.address());
    let writer = other.expect("there are others").writer().await?;
    writer.create(path, "").await
}

#[tokio::test]
async fn the_next_server_goes_on_with_the_session() -> Result<()> {
    let ensemble = ZooKeeper::ensemble(3).await?;
    ensemble.writer().await?.create("/a", "").await?;
    let mut config = config(ensemble.addresses());
    config.session_timeout = Duration::from_secs(6);
    config.connect_timeout = Duration::from_secs(1);
    let mut session = Session::default();
    let mut now = connected(&config, &mut session).await;
    let recursive = WatchMode::PersistentRecursive;
    now.connection.add_watch("/a", recursive).await?;
    now.connection.children("/a", true).await?;

    let killed = member(&ensemble, &now);
    killed.kill()?;
    broken(&mut now).await;
    now = connected(&config, &mut session).await;
    assert!(now.resumed);
    assert_ne!(now.server, killed.address());
    create(&ensemble, "/a/b", killed).await?;
    let wanted = [(Change::Created, "/a/b"), (Change::Children, "/a")];
    told(&mut now.events, wanted).await;
    killed.restart().await?;

    let stopped = member(&ensemble, &now);
    stopped.stop_process()?;
    let error = broken(&mut now).await;
    assert!(error.to_string().contains("silent"), "{error}");
    now = connected(&config, &mut session).await;
    assert!(now.resumed, "there was time to find another server");
    assert_ne!(now.server, stopped.address());
    now.connection.sync("/a").await?;
    create(&ensemble, "/a/c", stopped).await?;
    told(&mut now.events, [(Change::Created, "/a/c")]).await;
    stopped.continue_process()?;
    Ok(())
}
