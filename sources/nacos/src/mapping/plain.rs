//! Services that are not of Dubbo, Spring Cloud's among them.

use std::sync::Arc;

use diolkos_model::{
    Address, Instance, Interner, Labels, Locality, Port, Service, ServiceKey, Weight,
};
use diolkos_nacos::Host;
use diolkos_source_dubbo::is_secret;

use super::standing::Seen;

/// Nacos' own name for the cluster of instances that have no other.
pub(super) const DEFAULT_CLUSTER: &str = "DEFAULT";
/// What tells Nacos how to treat the instance: heartbeats, ids, who registered it.
const PRESERVED: &str = "preserved.";
/// Where starters of Spring for gRPC say where else the instance listens.
const GRPC_PORTS: [&str; 2] = ["gRPC_port", "gRPC.port"];

/// The service that these hosts make.
pub(super) fn service(
    key: ServiceKey,
    hosts: &[Seen<'_>],
    protected: bool,
    interner: &mut Interner,
) -> Service {
    let reached = protected.then_some(("protectionThreshold", "reached"));
    let meta = interner.labels([("group", &*key.group)].into_iter().chain(reached));
    let instances = hosts.iter().map(|seen| instance(seen, interner)).collect();
    Service::new(key, meta, instances)
}

fn instance(seen: &Seen<'_>, interner: &mut Interner) -> Instance {
    let Seen { id, host, standing } = seen;
    Instance {
        id: id.clone(),
        address: address(&host.ip),
        ports: ports(host, interner),
        health: standing.health(),
        weight: Some(Weight::fraction(host.weight)),
        locality: locality(host, interner),
        version: text(host, "version").map(|version| interner.string(version)),
        labels: labels(host, interner),
    }
}

fn address(ip: &str) -> Address {
    match ip.parse() {
        Ok(address) => address,
        Err(never) => match never {},
    }
}

/// The value of metadata that is not empty.
fn text<'a>(host: &'a Host, name: &str) -> Option<&'a str> {
    let value = host.metadata.get(name)?.trim();
    (!value.is_empty()).then_some(value)
}

/// The registered port, and one for gRPC if it is another.
fn ports(host: &Host, interner: &mut Interner) -> Arc<[Port]> {
    let first = Port {
        name: interner.string(""),
        number: host.port,
        protocol: protocol(host).map(|protocol| interner.string(&protocol)),
    };
    match grpc_port(host) {
        None => [first].into(),
        Some(number) => {
            let name = interner.string("grpc");
            let grpc = Port {
                name: name.clone(),
                number,
                protocol: Some(name),
            };
            [first, grpc].into()
        }
    }
}

/// As the instance says, in Istio's words. Spring Cloud only says whether it is TLS.
fn protocol(host: &Host) -> Option<String> {
    let secure = || {
        let secure = text(host, "secure").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        secure.then(|| "https".to_owned())
    };
    match text(host, "protocol").map(str::to_lowercase) {
        Some(protocol) if protocol == "tri" || protocol == "triple" => Some("grpc".to_owned()),
        Some(protocol) => Some(protocol),
        None => secure(),
    }
}

fn grpc_port(host: &Host) -> Option<u32> {
    let named = GRPC_PORTS.iter().find_map(|name| text(host, name))?;
    let number = named.parse::<u16>().ok().filter(|number| *number != 0)?;
    let number = u32::from(number);
    (number != host.port).then_some(number)
}

/// As the instance says, or else the cluster: what Nacos' own clients prefer to stay in.
fn locality(host: &Host, interner: &mut Interner) -> Locality {
    let cluster = Some(&*host.cluster).filter(|name| *name != DEFAULT_CLUSTER);
    let region = text(host, "region").or(cluster);
    let sub_zone = text(host, "sub_zone").or_else(|| text(host, "subzone"));
    let mut part = |part: Option<&str>| interner.string(part.unwrap_or_default());
    Locality {
        region: part(region),
        zone: part(text(host, "zone")),
        sub_zone: part(sub_zone),
    }
}

/// The metadata that is for others, and the cluster.
fn labels(host: &Host, interner: &mut Interner) -> Labels {
    let own = host
        .metadata
        .iter()
        .filter(|(name, _)| !name.starts_with(PRESERVED) && !is_secret(name))
        .map(|(name, value)| (name.as_str(), value.as_str()));
    interner.labels(own.chain([("cluster", host.cluster.as_str())]))
}
