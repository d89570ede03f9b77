//! Connections that end, and access that is taken away: the mesh stays as it is.

use std::time::Duration;

use anyhow::Result;
use diolkos_nacos::Auth;
use diolkos_source_api::Phase;
use diolkos_source_nacos::Config;
use diolkos_testkit::{
    eventually,
    nacos_stub::{NacosStub, Version},
};
use tempfile::NamedTempFile;

use crate::support::{Running, SOON, config, fill, host, hosts};

const ALL: [&str; 3] = ["DEFAULT_GROUP@@a", "DEFAULT_GROUP@@b", "DEFAULT_GROUP@@c"];

/// After whatever ends a connection, everything is subscribed anew, and nothing was removed.
async fn reconnects(version: Version, how: impl Fn(&NacosStub)) -> Result<()> {
    let stub = NacosStub::start(version).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    for round in 2..=3 {
        how(&stub);
        source
            .until("all is said again", |world| world.complete() >= round)
            .await;
        eventually(SOON, "all is subscribed again", async || {
            stub.subscribed() == ALL
        })
        .await;
    }
    assert!(stub.connections() >= 3);
    stub.put("a", &hosts(&[1]));
    source.shows("changes are followed", "a", &[1]).await;
    let world = source.world();
    assert!(world.removed.is_empty());
    assert_eq!(world.steps("b").len(), 1, "{:?}", world.steps("b"));
    Ok(())
}

#[tokio::test]
async fn a_source_that_is_sent_away_comes_again() -> Result<()> {
    reconnects(Version::V2, NacosStub::reset_connections).await
}

#[tokio::test]
async fn a_source_that_is_sent_away_by_nacos_3_comes_again() -> Result<()> {
    reconnects(Version::V3, NacosStub::reset_connections).await
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again() -> Result<()> {
    reconnects(Version::V3, NacosStub::close_streams).await
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() -> Result<()> {
    reconnects(Version::V2, NacosStub::cut).await
}

/// A server that is alive for TCP, but does not answer, is left.
#[tokio::test]
async fn a_server_that_does_not_answer_is_left() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    stub.faults(|faults| {
        faults.silent = [
            "HealthCheckRequest",
            "ServiceListRequest",
            "ServiceQueryRequest",
        ]
        .map(str::to_owned)
        .into();
    });
    source.phase(Phase::Unreachable, 1).await;
    stub.faults(|faults| faults.silent.clear());
    source.phase(Phase::Live, 2).await;
    source.follows(&stub, 99).await;
    assert!(source.world().removed.is_empty());
    Ok(())
}

/// A server that was restarted answers empty until its clients have registered again. Nothing counts as gone before
/// they had time to.
#[tokio::test]
async fn class_01_a_restarted_server_is_given_time() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let settings = Config {
        settle: Duration::from_secs(4),
        ..config(&stub)
    };
    let source = Running::without_sweep(settings).await;
    assert_eq!(source.world().complete(), 1, "not at the first connection");
    let held = stub.forget();
    stub.cut();
    source
        .until("it says what it has", |world| world.snapshots.len() > 1)
        .await;
    {
        let world = source.world();
        assert_eq!(world.complete(), 1, "{:?}", world.snapshots);
        assert!(world.removed.is_empty());
        assert_eq!(world.live("a").len(), 2);
    }
    // Two of three come back in time; the third has gone for good.
    stub.remember(held);
    stub.remove("c");
    source
        .until("time is over", |world| world.complete() > 1)
        .await;
    let world = source.world();
    assert!(world.named.contains(&"a".to_owned()) && world.named.contains(&"b".to_owned()));
    assert!(!world.named.contains(&"c".to_owned()), "{:?}", world.named);
    assert!(!world.removed.iter().any(|name| name != "c"));
    assert_eq!(world.live("a").len(), 2);
    Ok(())
}

fn login(stub: &NacosStub) -> Result<(Config, NamedTempFile)> {
    let password = NamedTempFile::new()?;
    std::fs::write(password.path(), "secret\n")?;
    let mut settings = config(stub);
    settings.client.auth = Some(Auth::Password {
        username: "reader".into(),
        password_file: password.path().to_owned(),
    });
    Ok((settings, password))
}

/// Tokens end in mid-session: a new one is got, the connection stays, and nothing is lost.
#[tokio::test]
async fn tokens_that_end_cost_nothing() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    stub.require_login("reader", "secret");
    fill(&stub);
    let (settings, _password) = login(&stub)?;
    let source = Running::synced(settings).await;
    let logins = stub.logins();
    for number in 1..=3 {
        stub.expire_tokens();
        source.follows(&stub, number).await;
        eventually(SOON, "it logs in again", async || {
            stub.logins() >= logins + usize::from(number)
        })
        .await;
    }
    stub.put("a", &hosts(&[1]));
    source.shows("changes are followed", "a", &[1]).await;
    assert_eq!(stub.connections(), 1);
    assert!(source.world().removed.is_empty());
    Ok(())
}

/// Who is not let in, or not any more, learns that; nothing changes.
#[tokio::test]
async fn access_that_is_taken_away_changes_nothing() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    stub.require_login("reader", "secret");
    fill(&stub);
    let (settings, password) = login(&stub)?;
    let source = Running::synced(settings).await;
    stub.require_login("reader", "another");
    source.phase(Phase::Denied, 1).await;
    let said = format!("{:?}", *source.health.borrow());
    assert!(!said.contains("secret"), "{said}");
    {
        let world = source.world();
        assert!(world.removed.is_empty());
        assert_eq!(world.live("a").len(), 2);
    }
    std::fs::write(password.path(), "another\n")?;
    source.phase(Phase::Live, 2).await;
    stub.put("a", &[host(1)]);
    source.shows("it goes on", "a", &[1]).await;
    assert!(source.world().removed.is_empty());
    Ok(())
}

/// Without any credentials.
#[tokio::test]
async fn who_has_no_credentials_is_denied() -> Result<()> {
    for version in [Version::V1, Version::V2, Version::V3] {
        let stub = NacosStub::start(version).await?;
        stub.require_login("reader", "secret");
        fill(&stub);
        let source = Running::start(config(&stub));
        source.phase(Phase::Denied, 1).await;
        assert!(source.world().snapshots.is_empty(), "{version:?}");
    }
    Ok(())
}
