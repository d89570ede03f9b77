//! Nacos 1 (HTTP alone), Nacos 3 (names are watched), and protection thresholds in all of them.

use anyhow::Result;
use diolkos_source_api::Phase;
use diolkos_source_nacos::{Config, Groups, Transport};
use diolkos_testkit::{
    eventually,
    nacos_stub::{NacosStub, Version},
};

use crate::support::{Running, SOON, all_is_acknowledged, config, fill, host, hosts, lists};

/// Names that come and go are told by Nacos 3: no list is needed to learn of a new service.
#[tokio::test]
async fn nacos_3_tells_of_new_services() -> Result<()> {
    let stub = NacosStub::start(Version::V3).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    let before = stub.count("ServiceListRequest");
    for number in 1..=5 {
        stub.put(&format!("new-{number}"), &[host(number)]);
        let name = format!("new-{number}");
        source.shows("it came", &name, &[number]).await;
    }
    assert_eq!(stub.count("ServiceListRequest"), before, "lists were read");
    stub.remove("new-1");
    source
        .until("it went", |world| world.removed == ["new-1"])
        .await;
    all_is_acknowledged(&stub).await;
    assert_eq!(stub.connections(), 1);
    Ok(())
}

/// That a name went is a hint; what has instances stays.
#[tokio::test]
async fn nacos_3_has_to_show_that_a_service_went() -> Result<()> {
    let stub = NacosStub::start(Version::V3).await?;
    fill(&stub);
    let source = Running::without_sweep(config(&stub)).await;
    // It goes, and is there again at once.
    let lists = stub.count("ServiceListRequest");
    stub.faults(|faults| faults.drop_pushes = true);
    stub.remove("a");
    stub.put("a", &hosts(&[1, 2]));
    stub.faults(|faults| faults.drop_pushes = false);
    eventually(SOON, "a list is read", async || {
        stub.count("ServiceListRequest") > lists
    })
    .await;
    source.follows(&stub, 99).await;
    stub.put("a", &hosts(&[1]));
    source.shows("it is followed", "a", &[1]).await;
    assert!(source.world().removed.is_empty());
    Ok(())
}

#[tokio::test]
async fn nacos_1_is_read_by_http() -> Result<()> {
    let stub = NacosStub::start(Version::V1).await?;
    fill(&stub);
    let source = Running::synced(config(&stub)).await;
    stub.put("a", &hosts(&[1]));
    source.shows("one went", "a", &[1]).await;
    stub.put("d", &hosts(&[40]));
    source.shows("one came", "d", &[40]).await;
    assert!(source.world().removed.is_empty());
    stub.remove("b");
    source
        .until("a service went", |world| world.removed == ["b"])
        .await;
    Ok(())
}

/// M1, M2: errors by HTTP empty nothing: neither of the list, nor of one service, nor of all.
#[tokio::test]
async fn m1_errors_of_nacos_1_empty_nothing() -> Result<()> {
    let stub = NacosStub::start(Version::V1).await?;
    fill(&stub);
    let source = Running::synced(config(&stub)).await;

    stub.faults(|faults| faults.refuse("a", 500));
    stub.put("b", &hosts(&[11]));
    lists(&stub, "/v1/ns/service/list", 2).await;
    source.shows("the others are followed", "b", &[11]).await;
    assert_eq!(source.world().live("a").len(), 2);

    stub.faults(|faults| {
        faults.refused_lists = Some(500);
        faults.refused = ["a", "b", "c"]
            .map(|name| (format!("DEFAULT_GROUP@@{name}"), 500))
            .into();
    });
    lists(&stub, "/v1/ns/service/list", 2).await;
    stub.faults(|faults| {
        faults.refused_lists = None;
        faults.refused.clear();
    });
    stub.put("c", &hosts(&[21]));
    source.shows("it goes on", "c", &[21]).await;
    let world = source.world();
    assert!(world.removed.is_empty());
    assert_eq!(world.steps("a").len(), 1, "{:?}", world.steps("a"));
    assert_eq!(world.steps("b").len(), 2, "{:?}", world.steps("b"));
    Ok(())
}

