//! Parts of the registry that cannot be read, and nodes that go.

use anyhow::Result;
use diolkos_source_api::testing::Told;
use diolkos_source_api::{Evidence, Phase};
use diolkos_testkit::{ZooKeeper, eventually, zookeeper::Writer};

use crate::{
    dubbo::config,
    layouts::recorded,
    support::{RECOVERY, Running, provider_path},
};

fn address(number: usize) -> String {
    format!("10.2.{}.{}:20880", number / 250, number % 250)
}

async fn register(writer: &Writer, interface: &str, numbers: std::ops::Range<usize>) -> Result<()> {
    let nodes: Vec<(String, &str)> = numbers
        .map(|number| (provider_path(interface, &address(number)), "h"))
        .collect();
    writer.create_many(&nodes).await
}

async fn deregister(writer: &Writer, interface: &str, number: usize) -> Result<()> {
    writer
        .delete(&provider_path(interface, &address(number)))
        .await
}

/// Why the last snapshot may lack something.
fn doubt(world: &Told) -> String {
    match world.snapshots.last() {
        Some(Evidence::Partial(reason)) => reason.to_string(),
        _ => String::new(),
    }
}

/// A list that is too large, and others whose changes and ends are told all the same.
async fn a_large_list_costs_itself_only(server: &ZooKeeper) -> Result<()> {
    let writer = server.writer().await?;
    register(&writer, "large", 0..10).await?;
    register(&writer, "a", 0..1).await?;
    register(&writer, "b", 0..1).await?;
    let mut settings = config("zk", vec![server.address()]);
    settings.client.frame_limit = 8 * 1024;
    let source = Running::synced(settings).await;
    assert_eq!(source.world().count("large"), Some(10));

    register(&writer, "large", 10..60).await?;
    register(&writer, "a", 1..2).await?;
    source
        .until("others are followed", |world| world.count("a") == Some(2))
        .await;
    eventually(RECOVERY, "the trouble is told", async || {
        let detail = source.health.borrow().detail.clone();
        detail.contains("/dubbo/large/providers") && detail.contains("jute.maxbuffer")
    })
    .await;
    deregister(&writer, "b", 0).await?;
    source
        .until("others go", |world| world.removed == ["b"])
        .await;
    source.resync.send(()).await?;
    source
        .until("a partial snapshot", |world| {
            doubt(world).contains("/dubbo/large/providers")
        })
        .await;
    {
        let world = source.world();
        // The snapshot names the last that is known.
        assert!(world.named.contains(&"large".to_owned()));
        assert!(world.count("large") >= Some(10));
        assert!(!world.evidence["large"].is_complete());
        assert!(world.evidence["a"].is_complete());
    }

    for number in 0..58 {
        deregister(&writer, "large", number).await?;
    }
    source
        .within(RECOVERY, "it is read again by itself", |world| {
            world.count("large") == Some(2)
                && world.evidence["large"].is_complete()
                && world.snapshots.last() == Some(&Evidence::Complete)
        })
        .await;
    assert_eq!(source.health.borrow().epoch, 1);
    Ok(())
}

#[tokio::test]
async fn a_list_beyond_the_limit_costs_itself_only() -> Result<()> {
    a_large_list_costs_itself_only(&ZooKeeper::start().await?).await
}

#[tokio::test]
async fn a_list_beyond_the_limit_costs_itself_only_without_persistent_watches() -> Result<()> {
    let server = ZooKeeper::builder().old().start().await?;
    a_large_list_costs_itself_only(&server).await
}

#[tokio::test]
async fn what_went_during_a_partial_snapshot_is_removed_and_what_is_hidden_is_not() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    for interface in ["a", "b", "c"] {
        register(&writer, interface, 0..1).await?;
    }
    let proxy = diolkos_testkit::TcpProxy::start(server.address().parse()?).await?;
    let source = Running::synced(config("zk", vec![proxy.address().to_string()])).await;
    // All this happens while nobody is connected.
    let mut proxy = proxy;
    proxy.refuse(true).await?;
    proxy.cut();
    source.lost().await;
    writer.hide("/dubbo/b/providers").await?;
    writer.delete_all("/dubbo/a").await?;
    deregister(&writer, "c", 0).await?;
    proxy.refuse(false).await?;
    source
        .within(RECOVERY, "gone for sure", |world| world.removed.len() == 2)
        .await;
    let world = source.world().clone();
    assert!(doubt(&world).contains("/dubbo/b/providers"), "{world:#?}");
    assert_eq!(world.named, ["b"]);
    assert!(!world.evidence["b"].is_complete());
    writer.unhide("/dubbo/b/providers").await?;
    source.snapshots(3).await;
    assert_eq!(source.world().named, ["b"]);
    Ok(())
}

