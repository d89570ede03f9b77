//! What other bridges from Eureka get wrong: E1 to E5 (eureka2istio), H4 and H5 (Higress), M1 to M17 (slime's
//! meshregistry), as the table in `docs/eureka.md` names them, each with a test that they would fail.

mod common;
#[path = "common/written.rs"]
mod written;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{Diolkos, SOON};
use diolkos_testkit::{Eureka, Fault, HttpFault, On, Reply, eureka::instance, eventually};
use serde_json::{Value, json};
use written::{Bridge, GUARD};

const APPS: &str = "/eureka/apps";
const DELTA: &str = "/eureka/apps/delta";

/// A Eureka, the proxy before it, and what is made of it.
struct World {
    server: Eureka,
    proxy: HttpFault,
    bridge: Bridge,
}

impl World {
    /// With these instances.
    async fn start(instances: &[Value]) -> Result<Self> {
        let server = Eureka::start().await?;
        for record in instances {
            register(&server, record).await?;
        }
        let proxy = HttpFault::start(&server.origin()).await?;
        Self::of(server, proxy).await
    }

    async fn of(server: Eureka, proxy: HttpFault) -> Result<Self> {
        let path = server.url().replace(&server.origin(), "");
        let spec = format!(
            "eureka: {{addresses: ['{}{path}'], pollInterval: 500ms, settleTime: 1s}}, \
             export: {{endpoints: Inline}}, {GUARD}",
            proxy.url()
        );
        let bridge = Bridge::start_registry("eureka", &spec, tempfile::tempdir()?).await?;
        bridge.until_live().await;
        Ok(Self {
            server,
            proxy,
            bridge,
        })
    }

    /// Waits until the service entry of a host satisfies `look`.
    async fn until(&self, host: &str, look: impl Fn(&Value) -> bool) -> Value {
        eventually(SOON, host, async || {
            let entry = entry(&self.bridge, host)?;
            ensure!(look(&entry), "{entry}");
            self.bridge.live(1).await?;
            Ok(entry)
        })
        .await
    }

    /// Waits until there were so many more polls.
    async fn polls(&self, more: usize) {
        let polls = || {
            self.proxy
                .count(|r| r.path.ends_with("/delta") && r.told.is_some())
        };
        let before = polls();
        eventually(3 * SOON, "polls", async || {
            let now = polls() - before;
            ensure!(now >= more, "{now}");
            Ok(())
        })
        .await;
    }

    /// Fails if anything is written in so many polls.
    async fn rests(&self, polls: usize) -> Result<()> {
        let (files, writes) = (self.bridge.files()?, self.bridge.writes().await?);
        self.polls(polls).await;
        let now = self.bridge.files()?;
        ensure!(now == files, "{files:#?} have become {now:#?}");
        ensure!(
            self.bridge.writes().await? == writes,
            "something was written"
        );
        Ok(())
    }
}

async fn register(server: &Eureka, record: &Value) -> Result<()> {
    let app = record["app"].as_str().context("an application")?;
    server.register(app, record).await
}

/// An instance of `orders`.
fn order(last: u8) -> Value {
    instance("orders", &format!("10.0.0.{last}"), 8080)
}

fn id(last: u8) -> String {
    format!("10.0.0.{last}:orders:8080")
}

fn on(path: &'static str) -> On {
    On::reads().test(move |_, asked| asked == path)
}

fn json_reply(body: &Value) -> Fault {
    let reply = Reply::status(200).header("content-type", "application/json");
    Fault::Reply(reply.body(body.to_string()))
}

/// Everything, once the server's cache has these counts.
async fn listed(server: &Eureka, counts: &str) -> Value {
    eventually(SOON, counts, async || {
        let answer = server.get("/apps").await?;
        let found = &answer["applications"]["apps__hashcode"];
        ensure!(found == counts, "{answer}");
        Ok(answer)
    })
    .await
}

/// The instances of the only application in an answer.
fn instances(answer: &mut Value) -> Result<&mut Vec<Value>> {
    let found = &mut answer["applications"]["application"][0]["instance"];
    found.as_array_mut().context("no instances")
}

/// The only service entry of a host.
fn entry(bridge: &Bridge, host: &str) -> Result<Value> {
    let files = bridge.files()?;
    let parse = |(_, text): &(_, String)| Ok(serde_saphyr::from_str(text)?);
    let mut entries: Vec<Value> = files.values().map(parse).collect::<Result<_>>()?;
    entries.retain(|entry| entry["spec"]["hosts"][0] == host);
    ensure!(entries.len() == 1, "{host}: {entries:?}");
    entries.pop().context("no entry")
}

fn addresses(entry: &Value) -> Vec<&str> {
    let all = entry["spec"]["endpoints"].as_array().into_iter().flatten();
    all.filter_map(|e| e["address"].as_str()).collect()
}

