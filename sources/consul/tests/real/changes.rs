//! Changes in a real Consul, as the source tells them.

use std::{sync::Arc, time::Duration};

use crate::support::{Running, config};
use anyhow::Result;
use diolkos_model::{Health, Weight};
use diolkos_source_api::{Evidence, Phase};
use diolkos_source_consul::Consistency;
use diolkos_testkit::Consul;
use serde_json::json;

/// How soon a change has to be told.
const AT_ONCE: Duration = Duration::from_secs(2);

fn why(health: &Health) -> &str {
    match health {
        Health::Healthy => "",
        Health::Unhealthy(why) => why,
    }
}

#[tokio::test]
async fn the_first_snapshot_names_everything_but_consul_itself() -> Result<()> {
    let consul = Consul::start().await?;
    consul
        .register(&json!({"Name": "web", "Address": "10.0.0.1", "Port": 80}))
        .await?;
    consul
        .register(&json!({"Name": "My_Service", "Port": 0}))
        .await?;
    let source = Running::synced(config(consul.http_addr())).await;
    {
        let world = source.world();
        let names: Vec<_> = world.services.keys().collect();
        assert_eq!(names, ["dc1/My_Service", "dc1/web"]);
        assert_eq!(world.snapshots, [Evidence::Complete]);
        let web = world.only("dc1/web").unwrap();
        assert_eq!(&*web.id, "n1/web");
        assert_eq!(web.ports[0].number, 80);
        assert_eq!(&*web.locality.region, "dc1");
        let odd = world.only("dc1/My_Service").unwrap();
        assert_eq!(odd.address.to_string(), "127.0.0.1", "the node's");
    }
    let health = source.health.borrow().clone();
    assert_eq!(health.phase, Phase::Live);
    assert_eq!(&*health.detail, "2 services, 2 instances");
    assert!(health.requests >= 4, "{health:?}");
    Ok(())
}

#[tokio::test]
async fn an_empty_consul_is_a_complete_answer() -> Result<()> {
    let consul = Consul::start().await?;
    let source = Running::synced(config(consul.http_addr())).await;
    assert_eq!(source.world().snapshots, [Evidence::Complete]);
    assert_eq!(source.world().upserts, 0);
    Ok(())
}

#[tokio::test]
async fn instances_and_services_come_and_go() -> Result<()> {
    let consul = Consul::start().await?;
    let source = Running::synced(config(consul.http_addr())).await;
    for (id, port) in [("a", 1), ("b", 2), ("c", 3)] {
        consul
            .register(&json!({"ID": id, "Name": "web", "Port": port}))
            .await?;
    }
    source
        .within(AT_ONCE, "three instances without checks", |world| {
            world.count("dc1/web") == Some(3)
        })
        .await;
    consul
        .register(&json!({"ID": "d", "Name": "web", "Port": 4, "Check": {"TTL": "60s", "Status": "passing"}}))
        .await?;
    source
        .within(AT_ONCE, "a fourth with a check", |world| {
            world.count("dc1/web") == Some(4)
        })
        .await;
    consul.deregister("b").await?;
    source
        .within(AT_ONCE, "one leaves", |world| {
            world.count("dc1/web") == Some(3)
        })
        .await;
    for id in ["a", "c", "d"] {
        consul.deregister(id).await?;
    }
    source
        .within(AT_ONCE, "the service is gone", |world| {
            world.removed == ["dc1/web"]
        })
        .await;
    consul.register(&json!({"Name": "web", "Port": 5})).await?;
    source
        .within(AT_ONCE, "and back", |world| {
            world
                .only("dc1/web")
                .is_some_and(|i| i.ports[0].number == 5)
        })
        .await;
    assert_eq!(
        source.world().snapshots.len(),
        1,
        "one connection did it all"
    );
    Ok(())
}

