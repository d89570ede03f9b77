//! Registration by application.

use bytes::Bytes;
use diolkos_model::{Health, Weight};
use diolkos_source_dubbo::{Catalog, Change, Discovery, Options, Place};
use serde_json::json;

use crate::support::{Tree, ids, label, list, meta, only, options, place};

/// A record as Curator writes it.
fn record(host: &str, metadata: &[(&str, &str)]) -> String {
    let metadata: serde_json::Map<_, _> = metadata
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "name": "shop", "id": format!("{host}:20880"), "address": host, "port": 20880, "sslPort": null,
        "payload": { "@class": "org.apache.dubbo.registry.zookeeper.ZookeeperInstance", "metadata": metadata },
        "registrationTimeUTC": 1, "serviceType": "DYNAMIC", "uriSpec": null,
    })
    .to_string()
}

const ENDPOINTS: (&str, &str) = (
    "dubbo.endpoints",
    r#"[{"port":20880,"protocol":"dubbo"},{"port":50051,"protocol":"tri"}]"#,
);

fn local(host: &str) -> String {
    let revision = ("dubbo.metadata.revision", "r1");
    record(
        host,
        &[
            ENDPOINTS,
            revision,
            ("dubbo.metadata.storage-type", "local"),
            ("zone", "z1"),
        ],
    )
}

fn remote(host: &str, revision: &str) -> String {
    let revision = ("dubbo.metadata.revision", revision);
    record(
        host,
        &[
            ENDPOINTS,
            revision,
            ("dubbo.metadata.storage-type", "remote"),
            ("timestamp", host),
        ],
    )
}

fn definition(parameters: &serde_json::Value) -> String {
    json!({ "canonicalName": "a.B", "methods": [], "parameters": parameters }).to_string()
}

fn tree(nodes: &[(&str, &str)]) -> Tree {
    Tree(
        nodes
            .iter()
            .map(|(path, data)| ((*path).to_owned(), (*data).to_owned()))
            .collect(),
    )
}

fn names(catalog: &mut Catalog) -> Vec<String> {
    catalog
        .snapshot()
        .iter()
        .map(|service| service.key.to_string())
        .collect()
}

const METADATA: &str = r#"{"app":"shop","revision":"r1","services":{
    "a.B:1.0.0:dubbo":{"name":"a.B","version":"1.0.0","protocol":"dubbo","port":20880,"path":"a.B","params":{"version":"1.0.0","env":"prod"}},
    "g/a.B:tri":{"name":"a.B","group":"g","protocol":"tri","port":9,"params":{"group":"g","weight":"50"}},
    "broken":{"name":""},
    "a.C:tri":{"name":"a.C","protocol":"tri","params":{}}}}"#;

#[test]
fn an_application_is_a_service() {
    let tree = tree(&[("/services/Shop/10.0.0.1:20880", &local("10.0.0.1"))]);
    let service = only(&mut tree.catalog(options()));
    assert_eq!(service.key.to_string(), "zk/services/Shop");
    assert_eq!(meta(&service, "dubboHost"), Some("shop.dubbo"));
    let instance = &service.instances[0];
    assert_eq!(&*instance.id, "10.0.0.1:20880");
    assert_eq!(&*instance.locality.zone, "z1");
    let ports: Vec<_> = instance
        .ports
        .iter()
        .map(|p| (&*p.name, p.number))
        .collect();
    assert_eq!(ports, [("dubbo", 20880), ("tri", 50051)]);
    let labels: Vec<_> = instance.labels.iter().map(|(name, _)| &**name).collect();
    assert_eq!(labels, ["application", "zone"]);
}