/// It wrote every application every 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_renewals_and_polls_write_nothing() -> Result<()> {
    let world = World::start(&[order(1), order(2)]).await?;
    for _ in 0..3 {
        world.server.renew("ORDERS", &id(1)).await?;
        // The same again, as clients do now and then.
        register(&world.server, &order(2)).await?;
        world.rests(3).await?;
    }
    Ok(())
}

/// They took instances whatever their status was, kept upper case in hosts, and lost an application for one instance
/// with a host name; path and scheme were fixed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_h4_status_case_names_and_path() -> Result<()> {
    let server = Eureka::builder().context_path("/registry").start().await?;
    let statuses = ["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "UNKNOWN"];
    for (last, status) in (1..).zip(statuses) {
        let mut record = order(last);
        record["status"] = json!(status);
        register(&server, &record).await?;
    }
    let named = instance("orders", "orders-6.internal", 8080);
    register(&server, &named).await?;
    let proxy = HttpFault::start(&server.origin()).await?;
    let world = World::of(server, proxy).await?;
    let found = world.until("orders.eureka", |_| true).await;
    assert_eq!(addresses(&found), ["10.0.0.1"]);
    let reasons = world.bridge.diolkos.reasons("orders.eureka").await?;
    assert!(reasons.iter().any(|r| r == "AddressNotIp"), "{reasons:?}");
    assert_eq!(
        reasons.iter().filter(|r| *r == "Unhealthy").count(),
        4,
        "{reasons:?}"
    );
    Ok(())
}

/// It dropped the application for one malformed instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e3_a_malformed_instance_costs_itself() -> Result<()> {
    let server = Eureka::start().await?;
    for last in 1..=2 {
        register(&server, &order(last)).await?;
    }
    let mut answer = listed(&server, "UP_2_").await;
    let mut odd = order(3);
    odd["port"] = json!("eighty");
    odd["ipAddr"] = json!(["10.0.0.3"]);
    instances(&mut answer)?.extend([json!(7), json!({}), json!("x"), odd]);
    let proxy = HttpFault::start(&server.origin()).await?;
    proxy.rule(on(APPS), json_reply(&answer));
    let world = World::of(server, proxy).await?;
    let found = world
        .until("orders.eureka", |e| addresses(e).len() >= 2)
        .await;
    let there = addresses(&found);
    assert!(
        there.contains(&"10.0.0.1") && there.contains(&"10.0.0.2"),
        "{found}"
    );
    Ok(())
}

/// Two Eurekas had one name, and each erased what came from the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e4_two_eurekas_with_the_same_application() -> Result<()> {
    let (east, west) = tokio::try_join!(Eureka::start(), Eureka::start())?;
    register(&east, &order(1)).await?;
    register(&west, &order(2)).await?;
    let document = |name: &str, server: &Eureka| {
        format!(
            "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: {name}}}, spec: {{\
              eureka: {{addresses: ['{}'], pollInterval: 500ms}}, \
              export: {{endpoints: Inline, host: '{{service}}.{{registry}}.eureka'}}, {GUARD}}}}}",
            server.url()
        )
    };
    let documents = [document("east", &east), document("west", &west)].join("\n---\n");
    let out = tempfile::tempdir()?;
    let target = format!("directory:{}", out.path().display());
    let diolkos = Diolkos::run(&documents, &["--to", &target]).await?;
    let all = || -> Result<String> {
        let mut text = String::new();
        for file in std::fs::read_dir(out.path())? {
            text += &std::fs::read_to_string(file?.path())?;
        }
        Ok(text)
    };
    let whole = |text: &str| {
        let wanted = [
            "orders.east.eureka",
            "10.0.0.1",
            "orders.west.eureka",
            "10.0.0.2",
        ];
        wanted.iter().all(|part| text.contains(part))
    };
    eventually(SOON, "both are there", async || {
        let text = all()?;
        ensure!(whole(&text), "{text}");
        diolkos.synced("east").await?;
        diolkos.synced("west").await
    })
    .await;
    let before = all()?;
    // What changes in one is followed, and costs the other nothing.
    register(&west, &order(3)).await?;
    eventually(SOON, "the change", async || {
        let text = all()?;
        ensure!(whole(&text) && text.contains("10.0.0.3"), "{text}");
        Ok(())
    })
    .await;
    assert_ne!(all()?, before);
    Ok(())
}

