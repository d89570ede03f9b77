//! Registries that keep the parts of URLs and records, and have a say of their own.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use diolkos_model::{ContentHash, Health, Weight};
use diolkos_source_dubbo::{
    Catalog, Change, Namespaces, Place, ProviderUrl, Registration, Standing, is_secret,
};

use crate::support::{ids, list, meta, only, options};

const URL: &str =
    "dubbo://10.0.0.1:20880/a.B?application=shop&interface=a.B&version=1.0.0&env=prod";

fn registration(url: &str, down: Option<&str>, share: Weight) -> Registration {
    Registration {
        url: ProviderUrl::parse(url).unwrap(),
        standing: Standing {
            down: down.map(Into::into),
            share,
        },
    }
}

fn told(parts: &[Registration]) -> Catalog {
    let mut catalog = Catalog::new(options());
    for (number, parts) in parts.iter().enumerate() {
        let id = ContentHash::of(number.to_string().as_bytes());
        catalog.set_provider("a.B", id, Some(parts));
    }
    catalog
}

/// A rule for one interface, in the version that the URL has.
fn rule(catalog: &mut Catalog, interface: &str, parameters: &str) {
    let key = interface.into();
    let document = format!(
        "scope: service\nkey: {interface}\nconfigs:\n- side: provider\n  parameters: {parameters}"
    );
    catalog.set_data(&Place::Rule { key }, Some(Bytes::from(document)));
}

#[test]
fn a_provider_in_parts_is_the_one_of_the_url() {
    let mut by_name = Catalog::new(options());
    by_name.add_child(&list("a.B"), URL);
    let mut by_parts = told(&[registration(URL, None, Weight::whole(1))]);
    assert_eq!(by_name.snapshot(), by_parts.snapshot());
    by_parts.set_provider("a.B", ContentHash::of(b"0"), None);
    let [Change::Remove(key)] = &by_parts.take_changes()[..] else {
        panic!("not removed");
    };
    assert_eq!(&*key.name, "a.B");
}

#[test]
fn no_rule_makes_healthy_what_the_registry_takes_out() {
    let url = format!("{URL}&enabled=false");
    let unhealthy = Health::Unhealthy("unhealthy".into());
    for (down, expected) in [(None, Health::Healthy), (Some("unhealthy"), unhealthy)] {
        let mut catalog = told(&[registration(&url, down, Weight::whole(1))]);
        rule(&mut catalog, "a.B:1.0.0", "{disabled: false}");
        let health = only(&mut catalog).instances[0].health.clone();
        assert_eq!(health, expected);
    }
}

#[test]
fn the_share_multiplies_the_weight() {
    for (share, own, weight) in [
        (1.0, "", None),
        (1.0, "&weight=150", Some(150)),
        (0.5, "", Some(50)),
        (0.5, "&weight=150", Some(75)),
        (0.001, "", Some(1)),
        (0.0, "&weight=150", Some(0)),
        (2.0, "&weight=0", Some(0)),
    ] {
        let url = format!("{URL}{own}");
        let mut catalog = told(&[registration(&url, None, Weight::fraction(share))]);
        let made = only(&mut catalog).instances[0].weight;
        assert_eq!(made, weight.map(Weight::whole), "{share} of {own}");
    }
    let mut catalog = told(&[registration(URL, None, Weight::fraction(0.5))]);
    rule(&mut catalog, "a.B:1.0.0", "{weight: 30}");
    let made = only(&mut catalog).instances[0].weight;
    assert_eq!(made, Some(Weight::whole(15)), "after rules");
}

#[test]
fn of_two_that_are_the_same_the_one_that_is_up_counts() {
    let up = registration(URL, None, Weight::whole(1));
    let down = registration(URL, Some("unhealthy"), Weight::whole(1));
    for order in [[up.clone(), down.clone()], [down, up]] {
        let service = only(&mut told(&order));
        assert_eq!(ids(&service), ["10.0.0.1:20880/:1.0.0"]);
        assert!(service.instances[0].health.is_healthy());
    }
}

#[test]
fn what_has_no_host_is_shown() {
    let nothing = Registration::default();
    let service = only(&mut told(std::slice::from_ref(&nothing)));
    assert!(!service.instances[0].health.is_healthy());
    let mut catalog = Catalog::new(options());
    catalog.set_registrations("shop", [("a".into(), nothing)].into());
    assert!(!only(&mut catalog).instances[0].health.is_healthy());
}