#[tokio::test]
async fn checks_and_maintenance() -> Result<()> {
    let consul = Consul::start().await?;
    consul
        .register(&json!({
            "Name": "web", "Port": 80, "Weights": {"Passing": 10, "Warning": 2},
            "Check": {"CheckID": "ttl", "Name": "a check", "TTL": "600s", "Status": "critical"},
        }))
        .await?;
    let source = Running::synced(config(consul.http_addr())).await;
    let becomes = async |what: &str, expected: &str, weight: u32| {
        source
            .within(AT_ONCE, what, |world| {
                world.only("dc1/web").is_some_and(|i| {
                    why(&i.health) == expected && i.weight == Some(Weight::whole(weight))
                })
            })
            .await;
    };
    becomes("critical from the start", "critical: a check", 10).await;
    consul.pass("ttl").await?;
    becomes("passing", "", 10).await;
    consul.fail("ttl").await?;
    becomes("critical", "critical: a check", 10).await;
    consul.warn("ttl").await?;
    becomes("a warning is healthy and weighs less", "", 2).await;
    consul.pass("ttl").await?;
    becomes("passing again", "", 10).await;
    consul
        .put(
            "/v1/agent/service/maintenance/web?enable=true&reason=tea",
            None,
        )
        .await?;
    becomes("maintenance", "maintenance: tea", 10).await;
    consul.maintenance("web", false).await?;
    becomes("maintenance ends", "", 10).await;
    consul
        .put("/v1/agent/maintenance?enable=true&reason=disks", None)
        .await?;
    becomes("maintenance of the node", "maintenance: disks", 10).await;
    consul
        .put("/v1/agent/maintenance?enable=false", None)
        .await?;
    becomes("maintenance of the node ends", "", 10).await;
    Ok(())
}

