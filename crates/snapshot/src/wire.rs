//! The payload: protocol buffers whose texts and label sets are numbers into tables, as most of
//! them occur thousands of times. The same services give the same bytes.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use diolkos_model as model;
use diolkos_model::{Interner, Labels, ServiceKey};
use prost::Message;

use crate::FileProblem;

/// The services of a registry. Numbers of type `u32` without another meaning are places in
/// `texts`; text 0 is the empty one, which then takes no room.
#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(string, tag = "1")]
    registry: String,
    #[prost(string, repeated, tag = "2")]
    texts: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    label_sets: Vec<LabelSet>,
    #[prost(message, repeated, tag = "4")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelSet {
    /// Key, value, key, value, ….
    #[prost(uint32, repeated, tag = "1")]
    pairs: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(uint32, tag = "1")]
    namespace: u32,
    #[prost(uint32, tag = "2")]
    group: u32,
    #[prost(uint32, tag = "3")]
    name: u32,
    /// A place in `label_sets`.
    #[prost(uint32, tag = "4")]
    meta: u32,
    #[prost(message, repeated, tag = "5")]
    instances: Vec<Instance>,
}

#[derive(Clone, PartialEq, Message)]
struct Instance {
    /// Written out, since no two are equal.
    #[prost(string, tag = "1")]
    id: String,
    #[prost(oneof = "Address", tags = "2, 3, 4")]
    address: Option<Address>,
    #[prost(message, repeated, tag = "5")]
    ports: Vec<Port>,
    /// Why it gets no traffic.
    #[prost(uint32, optional, tag = "6")]
    unhealthy: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    weight: Option<u32>,
    #[prost(uint32, tag = "8")]
    region: u32,
    #[prost(uint32, tag = "9")]
    zone: u32,
    #[prost(uint32, tag = "10")]
    sub_zone: u32,
    #[prost(uint32, optional, tag = "11")]
    version: Option<u32>,
    /// A place in `label_sets`.
    #[prost(uint32, tag = "12")]
    labels: u32,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Address {
    #[prost(fixed32, tag = "2")]
    V4(u32),
    #[prost(bytes = "vec", tag = "3")]
    V6(Vec<u8>),
    #[prost(uint32, tag = "4")]
    Name(u32),
}

#[derive(Clone, PartialEq, Message)]
struct Port {
    #[prost(uint32, tag = "1")]
    name: u32,
    /// The port's number.
    #[prost(uint32, tag = "2")]
    number: u32,
    #[prost(uint32, optional, tag = "3")]
    protocol: Option<u32>,
}

/// Appends the payload for services in the order given.
pub(crate) fn encode(registry: &str, services: &[&model::Service], out: &mut Vec<u8>) {
    let mut tables = Tables::default();
    tables.text("");
    let services = services
        .iter()
        .map(|service| tables.service(service))
        .collect();
    let snapshot = Snapshot {
        registry: registry.to_owned(),
        texts: tables.texts.list.into_iter().map(str::to_owned).collect(),
        label_sets: tables.label_sets.list,
        services,
    };
    snapshot.encode_raw(out);
}

#[derive(Default)]
struct Tables<'a> {
    texts: Texts<'a>,
    label_sets: LabelSets<'a>,
}

#[derive(Default)]
struct Texts<'a> {
    places: HashMap<&'a str, u32>,
    list: Vec<&'a str>,
}

#[derive(Default)]
struct LabelSets<'a> {
    places: HashMap<&'a Labels, u32>,
    list: Vec<LabelSet>,
}

