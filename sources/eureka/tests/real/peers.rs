//! Several peers, and peers that start anew.

use std::time::Duration;

use anyhow::Result;
use diolkos_source_api::{Evidence, Phase};
use diolkos_testkit::{Eureka, TcpProxy, eureka::instance};

use crate::support::{Running, SOON, config};

const SETTLE: Duration = Duration::from_secs(3);

/// Two servers that know nothing of each other, as when the network between them is gone.
#[tokio::test]
async fn peers_that_disagree_are_not_mixed() -> Result<()> {
    let (first, second) = tokio::try_join!(Eureka::start(), Eureka::start())?;
    first
        .register("PAY", &instance("pay", "10.0.0.1", 80))
        .await?;
    first
        .register("CART", &instance("cart", "10.0.0.3", 80))
        .await?;
    second
        .register("PAY", &instance("pay", "10.0.0.2", 80))
        .await?;
    let mut proxy = TcpProxy::start(([127, 0, 0, 1], first.port()).into()).await?;
    let mut settings = config(&[format!("http://{}/eureka", proxy.address()), second.url()]);
    settings.settle = SETTLE;
    let source = Running::start(settings);
    source
        .until("both", |world| world.services.len() == 2)
        .await;
    assert!(
        source.world().snapshots.iter().all(Evidence::is_complete),
        "the first connection"
    );
    let address = |source: &Running| {
        let world = source.world();
        world
            .only("pay")
            .map(|instance| instance.address.to_string())
    };
    assert_eq!(address(&source).as_deref(), Some("10.0.0.1"));

    // A connection that breaks once goes over to the other, for good.
    let before = source.world().snapshots.len();
    proxy.interrupt().await?;
    source
        .snapshot(
            "the other peer's world, which counts for nothing yet",
            false,
        )
        .await;
    assert_eq!(address(&source).as_deref(), Some("10.0.0.2"));
    proxy.restore().await?;
    source.snapshot("it settles", true).await;
    {
        let world = source.world();
        let complete: Vec<_> = world.snapshots[before..]
            .iter()
            .map(Evidence::is_complete)
            .collect();
        assert_eq!(complete, [false, true]);
        assert_eq!(world.named, ["pay"]);
        assert!(world.removed.is_empty(), "{world:?}");
    }
    let detail = source.health.borrow().detail.clone();
    assert!(detail.contains(&second.url()), "{detail}");
    // Nothing of the first one is seen any more.
    first
        .set_metadata("PAY", "10.0.0.1:pay:80", "version", "2")
        .await?;
    second
        .register("STOCK", &instance("stock", "10.0.0.4", 80))
        .await?;
    source
        .until("it is followed", |world| world.count("stock") == Some(1))
        .await;
    assert_eq!(address(&source).as_deref(), Some("10.0.0.2"));
    assert_eq!(proxy.open(), 0);

    // Nor does one that nothing is heard of any more, and stands still, take anything away.
    second.stop_process()?;
    source.snapshot("back at the first", false).await;
    second.continue_process()?;
    assert_eq!(address(&source).as_deref(), Some("10.0.0.1"));
    source.snapshot("it settles", true).await;
    assert!(source.world().removed.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_server_that_comes_back_empty_takes_nothing_away() -> Result<()> {
    let eureka = Eureka::start().await?;
    let pay = instance("pay", "10.0.0.1", 80);
    eureka.register("PAY", &pay).await?;
    eureka
        .register("CART", &instance("cart", "10.0.0.3", 80))
        .await?;
    let mut settings = config(&[eureka.url()]);
    settings.settle = SETTLE;
    let source = Running::start(settings);
    source
        .until("both", |world| world.services.len() == 2)
        .await;
    eureka.kill()?;
    source.says(Phase::Unreachable, "").await;
    eureka.restart().await?;
    source.snapshot("it is empty", false).await;
    assert!(source.world().named.is_empty());
    // Its clients come back one after the other.
    eureka.register("PAY", &pay).await?;
    source
        .until("one is back", |world| world.named == ["pay"])
        .await;
    source.snapshot("it settles", true).await;
    let world = source.world();
    assert_eq!(world.named, ["pay"]);
    assert!(world.removed.is_empty());
    Ok(())
}

/// No request fails: the new server is there when the next one is sent.
#[tokio::test]
async fn another_server_behind_the_address_is_noticed() -> Result<()> {
    let (first, second) = tokio::try_join!(Eureka::start(), Eureka::start())?;
    for number in 0..8 {
        let app = format!("app{number}");
        first
            .register(&app, &instance(&app, "10.0.0.1", 80))
            .await?;
    }
    let proxy = TcpProxy::start(([127, 0, 0, 1], first.port()).into()).await?;
    let mut settings = config(&[format!("http://{}/eureka", proxy.address())]);
    settings.poll = Duration::from_secs(1);
    settings.settle = SETTLE;
    let source = Running::start(settings);
    source.until("all", |world| world.services.len() == 8).await;
    for version in ["1", "2", "3"] {
        first
            .set_metadata("APP0", "10.0.0.1:app0:80", "version", version)
            .await?;
        source
            .shows("app0", "a change", |i| {
                i.version.as_deref() == Some(version)
            })
            .await;
    }
    proxy.redirect(([127, 0, 0, 1], second.port()).into());
    proxy.cut();
    source.snapshot("it is empty", false).await;
    source.snapshot("it settles", true).await;
    assert!(source.world().removed.is_empty());
    Ok(())
}

/// A server without peers is closed for a while after its start, and says so by 403.
#[tokio::test]
async fn a_server_that_is_closed_at_first_is_waited_for() -> Result<()> {
    let eureka = Eureka::builder()
        .closed_at_first(Duration::from_secs(6))
        .start()
        .await?;
    let source = Running::start(config(&[eureka.url()]));
    source.says(Phase::Denied, "just started").await;
    assert_eq!(source.world().started, 0);
    source
        .within(SOON * 2, "it opens", |world| {
            world.snapshots == [Evidence::Complete]
        })
        .await;
    Ok(())
}
