//! Which ports clients dial, and which port of an endpoint answers each.
//!
//! Registries know the ports of instances; a `ServiceEntry` has ports of the service. Istio sends
//! traffic for a service port to `endpoint.ports[name]`, and falls back to the *service's* port
//! number where an endpoint does not name it: to the wrong place. So every endpoint names every port.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use diolkos_istio::{ServicePort, validate};
use diolkos_model::{Instance, Port, Service};

use crate::{
    PortNaming, PortPolicy, Reason,
    decision::{Decisions, Refused},
    select,
};

/// Above this many registered ports clients dial one port instead: the ports are dynamic then.
const MOST_DISTINCT: usize = 8;
/// Most ports that the `ServiceEntry` CRD takes.
const MOST_PORTS: usize = 256;

/// The ports of a service.
pub(crate) struct Layout {
    entries: Vec<Entry>,
}

struct Entry {
    port: ServicePort,
    /// The registry's port name that it stands for.
    slot: Arc<str>,
    /// Whether it stands for all numbers of the slot, not for its own only.
    any_number: bool,
}

/// All instances of one registered port, and the protocols they name.
struct Registered<'a> {
    slot: &'a Arc<str>,
    number: u32,
    votes: Votes,
}

/// How many instances name each protocol.
type Votes = BTreeMap<Arc<str>, usize>;

/// Lays out the ports that `instances` registered. Health does not count here: a service whose
/// instances fail must keep its shape.
pub(crate) fn layout(
    policy: &PortPolicy,
    service: &Service,
    instances: &[&Instance],
    decisions: &mut Decisions,
) -> Result<Layout, Refused> {
    let registered = collect(policy, service, instances, decisions);
    if registered.is_empty() {
        decisions.service(Reason::NoPorts, "no instance has a usable port");
        return Err(Refused);
    }
    let mut layout = Layout {
        entries: Vec::new(),
    };
    let default_slot = instances
        .iter()
        .find_map(|i| usable(i).next())
        .map(|port| port.name.clone())
        .unwrap_or_default();
    let slots: BTreeSet<&Arc<str>> = registered.iter().map(|r| r.slot).collect();
    // The default slot first: of two ports with one number it is the one to keep.
    let mut slots: Vec<_> = slots.into_iter().collect();
    slots.sort_by_key(|slot| (**slot != default_slot, (*slot).clone()));
    for slot in slots {
        let of_slot: Vec<_> = registered.iter().filter(|r| r.slot == slot).collect();
        layout.add_slot(policy, &of_slot, *slot == default_slot, decisions);
    }
    layout.name(policy.naming);
    decisions.service(Reason::Ports, layout.describe());
    Ok(layout)
}

impl Layout {
    /// The ports of the service entry.
    pub(crate) fn ports(&self) -> Vec<ServicePort> {
        self.entries
            .iter()
            .map(|entry| entry.port.clone())
            .collect()
    }

    /// Whether one of the ports is not of the HTTP or TLS family, so that a host cannot share them.
    pub(crate) fn needs_one_host(&self) -> bool {
        self.entries.iter().any(|entry| {
            !validate::protocol(&entry.port.protocol)
                .is_some_and(|p| p.http_family() || p.tls_family())
        })
    }

    /// An endpoint's own port for each port of the service; `None` if it has no usable port.
    /// The second value names a port of the service that it lacks.
    pub(crate) fn endpoint(
        &self,
        instance: &Instance,
    ) -> Option<(BTreeMap<String, u32>, Option<String>)> {
        let own: Vec<&Port> = usable(instance).collect();
        let default = own.first()?;
        let mut lacks = None;
        let ports = self
            .entries
            .iter()
            .map(|entry| {
                let mut of_slot = own.iter().filter(|port| port.name == entry.slot);
                let exact = of_slot
                    .clone()
                    .find(|port| !entry.any_number && port.number == entry.port.number);
                let port = exact.or_else(|| of_slot.next()).unwrap_or_else(|| {
                    lacks.get_or_insert_with(|| entry.port.name.clone());
                    default
                });
                (entry.port.name.clone(), port.number)
            })
            .collect();
        Some((ports, lacks))
    }

