//! Answers that lack something, are old, or are not given.

use std::time::Duration;

use anyhow::{Context, Result};
use diolkos_source_api::{Evidence, Phase};
use diolkos_testkit::{Eureka, Fault, HttpFault, On, Reply, eureka::instance};
use serde_json::Value;

use crate::support::{Running, config};

const APPS: &str = "/eureka/apps";
const DELTA: &str = "/eureka/apps/delta";

fn on(path: &'static str) -> On {
    On::reads().test(move |_, p| p == path)
}

fn json(body: &Value) -> Reply {
    let reply = Reply::status(200).header("content-type", "application/json");
    reply.body(body.to_string())
}

/// A server with one instance of `pay`, a proxy, and a source that knows the instance.
async fn bed() -> Result<(Eureka, HttpFault, Running)> {
    let eureka = Eureka::start().await?;
    eureka
        .register("PAY", &instance("pay", "10.0.0.1", 80))
        .await?;
    let proxy = HttpFault::start(&eureka.origin()).await?;
    let source = Running::start(config(&[format!("{}/eureka", proxy.url())]));
    source
        .until("the instance", |world| world.count("pay") == Some(1))
        .await;
    Ok((eureka, proxy, source))
}

/// The polls that the proxy saw.
async fn polls(proxy: &HttpFault, more: usize) {
    let deltas = || proxy.count(|request| request.path == DELTA && request.told.is_some());
    let before = deltas();
    diolkos_testkit::eventually(Duration::from_secs(60), "polls", async || {
        let now = deltas();
        (now >= before + more).then_some(()).ok_or(now)
    })
    .await;
}

#[tokio::test]
async fn old_changes_do_not_make_an_instance_flap() -> Result<()> {
    let (eureka, proxy, source) = bed().await?;
    let old = eureka.get("/apps/delta").await?;
    eureka
        .set_status("PAY", "10.0.0.1:pay:80", "OUT_OF_SERVICE")
        .await?;
    source
        .shows("pay", "out of service", |i| !i.health.is_healthy())
        .await;
    eureka
        .register("CART", &instance("cart", "10.0.0.3", 80))
        .await?;
    source
        .until("a second one", |world| world.count("cart") == Some(1))
        .await;

    let full = || proxy.count(|request| request.path == APPS);
    let before = (full(), source.world().upserts);
    let replay = proxy.rule(on(DELTA), Fault::Reply(json(&old)));
    polls(&proxy, 20).await;
    {
        let world = source.world();
        assert_eq!(world.upserts, before.1, "{world:?}");
        assert!(world.removed.is_empty());
        assert!(world.snapshots.iter().all(Evidence::is_complete));
    }
    let read = full() - before.0;
    // 4 s of polls every 200 ms; the waits double.
    assert!((1..=8).contains(&read), "everything was read {read} times");
    eureka.deregister("CART", "10.0.0.3:cart:80").await?;
    replay.end();
    source
        .until("it is followed again", |world| world.removed == ["cart"])
        .await;
    assert_eq!(source.health.borrow().epoch, 1);
    Ok(())
}

#[tokio::test]
async fn changes_that_were_missed_are_found_by_the_counts() -> Result<()> {
    let (eureka, proxy, source) = bed().await?;
    eureka
        .register("CART", &instance("cart", "10.0.0.3", 80))
        .await?;
    source
        .until("a second one", |world| world.count("cart") == Some(1))
        .await;
    // As after the time for which the server remembers changes: it tells none, and other counts.
    let mut missed = eureka.get("/apps/delta").await?;
    missed["applications"]["application"] = Value::Array(Vec::new());
    missed["applications"]["apps__hashcode"] = "UP_1_".into();
    eureka.deregister("CART", "10.0.0.3:cart:80").await?;
    let rule = proxy.rule(on(DELTA), Fault::Reply(json(&missed)));
    // No word was said of where the application went: that is for the guard to weigh.
    source.snapshot("a snapshot without it", true).await;
    assert_eq!(source.world().named, ["pay"]);
    assert!(rule.hits() >= 1);
    assert!(source.world().removed.len() <= 1);
    Ok(())
}

#[tokio::test]
async fn a_full_answer_that_lacks_something_is_partial() -> Result<()> {
    let (eureka, proxy, source) = bed().await?;
    eureka
        .register("CART", &instance("cart", "10.0.0.3", 80))
        .await?;
    source
        .until("a second one", |world| world.count("cart") == Some(1))
        .await;
    let mut torn = eureka.get("/apps").await?;
    let apps = torn["applications"]["application"]
        .as_array_mut()
        .context("applications")?;
    apps.retain(|app| app["name"] == "PAY");
    assert_eq!(torn["applications"]["apps__hashcode"], "UP_2_");
    // The changes are hidden, too, or they would tell what is missing.
    proxy.rule(on(APPS), Fault::Reply(json(&torn)));
    let mut none = torn.clone();
    none["applications"]["application"] = Value::Array(Vec::new());
    proxy.rule(on(DELTA), Fault::Reply(json(&none)));
    source.resync.send(()).await?;
    source.snapshot("a partial snapshot", false).await;
    source
        .says(Phase::Live, "holds other instances than it says (UP_2_)")
        .await;
    // A new source says so from the start.
    let other = Running::synced(config(&[format!("{}/eureka", proxy.url())])).await;
    assert!(!other.world().snapshots[0].is_complete());
    assert_eq!(other.world().services.len(), 1);
    proxy.clear();
    for source in [&source, &other] {
        source
            .until("all is well", |world| {
                world.snapshots.last() == Some(&Evidence::Complete) && world.services.len() == 2
            })
            .await;
        assert!(source.world().removed.is_empty());
        assert_eq!(source.health.borrow().epoch, 1);
    }
    Ok(())
}

#[tokio::test]
async fn without_changes_everything_is_read_each_time() -> Result<()> {
    let eureka = Eureka::builder().without_delta().start().await?;
    let proxy = HttpFault::start(&eureka.origin()).await?;
    for app in ["pay", "cart"] {
        eureka.register(app, &instance(app, "10.0.0.1", 80)).await?;
    }
    let source = Running::start(config(&[format!("{}/eureka", proxy.url())]));
    source
        .until("both", |world| world.services.len() == 2)
        .await;
    eureka.set_status("PAY", "10.0.0.1:pay:80", "DOWN").await?;
    source
        .shows("pay", "down", |i| !i.health.is_healthy())
        .await;
    let snapshots = source.world().snapshots.len();
    eureka.deregister("CART", "10.0.0.1:cart:80").await?;
    source
        .until("told as a snapshot", |world| {
            world.snapshots.len() > snapshots
        })
        .await;
    assert_eq!(source.world().named, ["pay"]);
    assert!(source.world().removed.is_empty());
    assert_eq!(
        proxy.count(|request| request.path == DELTA),
        1,
        "it is asked for once"
    );
    source.says(Phase::Live, "reading all of").await;
    Ok(())
}
