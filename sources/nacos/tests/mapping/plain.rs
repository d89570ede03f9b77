//! Services that are not of Dubbo.

use std::sync::Arc;

use diolkos_model::{Port, Weight};
use diolkos_nacos::Host;
use diolkos_source_dubbo::Discovery;
use diolkos_source_nacos::{Config, Groups, Services, mapping::Directory};

use crate::support::{
    changes, config, directory, host, info, info_in, instance, keys, label, name, only, pairs,
    service,
};

fn port(name: &str, number: u32, protocol: Option<&str>) -> Port {
    Port {
        name: name.into(),
        number,
        protocol: protocol.map(Into::into),
    }
}

#[test]
fn a_service_of_spring_cloud() {
    let metadata = [
        ("preserved.register.source", "SPRING_CLOUD"),
        ("preserved.heart.beat.interval", "5000"),
        ("secure", "true"),
        ("version", "2.1"),
        ("zone", "hz-a"),
        ("management.endpoints.web.base-path", "/actuator"),
    ];
    let host = Host {
        weight: 2.0,
        cluster: "HZ".into(),
        ..host("10.0.0.1", 8443, &metadata)
    };
    let made = service(&[host]);
    assert_eq!(made.key.to_string(), "nacos/public/DEFAULT_GROUP/web");
    assert_eq!(label(&made.meta, "group"), Some("DEFAULT_GROUP"));
    assert_eq!(made.meta.len(), 1, "{:?}", made.meta);
    let instance = &made.instances[0];
    assert_eq!(&*instance.id, "10.0.0.1:8443@HZ");
    assert_eq!(instance.address, "10.0.0.1".parse().unwrap());
    assert_eq!(*instance.ports, [port("", 8443, Some("https"))]);
    assert!(instance.health.is_healthy());
    assert_eq!(instance.weight, Some(Weight::whole(2)));
    let place = &instance.locality;
    assert_eq!(
        (&*place.region, &*place.zone, &*place.sub_zone),
        ("HZ", "hz-a", "")
    );
    assert_eq!(instance.version.as_deref(), Some("2.1"));
    let labels: Vec<(&str, &str)> = instance.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(
        labels,
        [
            ("cluster", "HZ"),
            ("management.endpoints.web.base-path", "/actuator"),
            ("secure", "true"),
            ("version", "2.1"),
            ("zone", "hz-a"),
        ]
    );
}

#[test]
fn protocols_and_ports() {
    let grpc = || port("grpc", 9090, Some("grpc"));
    for (metadata, ports) in [
        (&[][..], vec![port("", 80, None)]),
        (&[("secure", "TRUE")], vec![port("", 80, Some("https"))]),
        (&[("secure", "false")], vec![port("", 80, None)]),
        (
            &[("protocol", "GRPC"), ("secure", "true")],
            vec![port("", 80, Some("grpc"))],
        ),
        (&[("protocol", "tri")], vec![port("", 80, Some("grpc"))]),
        (&[("protocol", "Triple")], vec![port("", 80, Some("grpc"))]),
        (&[("protocol", "")], vec![port("", 80, None)]),
        (&[("gRPC_port", "9090")], vec![port("", 80, None), grpc()]),
        (&[("gRPC.port", "9090")], vec![port("", 80, None), grpc()]),
        (&[("gRPC_port", "80")], vec![port("", 80, None)]),
        (&[("gRPC_port", "0")], vec![port("", 80, None)]),
        (&[("gRPC_port", "70000")], vec![port("", 80, None)]),
        (&[("gRPC_port", "x")], vec![port("", 80, None)]),
    ] {
        let made = instance(host("10.0.0.1", 80, metadata));
        assert_eq!(*made.ports, *ports, "{metadata:?}");
    }
}

