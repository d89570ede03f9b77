//! The documents: what may be written in a file, and what it means.

use std::{collections::BTreeMap, fmt, sync::Arc};

use diolkos_model::{
    Address, Health, Instance, Interner, Locality, Port, Service, ServiceKey, Weight,
};
use serde::Deserialize;
use serde_saphyr::{Location, MessageFormatter as _, Spanned, UserMessageFormatter};

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Line and column, from 1, where they are known.
    at: Option<(u64, u64)>,
    message: String,
}

impl Fault {
    /// About the file as a whole.
    pub(crate) fn of_file(message: impl Into<String>) -> Self {
        Self {
            at: None,
            message: message.into(),
        }
    }

    fn at(location: Location, message: impl Into<String>) -> Self {
        let known = location.line() > 0;
        Self {
            at: known.then(|| (location.line(), location.column())),
            message: message.into(),
        }
    }

    fn of_yaml(error: &serde_saphyr::Error) -> Self {
        use serde_saphyr::Error;
        let message = match error.without_snippet() {
            Error::InvalidScalar { ty: "u32", .. } => {
                "this must be a whole number from 0 to 4294967295".to_owned()
            }
            Error::Unexpected {
                expected: "mapping start",
                ..
            } => "this must be a mapping, `field: value`".to_owned(),
            error => UserMessageFormatter.format_message(error).into_owned(),
        };
        Self::at(error.location().unwrap_or(Location::UNKNOWN), message)
    }

    /// `file:line:column: message`.
    pub(crate) fn in_file(&self, file: &str) -> String {
        format!("{file}:{self}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// A service as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    name: Spanned<String>,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    instances: Vec<Spanned<RawInstance>>,
}

/// An instance as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInstance {
    id: Option<String>,
    address: String,
    port: Option<u32>,
    protocol: Option<String>,
    ports: Option<Vec<RawPort>>,
    version: Option<String>,
    weight: Option<f64>,
    healthy: Option<bool>,
    unhealthy: Option<String>,
    #[serde(default)]
    locality: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// A port as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPort {
    #[serde(default)]
    name: String,
    port: u32,
    protocol: Option<String>,
}

/// Reads all services of a file.
pub(crate) fn decode(
    registry: &Arc<str>,
    content: &[u8],
    interner: &mut Interner,
) -> Result<Vec<Service>, Fault> {
    let documents: Vec<RawService> =
        serde_saphyr::from_slice_multiple_with_options(content, options())
            .map_err(|error| Fault::of_yaml(&error))?;
    let mut first_lines = BTreeMap::new();
    let mut services = Vec::with_capacity(documents.len());
    for document in documents {
        let location = document.name.referenced;
        let service = Reader { registry, interner }.service(&document)?;
        if let Some(line) = first_lines.insert(service.key.clone(), location.line()) {
            let name = name_of(&service.key);
            let message = format!("service {name} is in line {line} already; keep one of the two");
            return Err(Fault::at(location, message));
        }
        services.push(service);
    }
    Ok(services)
}

/// A service as people write it: without the registry, which is the same for all.
pub(crate) fn name_of(key: &ServiceKey) -> String {
    let parts = [&*key.namespace, &*key.group, &*key.name];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

/// The library's limits are for untrusted input of a few pages; here a file may hold a whole
/// registry, and the operator wrote it. The limits on depth and aliases stay.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_nodes: 100_000_000,
            max_events: 400_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        with_snippet: false,
    }
}

struct Reader<'a> {
    registry: &'a Arc<str>,
    interner: &'a mut Interner,
}

