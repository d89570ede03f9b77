//! Shorthand for tests.

use diolkos_model::{Health, Instance, Interner, Locality, Port, Service, ServiceKey};
use globset::GlobSet;

use crate::{LabelPolicy, Policy, Template};

pub(crate) fn service(name: &str, namespace: &str) -> Service {
    with_instances(name, namespace, vec![])
}

pub(crate) fn with_instances(name: &str, namespace: &str, instances: Vec<Instance>) -> Service {
    let key = ServiceKey {
        registry: "consul".into(),
        namespace: namespace.into(),
        group: "".into(),
        name: name.into(),
    };
    Service::new(key, [].into(), instances)
}

pub(crate) fn instance(id: &str, port: u32) -> Instance {
    Instance {
        id: id.into(),
        address: format!(
            "10.0.0.{}",
            id.bytes().map(u32::from).sum::<u32>() % 200 + 1
        )
        .parse()
        .unwrap(),
        ports: [self::port("", port, None)].into(),
        health: Health::Healthy,
        weight: None,
        locality: Locality {
            region: "dc1".into(),
            ..Locality::default()
        },
        version: None,
        labels: [].into(),
    }
}

pub(crate) fn port(name: &str, number: u32, protocol: Option<&str>) -> Port {
    Port {
        name: name.into(),
        number,
        protocol: protocol.map(Into::into),
    }
}

pub(crate) fn with_labels(mut instance: Instance, labels: &[(&str, &str)]) -> Instance {
    instance.labels = Interner::new().labels(labels.iter().copied());
    instance
}

pub(crate) fn label_policy() -> LabelPolicy {
    LabelPolicy {
        include: None,
        exclude: GlobSet::empty(),
        rename: [].into(),
    }
}

pub(crate) fn policy() -> Policy {
    Policy::new(
        "consul",
        Template::literal("diolkos"),
        Template::parse("{service}.service.consul").unwrap(),
    )
}
