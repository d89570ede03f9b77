//! What other bridges got wrong, with the number in the table of `docs/`.

use super::*;

fn manifest(bridge: &Bridge, host: &str) -> Result<serde_json::Value> {
    let files = bridge.files()?;
    let found = files.values().find(|(_, text)| text.contains(host));
    let (_, text) = found.with_context(|| format!("no file of {host}: {files:?}"))?;
    Ok(serde_saphyr::from_str(text)?)
}

/// X1: the port of every service was 0. X2: the host had no dot before the suffix. X6: groups other than
/// DEFAULT_GROUP and upper case gave invalid hosts. X7: nothing was served before the first event. N2: HTTP on
/// port 80 was hard-coded.
async fn x1_x2_x6_x7_n2_hosts_and_ports_are_valid_at_once(server: &Nacos) -> Result<()> {
    let client = server.client().await?;
    let one = NacosInstance::new("10.1.0.1", 9090).metadata("protocol", "grpc");
    client
        .put("Peers", "MY_Group", "Order_Service", &[one])
        .await?;
    let spec = format!(
        "nacos: {{addresses: ['{}'], namespaces: ['Peers'], groups: ['*']}}, \
         export: {{endpoints: Inline}}, {GUARD}",
        server.http_url()
    );
    let bridge = Bridge::start_registry("nacos", &spec, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    let entry = manifest(&bridge, "10.1.0.1")?;
    let host = entry["spec"]["hosts"][0].as_str().context("a host")?;
    let valid = |label: &str| {
        let mut characters = label.chars();
        !label.is_empty()
            && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    ensure!(
        host.ends_with(".nacos") && host.split('.').all(valid),
        "{host}"
    );
    ensure!(host.split('.').count() == 4, "{host}");
    let port = &entry["spec"]["ports"][0];
    assert_eq!(
        (&port["number"], &port["protocol"]),
        (&9090.into(), &"GRPC".into())
    );
    Ok(())
}

/// N3, M4, M16: deleted services stayed for ever, were announced again with each poll, and were counted.
async fn n3_m4_m16_what_is_deleted_is_gone(server: &Nacos) -> Result<()> {
    let registry = Registry::start(server, "deleted").await?;
    let bridge = registry.bridge("settleTime: 0s", GUARD).await?;
    registry.remove(0).await?;
    until_followed(&bridge, 1, &[], &[0]).await;
    let writes = bridge.writes().await?;
    assert_eq!(bridge.status().await?["services"], SERVICES - 1);
    // Several lists are read meanwhile.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(bridge.writes().await?, writes);
    Ok(())
}

/// N4: `<service>.<namespace>.svc.cluster.local` could take over a Service of Kubernetes.
async fn n4_no_service_of_kubernetes_is_taken_over(server: &Nacos) -> Result<()> {
    let client = server.client().await?;
    let one = [NacosInstance::new("10.1.0.2", 443)];
    let name = "kubernetes.default.svc.cluster.local";
    client.put("hijack", GROUP, name, &one).await?;
    client.put("hijack", GROUP, "innocent", &one).await?;
    let spec = format!(
        "nacos: {{addresses: ['{}'], namespaces: [hijack]}}, \
         export: {{endpoints: Inline, host: '{{service}}'}}, {GUARD}",
        server.http_url()
    );
    let bridge = Bridge::start_registry("nacos", &spec, tempfile::tempdir()?).await?;
    until_there(&bridge, "innocent").await;
    assert!(!bridge.has_host("svc.cluster.local")?);
    assert_eq!(bridge.files()?.len(), 1);
    Ok(())
}

/// M17: instances that change places were a change of the service.
async fn m17_the_order_of_instances_is_no_change(server: &Nacos) -> Result<()> {
    let registry = Registry::start(server, "order").await?;
    let bridge = registry.bridge("settleTime: 0s", GUARD).await?;
    let writes = bridge.writes().await?;
    let mut two = instances(0);
    for _ in 0..4 {
        two.reverse();
        registry.put(0, &two).await?;
    }
    registry
        .put(1, &[NacosInstance::new("10.9.0.3", 1)])
        .await?;
    until_there(&bridge, "10.9.0.3").await;
    assert_eq!(bridge.writes().await?, writes + 1.0);
    Ok(())
}

#[test]
fn what_other_bridges_got_wrong() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::start().await?;
        tokio::try_join!(
            Box::pin(x1_x2_x6_x7_n2_hosts_and_ports_are_valid_at_once(&server)),
            Box::pin(n3_m4_m16_what_is_deleted_is_gone(&server)),
            Box::pin(n4_no_service_of_kubernetes_is_taken_over(&server)),
            Box::pin(m17_the_order_of_instances_is_no_change(&server)),
        )?;
        Ok(())
    })
}

