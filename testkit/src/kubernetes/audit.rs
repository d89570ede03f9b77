//! The API server's audit log: which requests a program really made.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The policy of the server: every request once, without bodies.
pub(super) const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
  "omitStages": ["RequestReceived", "ResponseStarted"], "rules": [{"level": "Metadata"}]}"#;

/// The verbs that change objects.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// One request that the API server answered.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// The verb, as Kubernetes names it (`get`, `list`, `watch`, `create`, `patch`, ...).
    pub verb: String,
    /// The authenticated user.
    pub user: String,
    /// The client's `User-Agent`.
    pub user_agent: String,
    /// The plural resource name; empty for requests such as `/readyz`.
    pub resource: String,
    /// The subresource, such as `status`; mostly empty.
    pub subresource: String,
    /// The object's namespace, empty for cluster-scoped ones and lists over all namespaces.
    pub namespace: String,
    /// The object's name, empty for lists and for objects that the server named.
    pub name: String,
    /// The HTTP status.
    pub code: u16,
    /// When the answer was complete (RFC 3339 with microseconds).
    pub stage_timestamp: String,
}

impl AuditRecord {
    /// Whether the request's verb changes objects, whatever came of it.
    pub fn is_write(&self) -> bool {
        WRITES.contains(&self.verb.as_str())
    }
}

/// The parts of an `audit.k8s.io/v1` Event that we read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    #[serde(default)]
    verb: String,
    #[serde(default)]
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
    #[serde(default)]
    stage_timestamp: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

/// The completed requests of a log, oldest first.
pub(super) fn read(log: &Path) -> Result<Vec<AuditRecord>> {
    let text = fs::read_to_string(log)
        .with_context(|| format!("cannot read the audit log {}", log.display()))?;
    // The last line may still be under way.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let events = complete
        .lines()
        .filter(|l| !l.is_empty())
        .map(serde_json::from_str::<Event>);
    let mut records = Vec::new();
    for event in events {
        let event = event.context("a line of the audit log is not an event")?;
        if event.stage == "ResponseComplete" {
            records.push(record(event));
        }
    }
    Ok(records)
}

fn record(event: Event) -> AuditRecord {
    AuditRecord {
        verb: event.verb,
        user: event.user.username,
        user_agent: event.user_agent,
        resource: event.object_ref.resource,
        subresource: event.object_ref.subresource,
        namespace: event.object_ref.namespace,
        name: event.object_ref.name,
        code: event.response_status.code,
        stage_timestamp: event.stage_timestamp,
    }
}
