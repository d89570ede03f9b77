//! Service entries: `ValidateServiceEntry` of Istio, and the schema of `ServiceEntry`.

use std::collections::BTreeSet;

use super::{
    endpoint::{endpoint, is_ip_address, port_number},
    limit,
    name::{fqdn, host, is_label, port_name},
    protocol::protocol,
    violation::{Violation, clip, items, length, note},
};
use crate::{Location, Resolution, ServiceEntry};

/// A service entry, its endpoints included.
///
/// Whether `exportTo` names the entry's own namespace twice, only [`object`](super::object) can tell.
#[must_use]
pub fn service_entry(spec: &ServiceEntry) -> Vec<Violation> {
    service_entry_in(None, spec)
}

/// A service entry in its namespace.
pub(super) fn service_entry_in(namespace: Option<&str>, spec: &ServiceEntry) -> Vec<Violation> {
    let mut found = Vec::new();
    hosts(spec, &mut found);
    addresses(spec, &mut found);
    ports(spec, &mut found);
    selector(spec, &mut found);
    if Location::try_from(spec.location).is_err() {
        found.push(Violation::UnknownLocation {
            value: spec.location,
        });
    }
    match Resolution::try_from(spec.resolution) {
        Ok(resolution) => resolved(spec, resolution, &mut found),
        Err(_) => found.push(Violation::UnknownResolution {
            value: spec.resolution,
        }),
    }
    export_to(namespace, &spec.export_to, &mut found);
    found
}

fn hosts(spec: &ServiceEntry, found: &mut Vec<Violation>) {
    if spec.hosts.is_empty() {
        found.push(Violation::NoHosts);
    }
    note(found, items(spec.hosts.len(), limit::HOSTS), || {
        "hosts".into()
    });
    for (index, name) in spec.hosts.iter().enumerate() {
        note(found, host(name), || format!("hosts[{index}]"));
    }
}

fn addresses(spec: &ServiceEntry, found: &mut Vec<Violation>) {
    note(found, items(spec.addresses.len(), limit::ADDRESSES), || {
        "addresses".into()
    });
    for (index, address) in spec.addresses.iter().enumerate() {
        let field = || format!("addresses[{index}]");
        note(found, ip_or_block(address), field);
        note(found, length(address, limit::SERVICE_ADDRESS), field);
    }
}

/// `agent.ValidateIPSubnet`. Host bits may be set; IPv6 zones are allowed in an address only.
fn ip_or_block(value: &str) -> Result<(), Violation> {
    let valid = match value.split_once('/') {
        None => is_ip_address(value),
        Some((address, bits)) => {
            let limit = if address.contains(':') { 128 } else { 32 };
            is_ip_address(address) && !address.contains('%') && is_prefix_length(bits, limit)
        }
    };
    if valid {
        return Ok(());
    }
    Err(Violation::ServiceAddress {
        address: clip(value),
    })
}

/// A decimal number without sign and leading zeros, as `netip.ParsePrefix` wants it.
fn is_prefix_length(bits: &str, limit: u8) -> bool {
    bits.bytes().all(|byte| byte.is_ascii_digit())
        && (bits == "0" || !bits.starts_with('0'))
        && bits.parse::<u8>().is_ok_and(|bits| bits <= limit)
}

fn ports(spec: &ServiceEntry, found: &mut Vec<Violation>) {
    note(found, items(spec.ports.len(), limit::PORTS), || {
        "ports".into()
    });
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let field = || format!("ports[{index}]");
        note(found, port_name(&port.name), field);
        note(found, port_number(port.number), field);
        if port.target_port != 0 {
            note(found, port_number(port.target_port), || {
                format!("ports[{index}].targetPort")
            });
        }
        note(found, known_protocol(&port.protocol), field);
        if !names.insert(&port.name) {
            let name = clip(&port.name);
            found.push(Violation::DuplicatePortName { name }.at(&field()));
        }
        if !numbers.insert(port.number) {
            let port = port.number;
            found.push(Violation::DuplicatePortNumber { port }.at(&field()));
        }
    }
}

/// `ValidateProtocol`. The empty protocol is detected by the proxies.
fn known_protocol(name: &str) -> Result<(), Violation> {
    if name.is_empty() || protocol(name).is_some() {
        return Ok(());
    }
    Err(Violation::UnknownProtocol {
        protocol: clip(name),
    })
}

