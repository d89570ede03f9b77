//! Where things are and what of them is read.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result};
use diolkos_source_api::testing::Told;
use diolkos_source_dubbo::Discovery;
use diolkos_testkit::{ZooKeeper, zookeeper::Writer};

use crate::{
    dubbo::{config, provider},
    support::{Running, provider_path},
};

/// The nodes that real providers (Dubbo 3.3.5 and 2.7.23) and consumers wrote.
pub(crate) fn recorded() -> Result<BTreeMap<String, String>> {
    Ok(serde_json::from_str(include_str!("../data/registry.json"))?)
}

const INTERFACE: &str = "org.apache.dubbo.demo.DemoService";

async fn write(writer: &Writer, nodes: &BTreeMap<String, String>) -> Result<()> {
    let nodes: Vec<_> = nodes.iter().collect();
    writer.create_many(&nodes).await
}

/// Where the instances of a service are, sorted.
fn addresses(world: &Told, service: &str) -> Vec<String> {
    let instances = world.services.get(service).map(|s| s.instances.clone());
    let instances = instances.iter().flat_map(|instances| instances.iter());
    let mut addresses: Vec<String> = instances
        .map(|one| format!("{}:{}", one.address, one.ports[0].number))
        .collect();
    addresses.sort();
    addresses
}

/// What a real registry gives with each way to register, in the first snapshot.
async fn discovered(server: &ZooKeeper, discovery: Discovery) -> Result<Told> {
    let mut settings = config("zk", vec![server.address()]);
    settings.dubbo.discovery = discovery;
    let source = Running::synced(settings).await;
    let world = source.world().clone();
    source.stop().await;
    Ok(world)
}

async fn real_records(server: ZooKeeper) -> Result<()> {
    write(&server.writer().await?, &recorded()?).await?;
    let of_interfaces = ["10.77.0.1:20880", "10.77.0.2:20881", "10.77.0.4:20890"];
    let interface = discovered(&server, Discovery::Interface).await?;
    assert_eq!(addresses(&interface, INTERFACE), of_interfaces);
    assert_eq!(interface.services.len(), 1);

    let applications = ["demo-inst", "demo-provider", "demo-remote"];
    let application = discovered(&server, Discovery::Application).await?;
    for (name, at) in
        applications
            .into_iter()
            .zip(["10.77.0.3:20882", "10.77.0.1:20880", "10.77.0.1:20880"])
    {
        assert_eq!(addresses(&application, name), [at], "{name}");
    }
    // Its version is in metadata that the mapping leads to.
    assert_eq!(
        addresses(&application, INTERFACE),
        ["10.77.0.1:20880", "10.77.0.3:20882"]
    );

    let both = discovered(&server, Discovery::Both).await?;
    assert_eq!(both.services.len(), 4);
    assert_eq!(
        addresses(&both, INTERFACE),
        [
            &of_interfaces[..2],
            &["10.77.0.3:20882"],
            &of_interfaces[2..]
        ]
        .concat()
    );
    Ok(())
}

#[tokio::test]
async fn records_of_real_providers_are_read_in_each_way() -> Result<()> {
    real_records(ZooKeeper::start().await?).await
}

#[tokio::test]
async fn records_of_real_providers_are_read_without_persistent_watches() -> Result<()> {
    real_records(ZooKeeper::builder().old().start().await?).await
}

/// Nodes appear one by one, in the order in which Dubbo writes them and in the opposite one.
async fn records_one_by_one(server: ZooKeeper) -> Result<()> {
    let writer = server.writer().await?;
    let source = Running::synced(config("zk", vec![server.address()])).await;
    let recorded = recorded()?;
    // Deeper ones need those above them.
    let leaves: Vec<_> = recorded
        .iter()
        .filter(|(path, _)| {
            !recorded
                .keys()
                .any(|other| other.starts_with(&format!("{path}/")))
        })
        .collect();
    for backwards in [false, true] {
        let mut order = leaves.clone();
        if backwards {
            order.reverse();
        }
        for (path, data) in order {
            writer.create(path, data).await?;
        }
        source
            .until("all of it is known", |world| {
                addresses(world, INTERFACE).len() == 4 && world.services.len() == 4
            })
            .await;
        writer.delete("/services/demo-inst/10.77.0.3:20882").await?;
        source
            .until("an instance goes", |world| {
                addresses(world, INTERFACE).len() == 3 && world.removed == ["demo-inst"]
            })
            .await;
        for tree in ["/services", "/dubbo"] {
            writer.delete_all(tree).await?;
        }
        source
            .until("all is gone", |world| world.services.is_empty())
            .await;
        source.forget();
    }
    assert_eq!(source.health.borrow().epoch, 1);
    Ok(())
}

