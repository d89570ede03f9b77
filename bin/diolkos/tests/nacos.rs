//! Nacos' own clients → Nacos → Diolkos → Kubernetes → istiod, in a network namespace.
//!
//! The servers take longest to start, so one test has them all and goes through its steps.

#![allow(clippy::print_stderr)] // how long changes took, for whoever runs it

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/hosts.rs"]
mod hosts;

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster::{Cluster, NAMESPACE};
use common::Diolkos;
use diolkos_testkit::istiod::Endpoint;
use diolkos_testkit::{Istiod, Nacos, NacosClient, NacosInstance, eventually, netns};
use hosts::hosts;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// For what needs other programs to do something. They share two processors with each other.
const SOON: Duration = Duration::from_secs(60);
/// The promise is 2 s. A busy machine is given more before the test fails.
const FOLLOWS: Duration = Duration::from_secs(5);
const GROUP: &str = "DEFAULT_GROUP";
const PORT: u16 = 8080;

struct Mesh {
    nacos: Nacos,
    istiod: Istiod,
    cluster: Cluster,
    _diolkos: Diolkos,
}

impl Mesh {
    async fn start() -> Result<Self> {
        let (cluster, nacos) = tokio::try_join!(Cluster::start(), Nacos::start())?;
        let istiod = Istiod::start(&cluster.kubernetes).await?;
        let document = format!(
            "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: nacos}}, spec: {{\
              nacos: {{addresses: ['{}'], namespaces: [public, dev], groups: ['*']}}, \
              guard: {{emptyHold: 1s, confirmAfter: 2, emptyGrace: 1s}}}}}}",
            nacos.http_url()
        );
        let diolkos = cluster.run(&document).await?;
        Ok(Self {
            nacos,
            istiod,
            cluster,
            _diolkos: diolkos,
        })
    }

    /// Waits until a host has these instances in the mesh; returns how long that took. istiod knows them soon after.
    async fn until(
        &self,
        limit: Duration,
        host: &str,
        instances: &[NacosInstance],
    ) -> Result<Duration> {
        let expected = single_port(instances);
        let began = Instant::now();
        eventually(limit, &format!("{host} in the mesh"), async || {
            let found = hosts(&self.cluster.kubernetes, NAMESPACE).await?[host].take();
            ensure!(found == expected, "{found:#}, not {expected:#}");
            Ok(())
        })
        .await;
        let took = began.elapsed();
        eventually(SOON, &format!("istiod knows {host}"), async || {
            let found = self.istiod.endpoints(host).await?;
            let found: BTreeMap<_, _> = found.iter().map(versioned).collect();
            let expected = instances
                .iter()
                .map(|i| (&*i.ip, i.metadata.get("version")));
            ensure!(found == expected.collect(), "{found:?}");
            Ok(())
        })
        .await;
        Ok(took)
    }
}

/// The address and the version of an endpoint.
fn versioned(endpoint: &Endpoint) -> (&str, Option<&String>) {
    (&*endpoint.addresses[0], endpoint.labels.get("version"))
}

/// What a host of these instances looks like when all of them have the usual port.
fn single_port(instances: &[NacosInstance]) -> Value {
    let endpoint = |instance: &NacosInstance| {
        let mut labels = json!(instance.metadata);
        labels["cluster"] = json!(instance.cluster_name);
        let mut endpoint = json!({"ports": {"http-8080": PORT}, "labels": labels});
        // Of one endpoint it means nothing, and 1 is what there is without.
        if instance.weight != 1.0 && instances.len() > 1 {
            endpoint["weight"] = json!(instance.weight as u32);
        }
        (instance.ip.clone(), endpoint)
    };
    let endpoints: BTreeMap<String, Value> = instances.iter().map(endpoint).collect();
    json!({"ports": ["http-8080 8080 HTTP"], "endpoints": endpoints})
}

/// The instance at 10.77.0.N.
fn instance(n: usize) -> NacosInstance {
    NacosInstance::new(&netns::ADDRESSES[n - 1].to_string(), PORT).metadata("version", "v1")
}

