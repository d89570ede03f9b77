//! Netflix' own clients → Eureka → Diolkos → Kubernetes → istiod.
//!
//! The servers and the clients take longest to start, so one test has them all and goes through its steps.

#![allow(clippy::print_stderr)] // how long it took, for whoever runs it

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/hosts.rs"]
mod hosts;

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, NAMESPACE};
use common::Diolkos;
use diolkos_testkit::{Eureka, EurekaClient, Istiod, eureka::Registration, eventually};
use serde_json::{Value, json};

/// For what needs other programs to do something. They share two processors with each other.
const SOON: Duration = Duration::from_secs(60);
/// How old Eureka's answers may be.
const CACHE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(500);
/// The promise: a change that Eureka answers with is in the mesh in this time.
const FOLLOWS: Duration = Duration::from_secs(2);
/// How soon a client tells Eureka of its metadata.
const TELLS: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(3);
const EVICTION: Duration = Duration::from_secs(1);
const HOST: &str = "orders.eureka";

struct Mesh {
    eureka: Eureka,
    istiod: Istiod,
    diolkos: Diolkos,
    cluster: Cluster,
}

impl Mesh {
    async fn start() -> Result<Self> {
        let eureka = Eureka::builder().response_cache(CACHE).eviction(EVICTION);
        let (cluster, eureka) = tokio::try_join!(Cluster::start(), eureka.start())?;
        let istiod = Istiod::start(&cluster.kubernetes).await?;
        let document = format!(
            "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: eureka}}, spec: {{\
              eureka: {{addresses: ['{}'], region: r1, pollInterval: {}ms, settleTime: 10s}}, \
              guard: {{emptyHold: 1s, confirmAfter: 2, emptyGrace: 0s}}}}}}",
            eureka.url(),
            POLL.as_millis()
        );
        Ok(Self {
            eureka,
            istiod,
            diolkos: cluster.run(&document).await?,
            cluster,
        })
    }

    fn client(&self, app: &str, last: u8) -> Registration {
        EurekaClient::of(&[self.eureka.url()], app)
            .ip(Ipv4Addr::new(10, 0, 0, last))
            .lease(LEASE)
    }

    async fn hosts(&self) -> Result<Value> {
        hosts::hosts(&self.cluster.kubernetes, NAMESPACE).await
    }

    /// Waits until the host is so in the mesh, and returns how long that took.
    async fn until(&self, limit: Duration, what: &str, host: &str, expected: &Value) -> Duration {
        let began = Instant::now();
        eventually(limit, what, async || {
            let found = self.hosts().await?[host].take();
            ensure!(found == *expected, "{found:#}");
            Ok(())
        })
        .await;
        began.elapsed()
    }

