//! Dubbo's own programs → ZooKeeper → Diolkos → Kubernetes → istiod → Envoy, in a network namespace.
//!
//! The servers and the providers take longest to start, so one test has them all and goes through its steps.

mod common;
#[path = "common/hosts.rs"]
mod hosts;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::Diolkos;
use diolkos_testkit::dubbo::{Line, Provider};
use diolkos_testkit::{Dubbo, Envoy, EnvoyOptions, Istiod, Kubernetes, ZooKeeper};
use diolkos_testkit::{eventually, netns, zookeeper::Writer};
use hosts::{hosts, objects};
use serde_json::{Value, json};

/// For what needs other programs to do something. They share two processors with each other.
const SOON: Duration = Duration::from_secs(60);
const INTERFACE: &str = "org.apache.dubbo.demo.DemoService";
const HOST: &str = "org.apache.dubbo.demo.demoservice";
/// One registry document each; they are private to their namespaces but for the last one.
const EXPORTS: [(&str, &str); 3] = [
    ("labels", "{namespace: labels, exportTo: ['.']}"),
    (
        "hosts",
        "{namespace: hosts, exportTo: ['.'], endpoints: Inline, dubbo: {variants: hosts}}",
    ),
    ("aeraki", "{preset: aeraki}"),
];
/// Long enough to be seen.
const GUARD: &str = "{emptyHold: 1s, confirmAfter: 2, emptyGrace: 4s}";

/// The providers, each at an address of its own.
struct Providers {
    /// 10.77.0.1: both ways.
    all: Dubbo,
    /// 10.77.0.2: Dubbo 2.7, half the weight.
    old: Dubbo,
    /// 10.77.0.3: the interface only, a variant with two protocols.
    blue: Dubbo,
    /// 10.77.0.4: Dubbo 2.7, a variant on a persistent node.
    green: Dubbo,
    /// 10.77.0.5 and 6: the application only, with metadata of both kinds.
    _applications: [Dubbo; 2],
}

impl Providers {
    async fn start(zookeeper: &ZooKeeper) -> Result<Self> {
        let registry = format!("zookeeper://{}", zookeeper.address());
        let provider = |line, ip: usize, name: &str| -> Provider {
            Dubbo::provider(line)
                .registry(&registry)
                .ip(netns::ADDRESSES[ip - 1])
                .application(name)
                .name(name)
        };
        let instance = |ip, name, port| {
            provider(Line::D3, ip, name)
                .interface("GreetingService")
                .register_mode("instance")
                .port(port)
        };
        let (all, old, blue, green, local, remote) = tokio::try_join!(
            provider(Line::D3, 1, "demo-all").start(),
            provider(Line::D27, 2, "demo-old")
                .weight(50)
                .parameter("stage", "canary")
                .start(),
            provider(Line::D3, 3, "demo-blue")
                .register_mode("interface")
                .protocol("dubbo", 20881)
                .protocol("tri", 50051)
                .group("blue")
                .version("1.0.0")
                .start(),
            provider(Line::D27, 4, "demo-green")
                .persistent()
                .group("green")
                .version("2.0.0")
                .start(),
            instance(5, "greet-local", 20882).start(),
            instance(6, "greet-remote", 20883)
                .metadata_type("remote")
                .version("2.0.0")
                .start(),
        )?;
        Ok(Self {
            all,
            old,
            blue,
            green,
            _applications: [local, remote],
        })
    }
}

struct Mesh {
    envoy: Envoy,
    istiod: Istiod,
    _diolkos: Vec<Diolkos>,
    kubernetes: Kubernetes,
}