/// `ValidateAlphaWorkloadSelector`. Keys and values are otherwise free: they need not be valid labels.
fn selector(spec: &ServiceEntry, found: &mut Vec<Violation>) {
    let Some(selector) = &spec.workload_selector else {
        return;
    };
    if !spec.endpoints.is_empty() {
        found.push(Violation::SelectorAndEndpoints);
    }
    let labels = &selector.labels;
    note(found, items(labels.len(), limit::LABELS), || {
        "workloadSelector.labels".into()
    });
    for (key, value) in labels {
        let field = || format!("workloadSelector.labels[{:?}]", clip(key));
        note(found, length(value, limit::LABEL_VALUE), field);
        if key.is_empty() {
            found.push(Violation::SelectorKeyEmpty { value: clip(value) });
        }
        if key.contains('*') || value.contains('*') {
            found.push(Violation::SelectorWildcard {
                key: clip(key),
                value: clip(value),
            });
        }
    }
}

/// The rules that depend on the resolution.
fn resolved(spec: &ServiceEntry, resolution: Resolution, found: &mut Vec<Violation>) {
    let dns = match resolution {
        Resolution::None => {
            if !spec.endpoints.is_empty() {
                found.push(Violation::EndpointsWithoutResolution);
            }
            return;
        }
        Resolution::Static => None,
        Resolution::Dns => Some("DNS"),
        Resolution::DnsRoundRobin => Some("DNS_ROUND_ROBIN"),
    };
    if let Some(name) = dns {
        resolvable(spec, name, found);
    }
    let count = spec.endpoints.len();
    if resolution == Resolution::DnsRoundRobin && count > 1 {
        found.push(Violation::EndpointsOfRoundRobin { count });
    }
    shared_port(spec, found);
    endpoints(spec, resolution, found);
}

/// What the proxies have to resolve with `DNS`.
fn resolvable(spec: &ServiceEntry, resolution: &'static str, found: &mut Vec<Violation>) {
    for (index, address) in spec.addresses.iter().enumerate() {
        if address.contains('/') {
            let address = clip(address);
            found.push(Violation::CidrResolution { address }.at(&format!("addresses[{index}]")));
        }
    }
    if !spec.endpoints.is_empty() {
        return;
    }
    for (index, name) in spec.hosts.iter().enumerate() {
        if fqdn(name).is_err() {
            let host = clip(name);
            let violation = Violation::HostNotResolvable { host, resolution };
            found.push(violation.at(&format!("hosts[{index}]")));
        }
    }
}

/// Several hosts need protocols that name the host; with `NONE` the hosts do not matter.
fn shared_port(spec: &ServiceEntry, found: &mut Vec<Violation>) {
    if spec.hosts.len() < 2 {
        return;
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let names_host = protocol(&port.protocol)
            .is_some_and(|protocol| protocol.http_family() || protocol.tls_family());
        if !names_host {
            let protocol = clip(&port.protocol);
            let violation = Violation::HostsShareOpaquePort { protocol };
            found.push(violation.at(&format!("ports[{index}]")));
        }
    }
}

fn endpoints(spec: &ServiceEntry, resolution: Resolution, found: &mut Vec<Violation>) {
    note(found, items(spec.endpoints.len(), limit::ENDPOINTS), || {
        "endpoints".into()
    });
    let port_names = spec.ports.iter().map(|port| port.name.as_str()).collect();
    for (index, one) in spec.endpoints.iter().enumerate() {
        let wrong = endpoint(one, resolution, &port_names);
        found.extend(
            wrong
                .into_iter()
                .map(|violation| violation.at(&format!("endpoints[{index}]"))),
        );
    }
}

/// `validateExportTo` and `visibility.Instance.Validate`: namespaces, or one of `.`, `*` and `~`.
fn export_to(namespace: Option<&str>, list: &[String], found: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    for (index, entry) in list.iter().enumerate() {
        let field = || format!("exportTo[{index}]");
        // `.` is the own namespace under another name.
        let entry = entry.as_str();
        let meant = if entry == "." {
            namespace.unwrap_or(entry)
        } else {
            entry
        };
        if !seen.insert(meant) {
            let value = clip(entry);
            found.push(Violation::ExportToTwice { value }.at(&field()));
        } else if !matches!(meant, "." | "*" | "~") && !is_label(meant) {
            let value = clip(entry);
            found.push(Violation::ExportTo { value }.at(&field()));
        }
    }
    for value in ["*", "~"] {
        if list.len() > 1 && seen.contains(value) {
            found.push(Violation::ExportToNotAlone { value }.at("exportTo"));
        }
    }
}

#[cfg(test)]
mod tests {
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
}
