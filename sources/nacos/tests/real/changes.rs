//! What Nacos holds, and what becomes of it.

use anyhow::{Result, ensure};
use diolkos_model::Weight;
use diolkos_source_api::Phase;
use diolkos_source_nacos::{Groups, Transport};
use diolkos_testkit::{Nacos, NacosClient, NacosInstance, netns};

use crate::support::{GROUP, Running, config, delete, put};

fn instance(port: u16) -> NacosInstance {
    NacosInstance::new("10.0.0.1", port)
}

#[test]
fn what_is_in_nacos_is_seen() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::start().await?;
        let client = server.client().await?;
        tokio::try_join!(
            namespaces_and_groups(&server, &client, Transport::Auto),
            namespaces_and_groups(&server, &client, Transport::Http),
            clusters(&server, &client),
            instances(&server, &client),
            a_service_that_is_deleted_goes_and_may_come_back(&server, &client),
            a_service_without_instances_stays(&server),
            the_protection_threshold(&server, Transport::Grpc),
            the_protection_threshold(&server, Transport::Http),
            grpc_that_cannot_be_reached(&server, &client),
            a_dead_server(&server, &client),
        )?;
        Ok(())
    })
}

async fn namespaces_and_groups(
    server: &Nacos,
    client: &NacosClient,
    transport: Transport,
) -> Result<()> {
    let one = format!("one-{transport:?}");
    let two = format!("two-{transport:?}");
    put(client, (&one, GROUP, "orders"), &[instance(1)]).await;
    put(client, (&one, "OTHER", "orders"), &[instance(2)]).await;
    put(client, (&two, GROUP, "orders"), &[instance(3)]).await;
    let door = server.door().await?;
    let mut settings = config(&door, &one);
    settings.transport = transport;
    let of_one = Running::synced(settings.clone()).await;
    let key = |namespace: &str, group: &str| format!("{namespace}/{group}/orders");
    of_one
        .shows("the usual group", &[(&key(&one, GROUP), &[1])])
        .await;
    settings.groups = Groups::All;
    settings.namespaces.push(two.clone());
    let of_all = Running::synced(settings).await;
    of_all
        .shows(
            "all",
            &[
                (&key(&one, GROUP), &[1]),
                (&key(&one, "OTHER"), &[2]),
                (&key(&two, GROUP), &[3]),
            ],
        )
        .await;
    put(client, (&two, "THIRD", "orders"), &[instance(4)]).await;
    put(client, (&two, GROUP, "orders"), &[]).await;
    of_all
        .shows(
            "a new group, and a service without instances",
            &[
                (&key(&one, GROUP), &[1]),
                (&key(&one, "OTHER"), &[2]),
                (&key(&two, GROUP), &[]),
                (&key(&two, "THIRD"), &[4]),
            ],
        )
        .await;
    ensure!(of_all.world().complete() == 1, "one snapshot is enough");
    Ok(())
}

async fn clusters(server: &Nacos, client: &NacosClient) -> Result<()> {
    let instances = [instance(1).cluster("HZ"), instance(2).cluster("SH")];
    put(client, ("clusters", GROUP, "orders"), &instances).await;
    let door = server.door().await?;
    let mut settings = config(&door, "clusters");
    settings.clusters = vec!["SH".to_owned()];
    let running = Running::synced(settings).await;
    let name = format!("clusters/{GROUP}/orders");
    running.shows("one cluster", &[(&name, &[2])]).await;
    Ok(())
}

async fn instances(server: &Nacos, client: &NacosClient) -> Result<()> {
    let door = server.door().await?;
    let running = Running::synced(config(&door, "instances")).await;
    let name = format!("instances/{GROUP}/orders");
    let orders = ("instances", GROUP, "orders");
    let some = [instance(1), instance(2).unhealthy(), instance(3).disabled()];
    put(client, orders, &some).await;
    running
        .shows("those that may be used", &[(&name, &[1])])
        .await;
    put(client, orders, &[instance(1).weight(2.5), instance(2)]).await;
    running.shows("both", &[(&name, &[1, 2])]).await;
    running
        .until("the weight", |world| {
            let first = world.services[&name].instances.first();
            first.is_some_and(|i| i.weight == Some(Weight::fraction(2.5)))
        })
        .await;
    put(client, orders, &[instance(2).metadata("version", "v2")]).await;
    running
        .until("the version", |world| {
            let instances = &world.services[&name].instances;
            instances.len() == 1 && instances[0].version.as_deref() == Some("v2")
        })
        .await;
    Ok(())
}