async fn stub_with(service: &str, ip: &str) -> Result<NacosStub> {
    let stub = NacosStub::start(Version::V2).await?;
    stub.put(service, &[Host::new(ip, 8080)]);
    Ok(stub)
}

fn spec(stub: &NacosStub) -> String {
    let (url, offset) = (stub.url(), stub.grpc_offset());
    format!(
        "nacos: {{addresses: ['{url}'], grpcPortOffset: {offset}, settleTime: 0s}}, \
         export: {{endpoints: Inline}}, {GUARD}"
    )
}

/// M1, M2: a server that answers 500 to everything emptied the whole mesh.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m1_m2_errors_empty_nothing() -> Result<()> {
    let stub = stub_with("orders", "10.1.0.1").await?;
    let spec = spec(&stub);
    let bridge = Bridge::start_registry("nacos", &spec, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    let files = bridge.files()?;
    assert_eq!(files.len(), 1);
    stub.faults(|faults| {
        faults.refused_lists = Some(500);
        faults.refuse("orders", 500);
    });
    let lists = stub.count("ServiceListRequest");
    stub.cut();
    eventually(SOON, "it asks", async || {
        stub.count("ServiceListRequest") > lists + 2
    })
    .await;
    assert_eq!(bridge.files()?, files);
    stub.faults(|faults| {
        faults.refused_lists = None;
        faults.refused.clear();
    });
    eventually(2 * SOON, "it goes on", async || bridge.live(2).await).await;
    assert_eq!(bridge.files()?, files);
    assert_eq!(bridge.writes().await?, 1.0);
    Ok(())
}

/// M6: one registry that was down kept all from being served. H8: of two registries with one host the last one to
/// say something won.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_h8_two_registries_do_not_disturb_each_other() -> Result<()> {
    let (one, other) = tokio::try_join!(
        stub_with("orders", "10.1.0.1"),
        stub_with("orders", "10.2.0.1")
    )?;
    let away = NacosStub::start(Version::V1).await?;
    let away_spec = spec(&away);
    drop(away);
    let documents = [
        ("a", &*spec(&one)),
        ("b", &*spec(&other)),
        ("c", &*away_spec),
    ];
    let documents = documents.map(|(name, spec)| {
        format!(
            "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
        )
    });
    let out = tempfile::tempdir()?;
    let target = format!("directory:{}", out.path().display());
    let diolkos = common::Diolkos::run(&documents.join("\n---\n"), &["--to", &target]).await?;
    let endpoints = || -> Result<String> {
        let mut all = String::new();
        for file in std::fs::read_dir(out.path())? {
            all += &std::fs::read_to_string(file?.path())?;
        }
        Ok(all)
    };
    let first_only = || {
        let all = endpoints()?;
        ensure!(
            all.contains("10.1.0.1") && !all.contains("10.2.0.1"),
            "{all}"
        );
        anyhow::Ok(())
    };
    eventually(SOON, "the first one is served", async || first_only()).await;
    other.put("orders", &[Host::new("10.2.0.1", 8081)]);
    other.put("others", &[Host::new("10.3.0.1", 8081)]);
    eventually(SOON, "the other one is followed", async || {
        let all = endpoints()?;
        ensure!(all.contains("10.3.0.1"), "{all}");
        Ok(())
    })
    .await;
    first_only()?;
    let reasons = diolkos.reasons("orders").await?;
    ensure!(!reasons.is_empty(), "nothing is explained");
    Ok(())
}
