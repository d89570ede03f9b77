//! Dubbo's own provider → etcd → Diolkos → a directory, in a network namespace.

mod common;
#[path = "common/written.rs"]
mod written;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diolkos_testkit::dubbo::Line;
use diolkos_testkit::{Dubbo, Etcd, eventually, netns};
use serde_json::{Value, json};
use written::{Bridge, GUARD};

/// For what needs other programs to do something, such as a lease that must end first.
const SOON: Duration = Duration::from_secs(60);
const INTERFACE: &str = "/dubbo/org.apache.dubbo.demo.DemoService";
const HOST: &str = "org.apache.dubbo.demo.demoservice";

/// The `spec` of the one ServiceEntry that there is.
fn spec(bridge: &Bridge) -> Result<Value> {
    let files = bridge.files()?;
    let (_, text) = files.values().next().context("no files")?;
    ensure!(files.len() == 1, "{files:?}");
    let entry: Value = serde_saphyr::from_str(text)?;
    ensure!(entry["kind"] == "ServiceEntry", "{text}");
    Ok(entry["spec"].clone())
}

#[test]
fn a_real_provider_comes_and_goes_with_its_lease() -> Result<()> {
    netns::isolated(async {
        let etcd = Etcd::start().await?;
        let provider = Dubbo::provider(Line::D27)
            .registry(&format!("etcd3://{}", etcd.address(0)))
            .version("1.0.0");
        let settings = format!(
            "etcd: {{addresses: ['{}']}}, export: {{endpoints: Inline}}, {GUARD}",
            etcd.endpoint(0)
        );
        let (provider, bridge) = tokio::try_join!(
            provider.start(),
            Bridge::start_registry("etcd", &settings, tempfile::tempdir()?),
        )?;
        is_in_the_mesh(&bridge).await;
        provider.kill()?;
        leaves_with_its_lease(&bridge, &etcd).await
    })
}

async fn is_in_the_mesh(bridge: &Bridge) {
    let labels = json!({"application": "demo-provider", "release": "2.7.23", "version": "1.0.0"});
    eventually(SOON, "the provider is an endpoint", async || {
        let spec = spec(bridge)?;
        ensure!(spec["hosts"] == json!([HOST]), "{spec:#}");
        let port = json!({"name": "tcp-dubbo", "number": 20880, "protocol": "TCP"});
        ensure!(spec["ports"] == json!([port]), "{spec:#}");
        let endpoint =
            json!({"address": "10.77.0.1", "ports": {"tcp-dubbo": 20880}, "labels": labels});
        ensure!(spec["endpoints"] == json!([endpoint]), "{spec:#}");
        bridge.live(1).await
    })
    .await;
}

/// It was the last endpoint, and the host goes with it. Dubbo's other keys of the interface have no lease: they stay.
async fn leaves_with_its_lease(bridge: &Bridge, etcd: &Etcd) -> Result<()> {
    eventually(SOON, "the host is gone", async || {
        let files = bridge.files()?;
        ensure!(files.is_empty(), "{files:?}");
        bridge.live(1).await
    })
    .await;
    let left = etcd.keys(INTERFACE).await?;
    assert_eq!(
        left,
        [INTERFACE.to_owned(), format!("{INTERFACE}/configurators")]
    );
    Ok(())
}