#[test]
fn records_of_every_kind_are_read() {
    for (data, address, port, health) in [
        (
            r#"{"address":"10.0.0.1","port":8080}"#,
            "10.0.0.1",
            8080,
            None,
        ),
        (
            r#"{"host":"web","port":"8080","metadata":{"weight":"7"}}"#,
            "web",
            8080,
            None,
        ),
        (
            r#"{"address":"::1","port":70000,"payload":{"metadata":{"dubbo.endpoints":"?","a":null}}}"#,
            "::1",
            70000,
            None,
        ),
        (r#"{"address":"10.0.0.1","payload":7}"#, "10.0.0.1", 0, None),
        (
            r#"{"address":"10.0.0.1","port":1,"enabled":false}"#,
            "10.0.0.1",
            1,
            Some("enabled=false"),
        ),
        (
            "{",
            "",
            0,
            Some("not an instance's record: EOF while parsing"),
        ),
        (
            r#"{"port":1}"#,
            "",
            0,
            Some("not an instance's record: it has no address"),
        ),
        ("[]", "", 0, Some("not an instance's record: invalid type")),
    ] {
        let service = only(&mut tree(&[("/services/shop/x", data)]).catalog(options()));
        let instance = &service.instances[0];
        assert_eq!(instance.address.to_string(), address, "{data}");
        assert_eq!(
            instance.ports.first().map_or(0, |port| port.number),
            port,
            "{data}"
        );
        match (&instance.health, health) {
            (Health::Healthy, None) => {}
            (Health::Unhealthy(why), Some(start)) => assert!(why.starts_with(start), "{why}"),
            other => panic!("{data}: {other:?}"),
        }
    }
}

#[test]
fn weights_of_instances_are_explicit_if_one_is() {
    let weighted = record("10.0.0.2", &[("weight", "7")]);
    let tree = tree(&[
        ("/services/shop/1", &record("10.0.0.1", &[])),
        ("/services/shop/2", &weighted),
    ]);
    let service = only(&mut tree.catalog(options()));
    let weights: Vec<_> = service.instances.iter().map(|i| i.weight).collect();
    assert_eq!(weights, [Some(Weight::whole(100)), Some(Weight::whole(7))]);
}

#[test]
fn remote_metadata_names_interfaces_with_variants_and_protocols() {
    let tree = tree(&[
        ("/services/shop/10.0.0.1:20880", &remote("10.0.0.1", "r1")),
        ("/services/shop/10.0.0.2:20880", &remote("10.0.0.2", "r2")),
        ("/dubbo/metadata/shop/r1", METADATA),
    ]);
    let services = tree.catalog(options()).snapshot();
    let [interface, other, application] = services.as_slice() else {
        panic!("{services:?}")
    };
    assert_eq!(
        ids(interface),
        ["10.0.0.1:20880/:1.0.0", "10.0.0.1:50051/g"]
    );
    assert_eq!(label(&interface.instances[0], "env"), Some("prod"));
    assert_eq!(interface.instances[1].weight, Some(Weight::whole(50)));
    assert_eq!(ids(other), ["10.0.0.1:50051"]);
    assert_eq!(ids(application), ["10.0.0.1:20880", "10.0.0.2:20880"]);
}

#[test]
fn local_metadata_is_what_the_application_published() {
    let version = json!({"version": "1.0.0", "side": "provider", "bind.ip": "10.9.9.9"});
    let interface_only = json!({"version": "2.0.0", "register-mode": "interface"});
    let mut tree = tree(&[
        ("/services/shop/10.0.0.1:20880", &local("10.0.0.1")),
        ("/dubbo/mapping/a.B", "shop, bank"),
        ("/dubbo/mapping/a.C", "bank"),
        (
            "/dubbo/metadata/a.B/1.0.0/provider/shop",
            &definition(&version),
        ),
        (
            "/dubbo/metadata/a.B/2.0.0/provider/shop",
            &definition(&interface_only),
        ),
        (
            "/dubbo/metadata/a.B/3.0.0/provider/bank",
            &definition(&json!({})),
        ),
        ("/dubbo/metadata/a.C/provider/shop", &definition(&json!({}))),
    ]);
    let mut catalog = tree.catalog(options());
    let services = catalog.snapshot();
    assert_eq!(services.len(), 2, "{services:?}");
    assert_eq!(ids(&services[0]), ["10.0.0.1:20880/:1.0.0"]);
    assert_eq!(services[0].instances[0].ports.len(), 2);
    assert_eq!(&*services[0].instances[0].locality.zone, "z1");
    // The mapping goes, and so does the interface.
    tree.0.remove("/dubbo/mapping/a.B");
    tree.tell_data(&mut catalog, "/dubbo/mapping/a.B");
    let changes = catalog.take_changes();
    assert!(matches!(changes.as_slice(), [Change::Remove(key)] if *key.name == *"a.B"));
}

#[test]
fn registered_in_both_ways_an_instance_counts_once_as_the_interface_says() {
    let url = "dubbo://10.0.0.1:20880/a.B?version=1.0.0&application=shop&weight=7";
    let tree = tree(&[
        ("/services/shop/10.0.0.1:20880", &remote("10.0.0.1", "r1")),
        ("/services/shop/10.0.0.2:20880", &remote("10.0.0.2", "r1")),
        ("/dubbo/metadata/shop/r1", METADATA),
    ]);
    let seen = |discovery| {
        let options = Options {
            discovery,
            ..options()
        };
        let mut catalog = tree.catalog(options);
        catalog.add_child(&list("a.B"), url);
        let services = catalog.snapshot();
        let weights = services[0]
            .instances
            .iter()
            .map(|i| i.weight.map(|w| w.0 / 1000));
        (ids(&services[0]).join(" "), weights.collect::<Vec<_>>())
    };
    let ids = "10.0.0.1:20880/:1.0.0 10.0.0.1:50051/g 10.0.0.2:20880/:1.0.0 10.0.0.2:50051/g";
    let weights = |first| vec![Some(first), Some(50), Some(100), Some(50)];
    assert_eq!(seen(Discovery::Both), (ids.into(), weights(7)));
    assert_eq!(seen(Discovery::Application), (ids.into(), weights(100)));
    let only = "10.0.0.1:20880/:1.0.0".to_owned();
    assert_eq!(seen(Discovery::Interface), (only, vec![Some(7)]));
}

#[test]
fn metadata_is_wanted_when_it_is_needed() {
    let tell = |catalog: &mut Catalog, path: &str, data: &str| {
        let data = Some(Bytes::from(data.to_owned()));
        catalog.set_data(&place(path).unwrap(), data);
    };
    let wanted = |catalog: &mut Catalog| -> Vec<String> {
        let wanted = catalog.wanted();
        wanted
            .iter()
            .map(|place| place.path("/dubbo", "/services"))
            .collect()
    };
    let mut catalog = Catalog::new(options());
    tell(&mut catalog, "/services/shop/1", &remote("10.0.0.1", "r1"));
    assert_eq!(wanted(&mut catalog), ["/dubbo/metadata/shop/r1"]);
    tell(&mut catalog, "/services/shop/2", &remote("10.0.0.2", "r1"));
    assert!(wanted(&mut catalog).is_empty(), "once");
    assert_eq!(
        names(&mut catalog),
        ["zk/services/shop"],
        "it counts for its application"
    );
    tell(&mut catalog, "/dubbo/metadata/shop/r1", METADATA);
    assert_eq!(
        names(&mut catalog),
        ["zk/a.B", "zk/a.C", "zk/services/shop"]
    );
    // Another release, with its instances one after the other.
    let records = |hosts: &[(&str, &str)]| {
        let record = |(host, r): &(&str, &str)| ((*host).into(), remote(host, r).into());
        hosts.iter().map(record).collect()
    };
    catalog.set_instances("shop", records(&[("10.0.0.1", "r2"), ("10.0.0.2", "r1")]));
    assert_eq!(wanted(&mut catalog), ["/dubbo/metadata/shop/r2"]);
    catalog.set_instances("shop", records(&[("10.0.0.1", "r2"), ("10.0.0.2", "r2")]));
    assert_eq!(names(&mut catalog), ["zk/services/shop"]);
    tell(&mut catalog, "/dubbo/metadata/shop/r2", METADATA);
    assert_eq!(names(&mut catalog).len(), 3);
    catalog.set_instances("shop", [].into());
    catalog.set_instances("shop", records(&[("10.0.0.1", "r2")]));
    assert!(wanted(&mut catalog).is_empty(), "a restart");
    catalog.set_instances("shop", records(&[("10.0.0.1", "r1")]));
    assert_eq!(
        wanted(&mut catalog),
        ["/dubbo/metadata/shop/r1"],
        "it was let go"
    );

    tell(&mut catalog, "/services/bank/1", &local("10.0.0.1"));
    assert!(wanted(&mut catalog).is_empty(), "nothing maps to it");
    tell(&mut catalog, "/dubbo/mapping/a.B%24C", "bank");
    assert_eq!(wanted(&mut catalog), ["/dubbo/metadata/a.B%24C"]);
    tell(&mut catalog, "/services/bank/2", &local("10.0.0.2"));
    assert!(wanted(&mut catalog).is_empty(), "the same revision");
    tell(
        &mut catalog,
        "/services/bank/2",
        &local("10.0.0.2").replace("r1", "r2"),
    );
    assert_eq!(wanted(&mut catalog), ["/dubbo/metadata/a.B%24C"]);
}

#[test]
fn an_application_provides_what_its_mapping_or_metadata_names() {
    let tree = tree(&[
        ("/services/shop/1", &remote("10.0.0.1", "r1")),
        ("/dubbo/metadata/shop/r1", METADATA),
        ("/dubbo/mapping/a.D", "shop"),
    ]);
    let catalog = tree.catalog(options());
    for (application, interface, provides) in [
        ("shop", "a.B", true),
        ("shop", "a.C", true),
        ("shop", "a.D", true),
        ("shop", "a.E", false),
        ("bank", "a.B", false),
    ] {
        let seen = catalog.provides(application, interface);
        assert_eq!(seen, provides, "{application} {interface}");
    }
}

#[test]
fn a_record_that_says_the_same_again_is_no_change() {
    let mut tree = tree(&[("/services/shop/1", &remote("10.0.0.1", "r1"))]);
    let mut catalog = tree.catalog(options());
    assert_eq!(catalog.take_changes().len(), 1);
    let again = tree.0["/services/shop/1"]
        .replace("\"registrationTimeUTC\":1", "\"registrationTimeUTC\":2");
    tree.0.insert("/services/shop/1".into(), again);
    tree.tell_data(&mut catalog, "/services/shop/1");
    assert!(catalog.take_changes().is_empty());
    catalog.set_instances("shop", tree.instances("shop"));
    assert!(catalog.take_changes().is_empty());
    catalog.set_instances("shop", [].into());
    assert!(matches!(
        catalog.take_changes().as_slice(),
        [Change::Remove(_)]
    ));
}

#[test]
fn what_no_instance_names_has_no_effect() {
    let tree = tree(&[("/dubbo/metadata/a.B/1.0.0", "10.77.0.1")]);
    let mut catalog = tree.catalog(options());
    tree.tell_data(&mut catalog, "/dubbo/metadata/a.B/1.0.0");
    let revision = Place::Revision {
        application: "shop".into(),
        revision: "r1".into(),
    };
    catalog.set_data(&revision, Some(METADATA.into()));
    assert!(catalog.snapshot().is_empty());
}