#[tokio::test]
async fn every_part_of_an_instance_is_followed() -> Result<()> {
    let consul = Consul::start().await?;
    consul.register(&json!({"Name": "web", "Port": 80})).await?;
    let source = Running::synced(config(consul.http_addr())).await;
    let change = async |what: &str,
                        fields: serde_json::Value,
                        so: &dyn Fn(&diolkos_model::Instance) -> bool| {
        let mut service = json!({"Name": "web", "Port": 80});
        for (key, value) in fields.as_object().unwrap() {
            service[key] = value.clone();
        }
        consul.register(&service).await?;
        source
            .within(AT_ONCE, what, |world| world.only("dc1/web").is_some_and(so))
            .await;
        anyhow::Ok(())
    };
    let label = |i: &diolkos_model::Instance, key: &str| {
        let found = i.labels.iter().find(|(k, _)| &**k == key);
        found.map(|(_, value)| value.to_string())
    };
    change("port", json!({"Port": 81}), &|i| i.ports[0].number == 81).await?;
    change("address", json!({"Address": "10.0.0.9"}), &|i| {
        i.address.to_string() == "10.0.0.9"
    })
    .await?;
    change("tags", json!({"Tags": ["v2", "color=red"]}), &|i| {
        i.version.as_deref() == Some("v2") && label(i, "color").as_deref() == Some("red")
    })
    .await?;
    change(
        "meta",
        json!({"Meta": {"version": "3", "protocol": "grpc"}}),
        &|i| i.version.as_deref() == Some("3") && i.ports[0].protocol.as_deref() == Some("grpc"),
    )
    .await?;
    change(
        "weights",
        json!({"Weights": {"Passing": 7, "Warning": 1}}),
        &|i| i.weight == Some(Weight::whole(7)),
    )
    .await?;
    let ports = json!({"Port": 0, "Ports": [
        {"Name": "admin", "Port": 9091}, {"Name": "http", "Port": 8080, "Default": true},
    ]});
    change("several ports", ports, &|i| {
        let ports: Vec<_> = i.ports.iter().map(|p| (&*p.name, p.number)).collect();
        ports == [("http", 8080), ("admin", 9091)]
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn nodes_without_an_agent_are_followed() -> Result<()> {
    let consul = Consul::start().await?;
    consul
        .register(&json!({"Name": "other", "Port": 1}))
        .await?;
    let mut settings = config(consul.http_addr());
    // The address of a node alone wakes no query: the repair finds it.
    settings.wait = Duration::from_secs(2);
    let source = Running::synced(settings).await;
    let node = |address: &str| json!({"Node": "legacy", "Address": address, "Service": {"Service": "db", "Port": 5432}});
    consul.catalog_register(&node("10.1.0.1")).await?;
    source
        .within(AT_ONCE, "a service of a plain node", |world| {
            world
                .only("dc1/db")
                .is_some_and(|i| i.address.to_string() == "10.1.0.1")
        })
        .await;
    consul
        .catalog_register(&json!({"Node": "legacy", "Address": "10.1.0.2"}))
        .await?;
    source
        .until("another address of the node", |world| {
            world
                .only("dc1/db")
                .is_some_and(|i| i.address.to_string() == "10.1.0.2")
        })
        .await;
    consul
        .catalog_register(&json!({"Node": "legacy", "Address": "10.1.0.2", "Check": {
            "CheckID": "ping", "Name": "ping", "Status": "critical",
        }}))
        .await?;
    source
        .within(AT_ONCE, "a check of the node", |world| {
            world
                .only("dc1/db")
                .is_some_and(|i| why(&i.health) == "critical: ping")
        })
        .await;
    consul
        .catalog_deregister(&json!({"Node": "legacy"}))
        .await?;
    source
        .within(AT_ONCE, "the node is gone", |world| {
            world.removed == ["dc1/db"]
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn the_selection_follows_tags_and_names_apart_by_case() -> Result<()> {
    let consul = Consul::start().await?;
    for (id, name) in [("1", "web"), ("2", "Web"), ("3", "batch")] {
        consul
            .register(&json!({"ID": id, "Name": name, "Tags": ["mesh"], "Port": 1}))
            .await?;
    }
    let mut settings = config(consul.http_addr());
    settings.select = Arc::new(|name, tags| name != "consul" && tags.iter().any(|t| t == "mesh"));
    let source = Running::synced(settings).await;
    for name in ["dc1/web", "dc1/Web", "dc1/batch"] {
        assert_eq!(source.world().count(name), Some(1), "{name}");
    }
    consul
        .register(&json!({"ID": "3", "Name": "batch", "Tags": [], "Port": 1}))
        .await?;
    source
        .within(AT_ONCE, "no longer selected", |world| {
            world.removed == ["dc1/batch"]
        })
        .await;
    consul
        .register(&json!({"ID": "4", "Name": "new", "Tags": ["mesh"], "Port": 1}))
        .await?;
    source
        .within(AT_ONCE, "a newly selected one", |world| {
            world.count("dc1/new") == Some(1)
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn each_consistency_works() -> Result<()> {
    let consul = Consul::start().await?;
    for (port, consistency) in [
        (1, Consistency::Stale),
        (2, Consistency::Default),
        (3, Consistency::Consistent),
    ] {
        let mut settings = config(consul.http_addr());
        settings.consistency = consistency;
        let source = Running::synced(settings).await;
        consul
            .register(&json!({"Name": "web", "Port": port}))
            .await?;
        source
            .within(AT_ONCE, "a change", |world| {
                world
                    .only("dc1/web")
                    .is_some_and(|i| i.ports[0].number == port)
            })
            .await;
        assert!(source.world().evidence["dc1/web"].is_complete());
    }
    Ok(())
}

#[tokio::test]
async fn a_resync_names_everything_again_in_the_same_connection() -> Result<()> {
    let consul = Consul::start().await?;
    consul.register(&json!({"Name": "web", "Port": 1})).await?;
    let source = Running::synced(config(consul.http_addr())).await;
    source.resync.send(()).await?;
    source
        .until("a second snapshot", |world| world.snapshots.len() == 2)
        .await;
    assert_eq!(source.world().named, ["dc1/web"]);
    assert_eq!(source.health.borrow().epoch, 1);
    consul.register(&json!({"Name": "web", "Port": 2})).await?;
    source
        .within(AT_ONCE, "still following", |world| {
            world
                .only("dc1/web")
                .is_some_and(|i| i.ports[0].number == 2)
        })
        .await;
    Ok(())
}

#[tokio::test]
async fn many_services_need_few_connections_and_few_requests() -> Result<()> {
    const SERVICES: usize = 300;
    let consul = Consul::start().await?;
    let register = async |count: usize, port: usize| {
        for index in 0..count {
            let service = json!({"Name": format!("svc-{index}"), "Port": port});
            consul.register(&service).await?;
        }
        anyhow::Ok(())
    };
    register(SERVICES, 1).await?;
    let source = Running::synced(config(consul.http_addr())).await;
    assert_eq!(source.world().services.len(), SERVICES);
    assert!(consul.connections()? < 40, "{}", consul.connections()?);

    let before = source.health.borrow().requests;
    register(50, 2).await?;
    source
        .until("all changes are told", |world| {
            let told = world
                .services
                .values()
                .filter(|s| s.instances[0].ports[0].number == 2);
            told.count() == 50
        })
        .await;
    assert!(consul.connections()? < 40, "{}", consul.connections()?);
    let told = source.world().upserts;
    assert_eq!(told, SERVICES + 50, "only what changed is told");
    let requests = source.health.borrow().requests;
    assert!(requests - before < 50 * 5, "{}", requests - before);

    // Nothing happens now: for a second, nothing is asked either.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = source.health.borrow().requests - requests;
    assert!(idle <= 5, "{idle} requests while idle");
    Ok(())
}
