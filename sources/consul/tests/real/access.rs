//! Tokens, TLS and datacenters.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use diolkos_net::TlsConfig;
use diolkos_source_api::{Evidence, Phase};
use diolkos_source_consul::Config;
use diolkos_testkit::{Consul, eventually};
use serde_json::json;

use crate::support::{Running, SOON, config};

const READ_ALL: &str =
    r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;

fn with_token(address: &str, file: &Path) -> Config {
    let mut settings = config(address);
    settings.token_file = Some(file.to_owned());
    settings
}

async fn phase(source: &Running, phase: Phase) {
    eventually(SOON, phase.as_str(), async || {
        let health = source.health.borrow();
        (health.phase == phase)
            .then_some(())
            .ok_or_else(|| format!("{health:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_consul_that_denies_is_believed_only_with_a_token() -> Result<()> {
    let consul = Consul::builder().acl().start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    let anonymous = Running::synced(config(consul.http_addr())).await;
    {
        let world = anonymous.world();
        assert_eq!(world.services.len(), 0);
        let [Evidence::Partial(why)] = &*world.snapshots else {
            panic!("an empty answer to the anonymous was believed: {world:?}");
        };
        assert!(why.contains("denies by default"), "{why}");
    }

    let dir = tempfile::tempdir()?;
    let file = dir.path().join("token");
    std::fs::write(&file, consul.create_token("all", READ_ALL).await?)?;
    let known = Running::synced(with_token(&consul.http_addr(), &file)).await;
    assert_eq!(known.world().snapshots, [Evidence::Complete]);
    assert_eq!(known.world().count("dc1/web"), Some(1));
    consul.deregister("web").await?;
    known
        .until("a removal under access control", |world| {
            world.removed == ["dc1/web"]
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn a_token_for_some_services_sees_those_come_and_go() -> Result<()> {
    let consul = Consul::builder().acl().start().await?;
    for name in ["web", "secret"] {
        consul.register(&json!({"Name": name, "Port": 1})).await?;
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("token");
    let rules = r#"service "web" { policy = "read" } node_prefix "" { policy = "read" }"#;
    std::fs::write(&file, consul.create_token("web", rules).await?)?;
    let source = Running::synced(with_token(&consul.http_addr(), &file)).await;
    assert_eq!(source.world().services.len(), 1);
    assert!(!source.world().snapshots[0].is_complete());
    assert!(source.world().evidence["dc1/web"].is_complete());
    consul.deregister("web").await?;
    source
        .until("the service that it may read is gone", |world| {
            world.removed == ["dc1/web"]
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn a_token_that_loses_its_rights_takes_nothing_out_of_the_mesh() -> Result<()> {
    let consul = Consul::builder().acl().start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("token");
    std::fs::write(&file, consul.create_token("all", READ_ALL).await?)?;
    let mut settings = with_token(&consul.http_addr(), &file);
    settings.wait = Duration::from_secs(1);
    let source = Running::synced(settings).await;

    let policies = consul.get("/v1/acl/policies").await?;
    let policy = policies.as_array().into_iter().flatten();
    let id = policy
        .filter(|policy| policy["Name"] == "all")
        .find_map(|policy| policy["ID"].as_str())
        .context("the policy")?;
    let nothing = json!({"Name": "all", "Rules": ""});
    consul
        .put(&format!("/v1/acl/policy/{id}"), Some(&nothing))
        .await?;
    source
        .until("the empty answer is told as partial", |world| {
            world.evidence["dc1/web"] != Evidence::Complete
        })
        .await;
    assert!(source.world().removed.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_unknown_token_is_denied_and_a_new_one_recovers() -> Result<()> {
    let consul = Consul::builder().acl().start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("token");
    std::fs::write(&file, "3c2a6a0e-5a8e-4d0c-8c53-ffffffffffff\n")?;
    let source = Running::start(with_token(&consul.http_addr(), &file));
    phase(&source, Phase::Denied).await;
    let detail = source.health.borrow().detail.clone();
    assert!(detail.contains(file.to_str().unwrap()), "{detail}");
    assert!(source.world().snapshots.is_empty());

    std::fs::write(&file, consul.create_token("all", READ_ALL).await?)?;
    source
        .until("the new token works", |world| {
            world.count("dc1/web") == Some(1) && world.snapshots == [Evidence::Complete]
        })
        .await;
    phase(&source, Phase::Live).await;
    Ok(())
}

#[tokio::test]
async fn a_missing_token_file_is_a_configuration_error_that_names_it() -> Result<()> {
    let consul = Consul::start().await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("absent");
    let source = Running::start(with_token(&consul.http_addr(), &file));
    phase(&source, Phase::Misconfigured).await;
    let detail = source.health.borrow().detail.clone();
    assert!(detail.contains(file.to_str().unwrap()), "{detail}");
    Ok(())
}

fn with_tls(consul: &Consul) -> Result<Config> {
    let files = consul.tls().context("TLS files")?;
    let mut settings = config(consul.https_addr());
    settings.tls = TlsConfig {
        ca_file: Some(files.ca.clone()),
        cert_file: Some(files.cert.clone()),
        key_file: Some(files.key.clone()),
        server_name: None,
    };
    Ok(settings)
}

#[tokio::test]
async fn tls_with_a_client_certificate() -> Result<()> {
    let consul = Consul::builder().tls().start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;

    let source = Running::synced(with_tls(&consul)?).await;
    assert_eq!(source.world().count("dc1/web"), Some(1));
    consul.register(&json!({"Name": "web", "Port": 2})).await?;
    source
        .until("a change over TLS", |world| {
            world
                .only("dc1/web")
                .is_some_and(|i| i.ports[0].number == 2)
        })
        .await;

    let mut by_name = with_tls(&consul)?;
    by_name.tls.server_name = Some("localhost".into());
    Running::synced(by_name).await;

    let mut wrong_name = with_tls(&consul)?;
    wrong_name.tls.server_name = Some("other.example.org".into());
    let mut no_certificate = with_tls(&consul)?;
    no_certificate.tls.cert_file = None;
    no_certificate.tls.key_file = None;
    let mut unknown_authority = with_tls(&consul)?;
    unknown_authority.tls.ca_file = None;
    for (settings, problem) in [
        (wrong_name, "other.example.org"),
        (no_certificate, "client certificate"),
        (unknown_authority, "UnknownIssuer"),
    ] {
        let source = Running::start(settings);
        phase(&source, Phase::Unreachable).await;
        let detail = source.health.borrow().detail.clone();
        assert!(detail.contains(problem), "{problem}: {detail}");
    }
    Ok(())
}

#[tokio::test]
async fn new_tls_files_are_used_without_a_restart() -> Result<()> {
    let consul = Consul::builder().tls().start().await?;
    let dir = tempfile::tempdir()?;
    let mut settings = with_tls(&consul)?;
    let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
    let files = consul.tls().context("TLS files")?;
    // The authority's certificate is none that the agent takes from a client.
    let strange = Consul::builder().tls().start().await?;
    let other = strange.tls().context("TLS files")?;
    std::fs::copy(&other.cert, &cert)?;
    std::fs::copy(&other.key, &key)?;
    settings.tls.cert_file = Some(cert.clone());
    settings.tls.key_file = Some(key.clone());
    let source = Running::start(settings);
    phase(&source, Phase::Unreachable).await;
    std::fs::copy(&files.cert, &cert)?;
    std::fs::copy(&files.key, &key)?;
    source
        .within(
            Duration::from_secs(30),
            "the right certificate works",
            |world| world.snapshots == [Evidence::Complete],
        )
        .await;
    Ok(())
}

#[tokio::test]
async fn two_datacenters_and_the_loss_and_return_of_one() -> Result<()> {
    let first = Consul::start().await?;
    let second = Consul::builder().datacenter("dc2").persistent();
    let second = second.start().await?;
    first.join(&second).await?;
    first.register(&json!({"Name": "web", "Port": 1})).await?;
    second.register(&json!({"Name": "web", "Port": 2})).await?;
    let mut settings = config(first.http_addr());
    settings.datacenters = vec!["dc1".into(), "dc2".into()];
    let source = Running::synced(settings).await;
    let port = |dc: &str| {
        let world = source.world();
        world.only(dc).map(|instance| instance.ports[0].number)
    };
    assert_eq!((port("dc1/web"), port("dc2/web")), (Some(1), Some(2)));
    assert_eq!(source.world().snapshots, [Evidence::Complete]);
    second.register(&json!({"Name": "db", "Port": 3})).await?;
    source
        .until("a service of the other datacenter", |world| {
            world.count("dc2/db") == Some(1)
        })
        .await;

    second.kill()?;
    eventually(Duration::from_secs(60), "the loss is told", async || {
        let detail = source.health.borrow().detail.clone();
        detail.contains("; dc2: ").then_some(()).ok_or(detail)
    })
    .await;
    first.register(&json!({"Name": "web", "Port": 4})).await?;
    source
        .until("the other datacenter is still followed", |world| {
            world
                .only("dc1/web")
                .is_some_and(|i| i.ports[0].number == 4)
        })
        .await;
    assert!(source.world().removed.is_empty());
    assert_eq!(source.health.borrow().phase, Phase::Live);

    second.restart().await?;
    first.join(&second).await?;
    source
        .within(Duration::from_secs(60), "it is back", |world| {
            world.snapshots == [Evidence::Complete, Evidence::Complete]
        })
        .await;
    assert_eq!(source.world().services.len(), 3);
    assert_eq!(source.health.borrow().epoch, 1, "in the same connection");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_knows_several_datacenters_tells_its_own() -> Result<()> {
    let first = Consul::start().await?;
    let second = Consul::builder().datacenter("dc2").start().await?;
    first.join(&second).await?;
    second.register(&json!({"Name": "web", "Port": 2})).await?;
    let source = Running::synced(config(second.http_addr())).await;
    let world = source.world();
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["dc2/web"]);
    Ok(())
}
