//! Registries in Dubbo's layout.

use bytes::Bytes;
use diolkos_source_dubbo::{Catalog, Change, Discovery, Options, Place, Variants};

use crate::mapping;

const ROOT: &str = "/dubbo";
const APPLICATIONS: &str = "/services";

/// Tells the same nodes forwards and backwards: the services are the same.
pub(crate) fn check(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let nodes = nodes(&text);
    for (variants, aeraki) in [(Variants::Labels, false), (Variants::Hosts, true)] {
        let options = Options {
            registry: "registry".into(),
            variants,
            discovery: Discovery::Both,
            dubbo_protocol: "dubbo".into(),
            aeraki,
        };
        let mut forwards = Catalog::new(options.clone());
        nodes.iter().for_each(|node| tell(&mut forwards, node));
        let mut backwards = Catalog::new(options);
        nodes
            .iter()
            .rev()
            .for_each(|node| tell(&mut backwards, node));
        // What was let go is asked for, and told again.
        for catalog in [&mut forwards, &mut backwards] {
            if !catalog.wanted().is_empty() {
                nodes.iter().for_each(|node| tell(catalog, node));
            }
        }
        let changes = forwards.take_changes();
        let services = forwards.snapshot();
        assert_eq!(services, backwards.snapshot());
        assert_eq!(services.len(), changes.len(), "all are new");
        for (service, change) in services.iter().zip(&changes) {
            assert!(matches!(change, Change::Upsert(told) if told == service));
            assert!(!service.instances.is_empty());
            mapping::check(service);
        }
    }
}

/// Of a path that is there twice, the last counts.
fn nodes(text: &str) -> Vec<(&str, &str)> {
    let mut nodes = std::collections::BTreeMap::new();
    let mut path = "";
    for line in text.lines() {
        match line.strip_prefix('\t') {
            Some(data) => nodes.insert(path, data),
            None => {
                path = line;
                nodes.insert(path, "")
            }
        };
    }
    nodes.into_iter().collect()
}

fn tell(catalog: &mut Catalog, (path, data): &(&str, &str)) {
    if let Some((list, name)) = Place::of_child(ROOT, APPLICATIONS, path) {
        catalog.add_child(&list, &name);
    }
    // Two paths may decode to one interface: of these the one that was told last counts.
    if let Some(place) = Place::parse(ROOT, APPLICATIONS, path).filter(|_| !path.contains('%')) {
        assert_eq!(place.path(ROOT, APPLICATIONS), *path);
        catalog.set_data(&place, Some(Bytes::copy_from_slice(data.as_bytes())));
    }
}
