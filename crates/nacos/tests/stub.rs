//! The client against a server made of answers: faults, and versions, that no real server here can show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use diolkos_nacos::{
    Auth, Client, Config, Connection, Error, Host, Meter, Name, Push, Pushes, ServiceInfo,
};
use diolkos_testkit::{
    eventually,
    nacos_stub::{self, NacosStub, Version},
};
use tokio::time::{Instant, timeout};

/// What a server is bound to have said by now.
const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Counted {
    asked: AtomicUsize,
    answered: AtomicUsize,
}

impl Meter for Counted {
    fn asked(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
    }

    fn answered(&self) {
        self.answered.fetch_add(1, Ordering::SeqCst);
    }
}

fn settings(stub: &NacosStub) -> Config {
    Config {
        addresses: vec![stub.url()],
        grpc_offset: stub.grpc_offset(),
        auth: None,
        tls: Default::default(),
    }
}

fn client(stub: &NacosStub) -> Result<Client> {
    Ok(Client::new(settings(stub), Arc::new(Counted::default()))?)
}

async fn connect(stub: &NacosStub) -> Result<(Connection, Pushes)> {
    Ok(client(stub)?.connect(0, "public").await?)
}

fn name(service: &str) -> Name {
    Name {
        group: "DEFAULT_GROUP".into(),
        service: service.into(),
    }
}

/// An instance on the host of that number.
fn host(number: u8) -> nacos_stub::Host {
    nacos_stub::Host::new(&format!("10.0.0.{number}"), 8080)
}

async fn next(pushes: &mut Pushes) -> Result<Push> {
    Ok(timeout(SOON, pushes.next()).await.context("no push")??)
}

/// The next push of a service.
async fn next_service(pushes: &mut Pushes) -> Result<ServiceInfo> {
    loop {
        if let Push::Service(info) = next(pushes).await? {
            return Ok(info);
        }
    }
}

/// How the pushes end.
async fn end(mut pushes: Pushes) -> Result<Error> {
    let ends = async {
        loop {
            if let Err(error) = pushes.next().await {
                return error;
            }
        }
    };
    timeout(SOON, ends).await.context("they do not end")
}

fn ips(hosts: &[Host]) -> Vec<&str> {
    hosts.iter().map(|host| &*host.ip).collect()
}

/// All that the server asked was answered, in its order.
async fn all_is_acknowledged(stub: &NacosStub) {
    eventually(SOON, "all is acknowledged", async || {
        let (pushed, acknowledged) = (stub.pushed(), stub.acknowledged());
        ensure!(pushed == acknowledged, "{pushed:?} {acknowledged:?}");
        Ok(())
    })
    .await;
}

/// What both 2.2.4 and 3.0.3 do.
async fn a_session(version: Version) -> Result<()> {
    let stub = NacosStub::start(version).await?;
    let (connection, mut pushes) = connect(&stub).await?;
    assert_eq!(connection.has_fuzzy_watch(), version == Version::V3);
    if version == Version::V3 {
        connection.fuzzy_watch().await?;
    }
    let orders = name("orders");
    let empty = connection.subscribe(&orders).await?;
    assert_eq!((&empty.name, ips(&empty.hosts)), (&orders, vec![]));

    stub.put("orders", &[host(1)]);
    if version == Version::V3 {
        assert_eq!(next(&mut pushes).await?, Push::Added(orders.clone()));
    }
    let one = next_service(&mut pushes).await?;
    assert_eq!((&one.name, ips(&one.hosts)), (&orders, vec!["10.0.0.1"]));
    assert!(one.last_ref_time > empty.last_ref_time && !one.protected);
    let mut other = host(2);
    (other.weight, other.cluster) = (0.5, "HZ".into());
    other.metadata.insert("version".into(), "1.0".into());
    stub.put("orders", &[host(1), other]);
    let both = next_service(&mut pushes).await?;
    let found = both.hosts.iter().find(|host| host.ip == "10.0.0.2");
    let expected = Host {
        ip: "10.0.0.2".into(),
        port: 8080,
        weight: 0.5,
        healthy: true,
        enabled: true,
        ephemeral: true,
        cluster: "HZ".into(),
        metadata: [("version".to_owned(), "1.0".to_owned())].into(),
    };
    assert_eq!(found, Some(&expected));
    assert_eq!(connection.query(&orders).await?.hosts, both.hosts);
    let list = connection.list("DEFAULT_GROUP", 1, 10).await?;
    assert_eq!((list.total, &*list.items), (1, &["orders".into()][..]));

    stub.remove("orders");
    if version == Version::V3 {
        assert_eq!(next(&mut pushes).await?, Push::Deleted(orders.clone()));
    }
    assert!(next_service(&mut pushes).await?.hosts.is_empty());
    connection.unsubscribe(&orders).await?;
    assert!(stub.subscribed().is_empty());
    all_is_acknowledged(&stub).await;
    assert_eq!(stub.connections(), 1);
    Ok(())
}

