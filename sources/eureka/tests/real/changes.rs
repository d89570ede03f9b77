//! What happens in a Eureka, and how it is told.

use std::time::{Duration, Instant};

use anyhow::Result;
use diolkos_model::Health;
use diolkos_source_api::Evidence;
use diolkos_testkit::{Eureka, Fault, HttpFault, On, eureka::instance};
use serde_json::json;

use crate::support::{POLL, Running, config};

const ID: &str = "10.0.0.1:pay:8080";

#[tokio::test]
async fn an_instance_lives_and_goes() -> Result<()> {
    let eureka = Eureka::builder().context_path("/registry").start().await?;
    let source = Running::synced(config(&[eureka.url()])).await;
    assert_eq!(source.world().snapshots, [Evidence::Complete]);
    assert!(source.world().services.is_empty());

    let mut record = instance("pay", "10.0.0.1", 8080);
    record["status"] = json!("STARTING");
    record["securePort"] = json!({"$": 8443, "@enabled": "true"});
    record["metadata"] = json!({
        "zone": "z1", "region": "r1", "version": "1.0", "weight": "5", "team": "shop",
        "user.password": "secret", "gRPC_port": "9090",
    });
    eureka.register("PAY", &record).await?;
    source
        .shows("pay", "a new instance", |i| {
            i.health == Health::Unhealthy("starting".into())
        })
        .await;
    {
        let service = source.service("pay").unwrap();
        let [only] = &*service.instances else {
            panic!("{service:?}");
        };
        let ports: Vec<_> = only.ports.iter().map(|p| (&*p.name, p.number)).collect();
        assert_eq!(ports, [("", 8080), ("secure", 8443), ("grpc", 9090)]);
        assert_eq!(only.version.as_deref(), Some("1.0"));
        assert_eq!((&*only.locality.region, &*only.locality.zone), ("r1", "z1"));
        assert!(
            only.labels
                .iter()
                .any(|(k, v)| (&**k, &**v) == ("team", "shop"))
        );
        assert!(!only.labels.iter().any(|(_, v)| &**v == "secret"));
        assert!(
            service
                .meta
                .iter()
                .any(|(k, v)| (&**k, &**v) == ("vipAddress", "pay"))
        );
    }

    record["status"] = json!("UP");
    eureka.register("PAY", &record).await?;
    source.shows("pay", "up", |i| i.health.is_healthy()).await;
    eureka.set_status("PAY", ID, "OUT_OF_SERVICE").await?;
    let out = Health::Unhealthy("out_of_service".into());
    source
        .shows("pay", "out of service", |i| i.health == out)
        .await;
    eureka.remove_status("PAY", ID).await?;
    source
        .shows("pay", "up again", |i| i.health.is_healthy())
        .await;
    // The counts do not show this.
    eureka.set_metadata("PAY", ID, "version", "2.0").await?;
    let second = |i: &diolkos_model::Instance| i.version.as_deref() == Some("2.0");
    source.shows("pay", "other metadata", second).await;

    let before = source.world().upserts;
    eureka.renew("PAY", ID).await?;
    eureka
        .register("MARKER", &instance("marker", "10.0.0.9", 1))
        .await?;
    source
        .until("a marker", |world| world.count("marker") == Some(1))
        .await;
    assert!(
        source.world().upserts <= before + 2,
        "a renewal is no change"
    );

    eureka.deregister("PAY", ID).await?;
    source
        .until("its last instance", |world| world.removed == ["pay"])
        .await;
    assert_eq!(source.world().snapshots, [Evidence::Complete]);
    assert_eq!(source.health.borrow().epoch, 1);
    Ok(())
}