fn host(service: &str) -> String {
    format!("{service}.default-group.public.nacos")
}

#[test]
fn what_nacos_clients_register_is_in_the_mesh_and_follows_them() -> Result<()> {
    netns::isolated(async {
        let mesh = Mesh::start().await?;
        let (first, second) = tokio::try_join!(mesh.nacos.client(), mesh.nacos.client())?;
        services_become_hosts(&mesh, &first, &second).await?;
        let mut times = changes_are_followed(&mesh, &first).await?;
        times.push(what_is_killed_goes(&mesh, &second).await?);
        times.push(health_that_an_operator_says(&mesh).await?);
        times.sort();
        eprintln!(
            "from the answer to the objects: {} changes, p50 {:?}, max {:?}",
            times.len(),
            times[times.len() / 2],
            times[times.len() - 1]
        );
        health_that_nacos_checks(&mesh).await?;
        what_is_deregistered_goes(&mesh, &first).await
    })
}

/// Namespaces and groups make different hosts of one name; metadata of Spring Cloud say what the ports are.
async fn services_become_hosts(
    mesh: &Mesh,
    first: &NacosClient,
    second: &NacosClient,
) -> Result<()> {
    let secure = instance(1)
        .metadata("preserved.register.source", "SPRING_CLOUD")
        .metadata("preserved.heart.beat.interval", "5000")
        .metadata("secure", "true")
        .metadata("gRPC_port", "9090");
    let mut other = instance(2)
        .weight(3.0)
        .cluster("hz")
        .metadata("version", "v2");
    other.port = 8081;
    for (namespace, group, service, instance) in [
        ("", GROUP, "orders", instance(1)),
        ("", "Gray", "orders", instance(3)),
        ("dev", GROUP, "orders", instance(4)),
        ("", GROUP, "Order_Service", instance(5)),
        ("", GROUP, "secure", secure),
    ] {
        first.put(namespace, group, service, &[instance]).await?;
    }
    second.put("", GROUP, "orders", &[other]).await?;
    let both = |number: u16| json!({"http-8080": number, "http-8081": number});
    let expected = json!({
        "orders.default-group.public.nacos": {
            "ports": ["http-8080 8080 HTTP", "http-8081 8081 HTTP"],
            "endpoints": {
                "10.77.0.1": {"ports": both(8080), "labels": {"cluster": "DEFAULT", "version": "v1"}},
                "10.77.0.2": {"ports": both(8081), "labels": {"cluster": "hz", "version": "v2"},
                              "weight": 3, "locality": "hz"},
            },
        },
        "orders.gray.public.nacos": single_port(&[instance(3)]),
        "orders.default-group.dev.nacos": single_port(&[instance(4)]),
        "order-service.default-group.public.nacos": single_port(&[instance(5)]),
        "secure.default-group.public.nacos": {
            "ports": ["https-8080 8080 HTTPS", "grpc-9090 9090 GRPC"],
            "endpoints": {"10.77.0.1": {
                "ports": {"https-8080": 8080, "grpc-9090": 9090},
                "labels": {"cluster": "DEFAULT", "version": "v1", "secure": "true", "gRPC_port": "9090"},
            }},
        },
    });
    eventually(SOON, "the hosts are there", async || {
        let found = hosts(&mesh.cluster.kubernetes, NAMESPACE).await?;
        ensure!(found == expected, "{found:#}");
        Ok(())
    })
    .await;
    Ok(())
}