impl Mesh {
    async fn start(zookeeper: &ZooKeeper) -> Result<Self> {
        let kubernetes = Kubernetes::start().await?;
        let istiod = Istiod::start(&kubernetes).await?;
        let kubeconfig = kubernetes.kubeconfig().display().to_string();
        let mut diolkos = Vec::new();
        for (name, export) in EXPORTS {
            let namespace = if name == "aeraki" { "dubbo" } else { name };
            let create = ["create", "namespace", namespace];
            kubernetes.kubectl(&create).await?;
            let address = zookeeper.address();
            let document = format!(
                "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: {name}}}, spec: {{\
                  zookeeper: {{addresses: ['{address}']}}, export: {export}, guard: {GUARD}}}}}"
            );
            diolkos.push(Diolkos::run(&document, &["--kubeconfig", &kubeconfig]).await?);
        }
        let envoy = Envoy::start(&istiod, EnvoyOptions::sidecar("client")).await?;
        Ok(Self {
            envoy,
            istiod,
            _diolkos: diolkos,
            kubernetes,
        })
    }

    /// The ServiceEntry of a host in namespace `dubbo`.
    async fn entry(&self, host: &str) -> Result<Value> {
        let entries = objects(&self.kubernetes, "dubbo", "serviceentries").await?;
        entries
            .into_iter()
            .find(|entry| entry["spec"]["hosts"][0] == host)
            .with_context(|| format!("no ServiceEntry of {host}"))
    }

    async fn until(&self, namespace: &str, expected: &Value) {
        let what = format!("the objects of namespace {namespace}");
        eventually(SOON, &what, async || {
            let found = hosts(&self.kubernetes, namespace).await?;
            ensure!(found == *expected, "{found:#}");
            Ok(())
        })
        .await;
    }

    /// The number of connections that Envoy has made to each endpoint of the host.
    async fn connections(&self) -> Result<BTreeMap<String, u64>> {
        let page: Value = serde_json::from_str(&self.envoy.admin("/clusters?format=json").await?)?;
        let clusters = page["cluster_statuses"].as_array().context("clusters")?;
        let name = format!("outbound|20880||{HOST}");
        let cluster = clusters.iter().find(|cluster| cluster["name"] == name);
        let endpoints = cluster.with_context(|| format!("no cluster {name}"))?["host_statuses"]
            .as_array()
            .into_iter()
            .flatten();
        let count = |endpoint: &Value| {
            let address = &endpoint["address"]["socket_address"]["address"];
            let stats = endpoint["stats"].as_array().into_iter().flatten();
            let total = stats.into_iter().find(|stat| stat["name"] == "cx_total");
            // Numbers of 64 bits are strings in the JSON form of Protocol Buffers; 0 is left out.
            let total = total.and_then(|stat| stat["value"].as_str()?.parse().ok());
            Some((address.as_str()?.to_owned(), total.unwrap_or(0)))
        };
        endpoints.map(|e| count(e).context("no address")).collect()
    }
}

/// What a host of one application or interface with one provider looks like.
fn single(address: &str, number: u16, labels: &Value) -> Value {
    json!({"ports": [format!("tcp-dubbo {number} TCP")],
           "endpoints": {address: {"ports": {"tcp-dubbo": number}, "labels": labels}}})
}

/// Groups and versions are labels; one WorkloadEntry an instance.
fn with_labels() -> Value {
    let demo = |number: u16| json!({"tcp-dubbo-20880": number, "tcp-dubbo-20881": number, "grpc-50051": number});
    let mut blue = demo(20881);
    blue["grpc-50051"] = json!(50051);
    let greet = |number: u16| json!({"tcp-dubbo-20882": number, "tcp-dubbo-20883": number});
    json!({
        "demo-all.dubbo": single("10.77.0.1", 20880, &json!({"application": "demo-all"})),
        "greet-local.dubbo": single("10.77.0.5", 20882, &json!({"application": "greet-local"})),
        "greet-remote.dubbo": single("10.77.0.6", 20883, &json!({"application": "greet-remote"})),
        HOST: {
            "ports": ["tcp-dubbo-20880 20880 TCP", "tcp-dubbo-20881 20881 TCP", "grpc-50051 50051 GRPC"],
            "endpoints": {
                "10.77.0.1": {"ports": demo(20880), "weight": 100, "labels": {"application": "demo-all", "release": "3.3.5"}},
                "10.77.0.2": {"ports": demo(20880), "weight": 50,
                              "labels": {"application": "demo-old", "release": "2.7.23", "stage": "canary"}},
                "10.77.0.3": {"ports": blue, "weight": 100, "labels": {
                    "application": "demo-blue", "release": "3.3.5", "group": "blue", "version": "1.0.0"}},
                "10.77.0.4": {"ports": demo(20880), "weight": 100, "labels": {
                    "application": "demo-green", "release": "2.7.23", "group": "green", "version": "2.0.0"}},
            },
        },
        "org.apache.dubbo.demo.greetingservice": {
            "ports": ["tcp-dubbo-20882 20882 TCP", "tcp-dubbo-20883 20883 TCP"],
            "endpoints": {
                "10.77.0.5": {"ports": greet(20882), "labels": {"application": "greet-local", "release": "3.3.5"}},
                "10.77.0.6": {"ports": greet(20883), "labels": {
                    "application": "greet-remote", "release": "3.3.5", "version": "2.0.0"}},
            },
        },
    })
}

