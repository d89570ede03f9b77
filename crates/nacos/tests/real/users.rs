//! Servers that know their users, and speak TLS.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use diolkos_nacos::{Auth, Client, Config, Error};
use diolkos_testkit::{Nacos, eventually, nacos, netns};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::time::Instant;

use crate::{Counted, GROUP, client, instance, name, pushed, settings};

/// What a server is bound to have said by now where it hashes passwords: a second of a
/// processor for each login.
const LATER: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(8);

/// Asks until there is an answer: a server on a busy machine may take longer than a request waits.
async fn patient<T>(ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let end = Instant::now() + LATER;
    loop {
        match ask().await {
            Err(Error::Transport(_)) if Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            other => return other,
        }
    }
}

#[test]
fn a_server_with_users_and_tls() -> Result<()> {
    netns::isolated(async {
        let files = tempfile::tempdir()?;
        let tls = Certificates::make(files.path())?;
        let server = Nacos::builder()
            .auth()
            .token_life(LIFE)
            .property("nacos.remote.server.rpc.tls.enableTls", "true")
            // Plain connections are taken, too.
            .property("nacos.remote.server.rpc.tls.compatibility", "true")
            .property(
                "nacos.remote.server.rpc.tls.certChainFile",
                &format!("file:{}", tls.cert.display()),
            )
            .property(
                "nacos.remote.server.rpc.tls.certPrivateKey",
                &format!("file:{}", tls.key.display()),
            )
            .start()
            .await?;
        let password = files.path().join("password");
        fs::write(&password, format!("{}\n", nacos::PASSWORD))?;
        let known = client(Config {
            auth: user(nacos::USER, &password),
            ..settings(server.http_url())
        })?;
        // A server that has just started knows nobody for some seconds.
        let list = async || known.http(0).list("", GROUP, 1, 10).await;
        eventually(LATER, "the server knows its users", list).await;
        // One after the other: logins cost the server much.
        who_is_let_in(&server, &password).await?;
        grpc_over_tls(&server, &tls).await?;
        tokio::try_join!(
            rights_are_not_tokens(&server, &password),
            tokens_are_renewed(&server, &password),
        )?;
        Ok(())
    })
}

fn user(name: &str, file: &Path) -> Option<Auth> {
    Some(Auth::Password {
        username: name.into(),
        password_file: file.into(),
    })
}

async fn who_is_let_in(server: &Nacos, password: &Path) -> Result<()> {
    let wrong = password.with_file_name("wrong");
    fs::write(&wrong, "guessed")?;
    let known = |auth| Config {
        auth,
        ..settings(server.http_url())
    };
    for (auth, told) in [
        (None, "set `auth`".to_owned()),
        (
            user(nacos::USER, &wrong),
            format!("`nacos` in {}", wrong.display()),
        ),
        (
            user("nobody", &wrong),
            format!("`nobody` in {}", wrong.display()),
        ),
    ] {
        let knows_nobody = auth.is_none();
        let client = client(known(auth))?;
        let (connection, _pushes) = patient(async || client.connect(0, "").await).await?;
        let http = client.http(0);
        let orders = name(GROUP, "orders");
        let mut denied = vec![
            patient(async || connection.list(GROUP, 1, 10).await)
                .await
                .err(),
            patient(async || http.list("", GROUP, 1, 10).await)
                .await
                .err(),
        ];
        if knows_nobody {
            denied.extend([
                patient(async || connection.subscribe(&orders).await)
                    .await
                    .err(),
                patient(async || connection.config("mapping", "a").await)
                    .await
                    .err(),
                patient(async || http.instances("", &orders).await)
                    .await
                    .err(),
            ]);
        }
        for error in denied {
            let Some(Error::Denied(said)) = error else {
                bail!("{error:?}")
            };
            ensure!(
                said.contains(&told) && said.contains(&server.http_url()),
                "{said}"
            );
            ensure!(!said.contains("guessed"), "{said}");
        }
    }
    Ok(())
}

