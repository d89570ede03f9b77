//! ZooKeeper: a server, an ensemble, TLS, and the writer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diolkos_testkit::pki::TlsFiles;
use diolkos_testkit::zookeeper::Writer;
use diolkos_testkit::{ZooKeeper, eventually, install_crypto};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn nodes_are_written_and_survive_a_restart() -> Result<()> {
    let zookeeper = ZooKeeper::start().await?;
    let writer = zookeeper.writer().await?;
    writer.create("/dubbo/a/providers", "one").await?;
    writer
        .create("/dubbo/a/providers", "again")
        .await
        .expect_err("it exists");
    writer.set("/dubbo/a/providers", "two").await?;
    let session = zookeeper.mortal(Duration::from_secs(1)).await?;
    session.create_ephemeral("/dubbo/a/providers/x", "").await?;
    let closed = zookeeper.writer().await?;
    closed.create_ephemeral("/dubbo/a/providers/y", "").await?;

    zookeeper.kill()?;
    zookeeper.four_letter("srvr").await.expect_err("it is dead");
    zookeeper.restart().await?;
    assert_eq!(zookeeper.mode().await?, "standalone");
    assert_eq!(writer.data("/dubbo/a/providers").await?, b"two");
    assert_eq!(writer.children("/dubbo/a/providers").await?, ["x", "y"]);

    drop((session, closed));
    eventually(SOON, "both sessions' nodes are gone", async || {
        let left = writer.children("/dubbo/a/providers").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    writer.delete("/dubbo").await.expect_err("it has children");
    writer.delete_all("/dubbo").await?;
    assert!(!writer.exists("/dubbo").await?);
    Ok(())
}

#[tokio::test]
async fn many_nodes_at_once_and_guarded_ones() -> Result<()> {
    let zookeeper = ZooKeeper::builder().max_buffer(4_000).start().await?;
    let writer = zookeeper.writer().await?;
    let path = |i: usize| format!("/dubbo/i{:03}/providers/p{i}", i % 500);
    let nodes: Vec<(String, &str)> = (0..5_000).map(|i| (path(i), "")).collect();
    writer.create_many(&nodes).await?;
    assert_eq!(writer.children("/dubbo").await?.len(), 500);
    assert_eq!(writer.children("/dubbo/i007/providers").await?.len(), 10);
    let large = "x".repeat(5_000);
    writer.create("/large", large).await.expect_err("too large");

    let writer = zookeeper.writer().await?;
    writer.create_guarded("/mine", "secret", "me:word").await?;
    assert_eq!(
        writer.data("/mine").await?,
        b"secret",
        "the super user reads all"
    );
    let acl = zookeeper.four_letter("wchs").await?;
    assert!(acl.contains("Total watches:0"), "{acl}");
    Ok(())
}

#[tokio::test]
async fn the_old_release_serves() -> Result<()> {
    let zookeeper = ZooKeeper::builder().old().start().await?;
    let said = zookeeper.four_letter("srvr").await?;
    assert!(said.contains("3.5.10"), "{said}");
    zookeeper.writer().await?.create("/a", "b").await
}

#[tokio::test]
async fn an_ensemble_outlives_its_leader() -> Result<()> {
    let ensemble = ZooKeeper::ensemble(3).await?;
    let leader = ensemble.leader().await?;
    let follower = (leader + 1) % 3;
    let writer = ensemble.writer().await?;
    writer.create("/a", "1").await?;

    ensemble[leader].kill()?;
    let next = eventually(SOON, "another leads", async || ensemble.leader().await).await;
    assert_ne!(next, leader);
    eventually(SOON, "writes go on", async || writer.set("/a", "2").await).await;
    ensemble[leader].restart().await?;
    let elsewhere = Writer::connect(&ensemble[leader].address()).await?;
    eventually(SOON, "the member has caught up", async || {
        let data = elsewhere.data("/a").await?;
        ensure!(data == b"2", "{data:?}");
        Ok(())
    })
    .await;

    ensemble[follower].stop_process()?;
    ensemble[follower].mode().await.expect_err("it is stopped");
    ensemble[follower].continue_process()?;
    eventually(SOON, "it is back", async || ensemble[follower].mode().await).await;
    Ok(())
}

/// Asks a server in TLS whether it is well. The answer comes behind the handshake only.
async fn ask(address: &str, files: &TlsFiles, certificate: bool) -> Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca)?)?;
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = if certificate {
        let chain = vec![CertificateDer::from_pem_file(&files.cert)?];
        config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?
    } else {
        config.with_no_client_auth()
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost")?;
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    stream.write_all(b"ruok").await?;
    let mut said = vec![0; 4];
    stream.read_exact(&mut said).await?;
    Ok(String::from_utf8(said)?)
}

#[tokio::test]
async fn tls_wants_a_certificate() -> Result<()> {
    install_crypto();
    for builder in [ZooKeeper::builder(), ZooKeeper::builder().old()] {
        let zookeeper = builder.tls().start().await?;
        let files = zookeeper.tls().context("TLS")?;
        let address = zookeeper.tls_address();
        assert_eq!(ask(&address, files, true).await?, "imok");
        ask(&address, files, false)
            .await
            .expect_err("no certificate, no answer");
    }
    Ok(())
}
