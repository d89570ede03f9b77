//! Class 8: pushes that are lost, late, repeated, or older than what is known.

use std::time::Duration;

use anyhow::{Result, ensure};
use diolkos_testkit::{
    eventually,
    nacos_stub::{NacosStub, Version},
};

use crate::support::{Running, SOON, all_is_acknowledged, config, fill, hosts};

#[tokio::test]
async fn a_push_that_is_older_does_not_count() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    stub.put("a", &hosts(&[1, 2, 3]));
    source.shows("a third instance", "a", &[1, 2, 3]).await;
    // What was true before, of every kind: as often as it likes.
    let old = stub.clock() - 1_000;
    for lie in [&[1, 2][..], &[], &[9]] {
        stub.push_lie("a", &hosts(lie), old);
    }
    source.follows(&stub, 99).await;
    all_is_acknowledged(&stub).await;
    // Nobody believed it, and it was asked for instead.
    eventually(SOON, "it was asked for", async || {
        let asked = stub.asked();
        let of_a = asked.iter().filter(|a| a.body["serviceName"] == "a");
        of_a.filter(|a| a.kind == "ServiceQueryRequest").count() > 0
    })
    .await;
    let steps = source.world().steps("a");
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert!(source.world().removed.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_push_that_overtakes_another_stays() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    stub.faults(|faults| faults.delay_pushes = Duration::from_millis(400));
    stub.put("a", &hosts(&[1]));
    stub.put("b", &hosts(&[]));
    stub.faults(|faults| faults.delay_pushes = Duration::ZERO);
    stub.put("a", &hosts(&[1, 2, 3]));
    stub.put("b", &hosts(&[11]));
    source.shows("the newer one", "a", &[1, 2, 3]).await;
    source.shows("the newer one", "b", &[11]).await;
    eventually(SOON, "the late ones came as well", async || {
        stub.acknowledged() == ["3", "4", "1", "2"]
    })
    .await;
    source.follows(&stub, 99).await;
    for (service, states) in [("a", 2), ("b", 2)] {
        let steps = source.world().steps(service);
        assert_eq!(steps.len(), states, "{steps:?}");
    }
    Ok(())
}

#[tokio::test]
async fn pushes_that_are_repeated_change_nothing() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    stub.faults(|faults| faults.repeat_pushes = 3);
    let source = Running::without_sweep(config(&stub)).await;
    stub.put("a", &hosts(&[1]));
    source.shows("one is gone", "a", &[1]).await;
    stub.put("b", &hosts(&[11]));
    source.shows("so that all of a came", "b", &[11]).await;
    let of_a = source
        .world()
        .history
        .iter()
        .filter(|(n, _)| n == "a")
        .count();
    assert_eq!(of_a, 2, "{:?}", source.world().history);
    eventually(SOON, "each is acknowledged", async || {
        let (pushed, acknowledged) = (stub.pushed(), stub.acknowledged());
        let each = pushed.iter().flat_map(|id| [id; 4]);
        ensure!(acknowledged.iter().eq(each), "{pushed:?} {acknowledged:?}");
        Ok(())
    })
    .await;
    Ok(())
}

/// A push that nobody got: each service has its turn to be asked for.
#[tokio::test]
async fn what_a_lost_push_told_is_found() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let source = Running::synced(config(&stub)).await;
    stub.faults(|faults| faults.drop_pushes = true);
    stub.put("a", &hosts(&[2, 3]));
    stub.put("b", &hosts(&[]));
    source.shows("one came and one went", "a", &[2, 3]).await;
    source.shows("all went", "b", &[]).await;
    assert!(source.world().removed.is_empty(), "it is still registered");
    Ok(())
}

/// The server's clock goes back by an hour: what it says from then on counts.
#[tokio::test]
async fn a_clock_that_steps_back_hides_nothing() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    stub.set_clock(stub.clock() - 3_600_000);
    for last in 3..8 {
        stub.put("a", &hosts(&[1, last]));
        source.shows("changes are followed", "a", &[1, last]).await;
    }
    // One question was enough to know the new time.
    let asked = stub.asked();
    let of_a = asked
        .iter()
        .filter(|a| a.kind == "ServiceQueryRequest" && a.body["serviceName"] == "a");
    assert!(of_a.count() <= 2);
    // And forward again.
    stub.set_clock(stub.clock() + 7_200_000);
    stub.put("b", &hosts(&[12]));
    source.shows("changes are followed", "b", &[12]).await;
    stub.set_clock(stub.clock() - 7_200_000);
    stub.put("b", &hosts(&[13]));
    source.shows("changes are followed", "b", &[13]).await;
    Ok(())
}
