//! What a registry may claim, and whether the document itself keeps to it.

use diolkos_istio::validate;
use diolkos_plan::Grant;
use ipnet::IpNet;

use super::text;
use crate::{
    fault::{Faults, FieldPath, Problem},
    raw::{ExportSpec, GrantSpec},
};

pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";

/// Everyone and no one, in `exportTo`.
const ALL: &str = "*";
const NONE: &str = "~";
/// The namespace of the object, in `exportTo`.
const OWN: &str = ".";

pub(super) fn grant(
    spec: Option<&GrantSpec>,
    at: &FieldPath,
    faults: &mut Faults,
) -> Option<Grant> {
    let spec = spec.cloned().unwrap_or_default();
    for (at, host) in text::items(&spec.hosts, &at.key("hosts")) {
        let domain = host.trim_start_matches("*.").trim_start_matches('.');
        faults.take(&at, validate::fqdn(domain));
    }
    for (at, namespace) in text::items(&spec.namespaces, &at.key("namespaces")) {
        faults.take(&at, validate::dns1123_label(namespace));
    }
    export_to(&spec.export_to, &at.key("exportTo"), faults);
    text::at_least_one(spec.max_services, &at.key("maxServices"), faults);
    text::at_least_one(spec.max_endpoints, &at.key("maxEndpoints"), faults);
    let cluster_domain = spec
        .cluster_domain
        .unwrap_or_else(|| CLUSTER_DOMAIN.to_owned());
    faults.take(&at.key("clusterDomain"), validate::fqdn(&cluster_domain));
    let cidrs = at.key("cidrs");
    let cidrs: Vec<_> = text::items(&spec.cidrs, &cidrs)
        .map(|(at, cidr)| {
            let network = cidr.parse::<IpNet>();
            faults.take(&at, network.map_err(|_| Problem::Network(cidr.clone())))
        })
        .collect();
    let most = |number: Option<u32>| number.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    Some(Grant {
        hosts: spec.hosts,
        namespaces: spec.namespaces,
        cidrs: cidrs.into_iter().collect::<Option<_>>()?,
        cluster_domain,
        max_services: most(spec.max_services),
        max_endpoints: most(spec.max_endpoints),
    })
}

/// Istio's own rules for `exportTo` (`validateExportTo` in `pkg/config/validation`).
pub(super) fn export_to(list: &[String], at: &FieldPath, faults: &mut Faults) {
    text::no_repeats(text::items(list, at), faults);
    for (at, namespace) in text::items(list, at) {
        if [ALL, NONE, OWN].contains(&namespace.as_str()) {
            continue;
        }
        faults.take(&at, validate::dns1123_label(namespace));
    }
    if list.len() > 1 && list.iter().any(|value| value == ALL || value == NONE) {
        faults.add(
            at,
            Problem::Conflict("'*' (all) and '~' (none) stand alone"),
        );
    }
}

/// Checks that `export` keeps to `grant`, as far as the document alone shows it, and returns what
/// `exportTo` is: without a word in `export`, the ceiling.
pub(super) fn ceiling(
    export: &ExportSpec,
    grant: Option<&GrantSpec>,
    namespace: &str,
    at: &FieldPath,
    faults: &mut Faults,
) -> Vec<String> {
    let Some(grant) = grant else {
        return export.export_to.clone();
    };
    let template = namespace.contains('{');
    if !template && !grant.namespaces.is_empty() && !grant.namespaces.iter().any(|n| n == namespace)
    {
        let value = namespace.to_owned();
        faults.add(
            &at.key("namespace"),
            Problem::OutsideGrant {
                value,
                grant: "grant.namespaces",
            },
        );
    }
    if export.export_to.is_empty() {
        return grant.export_to.clone();
    }
    let allowed = |value: &String| {
        let own = if value == OWN { Some(namespace) } else { None };
        value == NONE
            || grant.export_to.is_empty()
            || grant
                .export_to
                .iter()
                .any(|g| g == ALL || g == value || Some(g.as_str()) == own)
    };
    for (at, value) in text::items(&export.export_to, &at.key("exportTo")) {
        if !allowed(value) {
            let value = value.clone();
            faults.add(
                &at,
                Problem::OutsideGrant {
                    value,
                    grant: "grant.exportTo",
                },
            );
        }
    }
    export.export_to.clone()
}