#[tokio::test]
async fn an_application_that_cannot_be_read_costs_itself_and_its_interfaces() -> Result<()> {
    const INTERFACE: &str = "org.apache.dubbo.demo.DemoService";
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let nodes: Vec<_> = recorded()?.into_iter().collect();
    writer.create_many(&nodes).await?;
    register(&writer, "a", 0..1).await?;
    writer.hide("/services/demo-inst").await?;
    let source = Running::synced(config("zk", vec![server.address()])).await;
    {
        let world = source.world();
        assert!(doubt(&world).contains("/services/demo-inst"), "{world:#?}");
        let evidence = |name: &str| world.evidence[name].is_complete();
        assert!(evidence("a") && evidence("demo-provider") && evidence("demo-remote"));
        // The mapping names it, so this has an instance more than is known.
        assert!(!evidence(INTERFACE));
        assert_eq!(world.count(INTERFACE), Some(3));
    }
    writer.unhide("/services/demo-inst").await?;
    source.snapshots(2).await;
    let world = source.world();
    assert_eq!(world.count(INTERFACE), Some(4));
    assert!(world.evidence[INTERFACE].is_complete());
    assert_eq!(world.count("demo-inst"), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_provider_that_may_not_be_read_is_found_by_a_full_read() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    register(&writer, "a", 0..1).await?;
    let source = Running::synced(config("zk", vec![server.address()])).await;
    // Its name is in the list, which may be read. Newer servers say nothing of the node itself.
    let node = provider_path("a", &address(1));
    writer.create_guarded(&node, "", "other:word").await?;
    source.resync.send(()).await?;
    source
        .until("it is in the list", |world| world.count("a") == Some(2))
        .await;
    source.snapshots(2).await;
    Ok(())
}

#[tokio::test]
async fn a_root_that_may_not_be_read_is_a_refusal() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    register(&writer, "a", 0..1).await?;
    writer.hide("/dubbo").await?;
    let source = Running::start(config("zk", vec![server.address()]));
    eventually(RECOVERY, "the refusal is told", async || {
        source.health.borrow().phase == Phase::Denied
    })
    .await;
    let detail = source.health.borrow().detail.clone();
    assert!(detail.contains("/dubbo"), "{detail}");
    assert!(source.world().snapshots.is_empty());
    writer.unhide("/dubbo").await?;
    source.snapshots(1).await;
    assert_eq!(source.world().count("a"), Some(1));
    Ok(())
}

/// dubbo2istio goes on for ever to watch a node that is deleted, and nothing else gets through.
async fn deleted_nodes_cost_nothing(server: &ZooKeeper) -> Result<()> {
    let writer = server.writer().await?;
    for interface in ["a", "b", "marker"] {
        register(&writer, interface, 0..1).await?;
    }
    let source = Running::synced(config("zk", vec![server.address()])).await;
    writer.delete_all("/dubbo/a").await?;
    writer.delete_all("/dubbo/b/providers").await?;
    source
        .until("both are gone", |world| world.removed.len() == 2)
        .await;
    let before = source.requests();
    for number in 1..11 {
        register(&writer, "marker", number..number + 1).await?;
        source
            .until("the marker is seen", |world| {
                world.count("marker") == Some(number + 1)
            })
            .await;
    }
    let requests = source.requests() - before;
    assert!(requests <= 20, "{requests} requests for 10 changes");
    register(&writer, "a", 0..2).await?;
    register(&writer, "b", 0..2).await?;
    source
        .until("they are back", |world| {
            world.count("a") == Some(2) && world.count("b") == Some(2)
        })
        .await;
    writer.delete_all("/dubbo").await?;
    source
        .until("all is gone", |world| world.services.is_empty())
        .await;
    register(&writer, "a", 0..1).await?;
    source
        .until("the root is back", |world| world.count("a") == Some(1))
        .await;
    assert_eq!(source.health.borrow().epoch, 1);
    Ok(())
}

#[tokio::test]
async fn deleted_nodes_stop_nothing_and_may_come_back() -> Result<()> {
    deleted_nodes_cost_nothing(&ZooKeeper::start().await?).await
}

#[tokio::test]
async fn deleted_nodes_stop_nothing_without_persistent_watches() -> Result<()> {
    deleted_nodes_cost_nothing(&ZooKeeper::builder().old().start().await?).await
}
