use super::*;
use crate::{ServicePort, WorkloadEntry, WorkloadSelector};

fn port(number: u32, name: &str, protocol: &str) -> ServicePort {
    ServicePort {
        number,
        name: name.into(),
        protocol: protocol.into(),
        target_port: 0,
    }
}

/// A valid entry, changed by `edit`.
fn entry(edit: impl FnOnce(&mut ServiceEntry)) -> ServiceEntry {
    let mut spec = ServiceEntry {
        hosts: vec!["a.example.com".into()],
        ports: vec![port(80, "http", "HTTP")],
        resolution: Resolution::Static.into(),
        endpoints: vec![at("10.0.0.1")],
        ..Default::default()
    };
    edit(&mut spec);
    spec
}

fn at(address: &str) -> WorkloadEntry {
    WorkloadEntry {
        address: address.into(),
        ..Default::default()
    }
}

/// The rules that the edited entry breaks.
fn broken(edit: impl FnOnce(&mut ServiceEntry)) -> Vec<Violation> {
    service_entry(&entry(edit))
        .iter()
        .map(|violation| violation.rule().clone())
        .collect()
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn hosts() {
    assert_eq!(broken(|_| ()), []);
    assert_eq!(broken(|spec| spec.hosts.clear()), [Violation::NoHosts]);
    assert_eq!(
        broken(|spec| spec.hosts = strings(&["*"])),
        [Violation::HostMatchesAll]
    );
    assert_eq!(
        broken(|spec| spec.hosts = (0..257).map(|host| format!("h{host}")).collect()),
        [Violation::TooMany {
            count: 257,
            limit: 256
        }]
    );
    let found = service_entry(&entry(|spec| spec.hosts = strings(&["ok", "a_b"])));
    assert!(
        found[0]
            .to_string()
            .starts_with("hosts[1]: \"a_b\" in the DNS name"),
        "{}",
        found[0]
    );
}

#[test]
fn service_addresses() {
    for good in [
        "10.0.0.1",
        "0.0.0.0",
        "10.0.0.1/8",
        "10.0.0.0/0",
        "10.0.0.0/32",
        "::/128",
        "fe80::1%eth0",
        "::ffff:1.2.3.4/96",
    ] {
        assert_eq!(
            broken(|spec| spec.addresses = strings(&[good])),
            [],
            "{good}"
        );
    }
    for bad in [
        "",
        "a.b",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "10.0.0.0/8/8",
        "fe80::1%eth0/64",
        "::/129",
        "/8",
        "10.0/8",
        "unix:///a",
    ] {
        let refused = Violation::ServiceAddress {
            address: bad.into(),
        };
        assert_eq!(broken(|spec| spec.addresses = strings(&[bad])), [refused]);
    }
    let long_zone = format!("fe80::1%{}", "z".repeat(57));
    assert!(matches!(
        broken(|spec| spec.addresses = vec![long_zone])[..],
        [Violation::TooLong { length: 65, .. }]
    ));
    assert_eq!(
        broken(|spec| spec.addresses = vec!["10.0.0.1".into(); 257]),
        [Violation::TooMany {
            count: 257,
            limit: 256
        }]
    );
}

#[test]
fn cidr_blocks_need_none_or_static() {
    let block = |resolution: Resolution| {
        broken(|spec| {
            spec.addresses = strings(&["10.0.0.0/8"]);
            spec.resolution = resolution.into();
            spec.endpoints.clear();
        })
    };
    assert_eq!(block(Resolution::None), []);
    assert_eq!(block(Resolution::Static), []);
    let refused = [Violation::CidrResolution {
        address: "10.0.0.0/8".into(),
    }];
    assert_eq!(block(Resolution::Dns), refused);
    assert_eq!(block(Resolution::DnsRoundRobin), refused);
}

#[test]
fn ports() {
    let with = |ports: Vec<ServicePort>| broken(|spec| spec.ports = ports);
    assert_eq!(with(vec![]), []);
    assert_eq!(
        with(vec![
            port(1, &"a".repeat(63), ""),
            port(65535, "b", "grpc-web")
        ]),
        []
    );
    for number in [0, 65536] {
        assert_eq!(
            with(vec![port(number, "a", "TCP")]),
            [Violation::PortNumber { port: number }]
        );
    }
    assert_eq!(
        with(vec![port(1, "", "TCP")]),
        [Violation::PortName {
            name: String::new()
        }]
    );
    assert_eq!(
        with(vec![port(1, "a", "dubbo")]),
        [Violation::UnknownProtocol {
            protocol: "dubbo".into()
        }]
    );
    assert_eq!(
        with(vec![port(1, "a", "TCP"), port(2, "a", "TCP")]),
        [Violation::DuplicatePortName { name: "a".into() }]
    );
    assert_eq!(
        with(vec![port(1, "a", "TCP"), port(1, "b", "TCP")]),
        [Violation::DuplicatePortNumber { port: 1 }]
    );
    assert_eq!(
        broken(|spec| spec.ports[0].target_port = 65536),
        [Violation::PortNumber { port: 65536 }]
    );
    assert_eq!(
        with(
            (1..=257)
                .map(|number| port(number, &format!("p{number}"), "HTTP"))
                .collect()
        ),
        [Violation::TooMany {
            count: 257,
            limit: 256
        }]
    );
}

#[test]
fn selectors() {
    let with = |key: &str, value: &str| {
        broken(|spec| {
            spec.endpoints.clear();
            spec.workload_selector = Some(WorkloadSelector {
                labels: [(key.to_owned(), value.to_owned())].into(),
            });
        })
    };
    assert_eq!(with("app", "a"), []);
    assert_eq!(with("not a label", "a b"), []);
    assert_eq!(
        with("", "a"),
        [Violation::SelectorKeyEmpty { value: "a".into() }]
    );
    for (key, value) in [("a*", "b"), ("a", "*")] {
        let refused = Violation::SelectorWildcard {
            key: key.into(),
            value: value.into(),
        };
        assert_eq!(with(key, value), [refused]);
    }
    assert!(matches!(
        with("a", &"b".repeat(64))[..],
        [Violation::TooLong { limit: 63, .. }]
    ));
    assert_eq!(
        broken(|spec| spec.workload_selector = Some(WorkloadSelector::default())),
        [Violation::SelectorAndEndpoints]
    );
    let labels = (0..257)
        .map(|key| (format!("k{key}"), String::new()))
        .collect();
    assert_eq!(
        broken(|spec| {
            spec.endpoints.clear();
            spec.workload_selector = Some(WorkloadSelector { labels });
        }),
        [Violation::TooMany {
            count: 257,
            limit: 256
        }]
    );
}

#[test]
fn resolutions() {
    let with = |resolution: Resolution, host: &str, endpoints: Vec<WorkloadEntry>| {
        broken(|spec| {
            spec.resolution = resolution.into();
            spec.hosts = strings(&[host]);
            spec.endpoints = endpoints;
        })
    };
    assert_eq!(with(Resolution::None, "*.a", vec![]), []);
    assert_eq!(
        with(Resolution::None, "a", vec![at("10.0.0.1"), at("bad_")]),
        [Violation::EndpointsWithoutResolution]
    );
    assert_eq!(with(Resolution::Static, "*.a", vec![]), []);
    assert_eq!(
        with(Resolution::Dns, "a", vec![at("10.0.0.1"), at("b.c")]),
        []
    );
    assert_eq!(with(Resolution::Dns, "*.a", vec![at("b.c")]), []);
    assert_eq!(
        with(Resolution::Dns, "*.a", vec![]),
        [Violation::HostNotResolvable {
            host: "*.a".into(),
            resolution: "DNS"
        }]
    );
    assert_eq!(with(Resolution::DnsRoundRobin, "a", vec![at("b.c")]), []);
    assert_eq!(
        with(Resolution::DnsRoundRobin, "a", vec![at("b.c"), at("c.d")]),
        [Violation::EndpointsOfRoundRobin { count: 2 }]
    );
}

#[test]
fn unknown_enumeration_values() {
    assert_eq!(
        broken(|spec| spec.resolution = 4),
        [Violation::UnknownResolution { value: 4 }]
    );
    assert_eq!(
        broken(|spec| spec.location = 2),
        [Violation::UnknownLocation { value: 2 }]
    );
    assert_eq!(
        broken(|spec| spec.location = -1),
        [Violation::UnknownLocation { value: -1 }]
    );
}

#[test]
fn several_hosts_need_a_protocol_that_names_them() {
    let with = |protocol: &str, resolution: Resolution| {
        broken(|spec| {
            spec.hosts = strings(&["a", "b"]);
            spec.ports[0].protocol = protocol.into();
            spec.resolution = resolution.into();
            spec.endpoints.clear();
        })
    };
    for protocol in ["HTTP", "grpc", "HTTPS", "TLS"] {
        assert_eq!(with(protocol, Resolution::Static), [], "{protocol}");
    }
    for protocol in ["", "TCP", "MONGO", "UDP"] {
        let refused = [Violation::HostsShareOpaquePort {
            protocol: protocol.into(),
        }];
        assert_eq!(with(protocol, Resolution::Static), refused);
        assert_eq!(with(protocol, Resolution::Dns), refused);
        assert_eq!(with(protocol, Resolution::None), []);
    }
}

#[test]
fn endpoints_are_named() {
    let found = service_entry(&entry(|spec| spec.endpoints.push(at("db.local"))));
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .to_string()
            .starts_with("endpoints[1]: the address \"db.local\" is not an IP address"),
        "{}",
        found[0]
    );
    assert_eq!(
        broken(|spec| spec.endpoints = vec![at("10.0.0.1"); 4096]),
        []
    );
    assert_eq!(
        broken(|spec| spec.endpoints = vec![at("10.0.0.1"); 4097]),
        [Violation::TooMany {
            count: 4097,
            limit: 4096
        }]
    );
}

#[test]
fn exports() {
    let with = |list: &[&str]| broken(|spec| spec.export_to = strings(list));
    for good in [
        &[][..],
        &["."],
        &["*"],
        &["~"],
        &["ns1", "ns2"],
        &[".", "ns1"],
        &["NS"],
    ] {
        assert_eq!(with(good), [], "{good:?}");
    }
    for bad in ["", "a_b", "a.b", "**", "-a"] {
        assert_eq!(with(&[bad]), [Violation::ExportTo { value: bad.into() }]);
    }
    assert_eq!(
        with(&["a", "a"]),
        [Violation::ExportToTwice { value: "a".into() }]
    );
    assert_eq!(
        with(&["*", "a"]),
        [Violation::ExportToNotAlone { value: "*" }]
    );
    assert_eq!(
        with(&["a", "~"]),
        [Violation::ExportToNotAlone { value: "~" }]
    );
    let own = entry(|spec| spec.export_to = strings(&["ns1", "."]));
    assert_eq!(service_entry_in(Some("ns2"), &own), []);
    assert_eq!(
        service_entry_in(Some("ns1"), &own)[0].rule(),
        &Violation::ExportToTwice { value: ".".into() }
    );
}