/// Groups and versions are hosts; the endpoints are in the ServiceEntries.
fn with_hosts() -> Value {
    let own = |application: &str, release: &str, group: &str, version: &str| json!({"application": application, "release": release, "group": group, "version": version});
    let greeting = json!({"application": "greet-local", "release": "3.3.5"});
    let versioned = json!({"application": "greet-remote", "release": "3.3.5", "version": "2.0.0"});
    json!({
        "demo-all.dubbo": single("10.77.0.1", 20880, &json!({"application": "demo-all"})),
        "greet-local.dubbo": single("10.77.0.5", 20882, &json!({"application": "greet-local"})),
        "greet-remote.dubbo": single("10.77.0.6", 20883, &json!({"application": "greet-remote"})),
        HOST: {
            "ports": ["tcp-dubbo 20880 TCP"],
            "endpoints": {
                "10.77.0.1": {"ports": {"tcp-dubbo": 20880}, "weight": 100,
                              "labels": {"application": "demo-all", "release": "3.3.5"}},
                "10.77.0.2": {"ports": {"tcp-dubbo": 20880}, "weight": 50,
                              "labels": {"application": "demo-old", "release": "2.7.23", "stage": "canary"}},
            },
        },
        format!("{HOST}-blue-1-0-0"): {
            "ports": ["tcp-dubbo-20881 20881 TCP", "grpc-50051 50051 GRPC"],
            "endpoints": {"10.77.0.3": {"ports": {"tcp-dubbo-20881": 20881, "grpc-50051": 50051},
                                        "labels": own("demo-blue", "3.3.5", "blue", "1.0.0")}},
        },
        format!("{HOST}-green-2-0-0"):
            single("10.77.0.4", 20880, &own("demo-green", "2.7.23", "green", "2.0.0")),
        "org.apache.dubbo.demo.greetingservice": single("10.77.0.5", 20882, &greeting),
        "org.apache.dubbo.demo.greetingservice-2-0-0": single("10.77.0.6", 20883, &versioned),
    })
}

#[test]
fn real_providers_are_called_through_the_mesh_and_leave_it() -> Result<()> {
    netns::isolated(async {
        let zookeeper = ZooKeeper::start().await?;
        let (mesh, providers) =
            tokio::try_join!(Mesh::start(&zookeeper), Providers::start(&zookeeper))?;
        mesh.until("labels", &with_labels()).await;
        mesh.until("hosts", &with_hosts()).await;
        let address = the_preset_makes_what_dubbo2istio_makes(&mesh).await?;
        a_consumer_calls_through_envoy(&mesh, &address).await?;
        let writer = zookeeper.writer().await?;
        what_is_killed_goes(&mesh, &providers, &writer).await?;
        the_last_ones_go_after_the_grace(&mesh, &providers, &writer).await
    })
}

