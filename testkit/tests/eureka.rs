//! Eureka: a server, peers, and Netflix' client.

#![allow(clippy::print_stderr)] // how long starts take, for whoever runs it

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use diolkos_testkit::eureka::instance;
use diolkos_testkit::{Eureka, EurekaClient, eventually};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// The instances of an application as the server lists them, once `test` is true of them.
async fn listed(server: &Eureka, app: &str, test: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(SOON, app, async || {
        let apps = server.get("/apps").await?;
        let apps = apps["applications"]["application"].as_array().cloned();
        let found = apps.into_iter().flatten().find(|a| a["name"] == app);
        let found = found.and_then(|app| app["instance"].as_array().cloned());
        let found = found.unwrap_or_default();
        ensure!(test(&found), "{found:#?}");
        Ok(found)
    })
    .await
}

#[tokio::test]
async fn calls_over_http_and_a_restart() -> Result<()> {
    let server = Eureka::builder()
        .user("reader", "secret")
        .context_path("/registry")
        .start()
        .await?;
    assert!(
        server.url().ends_with("/registry/eureka"),
        "{}",
        server.url()
    );
    let pay = instance("pay", "10.0.0.1", 8080);
    let id = "10.0.0.1:pay:8080";
    server.register("PAY", &pay).await?;
    let found = listed(&server, "PAY", |found| found.len() == 1).await;
    assert_eq!(found[0]["status"], "UP");
    server.renew("PAY", id).await?;
    server.set_metadata("PAY", id, "version", "v2").await?;
    server.set_status("PAY", id, "OUT_OF_SERVICE").await?;
    listed(&server, "PAY", |found| {
        found[0]["status"] == "OUT_OF_SERVICE" && found[0]["metadata"]["version"] == "v2"
    })
    .await;
    server.remove_status("PAY", id).await?;
    listed(&server, "PAY", |found| found[0]["status"] == "UP").await;
    server.deregister("PAY", id).await?;
    listed(&server, "PAY", <[_]>::is_empty).await;
    server.renew("PAY", id).await.expect_err("it is gone");

    server.register("PAY", &pay).await?;
    server.kill()?;
    server.get("/apps").await.expect_err("it is dead");
    server.restart().await?;
    listed(&server, "PAY", <[_]>::is_empty).await;
    Ok(())
}

#[tokio::test]
async fn a_client_of_two_peers() -> Result<()> {
    let started = Instant::now();
    let peers = Eureka::builder().peers(2).await?;
    eprintln!("two peers started in {:?}", started.elapsed());
    let urls: Vec<String> = peers.iter().map(Eureka::url).collect();
    let started = Instant::now();
    let client = EurekaClient::of(&urls, "orders")
        .port(8080)
        .secure_port(8443)
        .vip("orders,shop")
        .metadata("zone", "a")
        .lease(Duration::from_secs(2))
        .start()
        .await?;
    eprintln!("a client registered in {:?}", started.elapsed());
    for peer in &peers {
        let found = listed(peer, "ORDERS", |found| found.len() == 1).await;
        assert_eq!(found[0]["status"], "UP");
        assert_eq!(found[0]["securePort"]["$"], 8443);
        assert_eq!(found[0]["securePort"]["@enabled"], "true");
        assert_eq!(found[0]["vipAddress"], "orders,shop");
        assert_eq!(found[0]["metadata"]["zone"], "a");
    }
    client.set_status("DOWN").await?;
    client.set_metadata("version", "v2").await?;
    for peer in &peers {
        listed(peer, "ORDERS", |found| {
            found[0]["status"] == "DOWN" && found[0]["metadata"]["version"] == "v2"
        })
        .await;
    }
    client.stop().await?;
    for peer in &peers {
        listed(peer, "ORDERS", <[_]>::is_empty).await;
    }
    client.restart().await?;
    listed(&peers[1], "ORDERS", |found| found.len() == 1).await;
    let killed = Instant::now();
    client.kill()?;
    listed(&peers[1], "ORDERS", <[_]>::is_empty).await;
    eprintln!(
        "a killed client's instance went after {:?}",
        killed.elapsed()
    );
    Ok(())
}

#[tokio::test]
async fn tls_no_delta_and_closed_at_first() -> Result<()> {
    let server = Eureka::builder()
        .tls()
        .without_delta()
        .closed_at_first(Duration::from_secs(3))
        .start()
        .await?;
    let refused = server.get("/apps").await.expect_err("it is closed");
    assert!(format!("{refused:#}").contains("403"), "{refused:#}");
    server
        .register("PAY", &instance("pay", "10.0.0.1", 8080))
        .await?;
    listed(&server, "PAY", |found| found.len() == 1).await;
    let refused = server.get("/apps/delta").await.expect_err("no delta");
    assert!(format!("{refused:#}").contains("403"), "{refused:#}");
    Ok(())
}
