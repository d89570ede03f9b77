//! From a record of Eureka to an instance. Pure.
//!
//! Nothing in a service changes with a renewal: times, counters and URLs are not taken over.

use std::sync::Arc;

use diolkos_model::{
    Address, Health, Instance, Interner, Labels, Locality, Port, Service, ServiceKey, Weight,
};
use serde_json::Value;

use crate::{
    Config,
    wire::{Metadata, Record},
};

/// Metadata under which gRPC servers for Spring tell their port.
const GRPC_PORT: &[&str] = &["gRPC_port", "gRPC.port", "grpc.port", "grpc_port"];
/// Metadata that tells the version.
const VERSION: &[&str] = &["version", "app.version", "appVersion"];
/// Metadata that is no label, in lower case: what the model has a place of its own for, and what
/// differs at each start.
const NO_LABEL: &[&str] = &[
    "weight",
    "version",
    "protocol",
    "grpc_port",
    "grpc.port",
    "instanceid",
    "startup",
    "timestamp",
    "pid",
];
/// What a name holds, in lower case, whose value is secret. Spring Boot Admin, for one, has
/// instances register `user.name` and `user.password`.
const SECRET: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "apikey",
    "api-key",
    "api_key",
    "api.key",
    "private",
    "username",
    "user.name",
    "user-name",
    "user_name",
];

/// What an answer says of one instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// The application, in lower case.
    pub(crate) app: Arc<str>,
    /// The instance's id.
    pub(crate) id: Arc<str>,
    /// Whether it is gone; only a delta says so.
    pub(crate) deleted: bool,
    /// What there is of it.
    pub(crate) entry: Entry,
}

/// An instance of an application.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The status, in upper case. Those of all instances are counted for the hash.
    pub(crate) status: Arc<str>,
    /// When the peer changed it last, in milliseconds by its own clock; 0 if it does not say.
    pub(crate) updated: u64,
    /// The virtual addresses, plain and secure; empty if it has none.
    pub(crate) vips: [Arc<str>; 2],
    /// The instance; `None` if its application is not read.
    pub(crate) instance: Option<Instance>,
}

/// Reads records.
#[derive(Debug)]
pub(crate) struct Mapper<'a> {
    pub(crate) config: &'a Config,
    pub(crate) interner: &'a mut Interner,
}