/// One after the other on one server: each leaves the registry empty.
#[tokio::test]
async fn much_at_once_is_told_as_a_snapshot_and_few_as_removals() -> Result<()> {
    let eureka = Eureka::start().await?;
    let apps: Vec<String> = (0..12).map(|number| format!("app{number}")).collect();
    for app in &apps {
        eureka.register(app, &instance(app, "10.0.0.1", 80)).await?;
    }
    let proxy = HttpFault::start(&eureka.origin()).await?;
    let source = Running::synced(config(&[format!("{}/eureka", proxy.url())])).await;
    assert_eq!(source.world().services.len(), 12);
    eureka.deregister("APP0", "10.0.0.1:app0:80").await?;
    source
        .until("a removal", |world| world.removed == ["app0"])
        .await;

    // The source hears of all at once, as when a broken network's instances are evicted.
    let hold = proxy.rule(On::reads(), Fault::Hang);
    for app in &apps[1..] {
        let id = format!("10.0.0.1:{app}:80");
        eureka.deregister(&app.to_uppercase(), &id).await?;
    }
    let fresh = async || {
        Ok::<_, anyhow::Error>(eureka.get("/apps").await?["applications"]["apps__hashcode"] == "")
    };
    while !fresh().await? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    hold.end();
    source.snapshot("the loss as a whole", true).await;
    let world = source.world();
    assert_eq!(
        (&*world.removed, world.named.len()),
        (&["app0".to_owned()][..], 0)
    );
    Ok(())
}

/// What a server says in XML, through a proxy that plays it back.
#[tokio::test]
async fn xml_is_read_as_json_is() -> Result<()> {
    let eureka = Eureka::start().await?;
    let mut record = instance("pay", "10.0.0.1", 8080);
    record["metadata"] = json!({"a_b": "<&>", "version": "1"});
    eureka.register("PAY", &record).await?;
    let by_json = Running::synced(config(&[eureka.url()])).await;
    by_json
        .until("the instance", |world| world.count("pay") == Some(1))
        .await;

    let proxy = HttpFault::start(&eureka.origin()).await?;
    let play = async || -> Result<()> {
        // Who does not ask for JSON gets XML.
        for path in ["/eureka/apps/delta", "/eureka/apps"] {
            let reply = proxy.record(path).await?;
            assert!(
                format!("{reply:?}").contains("application/xml"),
                "{reply:?}"
            );
            proxy.rule(On::reads().test(move |_, p| p == path), Fault::Reply(reply));
        }
        Ok(())
    };
    play().await?;
    let by_xml = Running::synced(config(&[format!("{}/eureka", proxy.url())])).await;
    assert_eq!(by_xml.world().snapshots, [Evidence::Complete]);
    assert_eq!(by_xml.service("pay"), by_json.service("pay"));

    eureka.deregister("PAY", ID).await?;
    eureka
        .register("CART", &instance("cart", "10.0.0.2", 80))
        .await?;
    by_json
        .until("the change", |world| {
            world.count("cart") == Some(1) && world.removed == ["pay"]
        })
        .await;
    proxy.clear();
    play().await?;
    by_xml
        .until("the change", |world| {
            world.count("cart") == Some(1) && world.removed == ["pay"]
        })
        .await;
    assert_eq!(by_xml.service("cart"), by_json.service("cart"));
    Ok(())
}

/// A poll is one request, and a change is seen within the server's cache time and one poll.
#[tokio::test]
async fn a_poll_is_one_request_and_a_change_is_seen_within_the_cache_and_one_poll() -> Result<()> {
    const CACHE: Duration = Duration::from_millis(1000);
    let eureka = Eureka::builder().response_cache(CACHE).start().await?;
    let proxy = HttpFault::start(&eureka.origin()).await?;
    eureka
        .register("PAY", &instance("pay", "10.0.0.1", 8080))
        .await?;
    let source = Running::start(config(&[format!("{}/eureka", proxy.url())]));
    source
        .until("the instance", |world| world.count("pay") == Some(1))
        .await;
    let full = || proxy.count(|request| request.path == "/eureka/apps");
    let deltas = || proxy.count(|request| request.path == "/eureka/apps/delta");
    let before = (full(), deltas());
    let mut slowest = Duration::ZERO;
    for version in 0..8 {
        let version = version.to_string();
        eureka.set_metadata("PAY", ID, "version", &version).await?;
        let changed = Instant::now();
        source
            .shows("pay", "the version", |i| {
                i.version.as_deref() == Some(&*version)
            })
            .await;
        slowest = slowest.max(changed.elapsed());
    }
    assert_eq!(full(), before.0, "changes alone are asked for");
    assert!(deltas() >= before.1 + 8);
    // And the time that two cores need that do other work.
    assert!(
        slowest < CACHE + POLL + Duration::from_secs(2),
        "{slowest:?}"
    );
    Ok(())
}
