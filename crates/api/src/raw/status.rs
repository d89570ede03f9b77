//! What is reported back on a document.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How it goes with a registry.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// The generation of the document that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The kind of registry: `consul`, `etcd`, `file`, `zookeeper`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Services that the registry has and that are selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<i64>,
    /// Instances of those services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<i64>,
    /// Endpoints in the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<i64>,
    /// The replica that writes the registry's objects, where several share the registries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// `Accepted` (the document is free of faults), `Connected`, `Synced`, and what needs
    /// attention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
