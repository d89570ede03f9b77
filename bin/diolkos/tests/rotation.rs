//! Class 27: credentials and certificates of a registry are replaced while Diolkos runs. What is refused for a
//! while removes nothing, and no restart is needed.

mod common;
#[path = "common/written.rs"]
mod written;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use diolkos_testkit::{Consul, TcpProxy, consul, eventually, pki::TlsFiles};
use tempfile::TempDir;
use written::{Bridge, Files, register};

const SERVICES: usize = 5;
/// A refusal is retried within 30 s, and certificates are read again within 5 s.
const RECOVERY: Duration = Duration::from_secs(60);

/// A bridge in steady state, and what it has written.
struct Steady {
    consul: Consul,
    bridge: Bridge,
    files: Files,
    pid: u32,
}

impl Steady {
    async fn reach(consul: Consul, settings: &str) -> Result<Self> {
        for index in 0..SERVICES {
            register(&consul, &format!("svc-{index}"), index).await?;
        }
        let bridge = Bridge::synced(settings).await?;
        let files = bridge.files()?;
        assert_eq!(files.len(), SERVICES);
        Ok(Self {
            pid: bridge.diolkos.pid(),
            consul,
            bridge,
            files,
        })
    }

    /// Waits until the registry is lost for this reason, and checks that this changes nothing although the
    /// registry did.
    async fn is_lost(&self, phase: &str, why: &str) -> Result<()> {
        let lost = async || {
            let status = self.bridge.status().await?;
            let detail = status["detail"].as_str().context("a detail")?;
            ensure!(status["phase"] == phase && detail.contains(why), "{status}");
            status["epoch"].as_u64().context("an epoch")
        };
        let epoch = eventually(RECOVERY, "the loss is told", lost).await;
        register(&self.consul, "later", 200).await?;
        eventually(RECOVERY, "it is tried again", async || {
            let now = lost().await?;
            ensure!(now > epoch, "still connection {now}");
            Ok(())
        })
        .await;
        assert_eq!(self.bridge.files()?, self.files);
        self.bridge.ready().await
    }

    /// Waits until the registry is followed again, by the same process, and nothing was removed or written again.
    async fn goes_on(&self, service: &str) -> Result<()> {
        eventually(RECOVERY, "it goes on", async || {
            self.bridge.live(1).await?;
            ensure!(self.bridge.has(service)?, "{service} is not there");
            Ok(())
        })
        .await;
        assert_eq!(self.bridge.diolkos.pid(), self.pid);
        let now = self.bridge.files()?;
        for (file, before) in &self.files {
            assert_eq!(now.get(file), Some(before), "{file}");
        }
        // Each file was written once: none went and came back.
        assert_eq!(self.bridge.writes().await?, now.len() as f64);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_27_a_token_is_revoked_and_replaced() -> Result<()> {
    let consul = Consul::builder().acl().start().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("token");
    let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let (old, new) = (
        consul.create_token("old", rules).await?,
        consul.create_token("new", rules).await?,
    );
    std::fs::write(&file, &old)?;
    let settings = format!(
        "{{addresses: ['{}'], token: {{file: '{}'}}}}",
        consul.http_addr(),
        file.display()
    );
    let steady = Steady::reach(consul, &settings).await?;
    steady.consul.delete_token(&old).await?;
    // Wakes the waiting queries, which the old token had opened.
    register(&steady.consul, "later", 200).await?;
    steady.is_lost("Denied", "ACL not found").await?;
    std::fs::write(&file, &new)?;
    steady.goes_on("later").await?;
    let log = steady.bridge.diolkos.log();
    assert!(!log.contains(&old) && !log.contains(&new), "{log}");
    Ok(())
}

/// The client's files under names that stay while their contents change, as in a mounted Secret.
struct Client {
    folder: TempDir,
}

impl Client {
    fn new(files: &TlsFiles) -> Result<Self> {
        let client = Self {
            folder: tempfile::tempdir()?,
        };
        client.trust(&[&files.ca])?;
        client.show(files)?;
        Ok(client)
    }

    fn trust(&self, authorities: &[&Path]) -> Result<()> {
        let bundle: Vec<u8> = authorities
            .iter()
            .map(std::fs::read)
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        Ok(std::fs::write(self.folder.path().join("ca"), bundle)?)
    }

    fn show(&self, files: &TlsFiles) -> Result<()> {
        std::fs::copy(&files.cert, self.folder.path().join("cert"))?;
        std::fs::copy(&files.key, self.folder.path().join("key"))?;
        Ok(())
    }

    fn settings(&self, proxy: &TcpProxy) -> String {
        let folder = self.folder.path().display();
        format!(
            "{{addresses: ['https://{}'], tls: {{caFile: '{folder}/ca', certFile: '{folder}/cert', keyFile: '{folder}/key'}}}}",
            proxy.address()
        )
    }
}

/// A Consul that asks for client certificates, behind a proxy that can break connections: a new certificate
/// counts from the next connection on.
async fn over_tls(consul: consul::Builder) -> Result<(Steady, Client, TcpProxy)> {
    let consul = consul.tls().start().await?;
    let address = consul.https_addr();
    let address = address.trim_start_matches("https://").parse()?;
    let proxy = TcpProxy::start(address).await?;
    let client = Client::new(consul.tls().context("TLS")?)?;
    let steady = Steady::reach(consul, &client.settings(&proxy)).await?;
    Ok((steady, client, proxy))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_27_the_authority_of_the_registry_changes() -> Result<()> {
    let (steady, client, proxy) = over_tls(Consul::builder().persistent()).await?;
    let first = steady.consul.tls().context("TLS")?.clone();

    // Without notice: the new certificate is refused until its authority is known. Without the restart, Consul would
    // resume TLS sessions, which shows no certificate.
    let second = steady.consul.rotate_tls("second", true).await?;
    steady.consul.restart().await?;
    steady.is_lost("Unreachable", "UnknownIssuer").await?;
    client.trust(&[&first.ca, &second.ca])?;
    steady.goes_on("later").await?;

    // Then the former one goes out of the bundle.
    client.trust(&[&second.ca])?;
    proxy.cut();
    register(&steady.consul, "last", 201).await?;
    steady.goes_on("last").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_27_the_client_certificate_changes() -> Result<()> {
    let (steady, client, proxy) = over_tls(Consul::builder()).await?;
    let first = steady.consul.tls().context("TLS")?.clone();

    // In order: Consul takes both, the client shows the new one, Consul takes only that.
    let second = steady.consul.rotate_tls("second", true).await?;
    client.trust(&[&first.ca, &second.ca])?;
    client.show(&second)?;
    proxy.cut();
    register(&steady.consul, "later", 200).await?;
    steady.goes_on("later").await?;

    // Without notice: the old one is refused. (Why is not always told: a server closes before its alert is read.)
    let third = steady.consul.rotate_tls("third", false).await?;
    client.trust(&[&third.ca])?;
    proxy.cut();
    let steady = Steady {
        files: steady.bridge.files()?,
        ..steady
    };
    register(&steady.consul, "last", 201).await?;
    steady.is_lost("Unreachable", "").await?;
    client.show(&third)?;
    steady.goes_on("last").await
}