#[tokio::test]
async fn a_session_with_nacos_2() -> Result<()> {
    a_session(Version::V2).await
}

#[tokio::test]
async fn a_session_with_nacos_3() -> Result<()> {
    a_session(Version::V3).await
}

/// The names that there are when a fuzzy watch begins come in several messages.
#[tokio::test]
async fn a_fuzzy_watch_names_what_there_is() -> Result<()> {
    let stub = NacosStub::start(Version::V3).await?;
    for number in 0..25 {
        stub.put(&format!("G{}@@service-{number}", number % 2), &[]);
    }
    let (connection, mut pushes) = connect(&stub).await?;
    connection.fuzzy_watch().await?;
    let mut names = std::collections::BTreeSet::new();
    while names.len() < 25 {
        match next(&mut pushes).await? {
            Push::Added(name) => names.insert(name),
            other => bail!("{other:?}"),
        };
    }
    assert!(
        names
            .iter()
            .any(|n| &*n.group == "G1" && &*n.service == "service-7")
    );
    // The message that these are all is no push of its own.
    let last = tokio::spawn(async move { pushes.next().await });
    all_is_acknowledged(&stub).await;
    assert!(!last.is_finished());
    Ok(())
}

/// A push that comes twice is acknowledged twice: the server asked twice.
#[tokio::test]
async fn repeated_pushes_are_acknowledged() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    let (connection, mut pushes) = connect(&stub).await?;
    connection.subscribe(&name("orders")).await?;
    stub.faults(|faults| faults.repeat_pushes = 2);
    stub.put("orders", &[host(1)]);
    for _ in 0..3 {
        let info = next_service(&mut pushes).await?;
        assert_eq!(ips(&info.hosts), ["10.0.0.1"]);
    }
    eventually(SOON, "each is acknowledged", async || {
        let acknowledged = stub.acknowledged();
        ensure!(acknowledged == ["1", "1", "1"], "{acknowledged:?}");
        Ok(())
    })
    .await;
    stub.detect_clients();
    stub.faults(|faults| faults.repeat_pushes = 0);
    stub.put("orders", &[]);
    assert!(next_service(&mut pushes).await?.hosts.is_empty());
    eventually(SOON, "and the question whether we are there", async || {
        let kinds = stub.asked();
        kinds.iter().any(|a| a.kind == "ClientDetectionResponse")
    })
    .await;
    Ok(())
}

