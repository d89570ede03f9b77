//! The defects of dubbo2istio, D1 to D16 as the table in `docs/dubbo.md` names them, each with a test that it would
//! fail: nodes as Dubbo writes them in real servers, and the objects that come of them.
//!
//! D7 to D9 are about Nacos.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/dubbo.rs"]
mod dubbo;
#[path = "common/written.rs"]
mod written;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, until_synced};
use common::SOON;
use diolkos_testkit::{
    Etcd, Fault, On, Reply, TcpProxy, eventually,
    zookeeper::{Writer, ZooKeeper},
};
use dubbo::Provider;
use serde_json::{Value, json};
use written::{Bridge, GUARD};

const DEMO: &str = "org.apache.dubbo.demo.DemoService";
const HOST: &str = "org.apache.dubbo.demo.demoservice";
const INLINE: &str = "export: {endpoints: Inline}";
const AERAKI: &str = "export: {preset: aeraki}";

/// A provider of [`DEMO`].
fn demo(address: &str) -> Provider {
    Provider::new(DEMO, address)
}

/// A ZooKeeper, and what is made of it.
struct World {
    server: ZooKeeper,
    writer: Writer,
    bridge: Bridge,
}

impl World {
    /// With these providers, and this much of the document.
    async fn start(export: &str, providers: &[Provider]) -> Result<Self> {
        Self::with(&format!("{export}, {GUARD}"), providers).await
    }

    async fn with(spec: &str, providers: &[Provider]) -> Result<Self> {
        let server = ZooKeeper::start().await?;
        let writer = server.writer().await?;
        for provider in providers {
            writer.create(&provider.path(), "127.0.0.1").await?;
        }
        let spec = format!("zookeeper: {{addresses: ['{}']}}, {spec}", server.address());
        let bridge = Bridge::start_registry("dubbo", &spec, tempfile::tempdir()?).await?;
        bridge.until_live().await;
        Ok(Self {
            server,
            writer,
            bridge,
        })
    }

    async fn register(&self, provider: &Provider) -> Result<()> {
        self.writer.create(&provider.path(), "127.0.0.1").await
    }

    async fn deregister(&self, provider: &Provider) -> Result<()> {
        self.writer.delete(&provider.path()).await
    }

    /// Waits until the service entry of a host satisfies `look`.
    async fn until(&self, host: &str, look: impl Fn(&Value) -> bool) -> Value {
        eventually(SOON, host, async || {
            let entry = entry(&self.bridge, host)?;
            ensure!(look(&entry), "{entry}");
            self.bridge.live(1).await?;
            Ok(entry)
        })
        .await
    }
}

/// All service entries.
fn entries(bridge: &Bridge) -> Result<Vec<Value>> {
    let files = bridge.files()?;
    let parse = |(_, text): &(_, String)| Ok(serde_saphyr::from_str(text)?);
    files.values().map(parse).collect()
}

/// The only service entry of a host.
fn entry(bridge: &Bridge, host: &str) -> Result<Value> {
    let mut entries = entries(bridge)?;
    entries.retain(|entry| entry["spec"]["hosts"] == json!([host]));
    ensure!(entries.len() == 1, "{host}: {entries:?}");
    entries.pop().context("no entry")
}

/// The endpoints of a service entry: addresses, and ports by name.
fn endpoints(entry: &Value) -> Vec<(&str, &Value)> {
    let all = entry["spec"]["endpoints"].as_array().into_iter().flatten();
    all.map(|e| (e["address"].as_str().unwrap_or_default(), &e["ports"]))
        .collect()
}

fn addresses(entry: &Value) -> Vec<&str> {
    endpoints(entry)
        .iter()
        .map(|(address, _)| *address)
        .collect()
}

