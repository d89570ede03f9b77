//! Class 3: lists that lack what is there.

use anyhow::Result;
use diolkos_testkit::nacos_stub::{NacosStub, Version};

use crate::support::{Running, config, fill, host, hosts, lists};

const LIST: &str = "ServiceListRequest";

/// A service goes while a list is read, so that another one is on none of its pages.
#[tokio::test]
async fn a_list_that_is_torn_removes_nobody_else() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    let names: Vec<String> = (0..1_200).map(|n| format!("s{n:04}")).collect();
    for name in &names {
        stub.put(name, &[host(1)]);
    }
    // The first list of all is torn, too.
    stub.remove_after_next_page("s0000");
    let source = Running::synced(config(&stub)).await;
    let missing = |world: &crate::support::Seen| {
        let missing = names[1..].iter().filter(|name| !world.named.contains(name));
        missing.cloned().collect::<Vec<_>>()
    };
    let snapshots = source.world().snapshots.clone();
    assert!(snapshots[0].is_complete(), "{snapshots:?}");
    assert_eq!(missing(&source.world()), [""; 0]);

    for gone in ["s0001", "s0600"] {
        stub.remove_after_next_page(gone);
        source
            .until("who went is gone", |world| {
                world.removed.last().is_some_and(|last| last == gone)
            })
            .await;
    }
    lists(&stub, LIST, 3).await;
    let removed = source.world().removed.clone();
    // The first one was on a page before it went.
    assert_eq!(removed, ["s0000", "s0001", "s0600"]);
    Ok(())
}

/// One list alone says nothing, and no number of lists takes away what has instances.
#[tokio::test]
async fn a_service_goes_when_two_lists_lack_it_and_it_has_no_instances() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    stub.put("empty", &[]);
    let source = Running::without_sweep(config(&stub)).await;
    for name in ["a", "empty"] {
        stub.faults(|faults| faults.hide(name));
        lists(&stub, LIST, 1).await;
        stub.faults(|faults| faults.hidden.clear());
        lists(&stub, LIST, 3).await;
        let removed = source.world().removed.clone();
        assert!(removed.is_empty(), "one list was enough: {removed:?}");
    }
    stub.faults(|faults| faults.hide("a"));
    lists(&stub, LIST, 5).await;
    assert!(source.world().removed.is_empty(), "it has instances");
    // It is still followed.
    stub.put("a", &hosts(&[1, 2, 3]));
    source.shows("a third instance", "a", &[1, 2, 3]).await;
    stub.faults(|faults| faults.drop_pushes = true);
    stub.put("a", &[]);
    source
        .until("it has no instances either", |w| w.removed == ["a"])
        .await;
    Ok(())
}

/// A service that goes and comes again is followed again.
#[tokio::test]
async fn a_service_that_comes_again_is_followed() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    for round in 1..=2 {
        stub.remove("b");
        source
            .until("it is gone", |world| world.removed.len() == round)
            .await;
        stub.put("b", &hosts(&[20]));
        source.shows("it is there again", "b", &[20]).await;
        stub.put("b", &hosts(&[20, 21]));
        source.shows("it is followed", "b", &[20, 21]).await;
    }
    let subscribed = stub.subscribed();
    let all = ["a", "b", "c"].map(|name| format!("DEFAULT_GROUP@@{name}"));
    assert_eq!(subscribed, all);
    Ok(())
}

/// M1, H6: a list that cannot be read removes nothing, and says nothing.
#[tokio::test]
async fn m1_an_error_instead_of_a_list_removes_nothing() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    stub.faults(|faults| faults.refused_lists = Some(500));
    lists(&stub, LIST, 3).await;
    stub.faults(|faults| faults.refused_lists = None);
    stub.put("d", &hosts(&[40]));
    source.shows("it goes on", "d", &[40]).await;
    stub.put("a", &hosts(&[1]));
    source.shows("nobody was unsubscribed", "a", &[1]).await;
    let world = source.world();
    assert!(world.removed.is_empty());
    assert!(world.steps("b").len() == 1 && world.steps("c").len() == 1);
    Ok(())
}

/// M1: one service that cannot be read keeps what it has, and costs itself only.
#[tokio::test]
async fn m1_an_error_for_one_service_empties_nothing() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    stub.faults(|faults| faults.refuse("a", 500));
    let before = source.world().snapshots.len();
    source.resync.send(()).await?;
    source
        .until("all is said again", |world| world.snapshots.len() > before)
        .await;
    {
        let world = source.world();
        assert_eq!(world.live("a").len(), 2, "it keeps what it has");
        let complete = world.snapshots[before].is_complete();
        assert!(!complete, "nobody knows whether all was said");
        assert!(world.evidence["b"].is_complete());
        assert!(world.removed.is_empty());
    }
    stub.put("b", &hosts(&[11]));
    source.shows("the others are followed", "b", &[11]).await;
    stub.faults(|faults| faults.refused.clear());
    source
        .until("it can be read again", |world| {
            world
                .snapshots
                .last()
                .is_some_and(|last| last.is_complete())
        })
        .await;
    assert_eq!(source.world().live("a").len(), 2);
    Ok(())
}