/// What ends a connection.
async fn ends(version: Version, how: impl FnOnce(&NacosStub)) -> Result<()> {
    let stub = NacosStub::start(version).await?;
    let (connection, pushes) = connect(&stub).await?;
    connection.subscribe(&name("orders")).await?;
    how(&stub);
    let error = end(pushes).await?;
    ensure!(matches!(error, Error::Transport(_)), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_connection_that_is_sent_away_ends() -> Result<()> {
    ends(Version::V2, NacosStub::reset_connections).await
}

#[tokio::test]
async fn a_connection_without_its_stream_ends() -> Result<()> {
    ends(Version::V3, NacosStub::close_streams).await
}

#[tokio::test]
async fn a_connection_that_breaks_ends() -> Result<()> {
    ends(Version::V2, NacosStub::cut).await
}

/// A server that is alive for TCP, but does not answer.
#[tokio::test]
async fn a_connection_whose_server_does_not_answer_ends() -> Result<()> {
    ends(Version::V2, |stub| {
        stub.faults(|faults| faults.silence("HealthCheckRequest"));
    })
    .await
}

/// A connection that never gets ready is given up; one that gets ready late is taken.
#[tokio::test]
async fn a_set_up_that_is_late_or_never_ends() -> Result<()> {
    for version in [Version::V2, Version::V3] {
        let stub = NacosStub::start(version).await?;
        stub.faults(|faults| faults.late_setup = Duration::from_millis(700));
        let (connection, _pushes) = connect(&stub).await?;
        connection.subscribe(&name("orders")).await?;
        stub.faults(|faults| faults.silence("ConnectionSetupRequest"));
        let begun = Instant::now();
        let never = timeout(SOON, connect(&stub)).await.context("for ever")?;
        ensure!(never.is_err(), "{version:?}: connected without a set-up");
        ensure!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
    Ok(())
}

/// Nacos 1 has no gRPC port.
#[tokio::test]
async fn nacos_1_has_http_alone() -> Result<()> {
    let stub = NacosStub::start(Version::V1).await?;
    let client = client(&stub)?;
    match client.connect(0, "public").await {
        Err(Error::Transport(_) | Error::Unsupported(_)) => Ok(()),
        other => bail!(
            "{:?}",
            other.map(|(connection, _)| connection.server().to_owned())
        ),
    }
}

/// Lists and instances over HTTP; with Nacos 3 by their new paths.
async fn http(version: Version) -> Result<()> {
    let stub = NacosStub::start(version).await?;
    stub.put("orders", &[host(1), host(2).unhealthy()]);
    stub.put("G2@@other", &[]);
    let http = client(&stub)?.http(0);
    let list = http.list("public", "DEFAULT_GROUP", 1, 10).await?;
    assert_eq!((list.total, &*list.items), (1, &["orders".into()][..]));
    let page = http.catalog("public", 2, 1).await?;
    assert_eq!((page.total, page.items.len()), (2, 1));
    let orders = name("orders");
    let info = http.instances("public", &orders).await?;
    assert_eq!((&info.name, info.protected), (&orders, false));
    assert_eq!(ips(&info.hosts), ["10.0.0.1", "10.0.0.2"]);
    assert!(info.hosts[0].healthy && !info.hosts[1].healthy);

    stub.protect("orders", true);
    let info = http.instances("public", &orders).await?;
    assert!(info.hosts.iter().all(|host| host.healthy));
    assert!(info.protected);
    let truth = http.true_instances("public", &orders).await?;
    let healthy: Vec<bool> = truth.iter().map(|host| host.healthy).collect();
    assert_eq!(
        (ips(&truth), healthy),
        (vec!["10.0.0.1", "10.0.0.2"], vec![true, false])
    );
    Ok(())
}

#[tokio::test]
async fn http_of_nacos_1() -> Result<()> {
    http(Version::V1).await
}

#[tokio::test]
async fn http_of_nacos_2() -> Result<()> {
    http(Version::V2).await
}

#[tokio::test]
async fn http_of_nacos_3() -> Result<()> {
    http(Version::V3).await
}

/// M1: an error is an error, and never an empty list.
#[tokio::test]
async fn m1_an_error_is_no_empty_answer() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    stub.put("orders", &[host(1)]);
    let client = client(&stub)?;
    let (connection, _pushes) = client.connect(0, "public").await?;
    let http = client.http(0);
    stub.faults(|faults| {
        faults.refuse("orders", 500);
        faults.refused_lists = Some(500);
    });
    let orders = name("orders");
    let errors = [
        connection.list("DEFAULT_GROUP", 1, 10).await.err(),
        connection.subscribe(&orders).await.err(),
        connection.query(&orders).await.err(),
        http.list("public", "DEFAULT_GROUP", 1, 10).await.err(),
        http.catalog("public", 1, 10).await.err(),
        http.instances("public", &orders).await.err(),
        http.true_instances("public", &orders).await.err(),
    ];
    for (number, error) in errors.into_iter().enumerate() {
        let refused = matches!(error, Some(Error::Refused(_)));
        ensure!(refused, "request {number}: {error:?}");
    }
    // Others have an answer.
    connection.query(&name("other")).await?;
    Ok(())
}

/// A token is renewed when the server does not take it any more, in mid-session, for gRPC and for HTTP.
#[tokio::test]
async fn tokens_are_renewed() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    stub.require_login("reader", "secret");
    stub.put("orders", &[host(1)]);
    let password = tempfile::NamedTempFile::new()?;
    std::fs::write(password.path(), "secret\n")?;
    let auth = Auth::Password {
        username: "reader".into(),
        password_file: password.path().to_owned(),
    };
    let settings = Config {
        auth: Some(auth),
        ..settings(&stub)
    };
    let client = Client::new(settings, Arc::new(Counted::default()))?;
    let (connection, mut pushes) = client.connect(0, "public").await?;
    connection.subscribe(&name("orders")).await?;
    let logins = stub.logins();
    assert!(logins >= 1);

    stub.expire_tokens();
    let info = connection.query(&name("orders")).await?;
    assert_eq!(ips(&info.hosts), ["10.0.0.1"]);
    assert_eq!(stub.logins(), logins + 1);
    stub.expire_tokens();
    let http = client.http(0);
    let list = http.list("public", "DEFAULT_GROUP", 1, 10).await?;
    assert_eq!(list.total, 1);
    assert_eq!(stub.logins(), logins + 2);
    // The subscription is as it was.
    stub.put("orders", &[host(2)]);
    assert_eq!(ips(&next_service(&mut pushes).await?.hosts), ["10.0.0.2"]);

    // The access is taken away altogether.
    stub.require_login("somebody else", "secret");
    for denied in [
        connection.query(&name("orders")).await.err(),
        http.instances("public", &name("orders")).await.err(),
    ] {
        ensure!(matches!(denied, Some(Error::Denied(_))), "{denied:?}");
    }
    // The password is never told.
    let said = format!("{:?}", connection.query(&name("orders")).await);
    assert!(!said.contains("secret"), "{said}");
    Ok(())
}

/// Whoever is not let in at all learns that, and not that there is nothing.
#[tokio::test]
async fn who_has_no_token_is_denied() -> Result<()> {
    let stub = NacosStub::start(Version::V3).await?;
    stub.require_login("reader", "secret");
    let client = client(&stub)?;
    let denied = match client.connect(0, "public").await {
        Err(error) => error,
        Ok((connection, _pushes)) => {
            let listed = connection.list("DEFAULT_GROUP", 1, 10).await;
            listed.err().context("a list")?
        }
    };
    ensure!(matches!(denied, Error::Denied(_)), "{denied:?}");
    Ok(())
}

/// All that is asked and answered counts, and a question without an answer does not count as answered.
#[tokio::test]
async fn questions_and_answers_are_counted() -> Result<()> {
    let stub = NacosStub::start(Version::V2).await?;
    let counted = Arc::new(Counted::default());
    let client = Client::new(settings(&stub), counted.clone())?;
    let (connection, _pushes) = client.connect(0, "public").await?;
    let before = counted.asked.load(Ordering::SeqCst);
    connection.query(&name("orders")).await?;
    assert_eq!(counted.asked.load(Ordering::SeqCst), before + 1);
    let answered = counted.answered.load(Ordering::SeqCst);
    assert!(answered > 0);
    stub.faults(|faults| faults.silence("ServiceQueryRequest"));
    let silence = connection.query(&name("orders")).await;
    ensure!(silence.is_err(), "{silence:?}");
    // Health checks may have come between.
    assert!(counted.asked.load(Ordering::SeqCst) >= before + 2);
    Ok(())
}