impl Mapper<'_> {
    /// The change that a record in the list of an application makes; `None` if it does not tell of
    /// which application or instance it is.
    pub(crate) fn change(&mut self, app: &str, value: &Value) -> Option<Change> {
        let record = Record(value);
        let own = record.text("app");
        let app = either(app.trim(), &own).to_lowercase();
        let id = id(record);
        if app.is_empty() || id.is_empty() {
            return None;
        }
        let status = either(&record.text("status"), "UNKNOWN").to_uppercase();
        let selected = (self.config.select)(&app);
        let vips = ["vipAddress", "secureVipAddress"].map(|field| record.text(field));
        Some(Change {
            deleted: record.text("actionType").eq_ignore_ascii_case("DELETED"),
            entry: Entry {
                updated: updated(record),
                vips: vips.map(|vip| self.interner.string(&vip.to_lowercase())),
                instance: selected.then(|| self.instance(&id, &status, record)),
                status: self.interner.string(&status),
            },
            app: self.interner.string(&app),
            id: id.into(),
        })
    }

    fn instance(&mut self, id: &str, status: &str, record: Record<'_>) -> Instance {
        let metadata = record.metadata();
        let address = either(&record.text("ipAddr"), &record.text("hostName")).to_owned();
        Instance {
            id: id.into(),
            address: parse_address(&address),
            ports: self.ports(record, metadata),
            health: self.health(status),
            weight: metadata.first(&["weight"]).and_then(|text| weight(&text)),
            locality: self.locality(record, metadata),
            version: metadata
                .first(VERSION)
                .map(|version| self.interner.string(&version)),
            labels: self.labels(metadata),
        }
    }

    /// The plain port first: it is the default one, if it is in use.
    fn ports(&mut self, record: Record<'_>, metadata: Metadata<'_>) -> Arc<[Port]> {
        let protocol = metadata.first(&["protocol"]);
        let protocol = protocol.map_or("http".to_owned(), |p| p.to_lowercase());
        let used = |field, default| {
            let (number, enabled) = record.port(field, default)?;
            enabled.then_some(number)
        };
        let grpc = metadata.first(GRPC_PORT).and_then(|port| port.parse().ok());
        let ports = [
            ("", used("port", true), &*protocol),
            ("secure", used("securePort", false), "https"),
            ("grpc", grpc, "grpc"),
        ];
        let ports = ports.into_iter().filter_map(|(name, number, protocol)| {
            Some(Port {
                name: self.interner.string(name),
                number: clamp(number?),
                protocol: Some(self.interner.string(protocol)),
            })
        });
        ports.collect()
    }

    fn health(&mut self, status: &str) -> Health {
        if self.config.statuses.contains(status) {
            Health::Healthy
        } else {
            Health::Unhealthy(self.interner.string(&status.to_lowercase()))
        }
    }

    fn locality(&mut self, record: Record<'_>, metadata: Metadata<'_>) -> Locality {
        let machine = record.machine().first(&["availability-zone"]);
        let zone = metadata.first(&["zone"]).or(machine).unwrap_or_default();
        let named = metadata.first(&["region"]).unwrap_or_default();
        let region = either(&self.config.region, either(&named, region_of(&zone)));
        Locality {
            region: self.interner.string(region),
            zone: self.interner.string(&zone),
            sub_zone: self.interner.string(""),
        }
    }

    fn labels(&mut self, metadata: Metadata<'_>) -> Labels {
        let pairs: Vec<_> = metadata
            .pairs()
            .filter(|(name, _)| is_label(name))
            .collect();
        let pairs = pairs.iter().map(|(name, value)| (*name, &**value));
        self.interner.labels(pairs)
    }

    /// The service that the instances of an application make.
    pub(crate) fn service<'e>(
        &mut self,
        app: &str,
        entries: impl Iterator<Item = &'e Entry> + Clone,
    ) -> Service {
        let key = key(self.config, app);
        let plain = common(entries.clone().map(|entry| &*entry.vips[0]));
        let secure = common(entries.clone().map(|entry| &*entry.vips[1]));
        let meta = [("vipAddress", plain), ("secureVipAddress", secure)];
        let meta = meta
            .into_iter()
            .filter_map(|(name, vip)| Some((name, vip?)));
        let meta = self.interner.labels(meta);
        let instances = entries.filter_map(|entry| entry.instance.clone());
        Service::new(key, meta, instances.collect())
    }
}

/// The key of an application's service.
pub(crate) fn key(config: &Config, app: &str) -> ServiceKey {
    ServiceKey {
        registry: config.registry.clone(),
        namespace: "".into(),
        group: "".into(),
        name: app.into(),
    }
}

fn either<'a>(first: &'a str, second: &'a str) -> &'a str {
    if first.is_empty() { second } else { first }
}

/// The id that it registered under. Old clients give none and go by host and port.
fn id(record: Record<'_>) -> String {
    let id = record.text("instanceId");
    let host = record.text("hostName");
    if !id.is_empty() || host.is_empty() {
        return id.into_owned();
    }
    let port = record.port("port", true).map_or(0, |(number, _)| number);
    format!("{host}:{}:{port}", record.text("app"))
}

fn updated(record: Record<'_>) -> u64 {
    match record.time("lastUpdatedTimestamp") {
        0 => record.time("lastDirtyTimestamp"),
        updated => updated,
    }
}

fn parse_address(text: &str) -> Address {
    match text.parse() {
        Ok(address) => address,
        Err(never) => match never {},
    }
}

fn clamp(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn weight(text: &str) -> Option<Weight> {
    let weight: f64 = text.parse().ok()?;
    (weight.is_finite() && weight >= 0.0).then(|| Weight::fraction(weight))
}

/// The region of an availability zone of Amazon's (`eu-west-1a`): the zone without its letter.
fn region_of(zone: &str) -> &str {
    let Some(region) = zone.strip_suffix(|last: char| last.is_ascii_lowercase()) else {
        return "";
    };
    let numbered = region.ends_with(|last: char| last.is_ascii_digit());
    let is_region = numbered && region.split('-').count() >= 3;
    if is_region { region } else { "" }
}

fn is_label(name: &str) -> bool {
    let name = name.to_lowercase();
    !NO_LABEL.contains(&&*name) && !SECRET.iter().any(|secret| name.contains(secret))
}

/// The virtual address that all have, if it can be a host's name.
fn common<'a>(mut vips: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = vips.next().filter(|vip| is_host(vip))?;
    vips.all(|vip| vip == first).then_some(first)
}

/// Whether this is a DNS name, in lower case. Virtual addresses may be lists, or hold `${…}`.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests;
