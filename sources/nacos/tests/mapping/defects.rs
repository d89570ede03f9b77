//! What others got wrong, by the numbers of our list.

use diolkos_model::{Address, Weight};
use diolkos_nacos::Host;
use diolkos_source_dubbo::Variants;
use diolkos_source_nacos::{Config, mapping::Directory};

use crate::support::{
    changes, config, directory, health, host, info, info_in, instance, keys, label, name, only,
    service,
};

/// Ports had the name `http` whatever they spoke, and endpoints another one.
#[test]
fn x4_a_port_says_what_it_speaks() {
    let made = instance(host("10.0.0.1", 80, &[("protocol", "grpc")]));
    assert_eq!(made.ports[0].protocol.as_deref(), Some("grpc"));
    assert_eq!(&*made.ports[0].name, "", "one name for all instances");
}

/// All instances counted as healthy when few were, and were then left out again.
#[test]
fn x5_protection_is_shown_and_changes_nothing() {
    let mut directory = directory();
    let down = Host {
        healthy: false,
        ..host("10.0.0.2", 80, &[])
    };
    let hosts = [host("10.0.0.1", 80, &[]), down.clone()];
    directory.set(&info("web", &hosts), None);
    let before = only(&mut directory);
    let mut protected = info("web", &[hosts[0].clone(), host("10.0.0.2", 80, &[])]);
    protected.protected = true;
    directory.set(&protected, Some(&[hosts[0].clone(), down]));
    let after = only(&mut directory);
    assert_eq!(before.instances, after.instances);
    assert_eq!(label(&after.meta, "protectionThreshold"), Some("reached"));
}

/// Groups with `_` and names in upper case made one host of several services, or an invalid one.
#[test]
fn x6_keys_are_as_nacos_has_them() {
    let mut directory = directory();
    for (group, service) in [
        ("My_Group", "Web"),
        ("my_group", "web"),
        ("MY-GROUP", "web"),
    ] {
        directory.set(&info_in(group, service, &[]), None);
    }
    assert_eq!(
        keys(&directory.snapshot()),
        [
            "nacos/public/MY-GROUP/web",
            "nacos/public/My_Group/Web",
            "nacos/public/my_group/web"
        ]
    );
}

/// A weight of 0.5 became 0.
#[test]
fn x8_half_a_weight_is_half() {
    let half = Host {
        weight: 0.5,
        ..host("10.0.0.1", 80, &[])
    };
    assert_eq!(instance(half).weight, Some(Weight(500)));
}

/// Services of one name in two groups or namespaces were merged: development and production.
#[test]
fn m9_groups_and_namespaces_never_mix() {
    let provider = || host("10.0.0.1", 20880, &[("protocol", "dubbo")]);
    let application = || host("10.0.0.1", 20880, &[("dubbo.endpoints", "[]")]);
    let mut all = Vec::new();
    for namespace in ["", "dev"] {
        let mut directory = Directory::new(&config(), namespace);
        for group in ["DEFAULT_GROUP", "G"] {
            directory.set(&info_in(group, "web", &[host("10.0.0.1", 80, &[])]), None);
            directory.set(&info_in(group, "providers:a.B::", &[provider()]), None);
            directory.set(&info_in(group, "shop", &[application()]), None);
        }
        all.extend(keys(&directory.snapshot()));
    }
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!((count, all.len()), (12, 12), "{all:?}");
}

/// Weight, the switch and the cluster were not even read.
#[test]
fn m10_weight_and_switch_and_cluster_count() {
    let made = instance(Host {
        weight: 3.0,
        enabled: false,
        cluster: "HZ".into(),
        ..host("10.0.0.1", 80, &[])
    });
    assert_eq!(made.weight, Some(Weight::whole(3)));
    assert!(!made.health.is_healthy());
    assert_eq!(&*made.locality.region, "HZ");
    assert_eq!(label(&made.labels, "cluster"), Some("HZ"));
}

/// A parameter without a value, an IPv6 address or a host name cost the provider.
#[test]
fn m11_providers_of_all_kinds_of_hosts_are_kept() {
    let mut directory = directory();
    let hosts = ["10.0.0.1", "fd00::1", "web.example.org"]
        .map(|ip| host(ip, 20880, &[("protocol", "tri"), ("odd", "")]));
    directory.set(&info("providers:a.B::", &hosts), None);
    let service = only(&mut directory);
    let ids: Vec<&str> = health(&service).into_keys().collect();
    assert_eq!(
        ids,
        ["10.0.0.1:20880", "[fd00::1]:20880", "web.example.org:20880"]
    );
    let ports = service.instances.iter().flat_map(|i| i.ports.iter());
    assert!(
        ports
            .clone()
            .all(|port| port.protocol.as_deref() == Some("grpc"))
    );
    assert_eq!(ports.count(), 3);
}

