//! An Istio object with its name: what a sink writes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use diolkos_model::{ContentHash, Hasher};
use serde::Serialize;

use crate::{ServiceEntry, WorkloadEntry};

/// Labels that Diolkos sets on its objects.
pub mod label {
    /// `app.kubernetes.io/managed-by`: an object that has it with the value [`MANAGER`] is ours.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The value of [`MANAGED_BY`], and the name of our field manager.
    pub const MANAGER: &str = "diolkos";
    /// The `Registry` that the object comes from.
    pub const REGISTRY: &str = "diolkos.io/registry";
    /// On a workload entry (in `spec.labels`): the service that it is an instance of.
    pub const SERVICE: &str = "diolkos.io/service";
}

/// Annotations that Diolkos sets on its objects.
pub mod annotation {
    /// The content hash of the object and the `metadata.generation` that it was written as:
    /// `HASH.GENERATION`. Tells without the spec whether an object is as it should be.
    pub const HASH: &str = "diolkos.io/hash";
    /// The service's key in the registry: the cause of the object. A restarted Diolkos knows by it which
    /// services the mesh holds before the registry has said anything.
    pub const SERVICE: &str = "diolkos.io/service";
    /// On a service entry with endpoints of its own: how many they are. Metadata alone then tells how much a
    /// registry's answer would take away.
    pub const ENDPOINTS: &str = "diolkos.io/endpoints";
    /// On a service entry without endpoints: since when its service has none, RFC 3339. Not part of the
    /// content hash, since replicas come to it at slightly different times.
    pub const EMPTY_SINCE: &str = "diolkos.io/empty-since";
}

/// The kinds that Diolkos writes. Ordered as they have to be created: a workload entry before the
/// service entry that selects it, so that a new host has its endpoints from the first push on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `networking.istio.io/v1` `WorkloadEntry`.
    WorkloadEntry,
    /// `networking.istio.io/v1` `ServiceEntry`.
    ServiceEntry,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::WorkloadEntry, Self::ServiceEntry];
    /// `apiVersion` of both.
    pub const API_VERSION: &str = "networking.istio.io/v1";

    /// The kind's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkloadEntry => "WorkloadEntry",
            Self::ServiceEntry => "ServiceEntry",
        }
    }

    /// The resource name in URLs.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::WorkloadEntry => "workloadentries",
            Self::ServiceEntry => "serviceentries",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names an object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an object says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Spec {
    /// Of a service entry.
    ServiceEntry(ServiceEntry),
    /// Of a workload entry.
    WorkloadEntry(WorkloadEntry),
}

/// An object as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its name.
    pub key: ObjectKey,
    /// Its labels, the ones of ownership among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, without [`annotation::HASH`].
    pub annotations: BTreeMap<String, String>,
    /// What it says.
    pub spec: Spec,
}

impl Object {
    /// The hash of labels, annotations and spec. The key is not part of it, and of [`annotation::EMPTY_SINCE`] only
    /// whether it is there: the time comes from a clock.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        use prost::Message as _;
        let mut hasher = Hasher::new();
        for map in [&self.labels, &self.annotations] {
            hasher.u64(map.len() as u64);
            for (key, value) in map {
                let is_time = key == annotation::EMPTY_SINCE;
                hasher.str(key).str(if is_time { "" } else { value });
            }
        }
        let spec = match &self.spec {
            Spec::ServiceEntry(spec) => spec.encode_to_vec(),
            Spec::WorkloadEntry(spec) => spec.encode_to_vec(),
        };
        hasher.u64(spec.len() as u64);
        let ContentHash(bits) = ContentHash::of(&spec);
        hasher.u64((bits >> 64) as u64).u64(bits as u64);
        hasher.finish()
    }

    /// The Kubernetes form, as JSON.
    #[must_use]
    pub fn manifest(&self) -> serde_json::Value {
        let mut metadata = serde_json::json!({
            "name": self.key.name,
            "namespace": self.key.namespace,
        });
        if !self.labels.is_empty() {
            metadata["labels"] = serde_json::json!(self.labels);
        }
        if !self.annotations.is_empty() {
            metadata["annotations"] = serde_json::json!(self.annotations);
        }
        serde_json::json!({
            "apiVersion": Kind::API_VERSION,
            "kind": self.key.kind.name(),
            "metadata": metadata,
            "spec": self.spec,
        })
    }
}
