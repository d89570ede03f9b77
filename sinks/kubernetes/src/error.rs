//! What an error of the API server means for a write.

use std::{collections::BTreeSet, time::Duration};

use diolkos_istio::{ObjectKey, label};
use diolkos_kube_ext::CallError;
use diolkos_sink_api::WriteError;
use kube::core::Status;

/// The pause where the API server has too many requests and does not say how long to wait.
const TOO_MANY: Duration = Duration::from_secs(1);

/// Maps every error but those that need a second look at the object.
pub(crate) fn explain(key: &ObjectKey, error: &CallError) -> WriteError {
    let reason = error.to_string();
    match error {
        CallError::Kube(kube::Error::Api(status)) => answer(key, status, reason),
        CallError::Kube(_) | CallError::Deadline(_) => retry(reason),
    }
}

fn answer(key: &ObjectKey, status: &Status, reason: String) -> WriteError {
    match status.code {
        404 if about_namespace(status, &reason) => {
            WriteError::NamespaceMissing(key.namespace.clone())
        }
        404 => retry(format!("{reason} (is Istio's base chart installed?)")),
        403 if has_cause(status, "NamespaceTerminating") => {
            retry(format!("namespace {} is being deleted", key.namespace))
        }
        400 | 413 | 422 => WriteError::Invalid(reason),
        _ if is_verdict(&reason) => WriteError::Invalid(reason),
        401 | 403 => WriteError::Denied(reason),
        429 => {
            let seconds = status
                .details
                .as_ref()
                .map_or(0, |details| details.retry_after_seconds);
            let asked = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
            WriteError::Retry {
                reason,
                after: Some(asked.unwrap_or(TOO_MANY)),
            }
        }
        _ => retry(reason),
    }
}

pub(crate) fn retry(reason: String) -> WriteError {
    WriteError::Retry {
        reason,
        after: None,
    }
}

fn about_namespace(status: &Status, reason: &str) -> bool {
    let kind = status.details.as_ref().map(|details| details.kind.as_str());
    kind == Some("namespaces") || reason.starts_with("namespaces \"")
}

/// Whether the object itself was refused, under a code that says otherwise: policies and webhooks may answer with
/// 403, and the API server reports fields that the schema does not know and objects that etcd finds too large
/// as its own failures (500).
fn is_verdict(reason: &str) -> bool {
    let denied = (reason.contains("admission webhook") && reason.contains("denied the request"))
        || reason.contains("ValidatingAdmissionPolicy");
    denied
        || reason.contains("failed to create typed patch object")
        || reason.contains("request is too large")
}

/// The field managers that our write conflicts with.
pub(crate) fn conflicting_managers(error: &CallError) -> Option<String> {
    let CallError::Kube(kube::Error::Api(status)) = error else {
        return None;
    };
    if status.code != 409 || !has_cause(status, "FieldManagerConflict") {
        return None;
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    // `conflict with "NAME" using VERSION`
    let names: BTreeSet<&str> = causes
        .filter_map(|cause| cause.message.split('"').nth(1))
        .collect();
    let names: Vec<&str> = names.into_iter().collect();
    Some(names.join(", "))
}

fn has_cause(status: &Status, reason: &str) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == reason)
}

/// Whether the answer has this HTTP status.
pub(crate) fn is_code(error: &CallError, code: u16) -> bool {
    matches!(error, CallError::Kube(kube::Error::Api(status)) if status.code == code)
}

/// Whether an update with a uid found another object of that name, or none. Where there is none the API server says
/// conflict; where there is another one it says that the uid cannot be changed.
pub(crate) fn is_another_object(error: &CallError) -> bool {
    let CallError::Kube(kube::Error::Api(status)) = error else {
        return false;
    };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 409 || (status.code == 422 && causes.any(|cause| cause.field == "metadata.uid"))
}

/// The object has other labels than ours.
pub(crate) fn unlabelled() -> WriteError {
    let (key, value, registry) = (label::MANAGED_BY, label::MANAGER, label::REGISTRY);
    WriteError::Foreign(format!("it lacks the label {key}: {value} or {registry}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diolkos_istio::Kind;

    fn explained(status: serde_json::Value) -> WriteError {
        let status: Status = serde_json::from_value(status).unwrap();
        let key = ObjectKey {
            kind: Kind::ServiceEntry,
            namespace: "shop".into(),
            name: "a".into(),
        };
        explain(&key, &CallError::Kube(kube::Error::Api(status.boxed())))
    }

    #[test]
    fn codes_and_the_answers_that_differ_from_their_code() {
        let deny = r#"admission webhook "validation.istio.io" denied the request: bad host"#;
        let schema =
            "failed to create typed patch object (shop/a): .spec.new: field not declared in schema";
        for (code, message, category) in [
            (400, deny, "Invalid"),
            (403, deny, "Invalid"),
            (403, "serviceentries is forbidden", "Denied"),
            (401, "Unauthorized", "Denied"),
            (404, r#"namespaces "shop" not found"#, "NamespaceMissing"),
            (404, "404 page not found", "WriteFailed"),
            (413, "limit is 3145728", "Invalid"),
            (422, "spec.hosts: Required value", "Invalid"),
            (500, schema, "Invalid"),
            (500, "etcdserver: request is too large", "Invalid"),
            (
                500,
                r#"failed calling webhook "validation.istio.io": no endpoints"#,
                "WriteFailed",
            ),
            (503, "unavailable", "WriteFailed"),
            (409, "Operation cannot be fulfilled", "WriteFailed"),
        ] {
            let error = explained(serde_json::json!({"code": code, "message": message}));
            assert_eq!(error.category(), category, "{code} {message}");
            assert!(
                category == "NamespaceMissing" || error.to_string().contains(message),
                "{error}"
            );
        }
    }

    #[test]
    fn too_many_requests_come_again_when_asked_to() {
        let after = |details| match explained(serde_json::json!({"code": 429, "details": details}))
        {
            WriteError::Retry { after, .. } => after,
            other => panic!("{other}"),
        };
        assert_eq!(
            after(serde_json::json!({"retryAfterSeconds": 7})),
            Some(Duration::from_secs(7))
        );
        assert_eq!(after(serde_json::json!({})), Some(TOO_MANY));
    }
}
