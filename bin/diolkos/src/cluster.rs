//! `Registry` documents of the cluster: the set in force, and their status.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use diolkos_api::{CheckedRegistry, Fault, raw::RegistrySpec};
use diolkos_console::{Condition, Observer};
use diolkos_kube_ext::{Client, DocumentKind, Documents, apply_status, document};
use serde_json::{Value, json};

/// Follows the documents of the cluster.
pub(crate) struct ClusterDocuments {
    client: Client,
    kind: DocumentKind,
    watch: Documents,
    /// The last good form of each document.
    good: BTreeMap<String, CheckedRegistry>,
    seen: BTreeMap<String, Seen>,
}

/// A document as it was last seen, and what was last said about it.
struct Seen {
    generation: i64,
    /// Why it is not in force.
    faults: Option<String>,
    status: Value,
    /// Another replica may have written the status since.
    outdated: bool,
}

impl ClusterDocuments {
    /// Waits for the documents that are there.
    pub(crate) async fn start(client: Client) -> Self {
        let kind = DocumentKind::new("diolkos.io", "v1alpha1", "Registry", "registries");
        let mut documents = Self {
            watch: Documents::new(client.clone(), kind.clone()),
            client,
            kind,
            good: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        documents.changed().await;
        documents
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
        let seen = Seen {
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
                Ok(()) => seen.status = status,
                Err(error) => tracing::warn!(registry = name, %error, "cannot write the status"),
            }
        }
    }
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
