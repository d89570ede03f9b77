//! A real Nacos server and its own client.

use std::time::Duration;

use anyhow::{Result, ensure};
use diolkos_testkit::{Nacos, NacosClient, NacosInstance, eventually, netns};

const SOON: Duration = Duration::from_secs(30);
const GROUP: &str = "DEFAULT_GROUP";

async fn until_listed(client: &NacosClient, name: &str, expected: &[NacosInstance]) {
    eventually(SOON, "the instances are these", async || {
        let found = client.list("", GROUP, name).await?;
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
    .await;
}

#[test]
fn a_server_is_written_to_by_its_own_client_and_by_an_operator() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::start().await?;
        persistent_instances(&server).await?;
        let (writer, reader) = tokio::try_join!(server.client(), server.client())?;
        ephemeral_instances(&server, &writer, &reader).await?;
        configurations(&server).await?;
        two_servers_and_a_door(&server).await
    })
}

/// Right after the start: the server takes these last.
async fn persistent_instances(server: &Nacos) -> Result<()> {
    let one = NacosInstance::new("10.77.0.1", 80).metadata("zone", "a");
    server.register("dev", GROUP, "orders", &one).await?;
    ensure!(server.services("dev", GROUP).await? == ["orders"]);
    server
        .without_checks("dev", GROUP, "orders", "DEFAULT")
        .await?;
    let query = [("namespaceId", "dev"), ("serviceName", "orders")];
    // Of two: Nacos calls all healthy when none is.
    let two = NacosInstance::new("10.77.0.2", 80);
    server.register("dev", GROUP, "orders", &two).await?;
    for (instance, expected) in [
        (two.clone().unhealthy(), r#""healthy":false"#),
        (two.clone(), r#""healthy":true"#),
    ] {
        server.register("dev", GROUP, "orders", &instance).await?;
        let with_two = [("ip", "10.77.0.2"), ("port", "80")];
        let query = [&query[..], &with_two].concat();
        eventually(SOON, expected, async || {
            let found = server.get("/v1/ns/instance", &query).await?;
            ensure!(found.contains(expected), "{found}");
            Ok(())
        })
        .await;
    }
    server.deregister("dev", GROUP, "orders", &two).await?;
    server.kill()?;
    server.restart().await?;
    eventually(SOON, "it is kept", async || {
        let found = server.get("/v1/ns/instance/list", &query).await?;
        ensure!(found.contains("10.77.0.1"), "{found}");
        Ok(())
    })
    .await;
    server.deregister("dev", GROUP, "orders", &one).await?;
    eventually(SOON, "it is gone", async || {
        let found = server.get("/v1/ns/instance/list", &query).await?;
        ensure!(!found.contains("10.77.0.1"), "{found}");
        Ok(())
    })
    .await;
    Ok(())
}

async fn ephemeral_instances(
    server: &Nacos,
    writer: &NacosClient,
    reader: &NacosClient,
) -> Result<()> {
    let all = [
        NacosInstance::new("10.77.0.1", 80).metadata("version", "v1"),
        NacosInstance::new("10.77.0.2", 80)
            .weight(2.5)
            .cluster("hz"),
    ];
    for count in [2, 1, 2, 0, 1, 0] {
        writer.put("", GROUP, "pay", &all[..count]).await?;
        until_listed(reader, "pay", &all[..count]).await;
    }
    writer.put("", GROUP, "pay", &all).await?;
    let light = all[0].clone().weight(0.5).metadata("version", "v2");
    server.update("", GROUP, "pay", &light).await?;
    until_listed(reader, "pay", &[light, all[1].clone()]).await;
    writer.kill()?;
    until_listed(reader, "pay", &[]).await;
    Ok(())
}

async fn configurations(server: &Nacos) -> Result<()> {
    let query = [("tenant", "dev"), ("group", "g"), ("dataId", "a.b")];
    server.publish_config("dev", "g", "a.b", "text").await?;
    eventually(SOON, "it is there", async || {
        let found = server.get("/v1/cs/configs", &query).await?;
        ensure!(found == "text", "{found}");
        Ok(())
    })
    .await;
    server.delete_config("dev", "g", "a.b").await?;
    eventually(SOON, "it is gone", async || {
        server.get("/v1/cs/configs", &query).await.is_err()
    })
    .await;
    Ok(())
}

async fn two_servers_and_a_door(other: &Nacos) -> Result<()> {
    let server = Nacos::builder()
        .auth()
        .token_life(Duration::from_secs(5))
        .start()
        .await?;
    let mut door = other.door().await?;
    let http = reqwest::Client::new();
    let url = format!("{}/v1/ns/service/list?pageNo=1&pageSize=9", door.url());
    let status = async || anyhow::Ok(http.get(&url).send().await?.status());
    ensure!(status().await? == 200);
    door.redirect(&server);
    door.cut();
    ensure!(status().await? == 403, "nobody may ask without a token");
    door.outage().await?;
    ensure!(status().await.is_err());
    door.recover().await?;
    ensure!(status().await? == 403);
    server.add_reader("reader", "secret", &["public"]).await?;
    let login = [("username", "reader"), ("password", "secret")];
    eventually(SOON, "the user may log in", async || {
        let token = server.post("/v1/auth/login", &login).await?;
        ensure!(token.contains(r#""tokenTtl":5"#), "{token}");
        Ok(())
    })
    .await;
    let client = server.client().await?;
    let one = NacosInstance::new("10.77.0.1", 80);
    client
        .put("", GROUP, "orders", std::slice::from_ref(&one))
        .await?;
    let reader = NacosClient::start(&server.address(), Some(("reader", "secret"))).await?;
    until_listed(&reader, "orders", std::slice::from_ref(&one)).await;
    ensure!(
        reader
            .put("", GROUP, "pay", std::slice::from_ref(&one))
            .await
            .is_err()
    );
    ensure!(reader.list("dev", GROUP, "orders").await.is_err());
    Ok(())
}