/// Files are far too small for the maximum (see `MAX_FILE`).
fn place(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl<'a> Tables<'a> {
    fn text(&mut self, text: &'a str) -> u32 {
        let Texts { places, list } = &mut self.texts;
        *places.entry(text).or_insert_with(|| {
            list.push(text);
            place(list.len() - 1)
        })
    }

    fn labels(&mut self, labels: &'a Labels) -> u32 {
        if let Some(known) = self.label_sets.places.get(labels) {
            return *known;
        }
        let pairs = labels
            .iter()
            .flat_map(|(key, value)| [&**key, &**value])
            .map(|text| self.text(text))
            .collect();
        let LabelSets { places, list } = &mut self.label_sets;
        let new = place(list.len());
        list.push(LabelSet { pairs });
        places.insert(labels, new);
        new
    }

    fn service(&mut self, service: &'a model::Service) -> Service {
        let model::Service {
            key,
            meta,
            instances,
        } = service;
        Service {
            namespace: self.text(&key.namespace),
            group: self.text(&key.group),
            name: self.text(&key.name),
            meta: self.labels(meta),
            instances: instances.iter().map(|i| self.instance(i)).collect(),
        }
    }

    fn instance(&mut self, instance: &'a model::Instance) -> Instance {
        // Destructured, so that a new field cannot be forgotten here.
        let model::Instance {
            id,
            address,
            ports,
            health,
            weight,
            locality,
            version,
            labels,
        } = instance;
        let address = match address {
            model::Address::Ip(IpAddr::V4(ip)) => Address::V4((*ip).into()),
            model::Address::Ip(IpAddr::V6(ip)) => Address::V6(ip.octets().into()),
            model::Address::Name(name) => Address::Name(self.text(name)),
        };
        let unhealthy = match health {
            model::Health::Healthy => None,
            model::Health::Unhealthy(why) => Some(self.text(why)),
        };
        Instance {
            id: id.to_string(),
            address: Some(address),
            ports: ports.iter().map(|port| self.port(port)).collect(),
            unhealthy,
            weight: weight.map(|weight| weight.0),
            region: self.text(&locality.region),
            zone: self.text(&locality.zone),
            sub_zone: self.text(&locality.sub_zone),
            version: version.as_deref().map(|version| self.text(version)),
            labels: self.labels(labels),
        }
    }

    fn port(&mut self, port: &'a model::Port) -> Port {
        Port {
            name: self.text(&port.name),
            number: port.number,
            protocol: port.protocol.as_deref().map(|text| self.text(text)),
        }
    }
}

/// Reads what [`encode`] wrote: the registry's name and its services.
///
/// # Errors
/// The payload is not of this form, or names something that is not in a table.
pub(crate) fn decode(
    payload: &[u8],
    interner: &mut Interner,
) -> Result<(Arc<str>, Vec<model::Service>), FileProblem> {
    // Lengths are checked against what is left of the payload before anything is allocated.
    let snapshot =
        Snapshot::decode(payload).map_err(|error| FileProblem::Content(error.to_string()))?;
    let texts = snapshot.texts.iter().map(|text| interner.string(text));
    let mut reader = Reader {
        registry: snapshot.registry.as_str().into(),
        texts: texts.collect(),
        label_sets: Vec::new(),
    };
    for set in &snapshot.label_sets {
        let labels = reader.label_set(set, interner)?;
        reader.label_sets.push(labels);
    }
    let services = snapshot
        .services
        .into_iter()
        .map(|service| reader.service(service))
        .collect::<Result<_, _>>()?;
    Ok((reader.registry, services))
}

struct Reader {
    registry: Arc<str>,
    texts: Vec<Arc<str>>,
    label_sets: Vec<Labels>,
}

impl Reader {
    fn text(&self, place: u32) -> Result<Arc<str>, FileProblem> {
        let text = self.texts.get(place as usize);
        text.cloned().ok_or_else(|| missing("text", place))
    }

    fn labels(&self, place: u32) -> Result<Labels, FileProblem> {
        let labels = self.label_sets.get(place as usize);
        labels.cloned().ok_or_else(|| missing("label set", place))
    }

    fn label_set(&self, set: &LabelSet, interner: &mut Interner) -> Result<Labels, FileProblem> {
        let (pairs, rest) = set.pairs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(FileProblem::Content("a label without a value".to_owned()));
        }
        let pairs: Vec<_> = pairs
            .iter()
            .map(|[key, value]| Ok((self.text(*key)?, self.text(*value)?)))
            .collect::<Result<_, FileProblem>>()?;
        Ok(interner.labels(pairs.iter().map(|(key, value)| (&**key, &**value))))
    }

    fn service(&self, service: Service) -> Result<model::Service, FileProblem> {
        let key = ServiceKey {
            registry: self.registry.clone(),
            namespace: self.text(service.namespace)?,
            group: self.text(service.group)?,
            name: self.text(service.name)?,
        };
        let instances = service
            .instances
            .into_iter()
            .map(|instance| self.instance(instance))
            .collect::<Result<_, _>>()?;
        let meta = self.labels(service.meta)?;
        Ok(model::Service::new(key, meta, instances))
    }

    fn instance(&self, instance: Instance) -> Result<model::Instance, FileProblem> {
        let ports = instance.ports.iter().map(|port| self.port(port));
        let text = |place: Option<u32>| place.map(|place| self.text(place)).transpose();
        Ok(model::Instance {
            id: instance.id.into(),
            address: self.address(instance.address)?,
            ports: ports.collect::<Result<_, _>>()?,
            health: match text(instance.unhealthy)? {
                None => model::Health::Healthy,
                Some(why) => model::Health::Unhealthy(why),
            },
            weight: instance.weight.map(model::Weight),
            locality: model::Locality {
                region: self.text(instance.region)?,
                zone: self.text(instance.zone)?,
                sub_zone: self.text(instance.sub_zone)?,
            },
            version: text(instance.version)?,
            labels: self.labels(instance.labels)?,
        })
    }

    fn address(&self, address: Option<Address>) -> Result<model::Address, FileProblem> {
        let wrong = || FileProblem::Content("an instance's address is none".to_owned());
        Ok(match address.ok_or_else(wrong)? {
            Address::V4(ip) => model::Address::Ip(Ipv4Addr::from(ip).into()),
            Address::V6(ip) => {
                let octets: [u8; 16] = ip.try_into().map_err(|_| wrong())?;
                model::Address::Ip(Ipv6Addr::from(octets).into())
            }
            Address::Name(name) => model::Address::Name(self.text(name)?),
        })
    }

    fn port(&self, port: &Port) -> Result<model::Port, FileProblem> {
        let protocol = port.protocol.map(|protocol| self.text(protocol));
        Ok(model::Port {
            name: self.text(port.name)?,
            number: port.number,
            protocol: protocol.transpose()?,
        })
    }
}

fn missing(what: &str, place: u32) -> FileProblem {
    FileProblem::Content(format!("there is no {what} {place}"))
}
