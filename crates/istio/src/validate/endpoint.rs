//! Endpoints: `validateWorkloadEntry` of Istio, and the schema of `WorkloadEntry`.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    limit,
    name::{endpoint_label_key, endpoint_label_value, fqdn, port_name},
    violation::{Violation, clip, items, length, note},
};
use crate::{Resolution, WorkloadEntry};

/// The scheme of Unix sockets in addresses.
const UNIX: &str = "unix://";

/// Whether Go's `netip.ParseAddr`, and so Istio, takes `value` as an IP address.
///
/// That includes `0.0.0.0`, `::`, IPv4 inside of IPv6 (`::ffff:10.0.0.1`) and IPv6 with a zone
/// (`fe80::1%eth0`): whether such an address is any use is for the caller to decide.
#[must_use]
pub fn is_ip_address(value: &str) -> bool {
    match value.split_once('%') {
        Some((address, zone)) => !zone.is_empty() && address.parse::<Ipv6Addr>().is_ok(),
        None => value.parse::<Ipv4Addr>().is_ok() || value.parse::<Ipv6Addr>().is_ok(),
    }
}

/// A stand-alone workload entry: the webhook, which cannot know the service entries that select it
/// and so takes DNS names as addresses, and the CRD.
///
/// [`endpoint`] is the stricter check that a `STATIC` service entry needs.
#[must_use]
pub fn workload_entry(spec: &WorkloadEntry) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Err(violation) = address(spec, None) {
        found.push(violation);
    }
    shape(spec, &mut found);
    found
}

/// One endpoint of a service entry whose ports have the names `port_names`: what is wrong with it
/// alone, so that it can be left out and the others kept.
#[must_use]
pub fn endpoint(
    spec: &WorkloadEntry,
    resolution: Resolution,
    port_names: &BTreeSet<&str>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Err(violation) = address(spec, Some(resolution)) {
        found.push(violation);
    }
    if spec.address.starts_with(UNIX) && port_names.len() != 1 {
        found.push(Violation::UnixPortCount {
            address: clip(&spec.address),
            count: port_names.len(),
        });
    }
    for name in spec.ports.keys() {
        if !port_names.contains(name.as_str()) {
            found.push(Violation::UndefinedPort { name: clip(name) });
        }
    }
    shape(spec, &mut found);
    found
}

/// The address under the resolution of its service entry, `None` if it stands alone.
fn address(spec: &WorkloadEntry, resolution: Option<Resolution>) -> Result<(), Violation> {
    let address = spec.address.as_str();
    match resolution {
        Some(Resolution::None) => Err(Violation::EndpointsWithoutResolution),
        Some(Resolution::Dns | Resolution::DnsRoundRobin) => ip_or_name(address),
        // Static or stand-alone: an endpoint behind a network's gateway needs no address.
        _ if address.is_empty() && spec.network.is_empty() => Err(Violation::AddressMissing),
        _ if address.is_empty() || is_ip_address(address) => Ok(()),
        _ if address.starts_with(UNIX) => unix(address),
        Some(Resolution::Static) => Err(Violation::AddressNotIp {
            address: clip(address),
        }),
        None => ip_or_name(address),
    }
}

fn ip_or_name(address: &str) -> Result<(), Violation> {
    if is_ip_address(address) || fqdn(address).is_ok() {
        return Ok(());
    }
    Err(Violation::AddressNotIpOrName {
        address: clip(address),
    })
}

/// `ValidateUnixAddress`, and the CRD, which also refuses a final `/` of an abstract socket.
fn unix(address: &str) -> Result<(), Violation> {
    let path = address.strip_prefix(UNIX).unwrap_or_default();
    if !path.starts_with(['/', '@']) || path.ends_with('/') {
        return Err(Violation::UnixAddress {
            address: clip(address),
        });
    }
    Ok(())
}