fn instance(port: u32, down: Option<&str>) -> Registration {
    let metadata = [
        ("dubbo.endpoints", r#"[{"port":20880,"protocol":"tri"}]"#),
        ("dubbo.metadata.revision", "1"),
        ("dubbo.metadata.storage-type", "local"),
        ("env", "prod"),
    ];
    Registration {
        url: ProviderUrl {
            host: "10.0.0.1".into(),
            port,
            parameters: metadata.map(|(k, v)| (k.into(), v.into())).into(),
            ..ProviderUrl::default()
        },
        standing: Standing {
            down: down.map(Into::into),
            ..Standing::default()
        },
    }
}

#[test]
fn an_instance_in_parts_is_the_one_of_the_record() {
    let id: Arc<str> = "10.0.0.1:20880".into();
    let metadata = &instance(20880, None).url.parameters;
    let record = serde_json::json!({"host": "10.0.0.1", "port": 20880, "metadata": metadata});
    let record = Bytes::from(record.to_string());
    let mut by_record = Catalog::new(options());
    by_record.set_instances("shop", [(id.clone(), record)].into());
    let mut by_parts = Catalog::new(options());
    by_parts.set_registrations("shop", [(id.clone(), instance(20880, None))].into());
    assert_eq!(by_record.snapshot(), by_parts.snapshot());
    by_parts.set_registrations("shop", [(id.clone(), instance(20880, None))].into());
    assert!(by_parts.take_changes().is_empty(), "the same");
    by_parts.set_registrations("shop", [(id, instance(20880, Some("disabled")))].into());
    let health = only(&mut by_parts).instances[0].health.clone();
    assert_eq!(health, Health::Unhealthy("disabled".into()));
    by_parts.set_registrations("shop", BTreeMap::new());
    assert!(by_parts.snapshot().is_empty());
}

#[test]
fn the_registry_has_a_say_in_interfaces_of_an_application_too() {
    let mut catalog = Catalog::new(options());
    let interface: Arc<str> = "a.B".into();
    let mapping = Place::Mapping {
        interface: interface.clone(),
    };
    catalog.set_data(&mapping, Some(Bytes::from_static(b"shop")));
    let definition = Place::Definition {
        interface,
        version: "".into(),
        group: "".into(),
        application: "shop".into(),
    };
    let data = Bytes::from_static(br#"{"parameters":{"side":"provider"}}"#);
    catalog.set_data(&definition, Some(data));
    rule(&mut catalog, "a.B", "{disabled: false}");
    let down = instance(20880, Some("unhealthy"));
    catalog.set_registrations("shop", [("10.0.0.1:20880".into(), down)].into());
    let services = catalog.snapshot();
    assert_eq!(services.len(), 2);
    for service in services {
        let health = &service.instances[0].health;
        assert_eq!(
            *health,
            Health::Unhealthy("unhealthy".into()),
            "{service:?}"
        );
    }
}

#[test]
fn partitions_are_in_the_keys() {
    let namespaces = Namespaces {
        interfaces: "dev".into(),
        applications: "dev/services".into(),
        host_suffix: ".gray.dev".into(),
    };
    let mut catalog = Catalog::within(options(), namespaces);
    catalog.add_child(&list("a.B"), URL);
    catalog.set_registrations("shop", [("a".into(), instance(1, None))].into());
    let services = catalog.snapshot();
    let keys: Vec<String> = services.iter().map(|s| s.key.to_string()).collect();
    assert_eq!(keys, ["zk/dev/a.B", "zk/dev/services/shop"]);
    let hosts: Vec<_> = services.iter().map(|s| meta(s, "dubboHost")).collect();
    let expected = ["a.b.gray.dev", "shop.dubbo.gray.dev"].map(Some);
    assert_eq!(hosts, expected);
}

#[test]
fn secrets_by_name() {
    for name in [
        "token",
        "db.password",
        "accessKey",
        "access-key",
        "API_KEY",
        "secretKey",
    ] {
        assert!(is_secret(name), "{name}");
    }
    for name in ["version", "env", "key", "serialization", "access"] {
        assert!(!is_secret(name), "{name}");
    }
}