/// The ports of a service entry: number, name, protocol.
fn ports(entry: &Value) -> Vec<(u64, &str, &str)> {
    let all = entry["spec"]["ports"].as_array().into_iter().flatten();
    all.map(|p| {
        let text = |key: &str| p[key].as_str().unwrap_or_default();
        (
            p["number"].as_u64().unwrap_or_default(),
            text("name"),
            text("protocol"),
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_provider_that_knows_nothing_of_aeraki_is_carried_over() -> Result<()> {
    for (export, namespace) in [(INLINE, "diolkos"), (AERAKI, "dubbo")] {
        let world = World::start(export, &[demo("10.0.0.1:20880")]).await?;
        let entry = entry(&world.bridge, HOST)?;
        assert_eq!(entry["metadata"]["namespace"], namespace);
        assert_eq!(ports(&entry), [(20880, "tcp-dubbo", "TCP")]);
        let port = json!({"tcp-dubbo": 20880});
        assert_eq!(endpoints(&entry), [("10.0.0.1", &port)]);
    }
    Ok(())
}

/// A provider that is killed: its ephemeral node goes when its session ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_the_last_provider_takes_its_host_with_it() -> Result<()> {
    let other = Provider::new("org.demo.Other", "10.0.0.2:20880");
    let guard = "guard: {emptyHold: 1s, confirmAfter: 2, emptyGrace: 3s}";
    let world = World::with(&format!("{INLINE}, {guard}"), &[other]).await?;
    let process = world.server.mortal(Duration::from_secs(1)).await?;
    let node = demo("10.0.0.1:20880").path();
    process.create_ephemeral(&node, "127.0.0.1").await?;
    world.until(HOST, |e| addresses(e) == ["10.0.0.1"]).await;
    drop(process);
    // No dead endpoint, and the host is still there, so that requests fail at once.
    world.until(HOST, |e| addresses(e).is_empty()).await;
    eventually(SOON, "the host is gone", async || {
        ensure!(!world.bridge.has_host(HOST)?, "it is still there");
        world.bridge.live(1).await
    })
    .await;
    assert_eq!(
        addresses(&entry(&world.bridge, "org.demo.other")?),
        ["10.0.0.2"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d3_a_variant_that_is_gone_leaves_nothing() -> Result<()> {
    let first = demo("10.0.0.1:20880").with("version", "1.0.0");
    let second = demo("10.0.0.2:20880")
        .with("version", "2.0.0")
        .with("group", "gray");
    let both = [first.clone(), second.clone()];
    let hosts = "export: {endpoints: Inline, dubbo: {variants: hosts}}";
    let world = World::start(hosts, &both).await?;
    let (stable, gray) = (format!("{HOST}-1-0-0"), format!("{HOST}-gray-2-0-0"));
    let kept = entry(&world.bridge, &stable)?;
    assert_eq!(addresses(&kept), ["10.0.0.1"]);
    assert_eq!(addresses(&entry(&world.bridge, &gray)?), ["10.0.0.2"]);
    world.deregister(&second).await?;
    eventually(SOON, "the variant is gone", async || {
        let all = entries(&world.bridge)?;
        ensure!(all == [kept.clone()], "{all:?}");
        Ok(())
    })
    .await;

    // As labels of one host.
    let world = World::start(INLINE, &both).await?;
    let all = entry(&world.bridge, HOST)?;
    let labels: Vec<_> = all["spec"]["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| (&e["labels"]["group"], &e["labels"]["version"]))
        .collect();
    let (none, gray) = (Value::Null, json!("gray"));
    let (one, two) = (json!("1.0.0"), json!("2.0.0"));
    assert_eq!(labels, [(&none, &one), (&gray, &two)]);
    world.deregister(&second).await?;
    world.until(HOST, |e| addresses(e) == ["10.0.0.1"]).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d4_providers_on_two_ports_both_answer() -> Result<()> {
    let both = [demo("10.0.0.1:20880"), demo("10.0.0.2:20881")];
    let world = World::start(INLINE, &both).await?;
    let entry = entry(&world.bridge, HOST)?;
    let expected = [
        (20880, "tcp-dubbo-20880", "TCP"),
        (20881, "tcp-dubbo-20881", "TCP"),
    ];
    assert_eq!(ports(&entry), expected);
    let all = |port: u16| json!({"tcp-dubbo-20880": port, "tcp-dubbo-20881": port});
    let (first, second) = (all(20880), all(20881));
    let expected = [("10.0.0.1", &first), ("10.0.0.2", &second)];
    assert_eq!(endpoints(&entry), expected);

    // The port is not frozen to the first one that was seen.
    world.deregister(&both[0]).await?;
    let moved = world.until(HOST, |e| addresses(e) == ["10.0.0.2"]).await;
    assert_eq!(ports(&moved), [(20881, "tcp-dubbo", "TCP")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_other_protocols_are_carried_over() -> Result<()> {
    let of = |protocol: &str, port: u16| {
        Provider::new(&format!("org.demo.{protocol}"), &format!("10.0.0.1:{port}"))
            .protocol(protocol)
    };
    let all = [of("tri", 50051), of("grpc", 50052), of("rest", 8080)];
    let world = World::start(INLINE, &all).await?;
    let of = |host: &str| entry(&world.bridge, host);
    assert_eq!(ports(&of("org.demo.tri")?), [(50051, "grpc", "GRPC")]);
    assert_eq!(ports(&of("org.demo.grpc")?), [(50052, "grpc", "GRPC")]);
    assert_eq!(ports(&of("org.demo.rest")?), [(8080, "http", "HTTP")]);
    Ok(())
}

/// As Dubbo 3 registers with `register-mode=instance`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_applications_are_carried_over() -> Result<()> {
    let world = World::start(INLINE, &[]).await?;
    let metadata = json!({
        "dubbo.endpoints": "[{\"port\":20882,\"protocol\":\"tri\"}]",
        "dubbo.metadata.revision": "899c53cbcdf35cf5408c48c50b60d71f",
        "dubbo.metadata.storage-type": "local", "meta-v": "2.0.0", "timestamp": "1795252151662",
    });
    let id = "10.0.0.3:20882";
    let instance = json!({
        "name": "demo-inst", "id": id, "address": "10.0.0.3", "port": 20882, "sslPort": null,
        "payload": {
            "@class": "org.apache.dubbo.registry.zookeeper.ZookeeperInstance",
            "id": id, "name": "demo-inst", "metadata": metadata,
        },
        "registrationTimeUTC": 1_795_252_155_573_u64, "serviceType": "DYNAMIC", "uriSpec": null,
    });
    let parameters = json!({
        "application": "demo-inst", "interface": DEMO, "release": "3.3.5", "side": "provider",
        "version": "3.0.0", "register-mode": "instance", "service-name-mapping": "true",
    });
    let definition = json!({"canonicalName": DEMO, "parameters": parameters});
    let writer = &world.writer;
    let definitions = format!("/dubbo/metadata/{DEMO}/3.0.0/provider/demo-inst");
    writer.create(&definitions, definition.to_string()).await?;
    let mapping = format!("/dubbo/mapping/{DEMO}");
    writer.create(&mapping, "demo-inst").await?;
    let path = format!("/services/demo-inst/{id}");
    writer.create_ephemeral(&path, instance.to_string()).await?;
    for host in ["demo-inst.dubbo", HOST] {
        let entry = world.until(host, |e| addresses(e) == ["10.0.0.3"]).await;
        assert_eq!(ports(&entry), [(20882, "grpc", "GRPC")]);
    }
    writer.delete(&path).await?;
    eventually(SOON, "the instance is gone", async || {
        let left = entries(&world.bridge)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_names_never_overwrite_each_other() -> Result<()> {
    let all = [
        Provider::new("com.foo.Bar", "10.0.0.1:20880").with("group", "baz"),
        Provider::new("com.foo.bar.Baz", "10.0.0.2:20880"),
        Provider::new("com.foo.UserAPI", "10.0.0.3:20880"),
        Provider::new("com.foo.UserApi", "10.0.0.4:20880"),
        Provider::new("com.foo.Outer$Inner_1", "10.0.0.5:20880"),
    ];
    let hosts = "export: {endpoints: Inline, dubbo: {variants: hosts}}";
    let world = World::start(hosts, &all).await?;
    let of = |host: &str| {
        let entry = entry(&world.bridge, host)?;
        let addresses = addresses(&entry);
        let [only] = addresses.as_slice() else {
            anyhow::bail!("{entry}");
        };
        anyhow::Ok((*only).to_owned())
    };
    assert_eq!(of("com.foo.bar-baz")?, "10.0.0.1");
    assert_eq!(of("com.foo.bar.baz")?, "10.0.0.2");
    assert_eq!(of("com.foo.outer-inner-1")?, "10.0.0.5");
    // One has it, the other is refused and that is said.
    assert_eq!(of("com.foo.userapi")?, "10.0.0.3");
    assert_eq!(entries(&world.bridge)?.len(), 4);
    let status = world.bridge.status().await?;
    assert_eq!(status["refused"], json!({"HostTaken": 1}), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d10_etcd_a_change_costs_its_service_only_and_a_broken_watch_loses_nothing() -> Result<()> {
    let server = Etcd::start().await?;
    let mut proxy = TcpProxy::start(server.address(0)).await?;
    let of = |service: usize, host: usize| {
        let interface = format!("org.demo.Service{service}");
        Provider::new(&interface, &format!("10.0.{service}.{host}:20880")).path()
    };
    let address = proxy.address();
    let spec = format!("etcd: {{addresses: ['http://{address}']}}, {INLINE}, {GUARD}");
    let bridge = Bridge::start_registry("dubbo", &spec, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    let written = async |service: usize, host: usize| {
        let address = format!("10.0.{service}.{host}\"");
        eventually(SOON, &address, async || {
            ensure!(bridge.has_host(&address)?, "it is not there");
            bridge.live(1).await
        })
        .await;
        bridge.writes().await
    };
    // All have changed before.
    for service in 0..5 {
        server.put(&of(service, 1), "").await?;
        written(service, 1).await?;
    }
    for service in 0..5 {
        server.put(&of(service, 2), "").await?;
        let writes = written(service, 2).await?;
        assert_eq!(writes, 6.0 + service as f64, "one change, one write");
    }
    proxy.refuse(true).await?;
    proxy.cut();
    server.put(&of(0, 3), "").await?;
    server.delete(&of(1, 1)).await?;
    proxy.refuse(false).await?;
    eventually(SOON, "what went meanwhile is gone", async || {
        ensure!(!bridge.has_host("10.0.1.1\"")?, "it is still there");
        Ok(())
    })
    .await;
    assert_eq!(written(0, 3).await?, 12.0);
    Ok(())
}

/// Answers of 409 are no end, and what somebody else wrote into an object stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d11_conflicts_lose_no_update() -> Result<()> {
    let (server, cluster) = tokio::try_join!(ZooKeeper::start(), Cluster::start())?;
    let writer = server.writer().await?;
    writer.create(&demo("10.0.0.1:20880").path(), "").await?;
    let document = json!({
        "apiVersion": "diolkos.io/v1alpha1", "kind": "Registry", "metadata": {"name": "dubbo"},
        "spec": {
            "zookeeper": {"addresses": [server.address()]},
            "export": {"endpoints": "Inline"},
        },
    });
    let proxy = cluster.kubernetes.fault_proxy().await?;
    let diolkos = cluster.run_through(&proxy, &document.to_string()).await?;
    until_synced(&diolkos, "dubbo").await;
    let name = || async { cluster.object("serviceentries", HOST).await };
    let annotate = [
        "-n",
        "diolkos",
        "annotate",
        "serviceentry",
        HOST,
        "team=shop",
    ];
    cluster.kubernetes.kubectl(&annotate).await?;

    let entries = || On::writes().path("/serviceentries");
    let conflict = Reply::kubernetes(409, "Conflict");
    let conflicts = proxy.rule(entries().first(3), Fault::Reply(conflict));
    let at = Instant::now();
    for host in 2..=6 {
        let provider = demo(&format!("10.0.0.{host}:20880"));
        writer.create(&provider.path(), "").await?;
    }
    let all: Vec<String> = (1..=6).map(|host| format!("10.0.0.{host}")).collect();
    let object = eventually(3 * SOON, "all updates are there", async || {
        let object = name().await?;
        ensure!(addresses(&object) == all, "{object}");
        Ok(object)
    })
    .await;
    assert_eq!(conflicts.hits(), 3);
    let took = at.elapsed();
    assert!(took > Duration::from_millis(50), "no pause in {took:?}");
    assert_eq!(object["metadata"]["annotations"]["team"], "shop");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_restarts_write_nothing() -> Result<()> {
    let first = demo("10.0.0.1:20880")
        .with("pid", "5443")
        .with("timestamp", "1795252150853");
    let again = demo("10.0.0.1:20880")
        .with("pid", "77")
        .with("timestamp", "1795252999999");
    for export in [INLINE, AERAKI] {
        let world = World::start(export, std::slice::from_ref(&first)).await?;
        let before = entry(&world.bridge, HOST)?;
        let labels = &before["spec"]["endpoints"][0]["labels"];
        assert!(labels["application"].is_string(), "{labels}");
        assert!(labels["pid"].is_null(), "{labels}");
        assert!(labels["timestamp"].is_null(), "{labels}");

        // The bridge.
        world.bridge.diolkos.program().restart()?;
        world.bridge.until_live().await;
        assert_eq!(world.bridge.writes().await?, 0.0);

        // The provider: its new node comes before its old session ends. What is registered after that is seen after it.
        world.register(&again).await?;
        world.deregister(&first).await?;
        let last = Provider::new("org.demo.Last", "10.0.0.2:20880");
        world.register(&last).await?;
        world
            .until("org.demo.last", |e| addresses(e) == ["10.0.0.2"])
            .await;
        assert_eq!(world.bridge.writes().await?, 1.0);
        assert_eq!(entry(&world.bridge, HOST)?, before);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d13_another_root_credentials_and_a_node_that_is_deleted() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let user = "reader:secret";
    let root = "/shop/dubbo-eu";
    for (path, data) in [("/shop", ""), (root, "")] {
        writer.create(path, data).await?;
    }
    let guarded = demo("10.0.0.1:20880").path_in(root);
    let providers = guarded.rsplit_once('/').context("no parent")?.0;
    writer.create_guarded(providers, "", user).await?;
    writer.create_guarded(&guarded, "", user).await?;
    let password = tempfile::NamedTempFile::new()?;
    std::fs::write(&password, "secret")?;
    let spec = format!(
        "zookeeper: {{addresses: ['{}'], chroot: /shop, root: /dubbo-eu, \
         auth: {{username: reader, password: {{file: '{}'}}}}}}, {INLINE}, {GUARD}",
        server.address(),
        password.path().display()
    );
    let bridge = Bridge::start_registry("dubbo", &spec, tempfile::tempdir()?).await?;
    bridge.until_live().await;
    assert_eq!(addresses(&entry(&bridge, HOST)?), ["10.0.0.1"]);

    // An interface that is deleted holds nobody up.
    let interface = providers.rsplit_once('/').context("no parent")?.0;
    writer.delete_all(interface).await?;
    let other = Provider::new("org.demo.Other", "10.0.0.2:20880").path_in(root);
    writer.create(&other, "").await?;
    eventually(SOON, "it goes on", async || {
        ensure!(addresses(&entry(&bridge, "org.demo.other")?) == ["10.0.0.2"]);
        ensure!(!bridge.has_host(HOST)?, "it is still there");
        bridge.live(1).await
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_values_are_decoded_and_all_kinds_of_addresses_are_understood() -> Result<()> {
    let all = [
        demo("10.0.0.1:20880")
            .with("region", "cn-hz")
            .with("zone", "a%2Db")
            .with("team", "shop%2Dback")
            .with("group", "")
            .with("version", ""),
        demo("[fd00::1]:20880"),
        demo("provider.example.org:20880"),
    ];
    let world = World::start(INLINE, &all).await?;
    let entry = entry(&world.bridge, HOST)?;
    assert_eq!(addresses(&entry), ["10.0.0.1", "fd00::1"]);
    let first = &entry["spec"]["endpoints"][0];
    assert_eq!(first["labels"]["team"], "shop-back", "{first}");
    // An empty value is as none.
    assert!(first["labels"]["group"].is_null(), "{first}");
    assert_eq!(first["locality"], "cn-hz/a-b", "{first}");
    // A name is no address: it costs itself, and that is said.
    let reasons = world.bridge.diolkos.reasons(HOST).await?;
    assert!(reasons.iter().any(|r| r == "AddressNotIp"), "{reasons:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_two_namespaces_of_one_host_do_not_take_turns() -> Result<()> {
    let of =
        |address: &str, namespace: &str| demo(address).with("aeraki_meta_app_namespace", namespace);
    let (a, b) = (
        of("10.0.0.1:20880", "team-a"),
        of("10.0.0.2:20880", "team-b"),
    );
    let world = World::start(AERAKI, std::slice::from_ref(&b)).await?;
    assert_eq!(
        entry(&world.bridge, HOST)?["metadata"]["namespace"],
        "team-b"
    );
    world.register(&a).await?;
    let both = |entry: &Value| addresses(entry) == ["10.0.0.1", "10.0.0.2"];
    let joined = world.until(HOST, both).await;
    assert_eq!(joined["metadata"]["namespace"], "team-a");

    // Whoever registers again changes nothing.
    let writes = world.bridge.writes().await?;
    let newer = b.clone().with("timestamp", "1795252999999");
    world.register(&newer).await?;
    world.deregister(&b).await?;
    let last = Provider::new("org.demo.Last", "10.0.0.3:20880");
    world.register(&last).await?;
    world
        .until("org.demo.last", |e| addresses(e) == ["10.0.0.3"])
        .await;
    assert_eq!(world.bridge.writes().await?, writes + 1.0);
    assert_eq!(entry(&world.bridge, HOST)?, joined);

    // Neither does a restart, after which nothing is forgotten.
    world.bridge.diolkos.program().restart()?;
    world.bridge.until_live().await;
    assert_eq!(world.bridge.writes().await?, 0.0);
    world.deregister(&a).await?;
    let left = world.until(HOST, |e| addresses(e) == ["10.0.0.2"]).await;
    assert_eq!(left["metadata"]["namespace"], "team-b");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_the_workload_selector_is_kept_as_an_annotation() -> Result<()> {
    let provider = demo("10.0.0.1:20880").with("aeraki_meta_workload_selector", "app%3Ddemo");
    let world = World::start(AERAKI, &[provider]).await?;
    let entry = entry(&world.bridge, HOST)?;
    let annotations = &entry["metadata"]["annotations"];
    assert_eq!(annotations["workloadSelector"], "app=demo", "{annotations}");
    assert_eq!(annotations["interface"], DEMO, "{annotations}");
    let labels = &entry["metadata"]["labels"];
    assert_eq!(labels["manager"], "aeraki", "{labels}");
    assert_eq!(labels["registry"], "dubbo2istio", "{labels}");
    Ok(())
}