/// Returns the address that istiod gave the host.
async fn the_preset_makes_what_dubbo2istio_makes(mesh: &Mesh) -> Result<String> {
    let service = eventually(SOON, "istiod has given the host an address", async || {
        let services = mesh.istiod.debug("/debug/registryz").await?;
        let ours = |s: &&Value| s["hostname"] == HOST && s["Attributes"]["Namespace"] == "dubbo";
        let service = services.as_array().into_iter().flatten().find(ours);
        let service = service.context("the host is not there")?;
        ensure!(service["autoAllocatedIPv4Address"].is_string(), "{service}");
        Ok(service.clone())
    })
    .await;
    let labels = &service["Attributes"]["Labels"];
    assert_eq!(labels["manager"], "aeraki");
    assert_eq!(labels["registry"], "dubbo2istio");
    assert_eq!(
        service["ports"],
        json!([{"name": "tcp-dubbo", "port": 20880, "protocol": "TCP"}])
    );

    // The other registries were waited for, not this one.
    let entry = eventually(SOON, "both providers are endpoints", async || {
        let entry = mesh.entry(HOST).await?;
        let endpoints = entry["spec"]["endpoints"].as_array().map_or(0, Vec::len);
        ensure!(endpoints == 2, "{entry:#}");
        Ok(entry)
    })
    .await;
    let address = &entry["status"]["addresses"][0]["value"];
    assert_eq!(*address, service["autoAllocatedIPv4Address"]);
    assert_eq!(entry["metadata"]["annotations"]["interface"], INTERFACE);
    for endpoint in entry["spec"]["endpoints"].as_array().into_iter().flatten() {
        assert_eq!(endpoint["serviceAccount"], "default");
        let labels = &endpoint["labels"];
        assert_eq!(labels["registryName"], "aeraki");
        assert_eq!(labels["interface"], INTERFACE);
        assert!(
            labels["pid"].is_null() && labels["timestamp"].is_null(),
            "{labels}"
        );
    }
    let variants = ["-blue-1-0-0", "-green-2-0-0"].map(|variant| format!("{HOST}{variant}"));
    eventually(SOON, "there are the hosts of interfaces only", async || {
        let hosts = hosts(&mesh.kubernetes, "dubbo").await?;
        let hosts = hosts.as_object().into_iter().flat_map(|hosts| hosts.keys());
        let hosts: Vec<_> = hosts.collect();
        ensure!(hosts == [HOST, &variants[0], &variants[1]], "{hosts:?}");
        Ok(())
    })
    .await;
    Ok(address.as_str().context("no text")?.to_owned())
}

/// Calls the host's address and returns the answers, which came over a new connection of Envoy's.
async fn call(mesh: &Mesh, line: Line, address: &str) -> Result<Vec<String>> {
    let before: u64 = mesh.connections().await?.values().sum();
    let answers = Dubbo::consumer(line)
        .url(&format!("dubbo://{address}:20880/{INTERFACE}"))
        .calls(5)
        .run()
        .await?;
    let after: u64 = mesh.connections().await?.values().sum();
    ensure!(after > before, "{before} connections, then {after}");
    Ok(answers)
}

async fn a_consumer_calls_through_envoy(mesh: &Mesh, address: &str) -> Result<()> {
    netns::add_address(address.parse()?)?;
    let sidecar = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
        "metadata": {"name": "client", "namespace": "default"},
        "spec": {"workloadSelector": {"labels": {"app": "client"}}, "egress": [{
            "port": {"number": 20880, "protocol": "TCP", "name": "tcp-dubbo"},
            "bind": address, "captureMode": "NONE", "hosts": [format!("dubbo/{HOST}")]}]},
    });
    mesh.kubernetes.apply(&sidecar.to_string()).await?;
    eventually(SOON, "Envoy listens and knows the providers", async || {
        // To try by connecting would count as a call.
        let listeners = mesh.envoy.admin("/listeners").await?;
        ensure!(
            listeners.contains(&format!("{address}:20880")),
            "{listeners}"
        );
        let known: Vec<String> = mesh.connections().await?.into_keys().collect();
        ensure!(known == ["10.77.0.1", "10.77.0.2"], "{known:?}");
        Ok(())
    })
    .await;
    for line in [Line::D3, Line::D27] {
        let answers = call(mesh, line, address).await?;
        assert_eq!(answers.len(), 5);
        for (i, answer) in (1..).zip(&answers) {
            // Which provider it is is Envoy's choice.
            let said = answer.strip_prefix(&format!("hello call {i} from "));
            assert!(matches!(said, Some("demo-all" | "demo-old")), "{answers:?}");
        }
    }
    Ok(())
}

