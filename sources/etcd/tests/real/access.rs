//! Users, permissions and TLS.

use std::path::Path;

use anyhow::Result;
use diolkos_net::TlsConfig;
use diolkos_source_api::{Evidence, Phase};
use diolkos_source_etcd::{Config, User};
use diolkos_testkit::Etcd;

use crate::support::{Running, config, instance, provider};

fn as_reader(etcd: &Etcd, password_file: &Path) -> Config {
    let mut settings = config(etcd.endpoints());
    settings.user = Some(User {
        name: "reader".to_owned(),
        password_file: password_file.to_owned(),
    });
    settings
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_a_new_one_is_read_from_its_file() -> Result<()> {
    let etcd = Etcd::builder().auth().start().await?;
    let prefixes = ["/dubbo/", "/services/"];
    etcd.add_reader("reader", "first", &prefixes).await?;
    etcd.put(&provider("a.B", 1), "").await?;
    let anonymous = Running::start(config(etcd.endpoints()));
    let why = anonymous.phase(Phase::Denied).await;
    assert!(why.contains("set `auth`"), "{why}");

    let dir = tempfile::tempdir()?;
    let file = dir.path().join("password");
    std::fs::write(&file, "wrong\n")?;
    let source = Running::start(as_reader(&etcd, &file));
    let why = source.phase(Phase::Denied).await;
    assert!(
        why.contains("user `reader`") && why.contains("password"),
        "{why}"
    );
    assert!(!why.contains("wrong"), "{why}");
    std::fs::write(&file, "first\n")?;
    source.shows("the right password", &[("a.B", 1)]).await;

    // A new password ends the tokens of the old one.
    source.phase(Phase::Live).await;
    let epoch = source.health.borrow().epoch;
    std::fs::write(&file, "second\n")?;
    etcd.change_password("reader", "second").await?;
    source
        .until("connected anew", |_| source.health.borrow().epoch > epoch)
        .await;
    etcd.put(&provider("a.B", 2), "").await?;
    source
        .shows("followed with the new password", &[("a.B", 2)])
        .await;
    assert!(source.world().removed.is_empty() && source.world().missing.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_right_that_is_taken_away_removes_nothing() -> Result<()> {
    let etcd = Etcd::builder().auth().start().await?;
    let prefixes = ["/dubbo/", "/services/"];
    etcd.add_reader("reader", "secret", &prefixes).await?;
    let (key, record) = instance("app", 1);
    etcd.put(&provider("a.B", 1), "").await?;
    etcd.put(&key, &record).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("password");
    std::fs::write(&file, "secret")?;
    let source = Running::synced(as_reader(&etcd, &file)).await;
    assert_eq!(source.world().snapshots, [Evidence::Complete]);

    etcd.forbid("reader", "/services/").await?;
    source
        .until("a partial snapshot", |world| {
            let last = world.snapshots.last();
            last.and_then(Evidence::doubt)
                .is_some_and(|why| why.contains("/services/"))
        })
        .await;
    etcd.delete(&key).await?;
    etcd.delete(&provider("a.B", 1)).await?;
    etcd.put(&provider("a.New", 1), "").await?;
    // What it may read is followed, and not taken for all there is.
    let partly = [("a.B", 1), ("a.New", 1), ("app", 1)];
    source.shows("the rest is followed", &partly).await;
    assert!(
        source
            .world()
            .evidence
            .as_ref()
            .is_some_and(|e| !e.is_complete())
    );
    etcd.allow("reader", "/services/").await?;
    source.shows("all of it again", &[("a.New", 1)]).await;
    assert!(source.world().removed.is_empty());

    etcd.forbid("reader", "/dubbo/").await?;
    let why = source.phase(Phase::Denied).await;
    assert!(
        why.contains("may not read /dubbo/") && why.contains("grant-permission"),
        "{why}"
    );
    source.shows("nothing is removed", &[("a.New", 1)]).await;
    etcd.allow("reader", "/dubbo/").await?;
    source.phase(Phase::Live).await;
    Ok(())
}

#[tokio::test]
async fn a_user_is_of_no_need_where_everybody_may_read() -> Result<()> {
    let etcd = Etcd::start().await?;
    etcd.put(&provider("a.B", 1), "").await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("password");
    std::fs::write(&file, "secret")?;
    let source = Running::synced(as_reader(&etcd, &file)).await;
    source.shows("read without the user", &[("a.B", 1)]).await;
    Ok(())
}

#[tokio::test]
async fn tls_with_a_certificate_that_names_the_user() -> Result<()> {
    let etcd = Etcd::builder().tls().auth().start().await?;
    let prefixes = ["/dubbo/", "/services/"];
    etcd.add_reader("client", "unused", &prefixes).await?;
    etcd.put(&provider("a.B", 1), "").await?;
    let files = etcd.tls().expect("it was asked for").clone();
    let known = TlsConfig {
        ca_file: Some(files.ca.clone()),
        cert_file: Some(files.cert.clone()),
        key_file: Some(files.key.clone()),
        server_name: Some("etcd.test".to_owned()),
    };
    let with = |tls: TlsConfig| Config {
        tls,
        ..config(etcd.endpoints())
    };
    let source = Running::synced(with(known.clone())).await;
    source
        .shows("read with the certificate", &[("a.B", 1)])
        .await;

    let without_certificate = TlsConfig {
        cert_file: None,
        key_file: None,
        ..known.clone()
    };
    let unknown_authority = TlsConfig {
        ca_file: Some(files.cert.clone()),
        ..known.clone()
    };
    let other_name = TlsConfig {
        server_name: Some("other.test".to_owned()),
        ..known.clone()
    };
    for tls in [without_certificate, unknown_authority, other_name] {
        let refused = Running::start(with(tls));
        let why = refused.phase(Phase::Unreachable).await;
        assert!(why.to_lowercase().contains("certificate"), "{why}");
        assert!(refused.world().snapshots.is_empty());
    }
    let missing = TlsConfig {
        ca_file: Some(files.ca.with_extension("none")),
        ..known
    };
    let why = Running::start(with(missing))
        .phase(Phase::Misconfigured)
        .await;
    assert!(why.contains("ca.none"), "{why}");
    Ok(())
}
