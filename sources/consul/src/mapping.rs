//! From an entry of Consul to an instance.

use std::sync::Arc;

use diolkos_model::{
    Address, Health, Instance, Interner, Labels, Locality, Port, Service, ServiceKey, Weight,
};

use crate::wire::{Check, Entry};

/// The names that Istio takes as a protocol at the start of a port's name.
const PROTOCOLS: [&str; 11] = [
    "grpc-web", "grpc", "http2", "https", "http", "tcp", "tls", "mongo", "mysql", "redis", "udp",
];

/// Whether this is an instance of a service and not a proxy or gateway of Consul's own mesh.
pub(crate) fn is_instance(entry: &Entry) -> bool {
    entry.service.kind.is_empty()
}

/// The service that the entries make. Proxies are left out.
pub(crate) fn service(key: ServiceKey, entries: &[Entry], interner: &mut Interner) -> Service {
    let instances = entries
        .iter()
        .filter(|entry| is_instance(entry))
        .map(|entry| instance(entry, interner))
        .collect();
    Service::new(key, [].into(), instances)
}

fn instance(entry: &Entry, interner: &mut Interner) -> Instance {
    let Entry {
        node,
        service,
        checks,
    } = entry;
    let service_id = either(&service.id, &service.service);
    let tags = Tags::of(&service.tags);
    Instance {
        id: format!("{}/{service_id}", node.node).into(),
        address: address(either(&service.address, &node.address)),
        ports: ports(entry, &tags, interner),
        health: health(checks),
        weight: weight(entry),
        locality: locality(entry, interner),
        version: version(entry, &tags).map(|version| interner.string(version)),
        labels: labels(entry, &tags, interner),
    }
}

fn either<'a>(first: &'a str, second: &'a str) -> &'a str {
    if first.is_empty() { second } else { first }
}

fn address(text: &str) -> Address {
    match text.parse() {
        Ok(address) => address,
        Err(never) => match never {},
    }
}

/// An instance's tags, by their form.
struct Tags<'a> {
    /// `key=value` and `key|value`, split at the first separator.
    pairs: Vec<(&'a str, &'a str)>,
    /// All others.
    plain: Vec<&'a str>,
}

impl<'a> Tags<'a> {
    fn of(tags: &'a [String]) -> Self {
        let mut split = Self {
            pairs: Vec::new(),
            plain: Vec::new(),
        };
        for tag in tags {
            match tag.split_once(['=', '|']) {
                Some((key, value)) if !key.is_empty() => split.pairs.push((key, value)),
                _ => split.plain.push(tag),
            }
        }
        split
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.pairs.iter().find(|(k, _)| *k == key)?;
        Some(value)
    }
}

/// Metadata wins over tags. Plain tags become one label.
fn labels(entry: &Entry, tags: &Tags<'_>, interner: &mut Interner) -> Labels {
    let plain = tags.plain.join(",");
    let plain = (!plain.is_empty()).then_some(("tags", &*plain));
    let meta = &entry.service.meta;
    let meta = meta.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    interner.labels(
        plain
            .into_iter()
            .chain(tags.pairs.iter().copied())
            .chain(meta),
    )
}

/// The value under a key of the metadata or else of the tags; empty counts as absent.
fn attribute<'a>(entry: &'a Entry, tags: &Tags<'a>, key: &str) -> Option<&'a str> {
    let meta = entry.service.meta.get(key).map(String::as_str);
    [meta, tags.get(key)]
        .into_iter()
        .flatten()
        .find(|value| !value.is_empty())
}

fn version<'a>(entry: &'a Entry, tags: &Tags<'a>) -> Option<&'a str> {
    let plain = || tags.plain.iter().copied().find(|tag| is_version(tag));
    attribute(entry, tags, "version").or_else(plain)
}

/// `v1`, `v2.3`: a `v` and numbers with dots between.
fn is_version(tag: &str) -> bool {
    tag.strip_prefix('v').is_some_and(|rest| {
        rest.split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// `Ports` with the default one first, or else the single `Port`, be it 0: the plan says why it is
/// of no use.
fn ports(entry: &Entry, tags: &Tags<'_>, interner: &mut Interner) -> Arc<[Port]> {
    let general = attribute(entry, tags, "protocol");
    let ports = &entry.service.ports;
    if ports.is_empty() {
        return [port("", entry.service.port, general, interner)].into();
    }
    let (default, others): (Vec<_>, Vec<_>) = ports.iter().partition(|port| port.default);
    default
        .into_iter()
        .chain(others)
        .enumerate()
        .map(|(index, p)| {
            let own = attribute(entry, tags, &format!("protocol-{}", p.name));
            // What is said of the service as a whole is meant for its default port.
            let general = general.filter(|_| index == 0);
            let protocol = own.or_else(|| protocol_in(&p.name)).or(general);
            port(&p.name, p.port, protocol, interner)
        })
        .collect()
}

fn port(name: &str, number: i64, protocol: Option<&str>, interner: &mut Interner) -> Port {
    let protocol = protocol.map(str::to_lowercase);
    Port {
        name: interner.string(name),
        number: clamp(number),
        protocol: protocol.map(|protocol| interner.string(&protocol)),
    }
}

fn clamp(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

/// The protocol in a port's name, by Istio's rule: `NAME` or `NAME-suffix`.
fn protocol_in(name: &str) -> Option<&'static str> {
    PROTOCOLS.into_iter().find(|protocol| {
        name.strip_prefix(protocol)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// The first check, in the order of check ids, that takes the instance out of traffic. Maintenance
/// goes first, since somebody wanted it.
fn health(checks: &[Check]) -> Health {
    let down = |check: &&Check| !matches!(check.status.as_str(), "passing" | "warning");
    let worst = checks
        .iter()
        .filter(down)
        .min_by_key(|check| (!is_maintenance(check), &check.check_id));
    match worst {
        None => Health::Healthy,
        Some(check) if is_maintenance(check) => {
            let reason = either(&check.notes, "no reason given");
            Health::Unhealthy(format!("maintenance: {reason}").into())
        }
        Some(check) => {
            let status = either(&check.status, "critical");
            let name = either(&check.name, &check.check_id);
            Health::Unhealthy(format!("{status}: {name}").into())
        }
    }
}

fn is_maintenance(check: &Check) -> bool {
    check.check_id == "_node_maintenance" || check.check_id.starts_with("_service_maintenance:")
}

fn weight(entry: &Entry) -> Option<Weight> {
    let weights = entry.service.weights.as_ref()?;
    let warns = entry.checks.iter().any(|check| check.status == "warning");
    let weight = if warns {
        weights.warning
    } else {
        weights.passing
    };
    Some(Weight::whole(clamp(weight)))
}

fn locality(entry: &Entry, interner: &mut Interner) -> Locality {
    let known = entry.service.locality.as_ref();
    let (region, zone) = match known.or(entry.node.locality.as_ref()) {
        Some(known) => (&*known.region, &*known.zone),
        None => (&*entry.node.datacenter, ""),
    };
    Locality {
        region: interner.string(region),
        zone: interner.string(zone),
        sub_zone: interner.string(""),
    }
}

#[cfg(test)]
mod tests;
