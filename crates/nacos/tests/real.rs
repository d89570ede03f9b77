//! The client against real servers.
//!
//! A server takes ten seconds to start, so that many cases share one; each has a namespace of its own.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use diolkos_nacos::{
    Auth, Client, Config, Connection, Error, Meter, Name, Push, Pushes, ServiceInfo,
};
use diolkos_testkit::{Nacos, NacosClient, NacosInstance, eventually, nacos, netns};
use futures::future::try_join_all;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::time::{Instant, timeout};

/// What a server is bound to have said by now.
const SOON: Duration = Duration::from_secs(20);
/// As [`SOON`], where the server hashes passwords: a second of a processor for each login.
const LATER: Duration = Duration::from_secs(60);
const GROUP: &str = "DEFAULT_GROUP";

#[derive(Debug, Default)]
struct Counted {
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Meter for Counted {
    fn asked(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
    }

    fn answered(&self) {
        self.answered.fetch_add(1, Ordering::SeqCst);
    }
}

fn settings(address: String) -> Config {
    Config {
        addresses: vec![address],
        grpc_offset: 1000,
        auth: None,
        tls: Default::default(),
    }
}

fn client(config: Config) -> Result<Client> {
    Ok(Client::new(config, Arc::new(Counted::default()))?)
}

fn name(group: &str, service: &str) -> Name {
    Name {
        group: group.into(),
        service: service.into(),
    }
}

fn instance(number: u8) -> NacosInstance {
    NacosInstance::new(&format!("10.0.0.{number}"), 8080)
}

async fn next(pushes: &mut Pushes) -> Result<ServiceInfo> {
    match timeout(SOON, pushes.next()).await.context("no push")?? {
        Push::Service(service) => Ok(service),
        other => bail!("{other:?}"),
    }
}

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

/// The addresses of a service's hosts.
fn ips(service: &ServiceInfo) -> BTreeSet<&str> {
    service.hosts.iter().map(|host| &*host.ip).collect()
}

/// The push after which the service has these hosts. Those before it may be of changes in between.
async fn pushed(pushes: &mut Pushes, service: &str, expected: &[&str]) -> Result<ServiceInfo> {
    let expected: BTreeSet<_> = expected.iter().copied().collect();
    loop {
        let push = next(pushes).await?;
        if &*push.name.service == service && ips(&push) == expected {
            return Ok(push);
        }
    }
}

/// What all cases share.
struct Bed {
    server: Nacos,
    writer: NacosClient,
    client: Client,
}

impl Bed {
    async fn connect(&self, namespace: &str) -> Result<(Connection, Pushes)> {
        Ok(self.client.connect(0, namespace).await?)
    }
}

#[test]
fn a_server_without_users() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::start().await?;
        let bed = Bed {
            writer: server.client().await?,
            client: client(settings(server.http_url()))?,
            server,
        };
        tokio::try_join!(
            services_are_followed(&bed),
            pushes_come_in_order(&bed),
            lists_are_paged(&bed),
            health_and_protection(&bed),
            configurations(&bed),
        )?;
        a_server_that_goes(&bed).await
    })
}

async fn services_are_followed(bed: &Bed) -> Result<()> {
    let space = "followed";
    let (connection, mut pushes) = bed.connect(space).await?;
    assert!(!connection.has_fuzzy_watch());
    let watch = connection.fuzzy_watch().await;
    assert!(matches!(watch, Err(Error::Unsupported(_))), "{watch:?}");
    let [orders, other] = [name(GROUP, "orders"), name("G2", "other")];

    // What does not exist can be subscribed.
    let empty = connection.subscribe(&orders).await?;
    assert_eq!((&empty.name, empty.hosts.len()), (&orders, 0));
    assert_eq!(connection.list(GROUP, 1, 10).await?.total, 0);
    let both = [
        instance(1).weight(2.5).metadata("version", "1"),
        instance(2).cluster("HZ"),
    ];
    bed.writer.put(space, GROUP, "orders", &both).await?;
    let push = pushed(&mut pushes, "orders", &["10.0.0.1", "10.0.0.2"]).await?;
    assert_eq!(push.name, orders);
    assert!(push.last_ref_time > empty.last_ref_time);
    let mut hosts = push.hosts.clone();
    hosts.sort_by(|a, b| a.ip.cmp(&b.ip));
    assert_eq!((hosts[0].weight, &*hosts[1].cluster), (2.5, "HZ"));
    assert_eq!(hosts[0].metadata["version"], "1");
    assert!(
        hosts
            .iter()
            .all(|host| host.healthy && host.enabled && host.ephemeral)
    );
    assert_eq!(ips(&connection.query(&orders).await?), ips(&push));
    let http = bed.client.http(0);
    assert_eq!(ips(&http.instances(space, &orders).await?), ips(&push));

    // After the end of a subscription there is no push any more; another service shows that.
    connection.subscribe(&other).await?;
    connection.unsubscribe(&orders).await?;
    bed.writer.delete(space, GROUP, "orders").await?;
    bed.writer.put(space, "G2", "other", &[instance(3)]).await?;
    loop {
        let push = next(&mut pushes).await?;
        ensure!(push.name == other, "still subscribed: {push:?}");
        if ips(&push) == BTreeSet::from(["10.0.0.3"]) {
            break;
        }
    }
    bed.writer.delete(space, "G2", "other").await?;
    pushed(&mut pushes, "other", &[]).await?;
    Ok(())
}

