//! Objects as YAML, and back.

use std::{collections::BTreeMap, io, sync::Arc};

use diolkos_istio::{
    Kind, Object, ObjectKey, ServiceEntry, Spec, WorkloadEntry, annotation, label,
};
use diolkos_model::ContentHash;
use diolkos_sink_api::{Remembered, State};
use serde::{Deserialize, Serialize};

/// A file is replaced as a whole, so it has no generations as objects in Kubernetes have.
const GENERATION: u64 = 0;

/// The Kubernetes form, in the order in which people write it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: &'a Spec,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

fn with_manifest<T>(
    object: &Object,
    hash: Option<ContentHash>,
    then: impl FnOnce(&Manifest<'_>) -> T,
) -> T {
    let hash = hash.map(|hash| format!("{hash}.{GENERATION}"));
    let annotations = object.annotations.iter();
    let mut annotations: BTreeMap<_, _> = annotations.map(|(k, v)| (&**k, &**v)).collect();
    if let Some(hash) = &hash {
        annotations.insert(annotation::HASH, hash);
    }
    then(&Manifest {
        api_version: Kind::API_VERSION,
        kind: object.key.kind.name(),
        metadata: Metadata {
            name: &object.key.name,
            namespace: &object.key.namespace,
            labels: &object.labels,
            annotations,
        },
        spec: &object.spec,
    })
}

/// One YAML document. The same object gives the same bytes.
///
/// # Errors
/// The object cannot be written as YAML: an enum field holds a number that has no name.
pub(crate) fn to_yaml(object: &Object, hash: Option<ContentHash>) -> io::Result<String> {
    // By default the library folds long strings over several lines; values stay on theirs here. It
    // quotes all that YAML 1.1 takes for something else than a string, as istiod's parser is one.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    with_manifest(object, hash, |manifest| {
        serde_saphyr::to_string_with_options(manifest, options).map_err(io::Error::other)
    })
}

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) key: ObjectKey,
    pub(crate) state: State,
    /// What an object of ours tells of the time before.
    pub(crate) remembered: Option<Remembered>,
}

/// Reads what [`to_yaml`] wrote, or what somebody made of it. `None` for everything that is not one
/// object of our kinds.
pub(crate) fn from_yaml(yaml: &[u8]) -> Option<Content> {
    let document: serde_json::Value = serde_saphyr::from_slice(yaml).ok()?;
    let raw = RawManifest::deserialize(&document).ok()?;
    let kind = Kind::ALL.into_iter().find(|k| k.name() == raw.kind)?;
    let key = ObjectKey {
        kind,
        namespace: raw.metadata.namespace.into(),
        name: raw.metadata.name.into(),
    };
    let labels = raw.metadata.labels;
    if labels.get(label::MANAGED_BY).map(String::as_str) != Some(label::MANAGER) {
        return Some(Content {
            key,
            state: State::Foreign,
            remembered: None,
        });
    }
    let registry: Arc<str> = labels.get(label::REGISTRY).map_or("", |r| r).into();
    let mut annotations = raw.metadata.annotations;
    annotations.remove(annotation::HASH);
    let annotated = |name: &str| annotations.get(name).map(String::as_str);
    let remembered = Remembered::read(&key, &registry, annotated);
    let hash = spec(kind, &raw.spec).and_then(|spec| {
        let key = key.clone();
        unchanged_hash(
            &document,
            &Object {
                key,
                labels,
                annotations,
                spec,
            },
        )
    });
    let state = State::Ours { registry, hash };
    Some(Content {
        key,
        state,
        remembered,
    })
}

/// The object's hash, if the document is what we would write for it, the annotation with the hash
/// included: no field more, less or different. Layout and comments do not count.
fn unchanged_hash(document: &serde_json::Value, object: &Object) -> Option<ContentHash> {
    let hash = object.content_hash();
    let ours = with_manifest(object, Some(hash), |manifest| {
        serde_json::to_value(manifest)
    });
    ours.is_ok_and(|ours| ours == *document).then_some(hash)
}

fn spec(kind: Kind, spec: &serde_json::Value) -> Option<Spec> {
    match kind {
        Kind::ServiceEntry => ServiceEntry::deserialize(spec).ok().map(Spec::ServiceEntry),
        Kind::WorkloadEntry => WorkloadEntry::deserialize(spec)
            .ok()
            .map(Spec::WorkloadEntry),
    }
}

#[derive(Deserialize)]
struct RawManifest {
    kind: String,
    metadata: RawMetadata,
    #[serde(default)]
    spec: serde_json::Value,
}

#[derive(Deserialize)]
struct RawMetadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests;
