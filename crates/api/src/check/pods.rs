//! What is taken from Pods.

use diolkos_plan::PodPolicy;
use globset::GlobSet;

use super::text;
use crate::{
    fault::{Faults, FieldPath},
    raw::PodLabelsSpec,
};

/// The labels of a Pod that are taken where a document names none: those that Istio's subsets, telemetry and mutual TLS go
/// by.
const POD_LABELS: [&str; 4] = [
    "version",
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "security.istio.io/tlsMode",
];

/// The outer `None` is a fault, the inner one says that nothing is taken from Pods.
pub(super) fn pods(
    spec: Option<&PodLabelsSpec>,
    at: &FieldPath,
    faults: &mut Faults,
) -> Option<Option<PodPolicy>> {
    let Some(spec) = spec else {
        return Some(None);
    };
    let include = match &*spec.include {
        [] => POD_LABELS.map(str::to_owned).to_vec(),
        given => given.to_vec(),
    };
    let labels = text::globs(&include, &at.key("include"), faults)?;
    Some(Some(PodPolicy {
        include,
        labels: labels.unwrap_or_else(GlobSet::empty),
        service_account: spec.service_account.unwrap_or(true),
        locality: spec.locality.unwrap_or(true),
    }))
}