async fn pushes_come_in_order(bed: &Bed) -> Result<()> {
    const LAST: u32 = 30;
    let space = "order";
    let (connection, mut pushes) = bed.connect(space).await?;
    connection.subscribe(&name(GROUP, "orders")).await?;
    let write = async {
        for number in 1..=LAST {
            let instance = instance(1).metadata("number", &number.to_string());
            bed.writer.put(space, GROUP, "orders", &[instance]).await?;
            // Pushes of half a second are joined to one.
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
        anyhow::Ok(())
    };
    let read = async {
        let (mut number, mut time, mut count) = (0, 0, 0);
        while number < LAST {
            let push = next(&mut pushes).await?;
            ensure!(push.last_ref_time >= time, "back in time");
            time = push.last_ref_time;
            let now = push.hosts.first().map_or(0, |host| {
                host.metadata["number"].parse().unwrap_or_default()
            });
            ensure!(now >= number, "{now} after {number}");
            (number, count) = (now, count + 1);
        }
        Ok(count)
    };
    let ((), count) = tokio::try_join!(write, read)?;
    ensure!(count > 1, "only one push");
    Ok(())
}

async fn lists_are_paged(bed: &Bed) -> Result<()> {
    const SERVICES: usize = 600;
    let space = "lists";
    let names: Vec<String> = (0..SERVICES).map(|n| format!("service-{n}")).collect();
    let one = [instance(1)];
    let services: Vec<_> = names
        .iter()
        .map(|name| (space, GROUP, &**name, &one[..]))
        .collect();
    bed.writer.put_all(&services).await?;
    bed.writer.put(space, "G2", "other", &one).await?;
    bed.server.create_service(space, "G3", "empty", 0.0).await?;
    let (connection, _pushes) = bed.connect(space).await?;
    let http = bed.client.http(0);
    let all: BTreeSet<Arc<str>> = names.iter().map(|name| (&**name).into()).collect();
    for size in [250, 10_000] {
        let (mut by_grpc, mut by_http) = (BTreeSet::new(), BTreeSet::new());
        for page in 1..=3 {
            let list = connection.list(GROUP, page, size).await?;
            assert_eq!(list.total, SERVICES);
            by_grpc.extend(list.items);
            let list = http.list(space, GROUP, page, size).await?;
            assert_eq!(list.total, SERVICES);
            by_http.extend(list.items);
        }
        assert_eq!((&by_grpc, &by_http), (&all, &all), "pages of {size}");
    }
    let none = connection.list("no such group", 1, 10).await?;
    assert_eq!((none.total, none.items.len()), (0, 0));

    let mut catalog = BTreeSet::new();
    for page in 1..=3 {
        let part = http.catalog(space, page, 250).await?;
        assert_eq!(part.total, SERVICES + 2);
        catalog.extend(part.items);
    }
    assert_eq!(catalog.len(), SERVICES + 2);
    assert!(catalog.contains(&name("G2", "other")) && catalog.contains(&name("G3", "empty")));

    // Many at once.
    let subscribed = names
        .iter()
        .map(async |service| connection.subscribe(&name(GROUP, service)).await);
    for service in try_join_all(subscribed).await? {
        assert_eq!(service.hosts.len(), 1);
    }
    Ok(())
}

/// What servers say of instances that are disabled or not healthy.
async fn health_and_protection(bed: &Bed) -> Result<()> {
    let space = "health";
    let orders = name(GROUP, "orders");
    let (connection, mut pushes) = bed.connect(space).await?;
    let http = bed.client.http(0);
    let none = http.true_instances(space, &orders).await?;
    assert!(none.is_empty());
    connection.subscribe(&orders).await?;
    bed.server
        .create_service(space, GROUP, "orders", 0.4)
        .await?;
    for cluster in ["DEFAULT", "HZ"] {
        bed.server
            .without_checks(space, GROUP, "orders", cluster)
            .await?;
    }
    let [good, bad] = [instance(1), instance(2).unhealthy()];
    let disabled = instance(3).cluster("HZ").disabled();
    for instance in [&good, &bad, &disabled] {
        bed.server
            .register(space, GROUP, "orders", instance)
            .await?;
    }
    // Who is disabled is not told to clients; who is not healthy is.
    let push = pushed(&mut pushes, "orders", &["10.0.0.1", "10.0.0.2"]).await?;
    let healthy: Vec<_> = push.hosts.iter().filter(|host| host.healthy).collect();
    assert_eq!((healthy.len(), push.protected), (1, false));
    assert_eq!(healthy[0].ip, "10.0.0.1");
    let worse = good.clone().unhealthy();
    bed.server.register(space, GROUP, "orders", &worse).await?;
    // None is healthy: the server calls all of them healthy, and says so.
    let protected = loop {
        let push = next(&mut pushes).await?;
        if push.protected {
            break push;
        }
    };
    let queried = connection.query(&orders).await?;
    let by_http = http.instances(space, &orders).await?;
    for service in [&protected, &queried, &by_http] {
        assert!(service.protected);
        assert_eq!(ips(service), BTreeSet::from(["10.0.0.1", "10.0.0.2"]));
        assert!(
            service
                .hosts
                .iter()
                .all(|host| host.healthy && host.enabled)
        );
    }
    eventually(SOON, "the truth", async || {
        let mut truth = http.true_instances(space, &orders).await?;
        truth.sort_by(|a, b| a.ip.cmp(&b.ip));
        let truth: Vec<_> = truth
            .iter()
            .map(|h| (&*h.ip, h.healthy, h.enabled))
            .collect();
        let expected = [
            ("10.0.0.1", false, true),
            ("10.0.0.2", false, true),
            ("10.0.0.3", true, false),
        ];
        ensure!(truth == expected, "{truth:?}");
        Ok(())
    })
    .await;
    Ok(())
}

async fn configurations(bed: &Bed) -> Result<()> {
    for space in ["", "configs"] {
        let (connection, _pushes) = bed.connect(space).await?;
        let http = bed.client.http(0);
        for (id, content) in [
            ("org.a.One", "app-1,app-2"),
            ("org.a.Two", "app-3"),
            ("org.b", "ü"),
        ] {
            bed.server
                .publish_config(space, "mapping", id, content)
                .await?;
        }
        bed.server
            .publish_config(space, "other", "org.a.Other", "x")
            .await?;
        let read = async |id| connection.config("mapping", id).await;
        eventually(SOON, "the server has read what was written", async || {
            let one = read("org.a.One").await?;
            ensure!(one.as_deref() == Some("app-1,app-2"), "{one:?}");
            let umlaut = read("org.b").await?;
            ensure!(umlaut.as_deref() == Some("ü"), "{umlaut:?}");
            Ok(())
        })
        .await;
        assert_eq!(read("org.a.None").await?, None);
        for (pattern, ids) in [
            ("*", &["org.a.One", "org.a.Two", "org.b"][..]),
            ("org.a.*", &["org.a.One", "org.a.Two"]),
            ("org.b", &["org.b"]),
            ("none*", &[]),
        ] {
            let page = http.configs(space, "mapping", pattern, 1, 100).await?;
            let found: BTreeSet<_> = page.items.iter().map(|item| &*item.data_id).collect();
            assert_eq!(found, ids.iter().copied().collect(), "{pattern}");
            assert_eq!(page.total, ids.len());
        }
        let second = http.configs(space, "mapping", "*", 2, 2).await?;
        assert_eq!((second.total, second.items.len()), (3, 1));
    }
    Ok(())
}

/// How the pushes end, and how long that takes.
async fn end(mut pushes: Pushes) -> Result<(Error, Duration)> {
    let begun = Instant::now();
    let ends = async {
        loop {
            if let Err(error) = pushes.next().await {
                return error;
            }
        }
    };
    let error = timeout(SOON, ends).await.context("they do not end")?;
    Ok((error, begun.elapsed()))
}

async fn a_server_that_goes(bed: &Bed) -> Result<()> {
    let orders = name(GROUP, "orders");
    let (connection, pushes) = bed.connect("goes").await?;
    connection.subscribe(&orders).await?;
    bed.server.kill()?;
    let (error, after) = end(pushes).await?;
    ensure!(matches!(error, Error::Transport(_)), "{error:?}");
    ensure!(after < Duration::from_secs(2), "{after:?}");
    let asked = connection.query(&orders).await;
    ensure!(matches!(asked, Err(Error::Transport(_))), "{asked:?}");
    let refused = bed.client.connect(0, "goes").await.err();
    ensure!(matches!(refused, Some(Error::Transport(_))), "{refused:?}");

    // While it starts there are no answers, and none is taken for "nothing".
    bed.server.start_again()?;
    let (connection, _pushes) = loop {
        match bed.client.connect(0, "goes").await {
            Ok(connected) => break connected,
            Err(Error::Transport(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(other) => bail!("{other:?}"),
        }
    };
    connection.subscribe(&orders).await?;
    Ok(())
}

const LIFE: Duration = Duration::from_secs(8);

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