#[test]
fn localities() {
    for (cluster, metadata, expected) in [
        ("DEFAULT", &[][..], ["", "", ""]),
        ("HZ", &[], ["HZ", "", ""]),
        (
            "HZ",
            &[("region", "eu"), ("zone", "eu-1"), ("sub_zone", "r1")],
            ["eu", "eu-1", "r1"],
        ),
        (
            "DEFAULT",
            &[("zone", "eu-1"), ("subzone", "r1")],
            ["", "eu-1", "r1"],
        ),
    ] {
        let host = Host {
            cluster: cluster.into(),
            ..host("10.0.0.1", 80, metadata)
        };
        let made = instance(host).locality;
        assert_eq!([&*made.region, &*made.zone, &*made.sub_zone], expected);
    }
}

#[test]
fn secrets_are_no_labels() {
    let metadata = [
        ("token", "t"),
        ("nacos.password", "p"),
        ("accessKey", "a"),
        ("env", "prod"),
    ];
    let made = instance(host("10.0.0.1", 80, &metadata));
    assert_eq!(label(&made.labels, "env"), Some("prod"));
    assert_eq!(made.labels.len(), 2, "{:?}", made.labels);
}

#[test]
fn a_service_without_instances_is_listed_until_it_is_gone() {
    let mut directory = directory();
    directory.set(&info("web", &[]), None);
    assert_eq!(changes(&mut directory), ["+nacos/public/DEFAULT_GROUP/web"]);
    assert!(only(&mut directory).instances.is_empty());
    directory.remove(&name("DEFAULT_GROUP", "web"));
    assert_eq!(changes(&mut directory), ["-nacos/public/DEFAULT_GROUP/web"]);
    directory.remove(&name("DEFAULT_GROUP", "web"));
    assert_eq!(changes(&mut directory), [""; 0]);
    assert!(directory.snapshot().is_empty());
}

#[test]
fn what_changes_is_told_once() {
    let mut directory = directory();
    let one = host("10.0.0.1", 80, &[]);
    directory.set(&info("web", std::slice::from_ref(&one)), None);
    assert_eq!(changes(&mut directory).len(), 1);
    let mut later = info("web", std::slice::from_ref(&one));
    later.last_ref_time = 2;
    later.checksum = "x".into();
    directory.set(&later, None);
    assert_eq!(changes(&mut directory), [""; 0], "only the time is another");
    // A client that registers anew: gone and there again before anybody looks.
    directory.remove(&later.name);
    directory.set(&later, None);
    assert_eq!(changes(&mut directory), [""; 0]);
    directory.set(&info("web", &[one, host("10.0.0.2", 80, &[])]), None);
    assert_eq!(changes(&mut directory), ["+nacos/public/DEFAULT_GROUP/web"]);
    directory.snapshot();
    assert_eq!(changes(&mut directory), [""; 0], "a snapshot tells all");
}

#[test]
fn the_order_of_hosts_leaves_no_trace() {
    let double = host("10.0.0.1", 80, &[("v", "2")]);
    let hosts = [
        host("10.0.0.1", 80, &[("v", "1")]),
        double,
        host("10.0.0.2", 80, &[]),
    ];
    let mut back = hosts.clone();
    back.reverse();
    let made = service(&hosts);
    assert_eq!(made.instances.len(), 2, "one place is one instance");
    assert_eq!(made, service(&back));
}

#[test]
fn one_place_in_two_clusters_is_two_instances() {
    let there = Host {
        cluster: "HZ".into(),
        ..host("10.0.0.1", 80, &[])
    };
    let made = service(&[host("10.0.0.1", 80, &[]), there]);
    let ids: Vec<&str> = made.instances.iter().map(|i| &*i.id).collect();
    assert_eq!(ids, ["10.0.0.1:80@DEFAULT", "10.0.0.1:80@HZ"]);
}

