//! From endpoints to objects, in both modes.

use std::{collections::BTreeMap, sync::Arc};

use diolkos_istio::{
    Kind, Object, ObjectKey, ServiceEntry, Spec, WorkloadSelector, annotation, label,
};
use diolkos_model::{ContentHash, Service};

use crate::{
    Annotation, Endpoints, Policy, endpoints::Endpoint, host::Names, names, ports::Layout,
};

/// Most endpoints in one service entry. The CRD allows 4,096, but a change rewrites the whole
/// object, so shards of the same host (which istiod merges) keep writes small.
const SHARD: usize = 1_000;

pub(crate) fn objects(
    policy: &Policy,
    service: &Service,
    names: &Names,
    layout: &Layout,
    endpoints: Vec<Endpoint>,
) -> Vec<Object> {
    let maker = Maker {
        policy,
        service,
        namespace: names.namespace.as_str().into(),
        annotations: [(annotation::SERVICE.to_owned(), service.key.to_string())].into(),
    };
    let hosts = std::iter::once(&names.host).chain(&names.aliases).cloned();
    let entry = ServiceEntry {
        hosts: hosts.collect(),
        ports: layout.ports(),
        location: policy.location.into(),
        resolution: policy.resolution.into(),
        export_to: policy.export_to.clone(),
        ..ServiceEntry::default()
    };
    match policy.endpoints {
        Endpoints::Inline => maker.inline(&names.host, entry, endpoints),
        Endpoints::WorkloadEntry => maker.workload_entries(&names.host, entry, endpoints),
    }
}

struct Maker<'a> {
    policy: &'a Policy,
    service: &'a Service,
    namespace: Arc<str>,
    annotations: BTreeMap<String, String>,
}

impl Maker<'_> {
    fn inline(&self, host: &str, entry: ServiceEntry, endpoints: Vec<Endpoint>) -> Vec<Object> {
        let shards = endpoints.len().div_ceil(SHARD).max(1);
        let mut parts: Vec<ServiceEntry> = vec![entry; shards];
        for endpoint in endpoints {
            // By the id, not by position: an instance more or less rewrites its own shard only.
            let hash = ContentHash::of(endpoint.id.as_bytes()).0;
            let shard = (hash % shards as u128) as usize;
            parts[shard].endpoints.push(endpoint.entry);
        }
        parts
            .into_iter()
            .enumerate()
            .map(|(index, part)| {
                let name = match index {
                    0 => host.to_owned(),
                    // With the hash no host can come to the name of another one's shard.
                    _ => {
                        let shard = format!("shard-{index}-{}", names::short_hash(host));
                        names::object_name(host, &shard)
                    }
                };
                let endpoints = part.endpoints.len().to_string();
                let mut object = self.service_entry(&name, part);
                object
                    .annotations
                    .insert(annotation::ENDPOINTS.to_owned(), endpoints);
                object
            })
            .collect()
    }

    fn workload_entries(
        &self,
        host: &str,
        mut entry: ServiceEntry,
        endpoints: Vec<Endpoint>,
    ) -> Vec<Object> {
        let selector: BTreeMap<_, _> =
            [(label::SERVICE.to_owned(), names::label_value(host))].into();
        let mut objects: Vec<Object> = endpoints
            .into_iter()
            .map(|Endpoint { id, mut entry, .. }| {
                entry.labels.extend(selector.clone());
                let name = names::object_name(host, &names::short_hash(&id));
                self.object(Kind::WorkloadEntry, &name, Spec::WorkloadEntry(entry))
            })
            .collect();
        entry.workload_selector = Some(WorkloadSelector { labels: selector });
        objects.push(self.service_entry(host, entry));
        objects
    }

    fn service_entry(&self, name: &str, entry: ServiceEntry) -> Object {
        let mut object = self.object(Kind::ServiceEntry, name, Spec::ServiceEntry(entry));
        for (key, value) in &self.policy.object_labels {
            object.labels.entry(key.clone()).or_insert(value.clone());
        }
        for (key, annotation) in &self.policy.object_annotations {
            let value = self.annotation(annotation);
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let annotations = &mut object.annotations;
                annotations.entry(key.clone()).or_insert(value.to_owned());
            }
        }
        object
    }

    fn annotation<'b>(&'b self, annotation: &'b Annotation) -> Option<&'b str> {
        match annotation {
            Annotation::Fixed(value) => Some(value),
            Annotation::Meta(meta) => {
                let found = self.service.meta.iter().find(|(key, _)| **key == **meta);
                found.map(|(_, value)| &**value)
            }
        }
    }

    fn object(&self, kind: Kind, name: &str, spec: Spec) -> Object {
        Object {
            key: ObjectKey {
                kind,
                namespace: self.namespace.clone(),
                name: name.into(),
            },
            labels: [
                (label::MANAGED_BY.to_owned(), label::MANAGER.to_owned()),
                (
                    label::REGISTRY.to_owned(),
                    names::label_value(&self.policy.registry),
                ),
            ]
            .into(),
            annotations: self.annotations.clone(),
            spec,
        }
    }
}
