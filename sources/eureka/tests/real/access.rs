//! Users, TLS, paths.

use anyhow::{Context, Result};
use diolkos_source_api::{Evidence, Phase};
use diolkos_source_eureka::{TlsConfig, User};
use diolkos_testkit::{Eureka, Fault, HttpFault, On, Reply, eureka::instance};

use crate::support::{Running, config};

#[tokio::test]
async fn a_user_with_the_right_password() -> Result<()> {
    let eureka = Eureka::builder().user("reader", "secret").start().await?;
    eureka
        .register("PAY", &instance("pay", "10.0.0.1", 80))
        .await?;
    let anonymous = Running::start(config(&[eureka.url()]));
    anonymous.says(Phase::Denied, "no user is configured").await;

    let dir = tempfile::tempdir()?;
    let file = dir.path().join("password");
    let mut settings = config(&[eureka.url()]);
    settings.user = Some(User {
        name: "reader".to_owned(),
        password_file: file.clone(),
    });
    let source = Running::start(settings);
    let name = file.display().to_string();
    source.says(Phase::Misconfigured, &name).await;
    std::fs::write(&file, "wrong\n")?;
    source.says(Phase::Denied, &name).await;
    assert!(!source.health.borrow().detail.contains("wrong"));
    std::fs::write(&file, "secret\n")?;
    source
        .until("the right password works", |world| {
            world.snapshots == [Evidence::Complete] && world.count("pay") == Some(1)
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn tls_with_a_client_certificate() -> Result<()> {
    let eureka = Eureka::builder().tls().start().await?;
    eureka
        .register("PAY", &instance("pay", "10.0.0.1", 80))
        .await?;
    let files = eureka.tls().context("the files")?;
    let mut settings = config(&[eureka.url()]);
    settings.tls = TlsConfig {
        ca_file: Some(files.ca.clone()),
        cert_file: Some(files.cert.clone()),
        key_file: Some(files.key.clone()),
        server_name: None,
    };
    let source = Running::synced(settings.clone()).await;
    source
        .until("the instance", |world| world.count("pay") == Some(1))
        .await;

    let mut no_certificate = settings.clone();
    no_certificate.tls.cert_file = None;
    no_certificate.tls.key_file = None;
    let mut unknown_authority = settings;
    unknown_authority.tls.ca_file = None;
    for (settings, problem) in [
        (no_certificate, "client certificate"),
        (unknown_authority, "UnknownIssuer"),
    ] {
        let source = Running::start(settings);
        source.says(Phase::Unreachable, problem).await;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_eureka_is_told_so() -> Result<()> {
    // All that is asked is answered by the proxy; nothing is behind it.
    let proxy = HttpFault::start("http://127.0.0.1:9").await?;
    let page = Reply::status(200).header("content-type", "text/html");
    let json = Reply::status(200).header("content-type", "application/json");
    for (reply, phase, detail) in [
        (Reply::status(404), Phase::Misconfigured, "usually /eureka"),
        (Reply::status(403), Phase::Denied, "just started"),
        (Reply::status(302), Phase::Unreachable, "302"),
        (Reply::status(503).body("busy"), Phase::Unreachable, "busy"),
        (
            page.body("<html>Login</html>"),
            Phase::Unreachable,
            "wants a login",
        ),
        (
            json.body("{\"status\":\"UP\"}"),
            Phase::Unreachable,
            "applications",
        ),
    ] {
        proxy.clear();
        proxy.rule(On::every(), Fault::Reply(reply));
        let source = Running::start(config(&[format!("{}/eureka", proxy.url())]));
        source.says(phase, detail).await;
        assert_eq!(source.world().started, 0, "an error is not an answer");
    }
    Ok(())
}
