//! The client against real servers.
//!
//! A server takes ten seconds to start, so that many cases share one; each has a namespace of its own.

mod users;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use diolkos_nacos::{Client, Config, Connection, Error, Meter, Name, Push, Pushes, ServiceInfo};
use diolkos_testkit::{Nacos, NacosClient, NacosInstance, eventually, netns};
use futures::future::try_join_all;
use tokio::time::{Instant, timeout};

/// What a server is bound to have said by now.
const SOON: Duration = Duration::from_secs(20);
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
