//! `Registry` documents of the cluster: the set in force, and their status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use diolkos_api::{CheckedRegistry, Fault, raw::RegistrySpec};
use diolkos_console::{Condition, Observer};
use diolkos_engine::Command;
use diolkos_kube_ext::{
    About, Client, DocumentKind, Documents, EVENT_PAUSE, EventKind, EventRecorder, Notice,
    apply_status, document, watch_services,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Follows the documents of the cluster.
pub(crate) struct ClusterDocuments {
    client: Client,
    kind: DocumentKind,
    watch: Documents,
    /// The last good form of each document.
    good: BTreeMap<String, CheckedRegistry>,
    seen: BTreeMap<String, Seen>,
    /// Whose held removals were released since somebody asked.
    released: BTreeSet<Arc<str>>,
    events: EventRecorder,
}

/// A new value of this annotation on a `Registry` lets the removals pass that are held back of it.
const RELEASE: &str = "diolkos.io/release";

/// A document as it was last seen, and what was last said about it.
struct Seen {
    generation: i64,
    /// Why it is not in force.
    faults: Option<String>,
    status: Value,
    uid: Option<String>,
    /// The value of [`RELEASE`].
    release: Option<String>,
    /// Another replica may have written the status since.
    outdated: bool,
}

impl ClusterDocuments {
    /// Waits for the documents that are there.
    pub(crate) async fn start(client: Client) -> Self {
        let kind = DocumentKind::new("diolkos.io", "v1alpha1", "Registry", "registries");
        let identity = std::env::var("POD_NAME").unwrap_or_else(|_| "diolkos".to_owned());
        let mut documents = Self {
            events: EventRecorder::start(client.clone(), &identity, EVENT_PAUSE),
            watch: Documents::new(client.clone(), kind.clone()),
            client,
            kind,
            good: BTreeMap::new(),
            seen: BTreeMap::new(),
            released: BTreeSet::new(),
        };
        documents.changed().await;
        documents
    }

    /// The registries whose held removals somebody released since the last time.
    pub(crate) fn released(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.released).into_iter().collect()
    }

    /// The documents in force. One that became faulty keeps its last good form.
    pub(crate) fn current(&self) -> Vec<CheckedRegistry> {
        self.good.values().cloned().collect()
    }

    /// Waits for a change and takes it over. Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) {
        let all = self.watch.changed().await;
        let names: BTreeSet<&str> = all.iter().filter_map(name).collect();
        self.good.retain(|name, _| names.contains(name.as_str()));
        self.seen.retain(|name, _| names.contains(name.as_str()));
        for document in &all {
            self.take(document);
        }
    }

    fn take(&mut self, document: &Value) {
        let Some(name) = name(document) else { return };
        let faults = match check(name, &document["spec"]) {
            Ok(registry) => {
                self.good.insert(name.to_owned(), registry);
                None
            }
            Err(faults) => {
                tracing::warn!(
                    registry = name,
                    faults,
                    "the document is faulty, its last good form stays in force"
                );
                Some(faults)
            }
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let release = text(&document["metadata"]["annotations"][RELEASE]);
        // What was there at the start may have been dealt with long ago.
        let before = self.seen.get(name);
        if release.is_some() && before.is_some_and(|before| before.release != release) {
            self.released.insert(name.into());
        }
        let seen = Seen {
            uid: text(&document["metadata"]["uid"]),
            release,
            generation: document["metadata"]["generation"]
                .as_i64()
                .unwrap_or_default(),
            faults,
            status: document["status"].clone(),
            outdated: false,
        };
        self.seen.insert(name.to_owned(), seen);
    }

    /// Writes the status of every document whose status changed.
    /// Those that are not `ours` another replica writes.
    pub(crate) async fn tell(&mut self, observer: &Observer, ours: impl Fn(&str) -> bool) {
        let registries = observer.registries();
        for (name, seen) in &mut self.seen {
            if !ours(name) {
                seen.outdated = true;
                continue;
            }
            if seen.outdated {
                match document(&self.client, &self.kind, name).await {
                    Ok(document) => seen.status = document["status"].clone(),
                    Err(error) => {
                        tracing::warn!(registry = name, %error, "cannot read the status");
                        continue;
                    }
                }
                seen.outdated = false;
            }
            let kind = self.good.get(name).map(|registry| registry.source.kind());
            let mut conditions = vec![accepted(seen)];
            let mut status = json!({"observedGeneration": seen.generation, "registry": kind});
            if let Some(registry) = registries.iter().find(|registry| registry.name == *name) {
                conditions.extend(registry.conditions.iter().cloned());
                status["services"] = json!(registry.services);
                status["instances"] = json!(registry.instances);
                status["endpoints"] = json!(registry.endpoints);
                if let Some(holder) = &registry.holder {
                    status["holder"] = json!(holder.identity);
                }
            }
            status["conditions"] =
                with_times(&conditions, &seen.status["conditions"], seen.generation);
            if status == seen.status {
                continue;
            }
            match apply_status(&self.client, &self.kind, name, &status).await {
                Ok(()) => {
                    report(&self.events, name, seen, &conditions);
                    seen.status = status;
                }
                Err(error) => tracing::warn!(registry = name, %error, "cannot write the status"),
            }
        }
    }
}

