//! The Consul launcher against the real program.

mod common;

use std::time::Duration;

use common::assert_gone;
use diolkos_testkit::pki::TlsFiles;
use diolkos_testkit::{Consul, eventually, install_crypto};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn two_agents_run_at_once_and_are_gone_after_drop() -> anyhow::Result<()> {
    let (a, b) = tokio::try_join!(Consul::start(), Consul::start())?;
    let pids = [a.pid(), b.pid()];
    a.register(&json!({"Name": "only-a", "Port": 1})).await?;
    assert_eq!(
        a.get("/v1/health/service/only-a")
            .await?
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        b.get("/v1/health/service/only-a")
            .await?
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    let address = a.http_addr().replace("http://", "");
    drop((a, b));
    for pid in pids {
        assert_gone(pid).await;
    }
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the port must refuse"
    );
    Ok(())
}

#[tokio::test]
async fn helpers_change_what_health_says() -> anyhow::Result<()> {
    let consul = Consul::start().await?;
    let check = json!({"CheckID": "ttl", "TTL": "1h", "Status": "passing"});
    consul
        .register(&json!({"ID": "o1", "Name": "orders", "Port": 80, "Check": check}))
        .await?;
    let passing = async || {
        let list = consul.get("/v1/health/service/orders?passing=1").await?;
        anyhow::Ok(list.as_array().map_or(0, Vec::len))
    };
    assert_eq!(passing().await?, 1);
    consul.fail("ttl").await?;
    eventually(SOON, "the failed check hides it", async || {
        passing().await.ok() == Some(0)
    })
    .await;
    consul.warn("ttl").await?;
    let state =
        async || anyhow::Ok(consul.get("/v1/health/checks/orders").await?[0]["Status"].clone());
    eventually(SOON, "the check warns", async || {
        state().await.ok() == Some(json!("warning"))
    })
    .await;
    consul.pass("ttl").await?;
    eventually(SOON, "the check passes", async || {
        passing().await.ok() == Some(1)
    })
    .await;
    consul.maintenance("o1", true).await?;
    eventually(SOON, "maintenance hides it", async || {
        passing().await.ok() == Some(0)
    })
    .await;
    consul.maintenance("o1", false).await?;
    eventually(SOON, "it is back", async || passing().await.ok() == Some(1)).await;
    consul.deregister("o1").await?;
    eventually(SOON, "it is gone", async || passing().await.ok() == Some(0)).await;

    let external =
        json!({"Node": "ext", "Address": "127.0.0.9", "Service": {"Service": "legacy", "Port": 5}});
    consul.catalog_register(&external).await?;
    assert_eq!(
        consul.get("/v1/catalog/service/legacy").await?[0]["Address"],
        "127.0.0.9"
    );
    consul.catalog_deregister(&json!({"Node": "ext"})).await?;
    assert_eq!(consul.get("/v1/catalog/service/legacy").await?, json!([]));
    Ok(())
}

#[tokio::test]
async fn connections_are_counted() -> anyhow::Result<()> {
    let consul = Consul::start().await?;
    let count = async |want: usize| {
        eventually(
            SOON,
            &format!("{want} connections"),
            async || match consul.connections() {
                Ok(n) if n == want => Ok(()),
                other => Err(other),
            },
        )
        .await;
    };
    count(0).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(("127.0.0.1", consul.http_port())).await?);
    }
    count(3).await;
    held.pop().unwrap().shutdown().await?;
    count(2).await;
    Ok(())
}

#[tokio::test]
async fn access_control_denies_without_a_token_and_obeys_a_policy() -> anyhow::Result<()> {
    let consul = Consul::builder().acl().start().await?;
    consul
        .register(&json!({"Name": "orders", "Port": 80}))
        .await?;
    consul
        .register(&json!({"Name": "secret", "Port": 81}))
        .await?;
    // Consul lists a service only to who may read its nodes, too.
    let rules = r#"service "orders" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let token = consul.create_token("orders-only", rules).await?;
    let services = async |token: Option<&str>| {
        let mut request = reqwest::Client::builder()
            .no_proxy()
            .build()?
            .get(consul.http_addr() + "/v1/catalog/services");
        if let Some(token) = token {
            request = request.header("X-Consul-Token", token);
        }
        anyhow::Ok(request.send().await?.json::<serde_json::Value>().await?)
    };
    assert_eq!(services(None).await?, json!({}));
    eventually(
        SOON,
        "the token sees its service",
        async || match services(Some(&token)).await {
            Ok(list) if list == json!({"orders": []}) => Ok(()),
            other => Err(other),
        },
    )
    .await;
    Ok(())
}

