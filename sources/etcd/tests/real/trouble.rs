//! Clusters that fail, hang, compact or are replaced.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Result;
use diolkos_source_api::{Evidence, Phase};
use diolkos_testkit::{Etcd, TcpProxy, eventually};

use crate::support::{Running, SOON, config, provider};

#[tokio::test]
async fn a_compaction_during_an_outage_loses_and_removes_nothing() -> Result<()> {
    let etcd = Etcd::start().await?;
    etcd.put(&provider("a.B", 1), "").await?;
    etcd.put(&provider("a.Goes", 1), "").await?;
    let mut proxy = TcpProxy::start(etcd.address(0)).await?;
    let endpoint = format!("http://{}", proxy.address());
    let source = Running::synced(config(vec![endpoint])).await;
    proxy.refuse(true).await?;
    proxy.cut();
    source.phase(Phase::Unreachable).await;
    etcd.put(&provider("a.B", 2), "").await?;
    etcd.delete(&provider("a.Goes", 1)).await?;
    etcd.compact().await?;
    proxy.refuse(false).await?;
    source.shows("what is left", &[("a.B", 2)]).await;
    assert!(source.world().removed.is_empty());
    assert_eq!(source.world().missing, ["a.Goes"]);
    Ok(())
}

/// Does something in etcd from a thread of its own and waits for it, from where nobody may await.
fn meanwhile(etcd: &Arc<Etcd>, write: &str) {
    let (etcd, key) = (etcd.clone(), write.to_owned());
    let thread = thread::spawn(move || -> Result<()> {
        tokio::runtime::Runtime::new()?.block_on(async {
            for _ in 0..2 {
                etcd.put(&key, "").await?;
            }
            etcd.compact().await
        })
    });
    thread.join().expect("no panic").expect("a compaction");
}

/// Keys are selected while pages are read, so there a compaction can be put between two requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_between_pages_or_before_the_watch_makes_it_read_anew() -> Result<()> {
    let etcd = Arc::new(Etcd::start().await?);
    // Two pages: the first interface is on the first one, the last on the second.
    let keys: Vec<_> = (0..1500)
        .map(|n| (provider(&format!("a.S{n:04}"), 1), ""))
        .collect();
    etcd.put_all(&keys).await?;
    for (at, written) in [("a.S0000", "a.Between"), ("a.S1499", "a.Behind")] {
        let reads = Arc::new(AtomicUsize::new(0));
        let (counted, server) = (reads.clone(), etcd.clone());
        let mut settings = config(etcd.endpoints());
        settings.select = Arc::new(move |name| {
            if name == at && counted.fetch_add(1, Ordering::SeqCst) == 0 {
                meanwhile(&server, &provider(written, 1));
            }
            true
        });
        let source = Running::synced(settings).await;
        let there = |world: &crate::support::World| world.services.contains_key(written);
        source.until(written, there).await;
        // Read twice; and each service is selected once more where it is told.
        assert!(reads.load(Ordering::SeqCst) >= 3, "it was not read anew");
        let world = source.world();
        assert!(world.snapshots.iter().all(Evidence::is_complete));
        assert!(world.removed.is_empty() && world.missing.is_empty());
        assert_eq!(source.health.borrow().epoch, 1, "in one connection");
    }
    Ok(())
}

#[tokio::test]
async fn another_member_is_read_when_the_leader_dies_or_hangs() -> Result<()> {
    let etcd = Etcd::cluster(3).await?;
    for name in ["a.B", "a.C"] {
        etcd.put(&provider(name, 1), "").await?;
    }
    let mut endpoints = etcd.endpoints();
    let leader = etcd.leader().await?;
    endpoints.rotate_left(leader);
    let source = Running::synced(config(endpoints.clone())).await;
    assert!(source.health.borrow().detail.contains(&endpoints[0]));
    etcd.kill(leader)?;
    eventually(SOON, "a new leader", async || {
        etcd.put(&provider("a.B", 2), "").await
    })
    .await;
    source
        .shows("followed from another", &[("a.B", 2), ("a.C", 1)])
        .await;
    etcd.restart(leader).await?;

    let member = source.phase(Phase::Live).await;
    let followed = etcd.endpoints().iter().position(|e| member.contains(e));
    let followed = followed.expect("one of the members");
    assert_ne!(followed, leader);
    etcd.stop_process(followed)?;
    let other = (0..3)
        .find(|m| ![leader, followed].contains(m))
        .expect("a third");
    source
        .until("followed from a third", |_| {
            let health = source.health.borrow();
            health.phase == Phase::Live && !health.detail.contains(&etcd.endpoint(followed))
        })
        .await;
    etcd.continue_process(followed)?;
    etcd.restart(other).await?;
    eventually(SOON, "a leader", async || {
        etcd.put(&provider("a.C", 2), "").await
    })
    .await;
    source
        .shows("followed again", &[("a.B", 2), ("a.C", 2)])
        .await;
    assert!(source.world().removed.is_empty() && source.world().missing.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_member_without_a_quorum_is_not_believed() -> Result<()> {
    let etcd = Etcd::cluster(3).await?;
    etcd.put(&provider("a.B", 1), "").await?;
    let source = Running::synced(config(vec![etcd.endpoint(0)])).await;
    etcd.kill(1)?;
    etcd.kill(2)?;
    let why = source.phase(Phase::Unreachable).await;
    assert!(!why.is_empty());
    // Nor by one that starts now, which has nothing to lose.
    let fresh = Running::start(config(vec![etcd.endpoint(0)]));
    fresh.phase(Phase::Unreachable).await;
    assert!(fresh.world().snapshots.is_empty());
    tokio::try_join!(etcd.restart(1), etcd.restart(2))?;
    for source in [&source, &fresh] {
        source.phase(Phase::Live).await;
        source.shows("as before", &[("a.B", 1)]).await;
        assert!(source.world().missing.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn another_cluster_is_read_as_it_is() -> Result<()> {
    let (first, second) = tokio::try_join!(Etcd::start(), Etcd::start())?;
    for host in 1..20 {
        first.put(&provider("a.B", host), "").await?;
    }
    second.put(&provider("a.B", 1), "").await?;
    let endpoints = vec![first.endpoint(0), second.endpoint(0)];
    let source = Running::synced(config(endpoints)).await;
    first.kill(0)?;
    // Its revision is far lower.
    source.shows("the other cluster", &[("a.B", 1)]).await;
    second.put(&provider("a.B", 2), "").await?;
    source
        .shows("followed from its revision", &[("a.B", 2)])
        .await;
    Ok(())
}