/// How long each change took from the answer of Nacos to whom it was told.
async fn changes_are_followed(mesh: &Mesh, client: &NacosClient) -> Result<Vec<Duration>> {
    let host = host("quick");
    // What an operator says of an instance outlives what it registers, so he has one of his own.
    let [one, two, three] = [1, 2, 3].map(instance);
    let light = one.clone().weight(5.0);
    let second = two.clone().metadata("version", "v2");
    let third = three.clone().metadata("version", "v3");
    client.put("", GROUP, "quick", from_ref(&one)).await?;
    mesh.until(SOON, &host, from_ref(&one)).await?;
    let mut times = Vec::new();
    for _ in 0..3 {
        for registered in [
            &[one.clone(), two.clone()][..],
            &[light.clone(), two.clone()],
            &[light.clone(), second.clone()],
            &[one.clone(), three.clone()],
        ] {
            client.put("", GROUP, "quick", registered).await?;
            times.push(mesh.until(FOLLOWS, &host, registered).await?);
        }
        let heavy = three.clone().weight(3.0);
        for (update, left) in [
            (heavy.clone(), vec![one.clone(), heavy]),
            (third.clone(), vec![one.clone(), third.clone()]),
            (third.clone().disabled(), vec![one.clone()]),
            (three.clone(), vec![one.clone(), three.clone()]),
        ] {
            mesh.nacos.update("", GROUP, "quick", &update).await?;
            times.push(mesh.until(FOLLOWS, &host, &left).await?);
        }
        client.put("", GROUP, "quick", from_ref(&one)).await?;
        times.push(mesh.until(FOLLOWS, &host, from_ref(&one)).await?);
    }
    Ok(times)
}

/// The other client's instance of the service stays.
async fn what_is_killed_goes(mesh: &Mesh, client: &NacosClient) -> Result<Duration> {
    client.kill()?;
    mesh.until(FOLLOWS, &host("orders"), &[instance(1)]).await
}

/// Also of the last instance that is healthy: Nacos then calls all of them healthy.
async fn health_that_an_operator_says(mesh: &Mesh) -> Result<Duration> {
    let host = host("manual");
    let [one, two] = [1, 2].map(instance);
    for instance in [&one, &two] {
        mesh.nacos.register("", GROUP, "manual", instance).await?;
    }
    mesh.nacos
        .without_checks("", GROUP, "manual", "DEFAULT")
        .await?;
    // It may have tried to connect before.
    for instance in [&one, &two] {
        mesh.nacos.register("", GROUP, "manual", instance).await?;
    }
    mesh.until(SOON, &host, &[one.clone(), two.clone()]).await?;
    let unhealthy = two.clone().unhealthy();
    mesh.nacos.register("", GROUP, "manual", &unhealthy).await?;
    let took = mesh.until(FOLLOWS, &host, from_ref(&one)).await?;
    let unhealthy = one.clone().unhealthy();
    mesh.nacos.register("", GROUP, "manual", &unhealthy).await?;
    mesh.until(SOON, &host, &[]).await?;
    mesh.nacos.register("", GROUP, "manual", &two).await?;
    mesh.until(SOON, &host, &[two]).await?;
    Ok(took)
}

/// Nacos itself finds out that the port of a persistent instance is closed.
async fn health_that_nacos_checks(mesh: &Mesh) -> Result<()> {
    let host = host("checked");
    let [one, two] = [1, 2].map(instance);
    let listen = async |instance: &NacosInstance| TcpListener::bind((&*instance.ip, PORT)).await;
    let (_listener, other) = (listen(&one).await?, listen(&two).await?);
    for instance in [&one, &two] {
        mesh.nacos.register("", GROUP, "checked", instance).await?;
    }
    mesh.until(SOON, &host, &[one.clone(), two.clone()]).await?;
    drop(other);
    mesh.until(SOON, &host, from_ref(&one)).await?;
    let _other = listen(&two).await?;
    mesh.until(SOON, &host, &[one.clone(), two]).await?;
    Ok(())
}

async fn what_is_deregistered_goes(mesh: &Mesh, client: &NacosClient) -> Result<()> {
    client.delete("", GROUP, "quick").await?;
    let host = host("quick");
    eventually(SOON, "the host is gone", async || {
        let found = hosts(&mesh.cluster.kubernetes, NAMESPACE).await?;
        ensure!(found[&host].is_null(), "{found:#}");
        Ok(())
    })
    .await;
    eventually(SOON, "istiod forgets the host", async || {
        let known = mesh.istiod.hosts().await?;
        ensure!(!known.contains(&host), "{known:?}");
        Ok(())
    })
    .await;
    Ok(())
}
