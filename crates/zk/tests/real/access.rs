use std::{io::Write as _, path::PathBuf, time::Duration};

use anyhow::Result;
use diolkos_net::TlsConfig;
use diolkos_testkit::{ZooKeeper, install_crypto};
use diolkos_zk::{Digest, Error, Session};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{attempt, config, connected};

fn digest(user: &str, file: &tempfile::NamedTempFile) -> Option<Digest> {
    Some(Digest {
        username: user.to_owned(),
        password_file: file.path().to_owned(),
    })
}

#[tokio::test]
async fn with_a_user_and_without() -> Result<()> {
    let server = ZooKeeper::start().await?;
    let writer = server.writer().await?;
    writer
        .create_guarded("/secret", "data", "reader:password")
        .await?;
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "wrong")?;
    let mut config = config([server.address()]);
    let mut session = Session::default();
    let no_auth = Error::NoAuth {
        path: "/secret".to_owned(),
    };
    for wrong in [None, digest("reader", &file)] {
        config.digest = wrong;
        let first = connected(&config, &mut session).await;
        let data = first.connection.data("/secret", false).await;
        assert_eq!(data, Err(no_auth.clone()));
    }
    // The file is read for each connection, and shown again to each server.
    std::fs::write(file.path(), "password")?;
    for _ in 0..2 {
        let first = connected(&config, &mut session).await;
        assert!(first.resumed);
        assert_eq!(first.connection.data("/secret", false).await?, "data");
    }
    assert!(!format!("{session:?} {config:?}").contains("password\""));

    config.digest = Some(Digest {
        username: "reader".to_owned(),
        password_file: PathBuf::from("missing"),
    });
    let error = attempt(&config, &mut session).await.unwrap_err();
    assert!(
        matches!(&error, Error::Config(text) if text.contains("missing")),
        "{error}"
    );
    Ok(())
}

/// A server that grants a session and then says `reply` to the next request, and nothing more.
async fn server(reply: &'static [u8]) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if greet(&mut stream, reply).await.is_ok() {
                open.push(stream);
            }
        }
    });
    Ok(address.to_string())
}

async fn greet(stream: &mut TcpStream, reply: &[u8]) -> std::io::Result<()> {
    let mut grant = [0; 41];
    grant[3] = 37;
    grant[11] = 200;
    grant[19] = 7;
    grant[23] = 16;
    for answer in [&grant, reply] {
        let length = stream.read_u32().await?;
        let mut request = vec![0; length as usize];
        stream.read_exact(&mut request).await?;
        stream.write_all(answer).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_user_never_hangs() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "password")?;
    // xid −4, zxid 0, error −115 (AuthFailed), as servers without the scheme say it.
    let refusal = b"\0\0\0\x10\xff\xff\xff\xfc\0\0\0\0\0\0\0\0\xff\xff\xff\x8d";
    let mut config = config([server(refusal).await?]);
    config.digest = digest("reader", &file);
    let error = attempt(&config, &mut Session::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::AuthFailed(text) if text.contains("-115")),
        "{error}"
    );
    assert!(error.to_string().contains(&config.servers[0]), "{error}");

    config.servers = vec![server(b"").await?];
    config.connect_timeout = Duration::from_millis(300);
    let error = attempt(&config, &mut Session::default()).await.unwrap_err();
    assert!(matches!(error, Error::Connection(_)), "{error}");
    Ok(())
}

#[tokio::test]
async fn with_tls() -> Result<()> {
    install_crypto();
    let server = ZooKeeper::builder().tls().start().await?;
    let writer = server.writer().await?;
    let files = server.tls().expect("the server has TLS");
    let with = TlsConfig {
        ca_file: Some(files.ca.clone()),
        cert_file: Some(files.cert.clone()),
        key_file: Some(files.key.clone()),
        server_name: None,
    };
    let large = vec![b'x'; 900_000];
    writer.create("/large", &large).await?;
    let mut config = config([server.tls_address()]);
    for name in [None, Some("localhost")] {
        config.tls = Some(TlsConfig {
            server_name: name.map(str::to_owned),
            ..with.clone()
        });
        let first = connected(&config, &mut Session::default()).await;
        assert_eq!(first.connection.data("/large", false).await?, large);
    }
    let refused = [
        TlsConfig {
            server_name: Some("other".to_owned()),
            ..with.clone()
        },
        TlsConfig {
            ca_file: None,
            ..with.clone()
        },
        TlsConfig {
            cert_file: None,
            key_file: None,
            ..with
        },
    ];
    for tls in refused.into_iter().map(Some).chain([None]) {
        config.tls = tls;
        let error = attempt(&config, &mut Session::default()).await.unwrap_err();
        assert!(matches!(error, Error::Connection(_)), "{error}");
        assert!(error.to_string().contains(&config.servers[0]), "{error}");
    }
    Ok(())
}