#[test]
fn clusters_and_groups_and_names_decide_what_is_read() {
    let config = Config {
        groups: Groups::Named(vec!["shop".into()]),
        clusters: vec!["HZ".into()],
        select: Arc::new(|name: &str| !name.starts_with("old-")),
        ..config()
    };
    let mut directory = Directory::new(&config, "dev");
    assert!(!directory.takes(&name("DEFAULT_GROUP", "web")));
    assert!(!directory.takes(&name("shop", "old-web")));
    assert!(directory.takes(&name("shop", "web")));
    let there = Host {
        cluster: "HZ".into(),
        ..host("10.0.0.2", 80, &[])
    };
    let hosts = [host("10.0.0.1", 80, &[]), there];
    directory.set(&info_in("shop", "web", &hosts), None);
    directory.set(&info_in("shop", "old-web", &hosts), None);
    directory.set(&info("web", &hosts), None);
    let made = only(&mut directory);
    assert_eq!(made.key.to_string(), "nacos/dev/shop/web");
    let ids: Vec<&str> = made.instances.iter().map(|i| &*i.id).collect();
    assert_eq!(ids, ["10.0.0.2:80@HZ"]);
}

#[test]
fn kinds_of_services() {
    let application = [("dubbo.endpoints", r#"[{"port":20880,"protocol":"tri"}]"#)];
    let provider = [("interface", "a.B"), ("protocol", "dubbo")];
    for (services, discovery, expected) in [
        (
            Services::All,
            Discovery::Both,
            &[
                "DEFAULT_GROUP/both",
                "DEFAULT_GROUP/web",
                "a.B",
                "services/both",
            ][..],
        ),
        (
            Services::All,
            Discovery::Interface,
            &["DEFAULT_GROUP/both", "DEFAULT_GROUP/web", "a.B"],
        ),
        (
            Services::All,
            Discovery::Application,
            &["DEFAULT_GROUP/both", "DEFAULT_GROUP/web", "services/both"],
        ),
        (Services::Dubbo, Discovery::Both, &["a.B", "services/both"]),
        (Services::Dubbo, Discovery::Interface, &["a.B"]),
        (
            Services::Other,
            Discovery::Both,
            &["DEFAULT_GROUP/both", "DEFAULT_GROUP/web"],
        ),
    ] {
        let mut config = Config {
            services,
            ..config()
        };
        config.dubbo.discovery = discovery;
        let mut directory = Directory::new(&config, "");
        let spring = host(
            "10.0.0.1",
            8080,
            &[("preserved.register.source", "SPRING_CLOUD")],
        );
        let both = [spring.clone(), host("10.0.0.1", 20880, &application)];
        directory.set(&info("web", &[spring]), None);
        directory.set(&info("both", &both), None);
        directory.set(
            &info("providers:a.B::", &[host("10.0.0.1", 20880, &provider)]),
            None,
        );
        directory.set(
            &info("consumers:a.B::", &[host("10.0.0.9", 0, &provider)]),
            None,
        );
        let expected: Vec<String> = expected
            .iter()
            .map(|k| format!("nacos/public/{k}"))
            .collect();
        assert_eq!(
            keys(&directory.snapshot()),
            expected,
            "{services:?} {discovery:?}"
        );
    }
}

#[test]
fn a_service_that_turns_to_dubbo_and_back() {
    let mut directory = directory();
    let mut web = host("10.0.0.1", 80, &[]);
    directory.set(&info("web", std::slice::from_ref(&web)), None);
    assert_eq!(changes(&mut directory), ["+nacos/public/DEFAULT_GROUP/web"]);
    assert!(!directory.needs_metadata());
    web.metadata = pairs(&[("dubbo.metadata.revision", "1")]);
    directory.set(&info("web", &[web]), None);
    assert_eq!(
        changes(&mut directory),
        [
            "-nacos/public/DEFAULT_GROUP/web",
            "+nacos/public/services/web"
        ]
    );
    assert!(directory.needs_metadata());
    directory.set(&info("web", &[]), None);
    assert_eq!(
        changes(&mut directory),
        [
            "+nacos/public/DEFAULT_GROUP/web",
            "-nacos/public/services/web"
        ]
    );
    assert!(!directory.needs_metadata());
}