/// It registered itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e5_m4_nothing_is_written_to_eureka_and_what_is_gone_is_gone() -> Result<()> {
    let world = World::start(&[order(1), instance("stock", "10.0.0.9", 80)]).await?;
    world.server.deregister("ORDERS", &id(1)).await?;
    eventually(SOON, "the application is gone", async || {
        ensure!(!world.bridge.has_host("orders.eureka")?, "it is there");
        world.bridge.live(1).await
    })
    .await;
    // M4: deleted services were announced again with every poll.
    world.rests(6).await?;
    // M16: a number of services that only grew.
    assert_eq!(world.bridge.status().await?["services"], 1);
    assert_eq!(
        world.proxy.count(diolkos_testkit::fault::Logged::is_write),
        0
    );
    let all = world.server.get("/apps").await?;
    assert_eq!(all["applications"]["apps__hashcode"], "UP_1_", "{all}");
    Ok(())
}

/// Versions were times, so that a clock that was set back hid changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m13_a_clock_that_is_set_back_hides_nothing() -> Result<()> {
    let server = Eureka::start().await?;
    for last in 1..=2 {
        register(&server, &order(last)).await?;
    }
    let mut answer = listed(&server, "UP_2_").await;
    // What is read first is of a time that comes in an hour.
    for record in instances(&mut answer)? {
        for field in ["lastUpdatedTimestamp", "lastDirtyTimestamp"] {
            let at: u64 = record[field].as_str().context("a time")?.parse()?;
            record[field] = json!((at + 3_600_000).to_string());
        }
    }
    let proxy = HttpFault::start(&server.origin()).await?;
    let later = proxy.rule(on(APPS), json_reply(&answer));
    let world = World::of(server, proxy).await?;
    later.end();
    world
        .server
        .set_status("ORDERS", &id(2), "OUT_OF_SERVICE")
        .await?;
    let found = world
        .until("orders.eureka", |e| addresses(e).len() == 1)
        .await;
    assert_eq!(addresses(&found), ["10.0.0.1"]);
    Ok(())
}

/// The default target port was any of them, and another order of the same instances was a change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m14_m17_ports_and_order_are_fixed() -> Result<()> {
    let mut records = [1, 2, 3].map(order);
    for record in &mut records {
        record["securePort"] = json!({"$": 8443, "@enabled": "true"});
        record["metadata"] = json!({"gRPC_port": "9090"});
    }
    // Two on one address.
    let mut twin = records[0].clone();
    twin["instanceId"] = json!("twin");
    twin["port"] = json!({"$": 8081, "@enabled": "true"});
    twin["securePort"] = json!({"$": 8444, "@enabled": "true"});
    twin["metadata"] = json!({"gRPC_port": "9091"});
    let world = World::start(&[records.as_slice(), &[twin]].concat()).await?;
    let found = world
        .until("orders.eureka", |e| addresses(e).len() == 4)
        .await;
    let endpoints = found["spec"]["endpoints"].as_array().context("endpoints")?;
    for endpoint in endpoints {
        // Each of the six ports of the service leads to the one of its kind.
        let twin = u16::from(endpoint["ports"]["http-8081"] == 8081);
        let kinds = [("http", 8080), ("https", 8443), ("grpc", 9090)];
        let own = kinds.map(|(kind, number)| (kind, number + twin));
        let names = kinds
            .iter()
            .flat_map(|(kind, n)| [(kind, *n), (kind, n + 1)]);
        let ports = names.map(|(kind, number)| {
            let own = own.iter().find(|(k, _)| k == kind).map(|(_, n)| *n);
            (format!("{kind}-{number}"), json!(own))
        });
        let ports: serde_json::Map<String, Value> = ports.collect();
        assert_eq!(endpoint["ports"], json!(ports), "{endpoint}");
    }
    let mut turned = listed(&world.server, "UP_4_").await;
    instances(&mut turned)?.reverse();
    // Counts that do not fit make it read everything.
    let mut changes = turned.clone();
    changes["applications"]["application"] = json!([]);
    changes["applications"]["apps__hashcode"] = json!("UP_999_");
    world.proxy.rule(on(APPS), json_reply(&turned));
    world.proxy.rule(on(DELTA), json_reply(&changes));
    let read = world.proxy.count(|r| r.path == APPS);
    world.rests(4).await?;
    let read = world.proxy.count(|r| r.path == APPS) - read;
    assert!(read >= 1, "the other order was not read");
    Ok(())
}

/// A poll took up to 30 s and a request for each service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m15_a_poll_is_one_request() -> Result<()> {
    let apps: Vec<Value> = (0..30)
        .map(|n| instance(&format!("app{n}"), "10.0.1.1", 80))
        .collect();
    let world = World::start(&apps).await?;
    let all = || world.proxy.count(|_| true);
    let (before, at) = (all(), tokio::time::Instant::now());
    world.polls(6).await;
    let (asked, took) = (all() - before, at.elapsed());
    let most = took.as_millis() / Duration::from_millis(500).as_millis() + 2;
    assert!(asked as u128 <= most, "{asked} requests in {took:?}");
    Ok(())
}
