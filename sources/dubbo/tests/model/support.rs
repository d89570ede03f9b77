//! Registries in memory, and services as text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use bytes::Bytes;
use diolkos_model::{Health, Instance, Service};
use diolkos_source_dubbo::{Catalog, Discovery, Options, Place, Variants};

pub(crate) const ROOT: &str = "/dubbo";
pub(crate) const APPLICATIONS: &str = "/services";

pub(crate) fn options() -> Options {
    Options {
        registry: "zk".into(),
        variants: Variants::Labels,
        discovery: Discovery::Both,
        dubbo_protocol: "dubbo".into(),
        aeraki: false,
    }
}

/// A tree of nodes with data, as ZooKeeper has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, String>);

impl Tree {
    /// The dump of a real one: paths, each with its data on the next line, after a tab.
    pub(crate) fn sample() -> Self {
        let mut tree = BTreeMap::new();
        let mut path = String::new();
        for line in include_str!("../data/zookeeper.txt").lines() {
            match line.strip_prefix('\t') {
                Some(data) => tree.insert(path.clone(), data.to_owned()),
                None => tree.insert(line.to_owned(), String::new()),
            };
            if !line.starts_with('\t') {
                path = line.to_owned();
            }
        }
        Self(tree)
    }

    /// The names of the children of a list.
    pub(crate) fn children(&self, list: &Place) -> Vec<String> {
        let child = |path: &String| Place::of_child(ROOT, APPLICATIONS, path);
        let children = self.0.keys().filter_map(child);
        children
            .filter(|(place, _)| place == list)
            .map(|(_, name)| name)
            .collect()
    }

    /// All instances of an application.
    pub(crate) fn instances(&self, of: &str) -> BTreeMap<Arc<str>, Bytes> {
        let instance = |(path, data): (&String, &String)| match place(path)? {
            Place::Instance { application, id } if *application == *of => {
                Some((id, Bytes::from(data.clone())))
            }
            _ => None,
        };
        self.0.iter().filter_map(instance).collect()
    }

    /// Tells the data of one node.
    pub(crate) fn tell_data(&self, catalog: &mut Catalog, path: &str) {
        if let Some(place) = place(path) {
            let data = self.0.get(path).cloned().map(Bytes::from);
            catalog.set_data(&place, data);
        }
    }

    /// Reads what the catalogue wants, until it wants nothing more.
    pub(crate) fn answer(&self, catalog: &mut Catalog) -> usize {
        let mut read = 0;
        loop {
            let wanted = catalog.wanted();
            if wanted.is_empty() {
                return read;
            }
            read += wanted.len();
            for place in wanted {
                let path = place.path(ROOT, APPLICATIONS);
                match place {
                    Place::Definitions { .. } => {
                        let below = format!("{path}/");
                        let below = self.0.keys().filter(|path| path.starts_with(&below));
                        below.for_each(|path| self.tell_data(catalog, path));
                    }
                    _ => self.tell_data(catalog, &path),
                }
            }
        }
    }

    /// A catalogue that was told all of it.
    pub(crate) fn catalog(&self, options: Options) -> Catalog {
        let mut catalog = Catalog::new(options);
        let children = self.0.keys().filter_map(|path| {
            let (list, _) = Place::of_child(ROOT, APPLICATIONS, path)?;
            Some(list)
        });
        for list in children.collect::<BTreeSet<_>>() {
            catalog.set_children(&list, self.children(&list));
        }
        for path in self.0.keys() {
            // Metadata is for the catalogue to ask for.
            if !path.starts_with("/dubbo/metadata/") {
                self.tell_data(&mut catalog, path);
            }
        }
        self.answer(&mut catalog);
        catalog
    }
}

pub(crate) fn place(path: &str) -> Option<Place> {
    Place::parse(ROOT, APPLICATIONS, path)
}

/// A catalogue of providers of the interface `a.B`.
pub(crate) fn providers(options: Options, urls: &[&str]) -> Catalog {
    let mut catalog = Catalog::new(options);
    catalog.set_children(&list("a.B"), urls.iter().map(|url| encode(url)).collect());
    catalog
}

pub(crate) fn list(interface: &str) -> Place {
    Place::Providers {
        interface: interface.into(),
    }
}

/// As Java's `URLEncoder`.
pub(crate) fn encode(url: &str) -> String {
    let mut encoded = String::new();
    for byte in url.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => {
                encoded.push(byte.into());
            }
            b' ' => encoded.push('+'),
            _ => write!(encoded, "%{byte:02X}").unwrap(),
        }
    }
    encoded
}

/// The only service of the catalogue.
pub(crate) fn only(catalog: &mut Catalog) -> Service {
    let mut services = catalog.snapshot();
    assert_eq!(services.len(), 1, "{services:?}");
    services.remove(0)
}

/// Ids of instances.
pub(crate) fn ids(service: &Service) -> Vec<&str> {
    service.instances.iter().map(|i| &*i.id).collect()
}

pub(crate) fn label<'a>(instance: &'a Instance, name: &str) -> Option<&'a str> {
    let (_, value) = instance.labels.iter().find(|(key, _)| **key == *name)?;
    Some(value)
}

pub(crate) fn meta<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    let (_, value) = service.meta.iter().find(|(key, _)| **key == *name)?;
    Some(value)
}

/// Services as lines for people.
pub(crate) fn text(services: &[Service]) -> String {
    let mut out = String::new();
    for service in services {
        writeln!(out, "{} {}", service.key, pairs(&service.meta)).unwrap();
        for instance in service.instances.iter() {
            line(&mut out, instance);
        }
    }
    out
}

fn line(out: &mut String, instance: &Instance) {
    let ports: Vec<String> = instance
        .ports
        .iter()
        .map(|p| {
            format!(
                "{}:{}:{}",
                p.name,
                p.number,
                p.protocol.as_deref().unwrap_or("-")
            )
        })
        .collect();
    write!(
        out,
        "  {} at {} [{}]",
        instance.id,
        instance.address,
        ports.join(" ")
    )
    .unwrap();
    if let Health::Unhealthy(why) = &instance.health {
        write!(out, " DOWN {why}").unwrap();
    }
    if let Some(weight) = instance.weight {
        write!(out, " weight {}", weight.0).unwrap();
    }
    let l = &instance.locality;
    if !l.region.is_empty() || !l.zone.is_empty() {
        write!(out, " in {}/{}/{}", l.region, l.zone, l.sub_zone).unwrap();
    }
    if let Some(version) = &instance.version {
        write!(out, " version {version}").unwrap();
    }
    writeln!(out, " {}", pairs(&instance.labels)).unwrap();
}

fn pairs(labels: &[(Arc<str>, Arc<str>)]) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{{{}}}", pairs.join(" "))
}