    fn add_slot(
        &mut self,
        policy: &PortPolicy,
        registered: &[&Registered<'_>],
        is_default: bool,
        decisions: &mut Decisions,
    ) {
        let protocol = majority(policy, registered);
        let fixed = policy.service_port.filter(|_| is_default).map(u32::from);
        let one = fixed.or_else(|| {
            (registered.len() > MOST_DISTINCT).then(|| {
                let number = dialled(&protocol, registered);
                decisions.service(
                    Reason::DynamicPorts,
                    format!(
                        "{} different ports are registered; clients dial {number}. Set export.ports.servicePort to choose another",
                        registered.len()
                    ),
                );
                number
            })
        });
        if let Some(number) = one {
            self.add(registered[0].slot, number, &protocol, true, decisions);
            return;
        }
        for port in registered {
            if port.votes.len() > 1 {
                let names: Vec<_> = port.votes.keys().map(|name| &**name).collect();
                decisions.service(
                    Reason::ProtocolMixed,
                    format!(
                        "port {} is registered as {}",
                        port.number,
                        names.join(" and ")
                    ),
                );
            }
            self.add(
                port.slot,
                port.number,
                &majority(policy, &[port]),
                false,
                decisions,
            );
        }
    }

    fn add(
        &mut self,
        slot: &Arc<str>,
        number: u32,
        protocol: &str,
        any_number: bool,
        decisions: &mut Decisions,
    ) {
        if self.entries.iter().any(|entry| entry.port.number == number) {
            decisions.service(
                Reason::PortClash,
                format!(
                    "port {number} ('{slot}') is the number of another port of the service already"
                ),
            );
            return;
        }
        if self.entries.len() == MOST_PORTS {
            decisions.service(
                Reason::PortClash,
                format!("port {number} ('{slot}'): a service entry has at most {MOST_PORTS} ports"),
            );
            return;
        }
        // Istio knows the protocol by its own list; what it does not know travels as TCP and keeps
        // its name behind the prefix.
        let (canonical, prefix) = match validate::protocol(protocol) {
            Some(known) => (known.as_str().to_owned(), protocol.to_owned()),
            None => (
                "TCP".to_owned(),
                format!("tcp-{}", crate::names::dns_label(protocol)),
            ),
        };
        self.entries.push(Entry {
            port: ServicePort {
                number,
                protocol: canonical,
                name: prefix.trim_end_matches('-').to_owned(),
                target_port: 0,
            },
            slot: slot.clone(),
            any_number,
        });
    }

    fn name(&mut self, naming: PortNaming) {
        let with_number = naming == PortNaming::ProtocolNumber || self.entries.len() > 1;
        for entry in &mut self.entries {
            // At most 63 characters in all; a number has up to five.
            entry.port.name.truncate(57);
            if with_number {
                entry.port.name = format!("{}-{}", entry.port.name, entry.port.number);
            }
        }
    }

    fn describe(&self) -> String {
        let ports: Vec<_> = self
            .entries
            .iter()
            .map(|e| {
                let slot = if e.slot.is_empty() {
                    String::new()
                } else {
                    format!(" for '{}'", e.slot)
                };
                format!(
                    "{} {} ({}){slot}",
                    e.port.number, e.port.name, e.port.protocol
                )
            })
            .collect();
        format!("clients dial {}", ports.join(", "))
    }
}

/// The ports of an instance that can be, in its own order.
fn usable(instance: &Instance) -> impl Iterator<Item = &Port> {
    instance.ports.iter().filter(|port| is_port(port.number))
}

fn is_port(number: u32) -> bool {
    (1..=65_535).contains(&number)
}

fn collect<'a>(
    policy: &PortPolicy,
    service: &Service,
    instances: &[&'a Instance],
    decisions: &mut Decisions,
) -> Vec<Registered<'a>> {
    let mut found: BTreeMap<(&Arc<str>, u32), Votes> = BTreeMap::new();
    for instance in instances {
        for port in instance.ports.iter() {
            if !is_port(port.number) {
                decisions.instance(
                    &instance.id,
                    Reason::PortRefused,
                    format!("port {} is not between 1 and 65535", port.number),
                );
                continue;
            }
            let votes = found.entry((&port.name, port.number)).or_default();
            // Who says nothing has no vote: one instance without the metadata makes no TCP service.
            if let Some(protocol) = protocol(policy, service, port) {
                *votes.entry(protocol).or_default() += 1;
            }
        }
    }
    found
        .into_iter()
        .map(|((slot, number), votes)| Registered {
            slot,
            number,
            votes,
        })
        .collect()
}

/// The protocol of a registered port: a rule of the policy, the registry's word, the port's name.
fn protocol(policy: &PortPolicy, service: &Service, port: &Port) -> Option<Arc<str>> {
    let rule = policy.protocols.iter().find(|rule| {
        let fits_port = rule
            .port
            .is_none_or(|number| u32::from(number) == port.number);
        let fits_name = rule
            .services
            .as_ref()
            .is_none_or(|globs| globs.is_match(select::name(service)));
        fits_port && fits_name
    });
    let by_name = || {
        let prefix = port.name.split('-').next().unwrap_or_default();
        let known = validate::protocol(&port.name).or_else(|| validate::protocol(prefix));
        known.map(|_| {
            if validate::protocol(&port.name).is_some() {
                port.name.to_lowercase()
            } else {
                prefix.to_lowercase()
            }
            .into()
        })
    };
    rule.map(|rule| rule.protocol.clone())
        .or_else(|| {
            port.protocol
                .as_deref()
                .filter(|p| !crate::names::dns_label(p).is_empty())
                .map(|p| p.to_lowercase().into())
        })
        .or_else(by_name)
}

/// The protocol that most instances name; of equal ones the first by name, of none the default.
fn majority(policy: &PortPolicy, registered: &[&Registered<'_>]) -> Arc<str> {
    let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for (protocol, count) in registered.iter().flat_map(|r| &r.votes) {
        *votes.entry(protocol).or_default() += count;
    }
    votes
        .into_iter()
        .max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0)))
        .map_or_else(
            || policy.default_protocol.clone(),
            |(protocol, _)| protocol.clone(),
        )
}

/// The one port for a service with dynamic ports: 80 for HTTP, else the lowest registered.
fn dialled(protocol: &str, registered: &[&Registered<'_>]) -> u32 {
    if validate::protocol(protocol).is_some_and(|p| p.http_family()) {
        80
    } else {
        registered.iter().map(|r| r.number).min().unwrap_or(80)
    }
}
