//! Leases as the API has them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use super::{
    decide::Record,
    election::{Call, Failed, Listed, Subject, Write},
    name,
};
use crate::{CallError, deadline};

const MANAGER: &str = "diolkos";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// What a Lease is about: `registry` or `replica`.
const ROLE: &str = "diolkos.io/lease";
/// The registry of a Lease: its name may be no label value.
const REGISTRY: &str = "diolkos.io/registry";
/// The registries that a replica serves, separated by commas.
const SERVES: &str = "diolkos.io/registries";

/// Reads our Leases. Those that make no sense are passed over.
pub(super) async fn list(api: &Api<Lease>, limit: Duration) -> Result<Vec<Listed>, CallError> {
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{ROLE}"));
    let list = deadline(limit, api.list(&ours)).await?;
    Ok(list.items.iter().filter_map(listed).collect())
}

/// Makes a call; gives the new version of the Lease.
pub(super) async fn send(
    api: &Api<Lease>,
    call: &Call,
    limit: Duration,
) -> Result<String, CallError> {
    let name = match &call.subject {
        Subject::Registry(registry) => name::of_registry(registry),
        Subject::Replica(identity) => name::of_replica(identity),
    };
    let lease = match (&call.write, &call.version) {
        (Write::Delete, version) => {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    resource_version: version.clone(),
                    uid: None,
                }),
                ..DeleteParams::default()
            };
            deadline(limit, api.delete(&name, &params)).await?;
            return Ok(String::new());
        }
        (Write::Put { record, serves }, None) => {
            let body = body(&name, None, &call.subject, record, serves);
            let lease = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
            let params = PostParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PostParams::default()
            };
            deadline(limit, api.create(&params, &lease)).await?
        }
        (Write::Put { record, serves }, Some(version)) => {
            let body = body(&name, Some(version), &call.subject, record, serves);
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            deadline(limit, api.patch(&name, &params, &Patch::Merge(&body))).await?
        }
    };
    Ok(lease.resource_version().unwrap_or_default())
}

/// What an error says about the Lease.
pub(super) fn failed(error: &CallError) -> Failed {
    match error {
        CallError::Kube(kube::Error::Api(status)) if status.code == 404 => Failed::Missing,
        CallError::Kube(kube::Error::Api(status)) if status.code == 409 => Failed::Conflict,
        _ => Failed::Unknown,
    }
}

fn listed(lease: &Lease) -> Option<Listed> {
    let annotation = |key| lease.annotations().get(key).map(String::as_str);
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    let (subject, serves) = match lease.labels().get(ROLE)?.as_str() {
        "registry" => (Subject::Registry(annotation(REGISTRY)?.into()), ""),
        "replica" => (
            Subject::Replica(holder.as_deref()?.into()),
            annotation(SERVES).unwrap_or_default(),
        ),
        _ => return None,
    };
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Some(Listed {
        subject,
        version: lease.resource_version()?,
        record: Record {
            holder: holder.map(Into::into),
            duration: Duration::from_secs(seconds.try_into().unwrap_or_default()),
            transitions: spec.lease_transitions.unwrap_or_default(),
            acquired: spec.acquire_time.map(|time| time.0),
            renewed: spec.renew_time.map(|time| time.0),
        },
        serves: serves
            .split(',')
            .filter(|name| !name.is_empty())
            .map(Into::into)
            .collect(),
    })
}

/// A whole Lease, or the merge patch of one: what others put on it stays.
fn body(
    name: &str,
    version: Option<&String>,
    subject: &Subject,
    record: &Record,
    serves: &BTreeSet<Arc<str>>,
) -> Value {
    let (role, annotations) = match subject {
        Subject::Registry(registry) => ("registry", json!({REGISTRY: **registry})),
        Subject::Replica(_) => {
            let serves: Vec<&str> = serves.iter().map(|name| &**name).collect();
            ("replica", json!({SERVES: serves.join(",")}))
        }
    };
    let mut body = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "labels": {MANAGED_BY: MANAGER, ROLE: role},
            "annotations": annotations,
        },
        "spec": {
            // Null takes it away.
            "holderIdentity": record.holder.as_deref(),
            "leaseDurationSeconds": whole_seconds(record.duration),
            "leaseTransitions": record.transitions,
            "acquireTime": record.acquired.map(micros),
            "renewTime": record.renewed.map(micros),
        },
    });
    if let Some(version) = version {
        body["metadata"]["resourceVersion"] = json!(version);
    }
    body
}

/// The API takes whole seconds, at least one.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    let more = u64::from(duration.subsec_nanos() > 0);
    (duration.as_secs() + more).max(1)
}

/// The API keeps microseconds.
fn micros(time: Timestamp) -> String {
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: Option<&str>) -> Record {
        let time = |text: &str| Some(text.parse().expect("a time"));
        Record {
            holder: holder.map(Into::into),
            duration: Duration::from_secs(15),
            transitions: 3,
            acquired: time("2026-01-02T03:04:05Z"),
            renewed: time("2026-01-02T03:04:06.789Z"),
        }
    }

    fn back(subject: &Subject, record: &Record, serves: &[&str]) -> Option<Listed> {
        let serves = serves.iter().map(|name| (*name).into()).collect();
        let body = body("l", Some(&"7".to_owned()), subject, record, &serves);
        listed(&serde_json::from_value(body).expect("a Lease"))
    }

    #[test]
    fn what_is_written_is_read() {
        let registry = Subject::Registry("consul".into());
        for record in [record(Some("me")), record(None)] {
            let read = back(&registry, &record, &[]).expect("read");
            assert_eq!((read.subject, read.record), (registry.clone(), record));
            assert_eq!(read.version, "7");
        }
        let replica = Subject::Replica("me".into());
        let read = back(&replica, &record(Some("me")), &["a", "b"]).expect("read");
        assert_eq!((read.subject, read.serves.len()), (replica.clone(), 2));
        // Nobody's replica is none.
        assert!(back(&replica, &record(None), &[]).is_none());
    }

    #[test]
    fn the_times_are_written_as_the_api_wants_them() {
        let body = body(
            "l",
            None,
            &Subject::Registry("r".into()),
            &record(None),
            &BTreeSet::new(),
        );
        assert_eq!(body["spec"]["renewTime"], "2026-01-02T03:04:06.789000Z");
        assert_eq!(body["spec"]["holderIdentity"], Value::Null);
        assert_eq!(whole_seconds(Duration::from_millis(100)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(2100)), 3);
    }
}
