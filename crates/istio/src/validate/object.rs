//! Whole objects: metadata and size.

use std::{collections::BTreeMap, io};

use serde::Serialize;

use super::{
    endpoint::workload_entry,
    limit,
    name::{annotation_key, dns1123_label, dns1123_subdomain, label_key, label_value},
    service::service_entry_in,
    violation::{Violation, clip, note},
};
use crate::{Kind, Object, Spec};

/// Annotations that the webhook refuses on these kinds (`validateMetadata`): for authorization
/// policies only, or for Istio's own use.
const RESERVED: [&str; 4] = [
    "istio.io/dry-run",
    "internal.istio.io/webhook-always-reject",
    "internal.istio.io/parents",
    "internal.istio.io/parent-namespace",
];

/// An object: its name, namespace, labels, annotations, spec and size.
#[must_use]
pub fn object(object: &Object) -> Vec<Violation> {
    let key = &object.key;
    let mut found = match &object.spec {
        Spec::ServiceEntry(spec) => service_entry_in(Some(&key.namespace), spec),
        Spec::WorkloadEntry(spec) => workload_entry(spec),
    };
    let kind = match &object.spec {
        Spec::ServiceEntry(_) => Kind::ServiceEntry,
        Spec::WorkloadEntry(_) => Kind::WorkloadEntry,
    };
    if kind != key.kind {
        found.push(Violation::WrongKind { kind: key.kind });
    }
    metadata(object, &mut found);
    size(object, &mut found);
    found
}

/// `ValidateObjectMeta` of Kubernetes, and the reserved annotations of Istio.
fn metadata(object: &Object, found: &mut Vec<Violation>) {
    note(found, dns1123_subdomain(&object.key.name), || {
        "metadata.name".into()
    });
    note(found, dns1123_label(&object.key.namespace), || {
        "metadata.namespace".into()
    });
    for (key, value) in &object.labels {
        let field = || format!("metadata.labels[{:?}]", clip(key));
        note(found, label_key(key), field);
        note(found, label_value(value), field);
    }
    for key in object.annotations.keys() {
        note(found, annotation_key(key), || {
            format!("metadata.annotations[{:?}]", clip(key))
        });
        if RESERVED.contains(&key.as_str()) {
            found.push(Violation::ReservedAnnotation { key: clip(key) });
        }
    }
    let bytes = object
        .annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if bytes > limit::ANNOTATIONS {
        let limit = limit::ANNOTATIONS;
        found.push(Violation::AnnotationsTooLarge { bytes, limit });
    }
}

/// What etcd has to store.
fn size(object: &Object, found: &mut Vec<Violation>) {
    #[derive(Serialize)]
    struct Stored<'a> {
        labels: &'a BTreeMap<String, String>,
        annotations: &'a BTreeMap<String, String>,
        spec: &'a Spec,
    }
    let mut count = Count(0);
    let stored = Stored {
        labels: &object.labels,
        annotations: &object.annotations,
        spec: &object.spec,
    };
    // The only error is an unknown enumeration value, which is in `found` already.
    if serde_json::to_writer(&mut count, &stored).is_ok() && count.0 > limit::OBJECT {
        found.push(Violation::ObjectTooLarge {
            bytes: count.0,
            limit: limit::OBJECT,
        });
    }
}

/// Counts the bytes that are written to it.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ObjectKey, Resolution, ServiceEntry, WorkloadEntry};

    /// A valid object, changed by `edit`; the rules that it then breaks.
    fn broken(edit: impl FnOnce(&mut Object)) -> Vec<Violation> {
        let mut changed = Object {
            key: ObjectKey {
                kind: Kind::WorkloadEntry,
                namespace: "registry".into(),
                name: "a.1".into(),
            },
            labels: [("diolkos.io/registry".to_owned(), "consul".to_owned())].into(),
            annotations: [("diolkos.io/service".to_owned(), "any text\n".to_owned())].into(),
            spec: Spec::WorkloadEntry(WorkloadEntry {
                address: "10.0.0.1".into(),
                ..Default::default()
            }),
        };
        edit(&mut changed);
        object(&changed)
            .iter()
            .map(|violation| violation.rule().clone())
            .collect()
    }

    #[test]
    fn metadata() {
        assert_eq!(broken(|_| ()), []);
        assert_eq!(
            broken(|object| object.key.name = "A".into()),
            [Violation::Dns1123Subdomain { value: "A".into() }]
        );
        assert_eq!(
            broken(|object| object.key.namespace = "a.b".into()),
            [Violation::Dns1123Label {
                value: "a.b".into()
            }]
        );
        assert_eq!(
            broken(|object| object.labels = [("A.io/b".to_owned(), "c d".to_owned())].into()),
            [
                Violation::LabelKey {
                    key: "A.io/b".into()
                },
                Violation::LabelValue {
                    value: "c d".into()
                }
            ]
        );
        assert_eq!(
            broken(|object| object.annotations = [("a b".to_owned(), String::new())].into()),
            [Violation::LabelKey { key: "a b".into() }]
        );
        for key in RESERVED {
            assert_eq!(
                broken(|object| object.annotations = [(key.to_owned(), "true".to_owned())].into()),
                [Violation::ReservedAnnotation { key: key.into() }]
            );
        }
    }

    #[test]
    fn sizes() {
        let note = |bytes: usize| {
            broken(|object| object.annotations = [("a".to_owned(), "x".repeat(bytes))].into())
        };
        assert_eq!(note(limit::ANNOTATIONS - 1), []);
        assert_eq!(
            note(limit::ANNOTATIONS),
            [Violation::AnnotationsTooLarge {
                bytes: limit::ANNOTATIONS + 1,
                limit: limit::ANNOTATIONS
            }]
        );
        let endpoint = WorkloadEntry {
            address: "10.0.0.1".into(),
            labels: (0..8)
                .map(|key| (format!("key-{key}"), "v".repeat(50)))
                .collect(),
            ..Default::default()
        };
        let spec = ServiceEntry {
            hosts: vec!["a".into()],
            resolution: Resolution::Static.into(),
            endpoints: vec![endpoint; 4000],
            ..Default::default()
        };
        let found = broken(|object| {
            object.key.kind = Kind::ServiceEntry;
            object.spec = Spec::ServiceEntry(spec);
        });
        assert!(
            matches!(
                found[..],
                [Violation::ObjectTooLarge {
                    limit: limit::OBJECT,
                    ..
                }]
            ),
            "{found:?}"
        );
    }

    #[test]
    fn key_and_spec_are_of_one_kind() {
        assert_eq!(
            broken(|object| object.key.kind = Kind::ServiceEntry),
            [Violation::WrongKind {
                kind: Kind::ServiceEntry
            }]
        );
    }

    #[test]
    fn the_own_namespace_is_known() {
        let spec = ServiceEntry {
            hosts: vec!["a".into()],
            export_to: vec![".".into(), "registry".into()],
            ..Default::default()
        };
        assert_eq!(
            broken(|object| {
                object.key.kind = Kind::ServiceEntry;
                object.spec = Spec::ServiceEntry(spec);
            }),
            [Violation::ExportToTwice {
                value: "registry".into()
            }]
        );
    }
}
