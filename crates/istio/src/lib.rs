//! Istio's `ServiceEntry` and `WorkloadEntry`.
//!
//! One set of types serves both forms: serde gives the JSON of the Kubernetes resources, prost the
//! protobuf bytes of `istio.networking.v1alpha3` (which MCP carries). [`validate`] holds Istio's own
//! rules, so that nothing is sent that istiod would refuse.

#![forbid(unsafe_code)]

mod object;
mod types;
pub mod validate;

pub use object::{Kind, Object, ObjectKey, Spec, annotation, label};
pub use types::{Location, Resolution, ServiceEntry, ServicePort, WorkloadEntry, WorkloadSelector};