/// What must have gRPC does not take HTTP.
#[tokio::test]
async fn a_source_that_wants_grpc_takes_nothing_else() -> Result<()> {
    let stub = NacosStub::start(Version::V1).await?;
    fill(&stub);
    let source = Running::start(Config {
        transport: Transport::Grpc,
        ..config(&stub)
    });
    source.phase(Phase::Unreachable, 1).await;
    assert!(source.world().snapshots.is_empty());
    Ok(())
}

/// X5: at the protection threshold a server says of all instances that they are healthy. Nobody believes it.
async fn protection_is_not_believed(version: Version, transport: Transport) -> Result<()> {
    let stub = NacosStub::start(version).await?;
    fill(&stub);
    let half = [host(1), host(2).unhealthy()];
    stub.put("a", &half);
    stub.protect("a", true);
    let source = Running::synced(Config {
        transport,
        ..config(&stub)
    })
    .await;
    assert_eq!(source.world().live("a"), ["10.0.0.1"]);
    // It is reached while we look.
    stub.put("b", &[host(11), host(12).unhealthy()]);
    source.shows("one is unhealthy", "b", &[11]).await;
    stub.protect("b", true);
    stub.put("b", &[host(11).unhealthy(), host(12).unhealthy()]);
    source.shows("none is healthy", "b", &[]).await;
    stub.protect("b", false);
    stub.put("b", &hosts(&[11, 12]));
    source.shows("both are healthy", "b", &[11, 12]).await;
    let world = source.world();
    let steps = world.steps("b");
    let healthy: Vec<usize> = steps.iter().map(Vec::len).collect();
    assert_eq!(healthy, [2, 1, 0, 2], "{steps:?}");
    Ok(())
}

#[tokio::test]
async fn x5_protection_of_nacos_2_is_not_believed() -> Result<()> {
    protection_is_not_believed(Version::V2, Transport::Auto).await
}

#[tokio::test]
async fn x5_protection_of_nacos_2_by_http_is_not_believed() -> Result<()> {
    protection_is_not_believed(Version::V2, Transport::Http).await
}

#[tokio::test]
async fn x5_protection_of_nacos_3_is_not_believed() -> Result<()> {
    protection_is_not_believed(Version::V3, Transport::Auto).await
}

#[tokio::test]
async fn x5_protection_of_nacos_1_is_not_believed() -> Result<()> {
    protection_is_not_believed(Version::V1, Transport::Auto).await
}

/// Where the truth cannot be read, the service stays as it is, and that is said.
#[tokio::test]
async fn x5_protection_without_the_truth_changes_nothing() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    fill(&stub);
    stub.put("a", &[host(1), host(2).unhealthy()]);
    let source = Running::without_sweep(config(&stub)).await;
    stub.faults(|faults| faults.silence("/v1/ns/catalog/instances"));
    stub.protect("a", true);
    eventually(SOON, "the truth is asked for", async || {
        stub.count("/v1/ns/catalog/instances") > 0
    })
    .await;
    source.follows(&stub, 99).await;
    assert_eq!(source.world().live("a"), ["10.0.0.1"]);
    Ok(())
}

/// M9: services of one name in two groups are two services.
#[tokio::test]
async fn m9_groups_are_not_mixed() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    stub.put("DEFAULT_GROUP@@orders", &hosts(&[1]));
    stub.put("TEST_GROUP@@orders", &hosts(&[2]));
    let source = Running::synced(Config {
        groups: Groups::All,
        ..config(&stub)
    })
    .await;
    let world = source.world();
    let mut said = world.history.clone();
    said.sort();
    let expected = [1, 2].map(|n| ("orders".to_owned(), vec![format!("10.0.0.{n}")]));
    assert_eq!(said, expected);
    Ok(())
}