/// Waits until no node of the interface's providers has this address.
async fn deregistered(writer: &Writer, ip: &str) {
    eventually(SOON, "the ephemeral nodes go", async || {
        let nodes = writer
            .children(&format!("/dubbo/{INTERFACE}/providers"))
            .await?;
        ensure!(!nodes.iter().any(|node| node.contains(ip)), "{nodes:#?}");
        Ok(())
    })
    .await;
}

/// Of two providers the other one stays; of a variant the host stays for a while, with no endpoints.
async fn what_is_killed_goes(mesh: &Mesh, providers: &Providers, writer: &Writer) -> Result<()> {
    let Providers {
        old, blue, green, ..
    } = providers;
    for provider in [old, blue, green] {
        provider.kill()?;
    }
    for ip in ["10.77.0.2", "10.77.0.3"] {
        deregistered(writer, ip).await;
    }
    let variant = format!("{HOST}-blue-1-0-0");
    is_empty_then_gone(mesh, &variant).await;
    let mut left = with_labels();
    let host = left[HOST].as_object_mut().context("the host")?;
    let endpoints = host["endpoints"].as_object_mut().context("its endpoints")?;
    endpoints.retain(|ip, _| ip == "10.77.0.1" || ip == "10.77.0.4");
    for endpoint in endpoints.values_mut() {
        endpoint["ports"] = json!({"tcp-dubbo": 20880});
        endpoint
            .as_object_mut()
            .context("an endpoint")?
            .remove("weight");
    }
    host["ports"] = json!(["tcp-dubbo 20880 TCP"]);
    mesh.until("labels", &left).await;

    eventually(SOON, "Envoy knows one provider", async || {
        let known: Vec<String> = mesh.connections().await?.into_keys().collect();
        ensure!(known == ["10.77.0.1"], "{known:?}");
        Ok(())
    })
    .await;
    let entry = mesh.entry(HOST).await?;
    let address = entry["status"]["addresses"][0]["value"]
        .as_str()
        .context("an address")?;
    let answers = call(mesh, Line::D3, address).await?;
    assert!(
        answers
            .iter()
            .all(|answer| answer.ends_with("from demo-all")),
        "{answers:?}"
    );
    Ok(())
}

/// Waits until the host has no endpoints any more but is there, and then until it is gone.
async fn is_empty_then_gone(mesh: &Mesh, host: &str) {
    eventually(SOON, "the host has no endpoints", async || {
        let entry = mesh.entry(host).await?;
        ensure!(entry["spec"]["endpoints"].is_null(), "{entry:#}");
        ensure!(
            entry["metadata"]["annotations"]["diolkos.io/empty-since"].is_string(),
            "{entry:#}"
        );
        Ok(())
    })
    .await;
    eventually(SOON, "the host is gone", async || {
        mesh.entry(host).await.is_err()
    })
    .await;
}

async fn the_last_ones_go_after_the_grace(
    mesh: &Mesh,
    providers: &Providers,
    writer: &Writer,
) -> Result<()> {
    providers.all.kill()?;
    deregistered(writer, "10.77.0.1").await;
    is_empty_then_gone(mesh, HOST).await;

    // Dubbo leaves persistent nodes to people.
    let variant = format!("{HOST}-green-2-0-0");
    let entry = mesh.entry(&variant).await?;
    assert_eq!(entry["spec"]["endpoints"][0]["address"], "10.77.0.4");
    writer
        .delete_all(&format!("/dubbo/{INTERFACE}/providers"))
        .await?;
    is_empty_then_gone(mesh, &variant).await;
    Ok(())
}
