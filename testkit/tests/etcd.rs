//! The etcd launcher against the real program.

mod common;

use std::time::Duration;

use common::assert_gone;
use diolkos_testkit::{Etcd, eventually};
use serde_json::json;

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn keys_come_and_go_with_their_leases_and_survive_a_restart() -> anyhow::Result<()> {
    let etcd = Etcd::start().await?;
    let (revoked, short) = (etcd.grant(600).await?, etcd.grant(1).await?);
    etcd.put("/t/a", "1").await?;
    etcd.put_leased("/t/b", "2", revoked).await?;
    etcd.put_leased("/t/c", "3", short).await?;
    etcd.put_all(&[("/t/d", "4"), ("/u/e", "5")]).await?;
    etcd.revoke(revoked).await?;
    eventually(SOON, "the lease ends", async || {
        etcd.keys("/t/")
            .await
            .is_ok_and(|keys| keys == ["/t/a", "/t/d"])
    })
    .await;
    etcd.compact().await?;
    etcd.restart(0).await?;
    assert_eq!(etcd.keys("/").await?, ["/t/a", "/t/d", "/u/e"]);
    etcd.delete("/t/a").await?;
    etcd.delete_prefix("/u/").await?;
    assert_eq!(etcd.keys("/").await?, ["/t/d"]);
    let pid = etcd.pid(0);
    drop(etcd);
    assert_gone(pid).await;
    Ok(())
}

#[tokio::test]
async fn a_cluster_lives_on_without_its_leader() -> anyhow::Result<()> {
    let etcd = Etcd::cluster(3).await?;
    let leader = etcd.leader().await?;
    etcd.kill(leader)?;
    eventually(SOON, "a new leader", async || etcd.put("/t/a", "1").await).await;
    assert_ne!(etcd.leader().await?, leader);
    etcd.restart(leader).await
}

#[tokio::test]
async fn tls_and_users() -> anyhow::Result<()> {
    let etcd = Etcd::builder().tls().auth().start().await?;
    etcd.put("/t/a", "1").await?;
    etcd.add_reader("reader", "secret", &["/t/"]).await?;
    let login = json!({"name": "reader", "password": "secret"});
    etcd.call("auth/authenticate", &login).await?;
    etcd.change_password("reader", "other").await?;
    let refused = etcd.call("auth/authenticate", &login).await.unwrap_err();
    assert!(
        format!("{refused:#}").contains("authentication failed"),
        "{refused:#}"
    );
    etcd.forbid("reader", "/t/").await?;
    etcd.allow("reader", "/t/").await
}