impl Reader<'_> {
    fn service(&mut self, raw: &RawService) -> Result<Service, Fault> {
        if raw.name.value.is_empty() {
            return Err(Fault::at(raw.name.referenced, "the service has no name"));
        }
        let key = ServiceKey {
            registry: self.registry.clone(),
            namespace: self.interner.string(&raw.namespace),
            group: self.interner.string(&raw.group),
            name: self.interner.string(&raw.name.value),
        };
        let meta = self.labels(&raw.metadata);
        let mut lines: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let mut instances = Vec::with_capacity(raw.instances.len());
        for raw in &raw.instances {
            let place = raw.referenced;
            let instance = self
                .instance(&raw.value)
                .map_err(|message| Fault::at(place, message))?;
            if let Some(line) = lines.insert(instance.id.clone(), place.line()) {
                let id = &instance.id;
                let message = format!("instance {id} is in line {line} already; ids are unique");
                return Err(Fault::at(place, message));
            }
            instances.push(instance);
        }
        Ok(Service::new(key, meta, instances))
    }

    fn instance(&mut self, raw: &RawInstance) -> Result<Instance, String> {
        if raw.address.is_empty() {
            return Err("the instance has no address".to_owned());
        }
        let Ok(address) = raw.address.parse::<Address>();
        let ports = self.ports(raw)?;
        let id = raw
            .id
            .clone()
            .unwrap_or_else(|| default_id(&address, &ports));
        Ok(Instance {
            id: id.into(),
            address,
            ports: ports.into(),
            health: self.health(raw)?,
            weight: raw.weight.map(weight).transpose()?,
            locality: self.locality(&raw.locality)?,
            version: raw
                .version
                .as_deref()
                .map(|text| self.interner.string(text)),
            labels: self.labels(&raw.labels),
        })
    }

    fn ports(&mut self, raw: &RawInstance) -> Result<Vec<Port>, String> {
        match (&raw.ports, raw.port) {
            (Some(_), Some(_)) => Err("give either port or ports".to_owned()),
            (Some(_), None) if raw.protocol.is_some() => {
                Err("with ports, give the protocol in each of them".to_owned())
            }
            (Some(ports), None) => Ok(ports
                .iter()
                .map(|port| self.port(&port.name, port.port, port.protocol.as_deref()))
                .collect()),
            (None, Some(number)) => Ok(vec![self.port("", number, raw.protocol.as_deref())]),
            (None, None) if raw.protocol.is_some() => Err("a protocol needs a port".to_owned()),
            (None, None) => Ok(Vec::new()),
        }
    }

    fn port(&mut self, name: &str, number: u32, protocol: Option<&str>) -> Port {
        Port {
            name: self.interner.string(name),
            number,
            protocol: protocol.map(|text| self.interner.string(&text.to_lowercase())),
        }
    }

    fn health(&mut self, raw: &RawInstance) -> Result<Health, String> {
        match (raw.healthy, &raw.unhealthy) {
            (Some(true), Some(_)) => Err("it cannot be healthy and unhealthy".to_owned()),
            (_, Some(why)) => Ok(Health::Unhealthy(self.interner.string(why))),
            (Some(false), None) => Ok(Health::Unhealthy(self.interner.string("unhealthy"))),
            (Some(true) | None, None) => Ok(Health::Healthy),
        }
    }

    fn locality(&mut self, text: &str) -> Result<Locality, String> {
        let mut parts = text.split('/').map(|part| self.interner.string(part));
        let mut next = || parts.next().unwrap_or_default();
        let locality = Locality {
            region: next(),
            zone: next(),
            sub_zone: next(),
        };
        match parts.next() {
            None => Ok(locality),
            Some(_) => Err(format!(
                "locality {text:?} has more parts than region/zone/sub-zone"
            )),
        }
    }

    fn labels(&mut self, map: &BTreeMap<String, String>) -> diolkos_model::Labels {
        self.interner
            .labels(map.iter().map(|(key, value)| (&**key, &**value)))
    }
}

fn default_id(address: &Address, ports: &[Port]) -> String {
    match (address, ports.first()) {
        (address, None) => address.to_string(),
        (Address::Ip(ip), Some(port)) if ip.is_ipv6() => format!("[{ip}]:{}", port.number),
        (address, Some(port)) => format!("{address}:{}", port.number),
    }
}

fn weight(weight: f64) -> Result<Weight, String> {
    if weight.is_finite() && weight >= 0.0 {
        Ok(Weight::fraction(weight))
    } else {
        Err(format!("weight {weight} is not a number from 0 up"))
    }
}

#[cfg(test)]
mod tests;