/// What holds for every workload entry: sizes (CRD), ports and labels (both).
fn shape(spec: &WorkloadEntry, found: &mut Vec<Violation>) {
    for (field, value, limit) in [
        ("address", &spec.address, limit::ADDRESS),
        ("network", &spec.network, limit::NETWORK),
        ("locality", &spec.locality, limit::LOCALITY),
        (
            "serviceAccount",
            &spec.service_account,
            limit::SERVICE_ACCOUNT,
        ),
    ] {
        note(found, length(value, limit), || field.into());
    }
    note(
        found,
        items(spec.ports.len(), limit::ENDPOINT_PORTS),
        || "ports".into(),
    );
    note(found, items(spec.labels.len(), limit::LABELS), || {
        "labels".into()
    });
    if spec.address.starts_with(UNIX) && !spec.ports.is_empty() {
        let address = clip(&spec.address);
        found.push(Violation::UnixWithPorts { address });
    }
    for (name, port) in &spec.ports {
        let field = || format!("ports[{:?}]", clip(name));
        note(found, port_name(name), field);
        // The CRD has `size(key) < 63`, one less than the webhook and than a service port's name.
        if port_name(name).is_ok() {
            note(found, length(name, limit::ENDPOINT_PORT_NAME), field);
        }
        note(found, port_number(*port), field);
    }
    for (key, value) in &spec.labels {
        let field = || format!("labels[{:?}]", clip(key));
        note(found, endpoint_label_key(key), field);
        note(found, endpoint_label_value(value), field);
    }
}