async fn a_service_that_is_deleted_goes_and_may_come_back(
    server: &Nacos,
    client: &NacosClient,
) -> Result<()> {
    put(client, ("deleted", GROUP, "orders"), &[instance(1)]).await;
    put(client, ("deleted", GROUP, "stock"), &[instance(2)]).await;
    let door = server.door().await?;
    let running = Running::synced(config(&door, "deleted")).await;
    let [orders, stock] = ["orders", "stock"].map(|name| format!("deleted/{GROUP}/{name}"));
    for _ in 0..2 {
        running
            .shows("both", &[(&orders, &[1]), (&stock, &[2])])
            .await;
        delete(server, client, "deleted", "orders").await;
        running.shows("the other one", &[(&stock, &[2])]).await;
        put(client, ("deleted", GROUP, "orders"), &[instance(1)]).await;
    }
    ensure!(running.world().removed == [orders.clone(), orders]);
    ensure!(running.world().snapshots.len() == 1);
    Ok(())
}

async fn a_service_without_instances_stays(server: &Nacos) -> Result<()> {
    server.create_service("empty", GROUP, "orders", 0.0).await?;
    let door = server.door().await?;
    let running = Running::synced(config(&door, "empty")).await;
    let name = format!("empty/{GROUP}/orders");
    running.shows("it is known", &[(&name, &[])]).await;
    let has = async |count| {
        let what = "its instances";
        running
            .until(what, |world| world.services[&name].instances.len() == count)
            .await;
    };
    // Whether it is healthy Nacos finds out.
    server
        .register("empty", GROUP, "orders", &instance(1))
        .await?;
    has(1).await;
    server
        .deregister("empty", GROUP, "orders", &instance(1))
        .await?;
    has(0).await;
    ensure!(running.world().removed.is_empty());
    Ok(())
}

async fn the_protection_threshold(server: &Nacos, transport: Transport) -> Result<()> {
    let namespace = format!("protected-{transport:?}");
    server
        .create_service(&namespace, GROUP, "orders", 0.6)
        .await?;
    let health = async |port, healthy| {
        let mut instance = instance(port);
        instance.healthy = healthy;
        server
            .register(&namespace, GROUP, "orders", &instance)
            .await
    };
    health(1, true).await?;
    server
        .without_checks(&namespace, GROUP, "orders", "DEFAULT")
        .await?;
    for port in [1, 2, 3] {
        health(port, true).await?;
    }
    let door = server.door().await?;
    let mut settings = config(&door, &namespace);
    settings.transport = transport;
    let running = Running::synced(settings).await;
    let name = format!("{namespace}/{GROUP}/orders");
    running
        .shows("all are healthy", &[(&name, &[1, 2, 3])])
        .await;
    health(2, false).await?;
    running
        .shows("above the threshold", &[(&name, &[1, 3])])
        .await;
    health(3, false).await?;
    running.shows("below the threshold", &[(&name, &[1])]).await;
    let what = "1 services at their protection threshold";
    running.health(Phase::Live, what).await;
    health(1, false).await?;
    running.shows("none is healthy", &[(&name, &[])]).await;
    ensure!(running.world().services[&name].instances.len() == 3);
    ensure!(running.world().evidence[&name].is_complete());
    for port in [1, 2] {
        health(port, true).await?;
    }
    running
        .shows("above the threshold again", &[(&name, &[1, 2])])
        .await;
    Ok(())
}

async fn grpc_that_cannot_be_reached(server: &Nacos, client: &NacosClient) -> Result<()> {
    put(client, ("wall", GROUP, "orders"), &[instance(1)]).await;
    let door = server.door().await?;
    let mut settings = config(&door, "wall");
    // Nobody listens there.
    settings.client.grpc_offset += 1;
    let running = Running::synced(settings).await;
    running.health(Phase::Live, "polling by HTTP").await;
    let name = format!("wall/{GROUP}/orders");
    running.shows("its instance", &[(&name, &[1])]).await;
    put(client, ("wall", GROUP, "orders"), &[instance(2)]).await;
    running.shows("a change", &[(&name, &[2])]).await;
    ensure!(running.world().snapshots.len() == 1);
    Ok(())
}

async fn a_dead_server(server: &Nacos, client: &NacosClient) -> Result<()> {
    put(client, ("dead", GROUP, "orders"), &[instance(1)]).await;
    let door = server.door().await?;
    let mut settings = config(&door, "dead");
    settings
        .client
        .addresses
        .insert(0, "http://127.0.0.9:9/nacos".to_owned());
    let running = Running::synced(settings).await;
    let name = format!("dead/{GROUP}/orders");
    running.shows("its instance", &[(&name, &[1])]).await;
    ensure!(
        running.health.borrow().epoch == 1,
        "the next one is tried at once"
    );
    let detail = running.health(Phase::Live, "following").await;
    ensure!(detail.contains(&door.url()), "{detail}");
    door.cut();
    running
        .until("a new connection", |world| world.snapshots.len() == 2)
        .await;
    put(client, ("dead", GROUP, "orders"), &[instance(2)]).await;
    running.shows("a change", &[(&name, &[2])]).await;
    Ok(())
}
