//! What etcd holds, and what changes in it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use diolkos_source_dubbo::Discovery;
use diolkos_testkit::{Etcd, TcpProxy};

use serde_json::json;

use crate::support::{Running, config, instance, instance_of_revision, provider};

#[tokio::test]
async fn a_key_whose_lease_ends_is_gone() -> Result<()> {
    let etcd = Etcd::start().await?;
    let (revoked, short) = (etcd.grant(600).await?, etcd.grant(2).await?);
    etcd.put(&provider("a.B", 1), "").await?;
    etcd.put_leased(&provider("a.B", 2), "", short).await?;
    etcd.put_leased(&provider("a.C", 1), "", revoked).await?;
    let source = Running::synced(config(etcd.endpoints())).await;
    source
        .until("the lease ran out", |world| world.counts()["a.B"] == 1)
        .await;
    assert_eq!(source.world().counts()["a.C"], 1);
    etcd.revoke(revoked).await?;
    source.shows("the lease was revoked", &[("a.B", 1)]).await;
    assert_eq!(source.world().removed, ["a.C"]);
    Ok(())
}

#[tokio::test]
async fn only_what_changed_is_said_again() -> Result<()> {
    let etcd = Etcd::start().await?;
    let names: Vec<String> = (0..50).map(|n| format!("a.S{n}")).collect();
    let keys: Vec<_> = names.iter().map(|name| (provider(name, 1), "")).collect();
    etcd.put_all(&keys).await?;
    let source = Running::synced(config(etcd.endpoints())).await;
    assert_eq!(source.world().upserts.len(), 50);
    for name in ["a.S7", "a.S8", "a.S7"] {
        source.world().upserts.clear();
        let host = 2 + u32::from(name == "a.S8");
        let before = source.world().counts()[name];
        let key = provider(name, host + 10 * u32::try_from(before)?);
        etcd.put(&key, "").await?;
        source
            .until(name, |world| world.counts()[name] == before + 1)
            .await;
        // The same again, and what is nobody's business, say nothing.
        etcd.put(&key, "").await?;
        etcd.put(&format!("/dubbo/{name}/consumers/x"), "").await?;
        etcd.put("/elsewhere", "").await?;
    }
    etcd.put(&provider("a.Marker", 1), "").await?;
    source
        .until("all of that was read", |world| {
            world.services.contains_key("a.Marker")
        })
        .await;
    let world = source.world();
    assert_eq!(world.upserts, ["a.S7", "a.Marker"]);
    assert_eq!(world.snapshots.len(), 1);
    assert!(world.removed.is_empty());
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_over_a_broken_watch() -> Result<()> {
    let etcd = Etcd::start().await?;
    for name in ["a.Stays", "a.Goes", "a.Grows"] {
        etcd.put(&provider(name, 1), "").await?;
    }
    let proxy = TcpProxy::start(etcd.address(0)).await?;
    let endpoint = format!("http://{}", proxy.address());
    let source = Running::synced(config(vec![endpoint])).await;
    proxy.hang(true);
    etcd.delete_prefix("/dubbo/a.Goes/").await?;
    etcd.put(&provider("a.Grows", 2), "").await?;
    etcd.put(&provider("a.New", 1), "").await?;
    proxy.cut();
    proxy.hang(false);
    let expected = [("a.Stays", 1), ("a.Grows", 2), ("a.New", 1)];
    source.shows("what happened meanwhile", &expected).await;
    assert!(source.world().removed.is_empty());
    assert_eq!(source.world().missing, ["a.Goes"]);
    Ok(())
}

#[tokio::test]
async fn writes_during_a_snapshot_are_never_lost() -> Result<()> {
    let etcd = Arc::new(Etcd::start().await?);
    let keys: Vec<_> = (0..3000)
        .map(|n| (provider(&format!("a.Base{}", n % 300), n / 300), ""))
        .collect();
    etcd.put_all(&keys).await?;
    let hammering = etcd.clone();
    let hammer = tokio::spawn(async move {
        for n in 0..400u32 {
            let key = provider(&format!("a.Hot{}", n % 7), n % 11);
            match n % 3 {
                0 => hammering.delete(&key).await?,
                _ => hammering.put(&key, "").await?,
            }
        }
        anyhow::Ok(())
    });
    let source = Running::start(config(etcd.endpoints()));
    let mut resyncs = 0;
    while !hammer.is_finished() {
        source.resync.send(()).await?;
        resyncs += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    hammer.await??;
    assert!(resyncs > 1);
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for key in etcd.keys("/dubbo/").await? {
        let interface = key.split('/').nth(2).unwrap_or_default();
        *expected.entry(interface.to_owned()).or_default() += 1;
    }
    source
        .until("what etcd holds", |world| {
            let counts = world.counts();
            counts.len() == expected.len()
                && expected
                    .iter()
                    .all(|(name, count)| counts.get(&**name) == Some(count))
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn only_what_is_selected_is_told() -> Result<()> {
    let etcd = Etcd::start().await?;
    for (interface, host) in [("a.Wanted", 1), ("a.Other", 1)] {
        etcd.put(&provider(interface, host), "").await?;
    }
    for application in ["wanted-app", "other-app"] {
        let (key, record) = instance(application, 1);
        etcd.put(&key, &record).await?;
    }
    let mut settings = config(etcd.endpoints());
    settings.select = Arc::new(|name| name.to_lowercase().contains("wanted"));
    let source = Running::synced(settings).await;
    let expected = [("a.Wanted", 1), ("wanted-app", 1)];
    source.shows("the selected", &expected).await;
    etcd.put(&provider("a.Other", 2), "").await?;
    etcd.delete_prefix("/services/other-app/").await?;
    etcd.put(&provider("a.Wanted", 2), "").await?;
    let expected = [("a.Wanted", 2), ("wanted-app", 1)];
    source.shows("changes of the selected", &expected).await;
    assert_eq!(source.world().upserts.len(), 3);
    assert!(source.world().removed.is_empty());
    Ok(())
}

/// The catalogue lets go of metadata that no instance names when it is told other metadata, and the
/// key does not change when an instance names it again.
#[tokio::test]
async fn metadata_is_read_again_when_an_instance_comes_back() -> Result<()> {
    let etcd = Etcd::start().await?;
    let services = json!({"a.B:dubbo": {
        "name": "a.B", "protocol": "dubbo", "port": 20880, "params": {"side": "provider"},
    }});
    let metadata = json!({"app": "app", "revision": "r1", "services": services});
    let other = json!({"app": "app", "revision": "r2", "services": {}}).to_string();
    etcd.put("/dubbo/metadata/app/r1", &metadata.to_string())
        .await?;
    etcd.put("/dubbo/metadata/app/r2", &other).await?;
    etcd.put("/dubbo/mapping/a.B", "app").await?;
    let (key, record) = instance_of_revision("app", 1, "r1");
    etcd.put(&key, &record).await?;
    let source = Running::synced(config(etcd.endpoints())).await;
    let all = [("a.B", 1), ("app", 1)];
    source.shows("the interface of the instance", &all).await;
    etcd.delete(&key).await?;
    source.shows("no instances", &[]).await;
    etcd.put("/dubbo/metadata/app/r3", &other).await?;
    etcd.put(&key, &record).await?;
    source.shows("it is back", &all).await;
    assert_eq!(source.world().snapshots.len(), 1);
    Ok(())
}

#[tokio::test]
async fn each_way_to_register_alone_and_other_prefixes() -> Result<()> {
    let etcd = Etcd::start().await?;
    let (key, record) = instance("app", 1);
    let (app_key, dubbo_key) = (format!("/x{key}"), format!("/x{}", provider("a.B", 1)));
    etcd.put_all(&[(app_key, record), (dubbo_key, String::new())])
        .await?;
    for (discovery, expected) in [
        (Discovery::Interface, &[("a.B", 1)][..]),
        (Discovery::Application, &[("app", 1)]),
        (Discovery::Both, &[("a.B", 1), ("app", 1)]),
    ] {
        let mut settings = config(etcd.endpoints());
        settings.prefix = "/x/dubbo/".to_owned();
        settings.applications = "/x/services".to_owned();
        settings.dubbo.discovery = discovery;
        let source = Running::synced(settings).await;
        source.shows(&format!("{discovery:?}"), expected).await;
    }
    Ok(())
}

#[tokio::test]
async fn twenty_thousand_keys_are_synchronised() -> Result<()> {
    let etcd = Etcd::start().await?;
    let keys: Vec<_> = (0..20_000)
        .map(|n| (provider(&format!("org.example.shop.S{}", n / 4), n), ""))
        .collect();
    etcd.put_all(&keys).await?;
    let started = Instant::now();
    let source = Running::synced(config(etcd.endpoints())).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(source.world().services.len(), 5000);
    let started = Instant::now();
    etcd.put(&provider("org.example.shop.S1", 60_000), "")
        .await?;
    let changed = |world: &crate::support::World| world.counts()["org.example.shop.S1"] == 5;
    source.until("one more", changed).await;
    let seen = started.elapsed();
    assert!(seen < Duration::from_secs(2), "{seen:?}");
    Ok(())
}