/// `agent.ValidatePort`.
pub(super) fn port_number(port: u32) -> Result<(), Violation> {
    if (1..=65535).contains(&port) {
        return Ok(());
    }
    Err(Violation::PortNumber { port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> WorkloadEntry {
        WorkloadEntry {
            address: address.into(),
            ..Default::default()
        }
    }

    fn static_endpoint(spec: &WorkloadEntry) -> Vec<Violation> {
        endpoint(spec, Resolution::Static, &["http"].into())
    }

    fn rules(found: &[Violation]) -> Vec<&Violation> {
        found.iter().map(Violation::rule).collect()
    }

    #[test]
    fn ip_addresses_as_go_reads_them() {
        for good in [
            "10.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1%eth0",
            "fe80::1%a%b",
            "::ffff:10.0.0.1",
            "::ffff:1.2.3.4%z",
            "1:2:3:4:5:6:7::",
            "1:2:3:4:5:6:1.2.3.4",
            "2001:DB8::1",
        ] {
            assert!(is_ip_address(good), "{good}");
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "10.0.0.1.",
            " 10.0.0.1",
            "10.0.0.1%eth0",
            "fe80::1%",
            "%eth0",
            "[::1]",
            "::1/64",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4::5:6:7:8",
            "::ffff:01.2.3.4",
            "::00001",
            "1::2::3",
            ":1",
            "10.0.0.1:80",
            "localhost",
        ] {
            assert!(!is_ip_address(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_of_static_endpoints() {
        assert_eq!(static_endpoint(&at("10.0.0.1")), []);
        assert_eq!(static_endpoint(&at("unix:///run/a.sock")), []);
        assert_eq!(static_endpoint(&at("unix://@abstract")), []);
        assert_eq!(static_endpoint(&at("")), [Violation::AddressMissing]);
        assert_eq!(
            static_endpoint(&at("db.example.com")),
            [Violation::AddressNotIp {
                address: "db.example.com".into()
            }]
        );
        for bad in [
            "unix://",
            "unix:///",
            "unix://relative",
            "unix:///dir/",
            "unix://@a/",
        ] {
            assert_eq!(
                static_endpoint(&at(bad)),
                [Violation::UnixAddress {
                    address: bad.into()
                }]
            );
        }
        let behind_gateway = WorkloadEntry {
            network: "n2".into(),
            ..Default::default()
        };
        assert_eq!(static_endpoint(&behind_gateway), []);
    }

    #[test]
    fn addresses_of_stand_alone_and_dns_endpoints() {
        for good in ["10.0.0.1", "db.example.com", "fe80::1%eth0", "db"] {
            assert_eq!(workload_entry(&at(good)), []);
            assert_eq!(endpoint(&at(good), Resolution::Dns, &BTreeSet::new()), []);
        }
        for bad in ["10.0.0.999", "db_1", "*.example.com"] {
            let refused = [Violation::AddressNotIpOrName {
                address: bad.into(),
            }];
            assert_eq!(workload_entry(&at(bad)), refused);
            assert_eq!(
                endpoint(&at(bad), Resolution::DnsRoundRobin, &BTreeSet::new()),
                refused
            );
        }
        assert_eq!(workload_entry(&at("unix:///run/a")), []);
        assert_eq!(workload_entry(&at("")), [Violation::AddressMissing]);
        assert_eq!(
            endpoint(&at("unix:///run/a"), Resolution::Dns, &["http"].into()),
            [Violation::AddressNotIpOrName {
                address: "unix:///run/a".into()
            }]
        );
        assert_eq!(
            endpoint(&at("10.0.0.1"), Resolution::None, &["http"].into()),
            [Violation::EndpointsWithoutResolution]
        );
    }

    #[test]
    fn unix_sockets_take_one_service_port_and_none_of_their_own() {
        let mut spec = at("unix:///run/a");
        assert_eq!(
            endpoint(&spec, Resolution::Static, &["a", "b"].into()),
            [Violation::UnixPortCount {
                address: "unix:///run/a".into(),
                count: 2
            }]
        );
        spec.ports = [("http".to_owned(), 80)].into();
        assert_eq!(
            static_endpoint(&spec),
            [Violation::UnixWithPorts {
                address: "unix:///run/a".into()
            }]
        );
    }

    #[test]
    fn ports() {
        let with = |name: &str, port| WorkloadEntry {
            ports: [(name.to_owned(), port)].into(),
            ..at("10.0.0.1")
        };
        assert_eq!(static_endpoint(&with("http", 1)), []);
        assert_eq!(static_endpoint(&with("http", 65535)), []);
        for port in [0, 65536, u32::MAX] {
            assert_eq!(
                rules(&static_endpoint(&with("http", port))),
                [&Violation::PortNumber { port }]
            );
        }
        assert_eq!(
            rules(&static_endpoint(&with("grpc", 80))),
            [&Violation::UndefinedPort {
                name: "grpc".into()
            }]
        );
        assert_eq!(
            rules(&workload_entry(&with("a_b", 80))),
            [&Violation::PortName { name: "a_b".into() }]
        );
        assert_eq!(workload_entry(&with(&"a".repeat(62), 80)), []);
        assert!(matches!(
            rules(&workload_entry(&with(&"a".repeat(63), 80)))[..],
            [Violation::TooLong {
                length: 63,
                limit: 62,
                ..
            }]
        ));
    }

    #[test]
    fn labels() {
        let with = |key: &str, value: &str| WorkloadEntry {
            labels: [(key.to_owned(), value.to_owned())].into(),
            ..at("10.0.0.1")
        };
        assert_eq!(workload_entry(&with("version", "v1")), []);
        assert_eq!(workload_entry(&with("A.io/x", &"v".repeat(300))), []);
        assert_eq!(
            rules(&workload_entry(&with("a b", "v"))),
            [&Violation::LabelKey { key: "a b".into() }]
        );
        assert_eq!(
            rules(&workload_entry(&with("a", "v 1"))),
            [&Violation::LabelValue {
                value: "v 1".into()
            }]
        );
    }

    #[test]
    fn sizes_of_the_crd() {
        let text = |chars| "a".repeat(chars);
        let good = WorkloadEntry {
            network: text(2048),
            locality: text(2048),
            service_account: text(253),
            ports: (1..=128).map(|port| (format!("p{port}"), port)).collect(),
            labels: (0..256)
                .map(|key| (format!("k{key}"), String::new()))
                .collect(),
            ..at("10.0.0.1")
        };
        assert_eq!(workload_entry(&good), []);
        let bad = WorkloadEntry {
            address: text(257),
            network: text(2049),
            locality: text(2049),
            service_account: text(254),
            ports: (1..=129).map(|port| (format!("p{port}"), port)).collect(),
            labels: (0..257)
                .map(|key| (format!("k{key}"), String::new()))
                .collect(),
            ..Default::default()
        };
        let found = workload_entry(&bad);
        let fields: Vec<_> = found
            .iter()
            .filter_map(|violation| match violation {
                Violation::At { field, .. } => Some(field.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(
            fields,
            [
                "address",
                "network",
                "locality",
                "serviceAccount",
                "ports",
                "labels"
            ]
        );
    }
}
