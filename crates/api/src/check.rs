//! From documents as written to documents that can be used: defaults, presets, and every rule.
//!
//! A check goes on after a fault, so that all of them are seen at once. Each part returns `None`
//! after it has reported a fault, and the whole is put together only if no part is missing.

mod connect;
mod defaults;
mod dubbo;
mod eureka;
mod export;
mod grant;
mod nacos;
mod pods;
mod text;

use std::{path::Path, sync::Arc};

use diolkos_istio::validate;
use diolkos_plan::Policy;

use crate::{
    fault::{Fault, Faults, FieldPath, Problem},
    raw::{GuardSpec, Import, RegistrySpec},
    settings::{CheckedRegistry, Limits},
    value,
};

/// The namespace of objects and Secrets where a document names none.
pub const DEFAULT_NAMESPACE: &str = "diolkos";

/// Checks a `Registry` and fills in its defaults.
///
/// `folder` is where relative paths start: the folder of the document. Without one (a document in
/// a cluster) paths must be absolute.
///
/// # Errors
/// All that is wrong with it.
pub fn check(
    name: &str,
    spec: &RegistrySpec,
    folder: Option<&Path>,
) -> Result<CheckedRegistry, Vec<Fault>> {
    let mut faults = Faults::default();
    match registry(name, spec, folder, &mut faults) {
        Some(checked) if faults.is_empty() => Ok(checked),
        _ => Err(faults.into_vec()),
    }
}

fn registry(
    name: &str,
    spec: &RegistrySpec,
    folder: Option<&Path>,
    faults: &mut Faults,
) -> Option<CheckedRegistry> {
    let root = FieldPath::default();
    let at = root.key("spec");
    registry_name(name, &root.key("metadata").key("name"), faults);
    let source = connect::source(spec, &at, folder, faults);
    let select = text::select(spec, &at.key("select"), faults);
    import(spec.import, &at.key("import"), faults);
    let defaults = defaults::Defaults::of(spec);
    let grant = grant::grant(spec.grant.as_ref(), &at.key("grant"), faults);
    let guard = guard(spec.guard.as_ref(), &at.key("guard"), faults);
    let export = export::export(spec, &defaults, &at, faults);
    let export = export?;
    let name: Arc<str> = name.into();
    Some(CheckedRegistry {
        policy: Policy {
            registry: name.clone(),
            priority: spec.priority.unwrap_or_default(),
            select: select?,
            grant: grant?,
            namespace: export.namespace,
            host: export.host,
            exception: export.exception,
            aliases: export.aliases,
            endpoints: export.endpoints,
            location: export.location,
            resolution: export.resolution,
            export_to: export.export_to,
            ports: export.ports,
            labels: export.labels,
            locality: export.locality,
            network: export.network,
            service_account: export.service_account,
            tls_mode: export.tls_mode,
            object_labels: defaults.object_labels,
            pods: export.pods,
            object_annotations: defaults.object_annotations,
        },
        name,
        source: source?,
        guard: guard?,
    })
}

/// The name is that of an object, and the value of a label on everything that is written.
fn registry_name(name: &str, at: &FieldPath, faults: &mut Faults) {
    let valid = validate::dns1123_subdomain(name).and_then(|()| validate::label_value(name));
    faults.take(at, valid);
}

fn import(import: Option<Import>, at: &FieldPath, faults: &mut Faults) {
    if import == Some(Import::Claimed) {
        let reason = "every selected service is imported; leave the field out, and name the \
                      services in 'select.include'";
        faults.add(
            at,
            Problem::NotYet {
                value: "Claimed",
                reason,
            },
        );
    }
}

fn guard(spec: Option<&GuardSpec>, at: &FieldPath, faults: &mut Faults) -> Option<Limits> {
    let default = Limits::default();
    let Some(spec) = spec else {
        return Some(default);
    };
    let mut duration = |field: &str, text: &Option<String>, default| match text {
        Some(text) => faults.take(&at.key(field), value::duration(text)),
        None => Some(default),
    };
    let empty_hold = duration("emptyHold", &spec.empty_hold, default.empty_hold);
    let empty_grace = duration("emptyGrace", &spec.empty_grace, default.empty_grace);
    let mut shrink = |field: &str, number: &Option<_>, default| match number {
        Some(number) => faults.take(&at.key(field), value::shrink(number)),
        None => Some(default),
    };
    let services = shrink(
        "maxServiceShrink",
        &spec.max_service_shrink,
        default.max_service_shrink,
    );
    let instances = shrink(
        "maxInstanceShrink",
        &spec.max_instance_shrink,
        default.max_instance_shrink,
    );
    text::at_least_one(spec.confirm_after, &at.key("confirmAfter"), faults);
    Some(Limits {
        empty_hold: empty_hold?,
        max_service_shrink: services?,
        max_instance_shrink: instances?,
        confirm_after: spec.confirm_after.unwrap_or(default.confirm_after),
        empty_grace: empty_grace?,
    })
}