/// Tells by Events what has changed for the worse or the better since the last status.
fn report(events: &EventRecorder, name: &str, seen: &Seen, conditions: &[Condition]) {
    let before = |kind: &str| {
        let all = seen.status["conditions"].as_array();
        let found = all.into_iter().flatten().find(|c| c["type"] == kind);
        found.and_then(|c| c["status"].as_str())
    };
    for condition in conditions {
        let now = condition.status == "True";
        let was = before(&condition.kind).map(|status| status == "True");
        let Some((reason, action, kind)) = transition(&condition.kind, was, now) else {
            continue;
        };
        events.record(Notice {
            about: About {
                api_version: "diolkos.io/v1alpha1".to_owned(),
                kind: "Registry".to_owned(),
                namespace: None,
                name: name.to_owned(),
                uid: seen.uid.clone(),
            },
            kind,
            reason,
            action,
            note: condition.message.clone(),
        });
    }
}

/// Reason, action and kind of the Event for a condition that was so (`None`: not known) and is so now.
fn transition(
    condition: &str,
    was: Option<bool>,
    now: bool,
) -> Option<(&'static str, &'static str, EventKind)> {
    use EventKind::{Normal, Warning};
    Some(match (condition, was, now) {
        ("RemovalsHeld", None | Some(false), true) => ("RemovalsHeld", "Hold", Warning),
        ("RemovalsHeld", Some(true), false) => ("RemovalsReleased", "Release", Normal),
        ("Stale", Some(false), true) => ("RegistryLost", "Wait", Warning),
        ("Stale", Some(true), false) => ("RegistryBack", "Follow", Normal),
        ("ServicesRefused", None | Some(false), true) => ("ServicesRefused", "Refuse", Warning),
        ("Accepted", None | Some(true), false) => ("Faulty", "Ignore", Warning),
        _ => return None,
    })
}

/// Tells the engine which hosts are names of the cluster's Services, until `cancel` fires. Names below the cluster's
/// domain are refused in any case; these are the shorter forms, which clients use as well.
pub(crate) async fn reserve_hosts(
    client: Client,
    commands: mpsc::Sender<Command>,
    cancel: CancellationToken,
) {
    let (mut services, task) = watch_services(client);
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = services.changed() => if changed.is_err() { break },
        }
        let Some(names) = services.borrow_and_update().clone() else {
            continue;
        };
        let hosts = names.iter().flat_map(|(namespace, name)| {
            let owner = format!("Service {namespace}/{name}");
            let short = format!("{name}.{namespace}");
            [(format!("{short}.svc"), owner.clone()), (short, owner)]
        });
        let reserved = Command::Reserve(Arc::new(hosts.collect()));
        if commands.send(reserved).await.is_err() {
            break;
        }
    }
    task.abort();
}

fn name(document: &Value) -> Option<&str> {
    document["metadata"]["name"].as_str()
}

fn check(name: &str, spec: &Value) -> Result<CheckedRegistry, String> {
    let spec: RegistrySpec =
        serde_json::from_value(spec.clone()).map_err(|error| format!("spec: {error}"))?;
    diolkos_api::check(name, &spec, None).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(Fault::to_string).collect();
        faults.join("; ")
    })
}

fn accepted(seen: &Seen) -> Condition {
    let (status, reason, message) = match &seen.faults {
        None => ("True", "Valid", "the document is in force".to_owned()),
        Some(faults) => (
            "False",
            "Faulty",
            format!("{faults}. The last good form stays in force"),
        ),
    };
    Condition {
        kind: "Accepted".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
    }
}

/// Adds the times of transition: that of the condition as it stands, where its status is the same.
fn with_times(conditions: &[Condition], before: &Value, generation: i64) -> Value {
    let now = diolkos_console::time(SystemTime::now());
    let one = |condition: &Condition| {
        let before = before
            .as_array()
            .into_iter()
            .flatten()
            .find(|b| b["type"] == condition.kind && b["status"] == condition.status);
        let since = before.map_or_else(|| json!(now), |b| b["lastTransitionTime"].clone());
        json!({
            "type": condition.kind, "status": condition.status, "reason": condition.reason,
            "message": condition.message, "lastTransitionTime": since, "observedGeneration": generation,
        })
    };
    conditions.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: &str) -> Condition {
        Condition {
            kind: "Synced".into(),
            status: status.into(),
            reason: "R".into(),
            message: "m".into(),
        }
    }

    #[test]
    fn the_time_of_transition_is_that_of_the_status() {
        let before = json!([{"type": "Synced", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let same = with_times(&[condition("True")], &before, 3);
        assert_eq!(same[0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(same[0]["observedGeneration"], 3);
        let other = with_times(&[condition("False")], &before, 3);
        assert_ne!(other[0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }
}