    /// Waits until istiod has these endpoints of a host: `ADDRESS:PORT VERSION`.
    async fn until_istiod(&self, host: &str, expected: &[&str]) {
        eventually(SOON, &format!("istiod's {host}"), async || {
            let found = self.istiod.endpoints(host).await?;
            let mut found: Vec<String> = found
                .iter()
                .map(|e| {
                    let version = e.labels.get("version").map_or("", String::as_str);
                    format!("{}:{} {version}", e.addresses[0], e.endpoint_port)
                })
                .collect();
            found.sort();
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .await;
    }
}

/// The two instances of `orders`, as far as they are there.
fn orders(first: Option<Value>, second: Option<Value>) -> Value {
    let mut endpoints = serde_json::Map::new();
    for (address, endpoint) in [("10.0.0.1", first), ("10.0.0.2", second)] {
        if let Some(endpoint) = endpoint {
            endpoints.insert(address.to_owned(), endpoint);
        }
    }
    json!({"ports": ["http-8080 8080 HTTP", "https-8443 8443 HTTPS"], "endpoints": endpoints})
}

fn endpoint(zone: &str, version: &str) -> Value {
    json!({
        "labels": {"team": "shop", "version": version, "zone": zone},
        "locality": format!("r1/{zone}"),
        "ports": {"http-8080": 8080, "https-8443": 8443},
    })
}

/// What clients do, and what becomes of it, with the time from what they say to the objects.
struct Followed<'a> {
    mesh: &'a Mesh,
    slowest: Duration,
}

impl Followed<'_> {
    /// Makes a change, and waits for `orders` to be so in the cache's time, one poll, the promise, and `more`.
    async fn change(
        &mut self,
        (what, more): (&str, Duration),
        expected: &Value,
        change: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<()> {
        change().await.context(what.to_owned())?;
        let limit = CACHE + POLL + FOLLOWS + more;
        let took = self.mesh.until(limit, what, HOST, expected).await;
        eprintln!("{what}: in the mesh after {took:.1?}");
        self.slowest = self.slowest.max(took.saturating_sub(more));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_eureka_clients_register_is_in_the_mesh_as_they_mean_it() -> Result<()> {
    let mesh = Mesh::start().await?;
    let order = |last, zone, version| {
        mesh.client("orders", last)
            .secure_port(8443)
            .vip("shop")
            .metadata("zone", zone)
            .metadata("version", version)
            .metadata("team", "shop")
            .metadata("user.password", "secret")
    };
    let (first, second, stock) = tokio::try_join!(
        order(1, "z1", "v1").start(),
        order(2, "z2", "v2").start(),
        mesh.client("Stock_API", 3)
            .secure_port(9443)
            .only_secure()
            .start(),
    )?;
    let both = orders(Some(endpoint("z1", "v1")), Some(endpoint("z2", "v2")));
    mesh.until(SOON, "both clients", HOST, &both).await;
    mesh.until_istiod(
        HOST,
        &[
            "10.0.0.1:8080 v1",
            "10.0.0.1:8443 v1",
            "10.0.0.2:8080 v2",
            "10.0.0.2:8443 v2",
        ],
    )
    .await;
    the_names_are_right(&mesh).await?;

    statuses(&mesh, &second, &both).await?;
    registrations(&mesh, &first, &second).await?;
    a_server_that_forgets_all(&mesh).await?;

    // The last instance takes its host with it.
    stock.stop().await?;
    let gone = Value::Null;
    mesh.until(SOON, "the last instance", "stock-api.eureka", &gone)
        .await;
    mesh.diolkos.synced("eureka").await
}

/// `Stock_API` has a host that clients can ask for, and the virtual address is one of `orders`.
async fn the_names_are_right(mesh: &Mesh) -> Result<()> {
    let stock = json!({
        "ports": ["https-9443 9443 HTTPS"],
        "endpoints": {"10.0.0.3": {"ports": {"https-9443": 9443}, "locality": "r1", "labels": {}}},
    });
    mesh.until(SOON, "a secure port only", "stock-api.eureka", &stock)
        .await;
    let hosts = mesh.cluster.hosts().await?;
    let expected = ["orders.eureka", "shop.eureka", "stock-api.eureka"];
    assert!(hosts.iter().eq(expected), "{hosts:?}");
    mesh.until_istiod(
        "shop.eureka",
        &[
            "10.0.0.1:8080 v1",
            "10.0.0.1:8443 v1",
            "10.0.0.2:8080 v2",
            "10.0.0.2:8443 v2",
        ],
    )
    .await;
    let secret = mesh.hosts().await?.to_string().contains("secret");
    assert!(!secret, "a password is in the mesh");
    Ok(())
}

async fn statuses(mesh: &Mesh, second: &EurekaClient, both: &Value) -> Result<()> {
    let one = orders(Some(endpoint("z1", "v1")), None);
    let mut followed = Followed {
        mesh,
        slowest: Duration::ZERO,
    };
    for status in ["DOWN", "STARTING"] {
        let what = (status, Duration::ZERO);
        followed
            .change(what, &one, async || second.set_status(status).await)
            .await?;
        let what = ("UP", Duration::ZERO);
        followed
            .change(what, both, async || second.set_status("UP").await)
            .await?;
    }
    // Eureka takes no OUT_OF_SERVICE from a client that is UP: it is what operators say.
    let id = "10.0.0.2:orders:8080";
    let what = ("OUT_OF_SERVICE", Duration::ZERO);
    followed
        .change(what, &one, async || {
            mesh.eureka.set_status("ORDERS", id, "OUT_OF_SERVICE").await
        })
        .await?;
    mesh.until_istiod(HOST, &["10.0.0.1:8080 v1", "10.0.0.1:8443 v1"])
        .await;
    let reasons = mesh.diolkos.reasons(HOST).await?;
    assert!(
        reasons.iter().any(|r| r.contains("Unhealthy")),
        "{reasons:?}"
    );
    let what = ("in service again", Duration::ZERO);
    followed
        .change(what, both, async || {
            mesh.eureka.remove_status("ORDERS", id).await
        })
        .await?;
    eprintln!(
        "statuses: at most {:.1?}; a cache of {CACHE:?} and polls every {POLL:?} are {:.1?} of it",
        followed.slowest,
        CACHE + POLL
    );
    Ok(())
}

async fn registrations(mesh: &Mesh, first: &EurekaClient, second: &EurekaClient) -> Result<()> {
    let mut followed = Followed {
        mesh,
        slowest: Duration::ZERO,
    };
    let third = orders(Some(endpoint("z1", "v3")), Some(endpoint("z2", "v2")));
    followed
        .change(("metadata", TELLS), &third, async || {
            first.set_metadata("version", "v3").await
        })
        .await?;
    mesh.until_istiod(
        HOST,
        &[
            "10.0.0.1:8080 v3",
            "10.0.0.1:8443 v3",
            "10.0.0.2:8080 v2",
            "10.0.0.2:8443 v2",
        ],
    )
    .await;
    let one = orders(Some(endpoint("z1", "v3")), None);
    let what = ("deregistered", Duration::ZERO);
    followed
        .change(what, &one, async || second.stop().await)
        .await?;
    let what = ("registered", Duration::ZERO);
    followed
        .change(what, &third, async || second.restart().await)
        .await?;
    let what = ("killed", LEASE + EVICTION);
    followed.change(what, &one, async || second.kill()).await?;
    mesh.until_istiod(HOST, &["10.0.0.1:8080 v3", "10.0.0.1:8443 v3"])
        .await;
    Ok(())
}

/// The server is killed and forgets everything. Its clients come back with their next renewals, and nothing is written.
async fn a_server_that_forgets_all(mesh: &Mesh) -> Result<()> {
    let before = mesh.cluster.versions().await?;
    mesh.eureka.restart().await?;
    eventually(SOON, "its clients have come back", async || {
        let all = mesh.eureka.get("/apps").await?;
        ensure!(all["applications"]["apps__hashcode"] == "UP_2_", "{all}");
        Ok(())
    })
    .await;
    eventually(SOON, "the registry is followed again", async || {
        let registries = mesh.diolkos.get("/api/v1/registries").await?;
        let eureka = &registries[0];
        ensure!(eureka["phase"] == "Live", "{eureka}");
        ensure!(eureka["epoch"].as_u64() > Some(1), "{eureka}");
        let (status, reason, message) = mesh.diolkos.condition("eureka", "Complete").await?;
        ensure!(status == "True", "{reason}: {message}");
        mesh.diolkos.synced("eureka").await
    })
    .await;
    assert_eq!(mesh.cluster.versions().await?, before);
    Ok(())
}
