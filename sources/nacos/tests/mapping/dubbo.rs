//! Services of Dubbo.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use diolkos_model::{Service, Weight};
use diolkos_nacos::{Host, Name, ServiceInfo};
use diolkos_source_dubbo::{Catalog, Options, Place, Variants};
use diolkos_source_nacos::{Config, mapping::Directory};
use serde_json::Value;

use crate::support::{
    changes, config, directory, health, host, info, info_in, keys, label, name, only,
};

const INTERFACE: &str = "org.apache.dubbo.demo.DemoService";

/// What a real Nacos had of Dubbo 3.3 and 2.7: services with their hosts, and its configuration.
fn recorded() -> Value {
    serde_json::from_str(include_str!("../data/dubbo-nacos.json")).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn recorded_host(value: &Value) -> Host {
    let metadata = value["metadata"].as_object().unwrap();
    Host {
        ip: text(&value["ip"]),
        port: value["port"].as_u64().unwrap().try_into().unwrap(),
        weight: value["weight"].as_f64().unwrap(),
        healthy: value["healthy"].as_bool().unwrap(),
        enabled: value["enabled"].as_bool().unwrap(),
        ephemeral: value["ephemeral"].as_bool().unwrap(),
        cluster: text(&value["clusterName"]),
        metadata: metadata.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
    }
}

fn recorded_services() -> Vec<ServiceInfo> {
    let services = recorded()["services"].as_array().unwrap().clone();
    let service = |service: &Value| {
        let (_, name) = service["name"].as_str().unwrap().split_once("@@").unwrap();
        let hosts = service["hosts"].as_array().unwrap();
        let hosts: Vec<Host> = hosts.iter().map(recorded_host).collect();
        info(name, &hosts)
    };
    services.iter().map(service).collect()
}

/// The configuration as places, which the source reads it into.
fn recorded_configuration() -> BTreeMap<Place, Bytes> {
    let items = recorded()["configs"].as_array().unwrap().clone();
    let item = |item: &Value| {
        let id = text(&item["dataId"]);
        let place = match id.split(':').collect::<Vec<_>>()[..] {
            [interface] => Place::Mapping {
                interface: interface.into(),
            },
            [interface, version, group, "provider", application] => Place::Definition {
                interface: interface.into(),
                version: version.into(),
                group: group.into(),
                application: application.into(),
            },
            _ => panic!("{id}"),
        };
        (place, Bytes::from(text(&item["content"])))
    };
    items.iter().map(item).collect()
}

/// Tells rules and mappings, and then what is wanted.
fn configure(directory: &mut Directory) {
    let configuration = recorded_configuration();
    let shared = |place: &Place| matches!(place, Place::Mapping { .. });
    for (place, data) in configuration.iter().filter(|(place, _)| shared(place)) {
        directory.set_data(place, Some(data.clone()));
    }
    for wanted in directory.wanted() {
        let Place::Definitions { interface: wanted } = wanted else {
            panic!("{wanted:?}");
        };
        for (place, data) in &configuration {
            if matches!(place, Place::Definition { interface, .. } if *interface == wanted) {
                directory.set_data(place, Some(data.clone()));
            }
        }
    }
}

fn from_nacos(options: &Options) -> Vec<Service> {
    let config = Config {
        registry: options.registry.clone(),
        dubbo: options.clone(),
        ..config()
    };
    let mut directory = Directory::new(&config, "");
    for service in recorded_services() {
        assert_eq!(
            directory.takes(&service.name),
            !service.name.service.starts_with("consumers:")
        );
        directory.set(&service, None);
    }
    assert!(directory.needs_metadata());
    configure(&mut directory);
    directory.snapshot()
}

/// The same providers as they would stand in a `ZooKeeper`.
fn from_zookeeper(options: &Options) -> Vec<Service> {
    let mut catalog = Catalog::new(options.clone());
    let mut nodes: Vec<(&str, &str)> = Vec::new();
    for line in include_str!("../data/dubbo-zookeeper.txt").lines() {
        match (line.strip_prefix('\t'), nodes.last_mut()) {
            (Some(data), Some((_, of_last))) => *of_last = data,
            _ => nodes.push((line, "")),
        }
    }
    for (path, data) in nodes {
        match Place::of_child("/dubbo", "/services", path) {
            Some((list, child)) => catalog.add_child(&list, &child),
            None => {
                let place = Place::parse("/dubbo", "/services", path).unwrap();
                catalog.set_data(&place, Some(Bytes::from_static(data.as_bytes())));
            }
        }
    }
    catalog.snapshot()
}

#[test]
fn the_same_services_as_in_zookeeper() {
    for variants in [Variants::Labels, Variants::Hosts] {
        for aeraki in [false, true] {
            let options = Options {
                variants,
                aeraki,
                ..config().dubbo
            };
            let mut nacos = from_nacos(&options);
            for service in &mut nacos {
                // All that may differ: Nacos has namespaces.
                let namespace = &mut service.key.namespace;
                *namespace = match &**namespace {
                    "public" => "".into(),
                    "public/services" => "services".into(),
                    other => panic!("{other}"),
                };
            }
            let zookeeper = from_zookeeper(&options);
            assert_eq!(keys(&nacos), keys(&zookeeper));
            for (one, other) in nacos.iter().zip(&zookeeper) {
                assert_eq!(one, other, "{variants:?} {aeraki}");
            }
        }
    }
}

#[test]
fn what_the_recorded_providers_become() {
    let services = from_nacos(&config().dubbo);
    let key = format!("nacos/public/{INTERFACE}");
    assert_eq!(
        keys(&services),
        [
            &*key,
            "nacos/public/services/demo-nacos",
            "nacos/public/services/demo-nacos-inst"
        ]
    );
    let host = label(&services[0].meta, "dubboHost");
    assert_eq!(host, Some("org.apache.dubbo.demo.demoservice"));
    let instances: Vec<_> = services[0]
        .instances
        .iter()
        .map(|i| {
            (
                &*i.id,
                i.version.as_deref().unwrap(),
                i.weight.unwrap().0 / 1000,
            )
        })
        .collect();
    assert_eq!(
        instances,
        [
            ("10.77.0.1:21880/:1.0.0", "1.0.0", 150),
            ("10.77.0.2:21881/gray/:2.0.0", "2.0.0", 100),
            ("10.77.0.3:21882/:3.0.0", "3.0.0", 100),
            ("10.77.0.4:21890/legacy/:1.0.0", "1.0.0", 100),
        ]
    );
}

fn provider(ip: &str, metadata: &[(&str, &str)]) -> Host {
    let mut host = host(ip, 20880, metadata);
    host.metadata.insert("protocol".into(), "dubbo".into());
    host
}

#[test]
fn several_services_make_one_interface() {
    let mut directory = directory();
    let (one, two) = (provider("10.0.0.1", &[]), provider("10.0.0.2", &[]));
    directory.set(
        &info("providers:a.B:1.0.0:", std::slice::from_ref(&one)),
        None,
    );
    directory.set(
        &info("providers:a.B:1.0.0", std::slice::from_ref(&one)),
        None,
    );
    directory.set(
        &info("providers:a.B:2.0.0:gray", std::slice::from_ref(&two)),
        None,
    );
    assert_eq!(changes(&mut directory), ["+nacos/public/a.B"]);
    let found: Vec<String> = health(&only(&mut directory))
        .into_keys()
        .map(Into::into)
        .collect();
    assert_eq!(
        found,
        ["10.0.0.1:20880/:1.0.0", "10.0.0.2:20880/gray/:2.0.0"]
    );
    // One of two names for the same goes, then the other.
    directory.set(&info("providers:a.B:1.0.0:", &[]), None);
    assert_eq!(changes(&mut directory), [""; 0]);
    directory.remove(&name("DEFAULT_GROUP", "providers:a.B:1.0.0"));
    assert_eq!(changes(&mut directory), ["+nacos/public/a.B"]);
    directory.set(&info("providers:a.B:2.0.0:gray", &[]), None);
    assert_eq!(changes(&mut directory), ["-nacos/public/a.B"]);
    assert!(!directory.snapshot().iter().any(|s| s.instances.is_empty()));
}

#[test]
fn weight_health_and_cluster_of_nacos_count() {
    let mut directory = directory();
    let hosts = [
        Host {
            weight: 0.5,
            cluster: "HZ".into(),
            ..provider("10.0.0.1", &[("weight", "150")])
        },
        Host {
            weight: 0.0,
            ..provider("10.0.0.2", &[])
        },
        Host {
            healthy: false,
            ..provider("10.0.0.3", &[])
        },
        Host {
            enabled: false,
            ..provider("10.0.0.4", &[])
        },
    ];
    directory.set(&info("providers:a.B::", &hosts), None);
    let service = only(&mut directory);
    let weights: Vec<_> = service.instances.iter().map(|i| i.weight).collect();
    assert_eq!(weights, [75, 0, 100, 100].map(|w| Some(Weight::whole(w))));
    let health: Vec<&str> = health(&service).into_values().collect();
    assert_eq!(health, ["", "", "unhealthy", "disabled"]);
    assert_eq!(&*service.instances[0].locality.region, "HZ");
    assert_eq!(&*service.instances[1].locality.region, "");
}

#[test]
fn nested_classes() {
    let mut directory = directory();
    let host = provider("10.0.0.1", &[("interface", "a.B$C")]);
    directory.set(&info("providers:a.B___C::", &[host]), None);
    let service = only(&mut directory);
    assert_eq!(&*service.key.name, "a.B$C");
    assert_eq!(label(&service.meta, "dubboHost"), Some("a.b$c"));
}

const INSTANCE: [(&str, &str); 2] = [
    ("dubbo.endpoints", r#"[{"port":20880,"protocol":"tri"}]"#),
    ("dubbo.metadata.revision", "1"),
];

fn tell(directory: &mut Directory, place: &Place, data: &'static str) {
    directory.set_data(place, Some(Bytes::from_static(data.as_bytes())));
}

fn mapping(directory: &mut Directory, interface: &str, applications: &'static str) {
    let interface = interface.into();
    tell(directory, &Place::Mapping { interface }, applications);
}

fn definition(directory: &mut Directory, interface: &str, application: &str) {
    let place = Place::Definition {
        interface: interface.into(),
        version: "".into(),
        group: "".into(),
        application: application.into(),
    };
    tell(directory, &place, r#"{"parameters":{"side":"provider"}}"#);
}

#[test]
fn metadata_is_for_all_groups() {
    let mut directory = directory();
    mapping(&mut directory, "a.B___C", "shop");
    assert!(directory.wanted().is_empty(), "there is nobody");
    let wanted = [Place::Definitions {
        interface: "a.B___C".into(),
    }];
    for group in ["DEFAULT_GROUP", "G"] {
        let host = host("10.0.0.1", 20880, &INSTANCE);
        directory.set(&info_in(group, "shop", &[host]), None);
        assert_eq!(directory.wanted(), wanted, "{group}");
        assert!(directory.wanted().is_empty(), "once");
        definition(&mut directory, "a.B___C", "shop");
    }
    assert_eq!(
        keys(&directory.snapshot()),
        [
            "nacos/public/a.B$C",
            "nacos/public/services/shop",
            "nacos/public@G/a.B$C",
            "nacos/public/services@G/shop",
        ]
    );
    let interface: Arc<str> = "a.B___C".into();
    directory.set_data(&Place::Mapping { interface }, None);
    assert_eq!(
        changes(&mut directory),
        ["-nacos/public/a.B$C", "-nacos/public@G/a.B$C"]
    );
}

#[test]
fn what_a_service_that_cannot_be_read_concerns() {
    let mut directory = directory();
    mapping(&mut directory, "a.B", "shop");
    directory.set(&info("shop", &[host("10.0.0.1", 20880, &INSTANCE)]), None);
    definition(&mut directory, "a.B", "shop");
    directory.set(&info("web", &[host("10.0.0.1", 80, &[])]), None);
    directory.set(&info("providers:c.D::", &[provider("10.0.0.1", &[])]), None);
    let services = directory.snapshot();
    let concerns = |name: &Name| -> Vec<&str> {
        let services = services.iter();
        let concerned = services.filter(|service| directory.concerns(name, &service.key));
        concerned.map(|service| &*service.key.name).collect()
    };
    for (service, expected) in [
        ("web", &["web"][..]),
        ("shop", &["a.B", "shop"]),
        ("providers:c.D:1.0.0:", &["c.D"]),
        ("consumers:c.D:1.0.0:", &[]),
        ("other", &[]),
    ] {
        assert_eq!(
            concerns(&name("DEFAULT_GROUP", service)),
            expected,
            "{service}"
        );
        assert_eq!(
            concerns(&name("G", service)),
            [""; 0],
            "{service} of another group"
        );
    }
    let rests = services
        .iter()
        .filter(|s| directory.rests_on_metadata(&s.key));
    let rests: Vec<&str> = rests.map(|service| &*service.key.name).collect();
    assert_eq!(rests, ["a.B", "c.D"]);
}