#[tokio::test]
async fn https_asks_for_a_client_certificate() -> anyhow::Result<()> {
    install_crypto();
    let consul = Consul::builder().tls().start().await?;
    let files = consul.tls().unwrap();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(&files.ca)?)?;
    let client = || {
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([ca.clone()])
    };
    let url = format!("{}/v1/status/leader", consul.https_addr());
    client()
        .build()?
        .get(&url)
        .send()
        .await
        .expect_err("no client certificate");
    let identity = reqwest::Identity::from_pem(
        &[std::fs::read(&files.key)?, std::fs::read(&files.cert)?].concat(),
    )?;
    let answer = client()
        .identity(identity)
        .build()?
        .get(&url)
        .send()
        .await?;
    assert!(answer.status().is_success(), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn two_datacenters_join() -> anyhow::Result<()> {
    let (a, b) = tokio::try_join!(Consul::start(), Consul::builder().datacenter("dc2").start())?;
    b.register(&json!({"Name": "far", "Port": 7})).await?;
    a.join(&b).await?;
    let far = async || {
        anyhow::Ok(a.get("/v1/catalog/service/far?dc=dc2").await?[0]["ServicePort"].clone())
    };
    eventually(SOON, "dc1 sees a service of dc2", async || {
        far().await.ok() == Some(json!(7))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_paused_agent_hangs_and_a_restarted_one_remembers() -> anyhow::Result<()> {
    let consul = Consul::builder().persistent().start().await?;
    consul
        .register(&json!({"Name": "orders", "Port": 80}))
        .await?;
    consul.stop_process()?;
    let answer =
        tokio::time::timeout(Duration::from_millis(300), consul.get("/v1/status/leader")).await;
    assert!(answer.is_err(), "a paused agent answered: {answer:?}");
    consul.continue_process()?;
    consul.get("/v1/status/leader").await?;
    let (pid, url) = (consul.pid(), consul.http_addr());
    consul.kill()?;
    assert_gone(pid).await;
    consul.get("/v1/status/leader").await.expect_err("killed");
    consul.restart().await?;
    assert_eq!(consul.http_addr(), url);
    assert_eq!(
        consul.get("/v1/catalog/service/orders").await?[0]["ServicePort"],
        80
    );
    Ok(())
}

#[tokio::test]
async fn a_failed_start_shows_the_log() {
    let error = Consul::builder()
        .config(json!({"no_such_setting": 1}))
        .start()
        .await
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("ended at start") && text.contains("no_such_setting"),
        "{text}"
    );
}

#[tokio::test]
async fn tokens_and_certificates_rotate() -> anyhow::Result<()> {
    install_crypto();
    let consul = Consul::builder().acl().tls().start().await?;
    let address = consul.https_addr();
    let get = async |files: &TlsFiles, token: &str| -> anyhow::Result<u16> {
        let read = |path| std::fs::read(path);
        let identity = [read(&files.key)?, read(&files.cert)?].concat();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(&read(&files.ca)?)?])
            .identity(reqwest::Identity::from_pem(&identity)?)
            .build()?;
        let request = client.get(format!("{address}/v1/catalog/services"));
        let answer = request.header("X-Consul-Token", token).send().await?;
        Ok(answer.status().as_u16())
    };
    let token = consul
        .create_token("reader", r#"service_prefix "" { policy = "read" }"#)
        .await?;
    let first = consul.tls().expect("TLS").clone();
    assert_eq!(get(&first, &token).await?, 200);
    consul.delete_token(&token).await?;
    assert_eq!(get(&first, &token).await?, 403);
    consul.delete_token(&token).await.expect_err("it is gone");

    let token = consul.token().expect("a token").to_owned();
    let second = consul.rotate_tls("second", true).await?;
    assert_eq!(get(&second, &token).await?, 200);
    get(&first, &token).await.expect_err("another authority");
    let mut mixed = first.clone();
    mixed.ca = second.ca.clone();
    assert_eq!(get(&mixed, &token).await?, 200, "still trusted");

    let third = consul.rotate_tls("third", false).await?;
    assert_eq!(get(&third, &token).await?, 200);
    mixed.ca = third.ca.clone();
    get(&mixed, &token).await.expect_err("no longer trusted");
    Ok(())
}
