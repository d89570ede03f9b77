//! Credentials and TLS.

use std::fs;

use anyhow::{Context as _, Result};
use diolkos_net::TlsConfig;
use diolkos_source_api::Phase;
use diolkos_testkit::{ZooKeeper, eventually};
use diolkos_zk::Digest;

use crate::{
    dubbo::config,
    support::{RECOVERY, Running, provider_path},
};

#[tokio::test]
async fn a_password_is_read_anew_when_it_changes() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    for path in ["/dubbo", "/dubbo/a", "/dubbo/a/providers"] {
        writer.create_guarded(path, "", "mesh:new").await?;
    }
    let node = provider_path("a", "10.1.0.1:20880");
    writer.create_guarded(&node, "", "mesh:new").await?;

    let folder = tempfile::tempdir()?;
    let password_file = folder.path().join("password");
    fs::write(&password_file, "old\n")?;
    let mut settings = config("zk", vec![server.address()]);
    settings.client.digest = Some(Digest {
        username: "mesh".to_owned(),
        password_file: password_file.clone(),
    });
    let source = Running::start(settings);
    eventually(RECOVERY, "the old one is refused", async || {
        source.health.borrow().phase == Phase::Denied
    })
    .await;
    assert!(source.world().services.is_empty());
    fs::write(&password_file, "new\n")?;
    source.snapshots(1).await;
    assert_eq!(source.world().count("a"), Some(1));

    // It follows what only this user may read.
    let second = provider_path("a", "10.1.0.2:20880");
    writer.create_guarded(&second, "", "mesh:new").await?;
    source
        .until("followed", |world| world.count("a") == Some(2))
        .await;
    assert!(source.world().removed.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_missing_password_file_is_a_matter_of_configuration() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let folder = tempfile::tempdir()?;
    let password_file = folder.path().join("password");
    let mut settings = config("zk", vec![server.address()]);
    settings.client.digest = Some(Digest {
        username: "mesh".to_owned(),
        password_file: password_file.clone(),
    });
    let source = Running::start(settings);
    eventually(RECOVERY, "it is told", async || {
        let health = source.health.borrow().clone();
        anyhow::ensure!(health.phase == Phase::Misconfigured, "{health:?}");
        anyhow::ensure!(
            health.detail.contains(&*password_file.to_string_lossy()),
            "{health:?}"
        );
        Ok(())
    })
    .await;
    fs::write(&password_file, "one")?;
    source.snapshots(1).await;
    Ok(())
}

#[tokio::test]
async fn tls_with_a_client_certificate() -> Result<()> {
    let server = ZooKeeper::builder().tls().start().await?;
    let writer = server.writer().await?;
    let node = |number| provider_path("a", &format!("10.1.0.{number}:20880"));
    writer.create(&node(1), "").await?;
    let files = server.tls().context("the server speaks TLS")?;
    let mut settings = config("zk", vec![server.tls_address()]);
    settings.client.tls = Some(TlsConfig {
        ca_file: Some(files.ca.clone()),
        cert_file: Some(files.cert.clone()),
        key_file: Some(files.key.clone()),
        server_name: None,
    });
    let source = Running::synced(settings).await;
    assert_eq!(source.world().count("a"), Some(1));
    writer.create(&node(2), "").await?;
    source
        .until("followed", |world| world.count("a") == Some(2))
        .await;
    Ok(())
}