/// Who may not read a namespace has no use for another token, and does not ask for one each time.
async fn rights_are_not_tokens(server: &Nacos, password: &Path) -> Result<()> {
    let own = password.with_file_name("reader");
    fs::write(&own, "reads")?;
    server.add_reader("reader", "reads", &["allowed"]).await?;
    let config = Config {
        auth: user("reader", &own),
        ..settings(server.http_url())
    };
    let counted = Arc::new(Counted::default());
    let client = Client::new(config, counted.clone())?;
    let (allowed, _pushes) = patient(async || client.connect(0, "allowed").await).await?;
    let list = async || allowed.list(GROUP, 1, 10).await;
    eventually(LATER, "the server knows the rights", list).await;
    let (denied, _pushes) = patient(async || client.connect(0, "other").await).await?;
    let http = client.http(0);
    let before = counted.asked.load(Ordering::SeqCst);
    for _ in 0..10 {
        let both = [
            patient(async || denied.list(GROUP, 1, 10).await)
                .await
                .err(),
            patient(async || http.list("other", GROUP, 1, 10).await)
                .await
                .err(),
        ];
        for error in both {
            let Some(Error::Denied(said)) = error else {
                bail!("{error:?}")
            };
            ensure!(
                said.contains("`reader`") && said.contains("may not"),
                "{said}"
            );
        }
    }
    let asked = counted.asked.load(Ordering::SeqCst) - before;
    ensure!(asked < 20 + 6, "{asked} requests for 20");
    patient(list).await?;
    Ok(())
}

/// The server forgets tokens after [`LIFE`]; nobody notices.
async fn tokens_are_renewed(server: &Nacos, password: &Path) -> Result<()> {
    let config = Config {
        auth: user(nacos::USER, password),
        ..settings(server.http_url())
    };
    let counted = Arc::new(Counted::default());
    let client = Client::new(config, counted.clone())?;
    let writer = server.client().await?;
    let (connection, mut pushes) = patient(async || client.connect(0, "renewed").await).await?;
    let http = client.http(0);
    let orders = name(GROUP, "orders");
    patient(async || connection.subscribe(&orders).await).await?;
    let end = Instant::now() + LIFE * 3 / 2;
    let mut asked = 0;
    while Instant::now() < end {
        patient(async || connection.query(&orders).await).await?;
        patient(async || http.list("renewed", GROUP, 1, 10).await).await?;
        asked += 2;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Logins and health checks are few beside what was asked, and hardly anything is asked twice.
    let total = counted.asked.load(Ordering::SeqCst);
    ensure!(total < asked * 3 / 2 + 15, "{total} requests for {asked}");
    assert!(counted.answered.load(Ordering::SeqCst) >= asked);
    writer
        .put("renewed", GROUP, "orders", &[instance(1)])
        .await?;
    pushed(&mut pushes, "orders", &["10.0.0.1"]).await?;
    Ok(())
}

async fn grpc_over_tls(server: &Nacos, tls: &Certificates) -> Result<()> {
    let secure = |ca: &Path, server_name: Option<&str>| {
        let mut config = settings(server.http_url().replace("http://", "https://"));
        config.tls.ca_file = Some(ca.into());
        config.tls.server_name = server_name.map(Into::into);
        client(config)
    };
    for server_name in [None, Some("nacos.test")] {
        let client = secure(&tls.ca, server_name)?;
        let (connection, _pushes) = patient(async || client.connect(0, "tls").await).await?;
        let denied = patient(async || connection.list(GROUP, 1, 10).await).await;
        ensure!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
    }
    for (ca, server_name) in [(&tls.ca, Some("other.test")), (&tls.other_ca, None)] {
        let error = secure(ca, server_name)?.connect(0, "tls").await.err();
        let Some(Error::Transport(said)) = error else {
            bail!("{error:?}")
        };
        ensure!(said.contains("certificate"), "{said}");
    }
    Ok(())
}

/// For a server on 127.0.0.1, which is called `nacos.test`, too.
struct Certificates {
    ca: PathBuf,
    /// Of an authority that has signed nothing.
    other_ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn make(folder: &Path) -> Result<Self> {
        let file = |name: &str, pem: String| {
            let path = folder.join(name);
            fs::write(&path, pem).map(|()| path)
        };
        let authority = || {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate()?;
            let pem = params.self_signed(&key)?.pem();
            anyhow::Ok((pem, Issuer::new(params, key)))
        };
        let (ca, issuer) = authority()?;
        let key = KeyPair::generate()?;
        let names = ["127.0.0.1", "nacos.test"].map(str::to_owned);
        let cert = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        Ok(Self {
            ca: file("ca.pem", ca)?,
            other_ca: file("other-ca.pem", authority()?.0)?,
            cert: file("server.pem", cert.pem())?,
            key: file("server.key", key.serialize_pem())?,
        })
    }
}