#[tokio::test]
async fn what_applications_write_is_followed() -> Result<()> {
    records_one_by_one(ZooKeeper::start().await?).await
}

#[tokio::test]
async fn what_applications_write_is_followed_without_persistent_watches() -> Result<()> {
    records_one_by_one(ZooKeeper::builder().old().start().await?).await
}

#[tokio::test]
async fn rules_are_followed() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer
        .create(&provider_path("a", "10.1.0.1:20880"), "")
        .await?;
    let source = Running::synced(config("zk", vec![server.address()])).await;
    assert!(
        source
            .world()
            .only("a")
            .is_some_and(|i| i.health.is_healthy())
    );
    let rule = "configVersion: v2.7\nscope: service\nkey: a\nenabled: true\nconfigs:\n\
                - side: provider\n  addresses: [\"0.0.0.0\"]\n  parameters: {disabled: true}\n";
    let path = "/dubbo/config/dubbo/a.configurators";
    writer.create(path, rule).await?;
    source
        .until("the rule disables it", |world| {
            world.only("a").is_some_and(|i| !i.health.is_healthy())
        })
        .await;
    writer
        .set(path, rule.replace("disabled: true", "weight: 7"))
        .await?;
    source
        .until("the rule gives it a weight", |world| {
            let only = world.only("a");
            only.is_some_and(|i| i.health.is_healthy() && i.weight.is_some())
        })
        .await;
    writer.delete(path).await?;
    let configurator = "override%3A%2F%2F0.0.0.0%2Fa%3Fcategory%3Dconfigurators%26disabled%3Dtrue";
    writer
        .create(&format!("/dubbo/a/configurators/{configurator}"), "")
        .await?;
    source
        .until("the configurator disables it", |world| {
            world.only("a").is_some_and(|i| !i.health.is_healthy())
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn what_is_not_selected_is_not_read() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    for interface in ["a", "b", "c.Outer%24Inner"] {
        let node = provider_path(interface, "10.1.0.1:20880");
        writer.create(&node, "").await?;
    }
    write(&writer, &recorded()?).await?;
    // Who reads this is refused, and says so.
    writer.hide("/dubbo/b/providers").await?;
    let mut settings = config("zk", vec![server.address()]);
    settings.select = Arc::new(|name| ["a", "c.Outer$Inner", INTERFACE].contains(&name));
    let source = Running::synced(settings).await;
    source.snapshots(1).await;
    assert_eq!(source.world().named.len(), 3);
    // An application that is no service itself has instances of an interface that is one.
    assert_eq!(addresses(&source.world(), INTERFACE).len(), 4);
    let before = source.requests();
    for node in [
        provider_path("b", "10.1.0.2:20880"),
        "/dubbo/a/consumers/x".to_owned(),
        "/dubbo/mapping/b".to_owned(),
        "/dubbo/metadata/b/1.0.0/provider/shop".to_owned(),
        provider_path("a", "10.1.0.2:20880"),
    ] {
        writer.create(&node, "").await?;
    }
    source
        .until("followed", |world| world.count("a") == Some(2))
        .await;
    assert_eq!(source.requests() - before, 1);
    Ok(())
}

#[tokio::test]
async fn root_applications_and_chroot_may_be_anywhere() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    let name = provider("a", "10.1.0.1:20880", "");
    let recorded = recorded()?;
    let (_, instance) = recorded
        .iter()
        .find(|(path, _)| path.starts_with("/services/demo-inst/"))
        .context("there is a record")?;
    for (chroot, root, applications) in [
        ("", "/", "/services"),
        ("/tenant", "/dubbo/eu", "/dubbo/eu/services"),
        ("/tenant/x", "/rpc/", "/apps/"),
    ] {
        let at = |root: &str| format!("{chroot}{}", root.trim_end_matches('/'));
        let list = format!("{}/a/providers/{name}", at(root));
        let record = format!("{}/demo-inst/10.77.0.3:20882", at(applications));
        let mut settings = config("zk", vec![server.address()]);
        chroot.clone_into(&mut settings.client.chroot);
        root.clone_into(&mut settings.root);
        applications.clone_into(&mut settings.applications);
        let source = Running::synced(settings).await;
        assert!(!source.world().services.contains_key("a"), "{root}");
        writer.create(&list, "").await?;
        writer.create(&record, instance).await?;
        source
            .until("both are found", |world| {
                world.count("a") == Some(1) && world.count("demo-inst") == Some(1)
            })
            .await;
        source.resync.send(()).await?;
        source.snapshots(2).await;
        assert_eq!(source.world().named.len(), 2, "{:?}", source.world().named);
        source.stop().await;
    }
    Ok(())
}
