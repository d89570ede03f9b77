//! 2,000 services of five instances in one Consul agent. `make bench-smoke` has the figures; here is
//! that it works, with few connections.

mod common;

use std::time::Duration;

use anyhow::{Result, ensure};
use common::{Diolkos, SOON};
use diolkos_testkit::{Consul, eventually, fill};

const SERVICES: usize = 2_000;
const INSTANCES: usize = 5;
/// An agent takes 200 connections of a client.
const CONNECTIONS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_services_over_few_connections() -> Result<()> {
    let consul = Consul::start().await?;
    fill::fill(&consul, SERVICES, INSTANCES).await?;
    let out = tempfile::tempdir()?;
    let document = format!(
        "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: consul}}, spec: {{\
          consul: {{addresses: ['{}']}}, export: {{endpoints: Inline}}}}}}",
        consul.http_addr()
    );
    let target = format!("directory:{}", out.path().display());
    let diolkos = Diolkos::run(&document, &["--to", &target]).await?;
    let mut most = 0;
    eventually(
        Duration::from_secs(120),
        "all services are written",
        async || {
            most = most.max(consul.connections()?);
            diolkos.synced("consul").await?;
            let files = std::fs::read_dir(out.path())?.count();
            ensure!(files == SERVICES, "{files} files");
            Ok(())
        },
    )
    .await;
    let status = diolkos.get("/api/v1/registries").await?;
    assert_eq!(status[0]["endpoints"], SERVICES * INSTANCES, "{status}");
    fill::move_port(&consul, 1_234, 0, 9_999).await?;
    eventually(SOON, "one change among them is seen", async || {
        let found = diolkos
            .get("/api/v1/services?host=svc-1234.service.consul")
            .await?;
        ensure!(
            found[0]["ports"] == serde_json::json!([8080, 9999]),
            "{found}"
        );
        most = most.max(consul.connections()?);
        Ok(())
    })
    .await;
    assert!(most <= CONNECTIONS, "{most} connections to Consul");
    Ok(())
}
