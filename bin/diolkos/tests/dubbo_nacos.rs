//! Dubbo's own programs on Nacos and on ZooKeeper at the same time: both make the same mesh. In a network namespace.

mod common;
#[path = "common/hosts.rs"]
mod hosts;
#[path = "common/written.rs"]
mod written;

use std::time::Duration;

use anyhow::{Result, ensure};
use diolkos_testkit::dubbo::{Line, Provider};
use diolkos_testkit::{Dubbo, Nacos, ZooKeeper, eventually, netns};
use serde_json::{Value, json};
use written::{Bridge, GUARD};

/// For what needs other programs to do something. They share two processors with each other.
const SOON: Duration = Duration::from_secs(60);
const HOST: &str = "org.apache.dubbo.demo.demoservice";

/// What a bridge has written, by hosts.
fn hosts(bridge: &Bridge) -> Result<Value> {
    let (mut entries, mut workloads) = (Vec::new(), Vec::new());
    for (_, text) in bridge.files()?.values() {
        let object: Value = serde_saphyr::from_str(text)?;
        match object["kind"].as_str() {
            Some("ServiceEntry") => entries.push(object),
            Some("WorkloadEntry") => workloads.push(object),
            _ => {}
        }
    }
    hosts::hosts_of(&entries, &workloads)
}

/// The providers, each at an address of its own.
struct Providers {
    /// 10.77.0.2: Dubbo 2.7, half the weight.
    old: Dubbo,
    _others: [Dubbo; 5],
}

impl Providers {
    async fn start(registries: &str) -> Result<Self> {
        let provider = |line, ip: usize, name: &str| -> Provider {
            Dubbo::provider(line)
                .registry(registries)
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
        // The application only, with metadata of both kinds. One after the other: of two that write Nacos' first
        // mapping of an interface at the same time Dubbo loses one.
        let applications = async {
            let local = instance(5, "greet-local", 20882).start().await?;
            let remote = instance(6, "greet-remote", 20883)
                .metadata_type("remote")
                .version("2.0.0");
            Ok((local, remote.start().await?))
        };
        // Both ways; the interface only, in two versions and groups.
        let (all, old, blue, green, (local, remote)) = tokio::try_join!(
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
                .group("green")
                .version("2.0.0")
                .start(),
            applications,
        )?;
        Ok(Self {
            old,
            _others: [all, blue, green, local, remote],
        })
    }
}

/// A registry document's name is part of what it writes: both have the same.
async fn bridge(settings: String) -> Result<Bridge> {
    let settings = format!("{settings}, {GUARD}");
    Bridge::start_registry("dubbo", &settings, tempfile::tempdir()?).await
}

#[test]
fn providers_on_nacos_are_in_the_mesh_as_on_zookeeper() -> Result<()> {
    netns::isolated(async {
        let (nacos, zookeeper) = tokio::try_join!(Nacos::start(), ZooKeeper::start())?;
        let of_nacos = format!("nacos://{}", nacos.address());
        let of_zookeeper = format!("zookeeper://{}", zookeeper.address());
        let registries = format!("{of_zookeeper},{of_nacos}");
        let (on_nacos, on_zookeeper, providers) = tokio::try_join!(
            bridge(format!(
                "nacos: {{addresses: ['{}'], services: Dubbo}}",
                nacos.http_url()
            )),
            bridge(format!(
                "zookeeper: {{addresses: ['{}']}}",
                zookeeper.address()
            )),
            Providers::start(&registries),
        )?;
        both_make_the_same(&on_nacos, &on_zookeeper, "10.77.0.2").await;
        consumers_find_them(&of_nacos).await?;
        providers.old.kill()?;
        eventually(SOON, "the provider is gone", async || {
            let found = hosts(&on_nacos)?;
            ensure!(found[HOST]["endpoints"]["10.77.0.2"].is_null(), "{found:#}");
            Ok(())
        })
        .await;
        both_make_the_same(&on_nacos, &on_zookeeper, "10.77.0.1").await;
        Ok(())
    })
}

/// Waits until it is so, with all of what the providers register.
async fn both_make_the_same(on_nacos: &Bridge, on_zookeeper: &Bridge, endpoint: &str) {
    eventually(SOON, "both registries make the same mesh", async || {
        let (nacos, zookeeper) = (hosts(on_nacos)?, hosts(on_zookeeper)?);
        ensure!(
            nacos == zookeeper,
            "Nacos: {nacos:#}\nZooKeeper: {zookeeper:#}"
        );
        let names = nacos
            .as_object()
            .map(|hosts| hosts.keys().collect::<Vec<_>>());
        let expected = [
            "demo-all.dubbo",
            "greet-local.dubbo",
            "greet-remote.dubbo",
            HOST,
            "org.apache.dubbo.demo.greetingservice",
        ];
        ensure!(json!(names) == json!(expected), "{names:?}");
        ensure!(nacos[HOST]["endpoints"][endpoint].is_object(), "{nacos:#}");
        Ok(())
    })
    .await;
}

async fn consumers_find_them(registry: &str) -> Result<()> {
    let calls = |line| Dubbo::consumer(line).registry(registry).calls(3).run();
    let (new, old) = tokio::try_join!(calls(Line::D3), calls(Line::D27))?;
    for answers in [new, old] {
        ensure!(answers.len() == 3, "{answers:?}");
        for answer in &answers {
            let ours = ["demo-all", "demo-old"]
                .iter()
                .any(|name| answer.ends_with(name));
            ensure!(ours, "{answers:?}");
        }
    }
    Ok(())
}
