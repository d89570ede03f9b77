//! A document in a file: what is around the `spec`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};

use crate::raw::RegistrySpec;

/// The API that the documents belong to.
pub(crate) const API_VERSION: &str = "diolkos.io/v1alpha1";
/// The kinds of documents.
pub(crate) const KINDS: [&str; 1] = [REGISTRY];
/// The kind of [`RegistryDocument`].
pub(crate) const REGISTRY: &str = "Registry";

/// What a document is. Read before anything else, and whatever else is in it.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    pub(crate) api_version: Option<String>,
    pub(crate) kind: Option<String>,
}

/// A service registry whose services are carried over into the mesh.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the fields of the header are there to be known; they were read before"
)]
pub(crate) struct RegistryDocument {
    #[schemars(extend("const" = API_VERSION))]
    api_version: String,
    #[schemars(extend("const" = REGISTRY))]
    kind: String,
    /// What the document is called.
    pub(crate) metadata: Metadata,
    /// What is to be carried over, and how.
    pub(crate) spec: RegistrySpec,
    /// Written by Diolkos; ignored in files.
    #[schemars(with = "Option<serde_json::Value>")]
    status: Option<IgnoredAny>,
}

/// What a document is called.
// What an API server fills in is accepted and ignored, so that what `kubectl get -o yaml` prints
// can be used as a file.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "fields that are there to be known and ignored")]
pub(crate) struct Metadata {
    /// Name of the document: lower-case letters, digits, `-` and `.`, at most 63 characters.
    pub(crate) name: String,
    /// There is none: the document belongs to the cluster.
    #[schemars(skip)]
    pub(crate) namespace: Option<String>,
    /// Labels of your own.
    labels: Option<BTreeMap<String, String>>,
    /// Annotations of your own.
    annotations: Option<BTreeMap<String, String>>,
    #[schemars(skip)]
    uid: Option<IgnoredAny>,
    #[schemars(skip)]
    resource_version: Option<IgnoredAny>,
    #[schemars(skip)]
    generation: Option<IgnoredAny>,
    #[schemars(skip)]
    creation_timestamp: Option<IgnoredAny>,
    #[schemars(skip)]
    managed_fields: Option<IgnoredAny>,
}