/// Only `http` and `dubbo` were known, and one protocol was for a whole registry.
#[test]
fn m18_every_instance_says_its_protocol() {
    for protocol in ["grpc", "https", "http2", "redis"] {
        let made = instance(host("10.0.0.1", 80, &[("protocol", protocol)]));
        assert_eq!(made.ports[0].protocol.as_deref(), Some(protocol));
    }
}

/// One instance with a host name turned the whole service to names.
#[test]
fn m19_a_host_name_costs_itself_only() {
    let made = service(&[host("10.0.0.1", 80, &[]), host("web.example.org", 80, &[])]);
    let addresses: Vec<&Address> = made.instances.iter().map(|i| &i.address).collect();
    assert!(matches!(addresses[..], [Address::Ip(_), Address::Name(_)]));
}

/// Metadata was thrown away unless it had a protocol.
#[test]
fn h6_metadata_is_kept() {
    let made = instance(host("10.0.0.1", 80, &[("version", "v2"), ("env", "gray")]));
    assert_eq!(made.version.as_deref(), Some("v2"));
    assert_eq!(label(&made.labels, "env"), Some("gray"));
}

/// Unhealthy instances got traffic; a weight of 0 became 1, and 0.3 the default.
#[test]
fn h7_unhealthy_is_down_and_weights_are_exact() {
    for (weight, expected) in [(0.0, 0), (0.3, 300), (0.0001, 1), (1.0, 1000)] {
        let made = instance(Host {
            weight,
            healthy: false,
            ..host("10.0.0.1", 80, &[])
        });
        assert_eq!(made.weight, Some(Weight(expected)), "{weight}");
        assert!(!made.health.is_healthy());
    }
}

/// Everything was HTTP on port 80.
#[test]
fn n2_port_and_protocol_are_the_registered_ones() {
    let made = instance(host("10.0.0.1", 8443, &[("secure", "true")]));
    assert_eq!(made.ports[0].number, 8443);
    assert_eq!(made.ports[0].protocol.as_deref(), Some("https"));
}

/// Nothing was ever deleted.
#[test]
fn n3_what_is_gone_is_a_removal() {
    let mut directory = directory();
    directory.set(&info("web", &[host("10.0.0.1", 80, &[])]), None);
    directory.set(&info("providers:a.B::", &[host("10.0.0.1", 80, &[])]), None);
    assert_eq!(changes(&mut directory).len(), 2);
    directory.remove(&name("DEFAULT_GROUP", "web"));
    directory.remove(&name("DEFAULT_GROUP", "providers:a.B::"));
    assert_eq!(
        changes(&mut directory),
        ["-nacos/public/DEFAULT_GROUP/web", "-nacos/public/a.B"]
    );
}

/// All callbacks used the group of the last service.
#[test]
fn d7_every_variant_has_its_own_group() {
    let mut config = config();
    config.dubbo.variants = Variants::Hosts;
    let mut directory = Directory::new(&Config { ..config }, "");
    for group in ["one", "two"] {
        let host = host("10.0.0.1", 20880, &[("protocol", "dubbo")]);
        directory.set(
            &info(&format!("providers:a.B:1.0.0:{group}"), &[host]),
            None,
        );
    }
    let services = directory.snapshot();
    let hosts: Vec<_> = services
        .iter()
        .map(|s| label(&s.meta, "dubboHost"))
        .collect();
    assert_eq!(hosts, [Some("a.b-one-1-0-0"), Some("a.b-two-1-0-0")]);
}

/// Two notifications in a row were joined: what was gone stayed, what was there was there twice.
#[test]
fn d8_the_last_notification_counts() {
    let mut directory = directory();
    let hosts = [host("10.0.0.1", 80, &[]), host("10.0.0.2", 80, &[])];
    for service in ["web", "providers:a.B::"] {
        directory.set(&info(service, &hosts), None);
        directory.set(&info(service, &hosts[1..]), None);
    }
    for service in directory.snapshot() {
        assert_eq!(service.instances.len(), 1, "{service:?}");
    }
}

/// Health, switch and weight were ignored, and so was an empty notification.
#[test]
fn d9_dubbo_follows_health_and_emptiness() {
    let mut directory = directory();
    let down = Host {
        healthy: false,
        weight: 0.5,
        ..host("10.0.0.1", 20880, &[("protocol", "dubbo")])
    };
    directory.set(&info("providers:a.B::", &[down]), None);
    let instance = only(&mut directory).instances[0].clone();
    assert!(!instance.health.is_healthy());
    assert_eq!(instance.weight, Some(Weight::whole(50)));
    directory.set(&info("providers:a.B::", &[]), None);
    assert_eq!(changes(&mut directory), ["-nacos/public/a.B"]);
}
