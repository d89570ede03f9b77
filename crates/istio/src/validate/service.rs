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
mod tests;
