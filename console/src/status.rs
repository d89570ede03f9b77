//! What the API, the status conditions and the command line say. Pure functions of what is observed.

use std::{collections::BTreeMap, time::SystemTime};

use diolkos_engine::{Known, PodsView, RegistryView, Why, explain};
use diolkos_model::ServiceKey;
use diolkos_plan::{Reason, Verdict};
use diolkos_sink_api::{Ledger, Totals};
use diolkos_source_api::{Health, Phase};
use serde::{Deserialize, Serialize};

use crate::{Holder, Observer};

/// One registry, as `/api/v1/registries` and `diolkos registries` have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// The name of the document.
    pub name: String,
    /// `Connecting`, `Syncing`, `Live`, `Unreachable`, `Denied` or `Misconfigured`.
    pub phase: String,
    /// One line on what is going on.
    pub detail: String,
    /// The last answer of the registry, RFC 3339.
    pub last_contact: Option<String>,
    /// The connection's number.
    pub epoch: u64,
    /// Open connections to the registry.
    pub connections: usize,
    /// Requests sent to the registry since the start.
    pub requests: u64,
    /// Services that the registry has.
    pub services: usize,
    /// Their instances.
    pub instances: usize,
    /// Endpoints in the mesh.
    pub endpoints: usize,
    /// Objects in the mesh.
    pub objects: usize,
    /// Services that the registry lacks, wholly or in part, and that stay for now.
    #[serde(default)]
    pub held_services: usize,
    /// Instances that the registry lacks and that stay for now.
    #[serde(default)]
    pub held_instances: usize,
    /// Services without instances, whose hosts stay with no endpoints for `guard.emptyGrace`.
    #[serde(default)]
    pub empty_services: usize,
    /// Services that are not carried over, by reason.
    pub refused: BTreeMap<String, usize>,
    /// Instances that are left out, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Services with an advice, by reason.
    pub advice: BTreeMap<String, usize>,
    /// The replica that writes, where several share the registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// As in the status of the resource.
    pub conditions: Vec<Condition>,
}

/// A status condition, without its time of transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `Connected`, `Stale`, `Complete`, `RemovalsHeld`, `Synced`, `ServicesRefused`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// What happened and what to do.
    pub message: String,
}

/// One service, as `/api/v1/services` and `diolkos status` have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// The registry that it comes from.
    pub registry: String,
    /// Its key.
    pub service: String,
    /// Its host; empty if it has none.
    pub host: String,
    /// The ports that clients dial.
    pub ports: Vec<u32>,
    /// Endpoints in the mesh.
    pub endpoints: usize,
    /// Instances that the registry has.
    pub instances: usize,
    /// Whether it is in the mesh.
    pub carried: bool,
    /// Why not, if not.
    pub refusal: Option<String>,
    /// Instances that are left out, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// What could be better.
    pub advice: Vec<String>,
    /// Instances that are kept although the registry lacks them.
    pub held: usize,
    /// Why, and since when.
    #[serde(default)]
    pub hold: Option<String>,
    /// Since when it has no instances, where its host stays for a while, RFC 3339.
    #[serde(default)]
    pub empty_since: Option<String>,
}

/// All about one service, as `/api/v1/explain` and `diolkos explain` have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The registry's record, every decision, the objects.
    #[serde(flatten)]
    pub explanation: serde_json::Map<String, serde_json::Value>,
    /// When the record changed last, RFC 3339, or in words that it was before the start.
    pub changed: String,
    /// What was last done about each object.
    pub written: Vec<Written>,
}

/// What was last done about an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// The object.
    pub object: String,
    /// When, RFC 3339; `None` if it was not touched since the start (it was right already).
    pub at: Option<String>,
    /// What was done, or the error.
    pub result: String,
}

impl Observer {
    /// One registry.
    #[must_use]
    pub fn registry(&self, name: &str) -> Option<RegistryStatus> {
        let mut registries = self.registries().into_iter();
        registries.find(|registry| registry.name == name)
    }

    /// Every registry.
    #[must_use]
    pub fn registries(&self) -> Vec<RegistryStatus> {
        let view = self.view.borrow().clone();
        let health = self.sources.health();
        view.registries
            .iter()
            .map(|(name, registry)| {
                let health = health.get(name).cloned().unwrap_or_default();
                let ledger = self.ledger.as_ref();
                let mut status = status(name, registry, &health, ledger, view.generation);
                if let Some(holder) = self.holders.get(name) {
                    status
                        .conditions
                        .push(leased(&holder, self.holders.error()));
                    status.holder = Some(holder);
                }
                status
            })
            .collect()
    }

    /// Every service, or those of one registry or host.
    #[must_use]
    pub fn services(&self, registry: Option<&str>, host: Option<&str>) -> Vec<ServiceStatus> {
        let view = self.view.borrow().clone();
        view.services
            .iter()
            .filter(|(key, known)| {
                registry.is_none_or(|name| *key.registry == *name)
                    && host.is_none_or(|host| known.host.as_deref() == Some(host))
            })
            .map(|(key, known)| service(key, known))
            .collect()
    }

    /// What is known about a host, a service, an object, an instance or an address.
    ///
    /// # Errors
    /// If an explanation cannot be written as JSON.
    pub fn explain(&self, query: &str) -> Result<Vec<Explained>, serde_json::Error> {
        let view = self.view.borrow().clone();
        explain(&view, query)
            .into_iter()
            .map(|found| {
                let written = found.keys.iter().map(|key| self.written(key)).collect();
                let changed = match found.remembered {
                    Some(_) => "before this process began".to_owned(),
                    None => time(found.changed),
                };
                let explanation = match serde_json::to_value(&found)? {
                    serde_json::Value::Object(map) => map,
                    other => serde_json::Map::from_iter([("explanation".to_owned(), other)]),
                };
                Ok(Explained {
                    explanation,
                    changed,
                    written,
                })
            })
            .collect()
    }

    fn written(&self, key: &diolkos_istio::ObjectKey) -> Written {
        let record = self.ledger.as_ref().and_then(|ledger| ledger.record(key));
        let (at, result) = match record {
            None => (None, "not touched since the start".to_owned()),
            Some(record) => (
                Some(time(record.at)),
                match record.result {
                    Ok(outcome) => outcome.as_str().to_owned(),
                    Err(error) => format!("failed: {error}"),
                },
            ),
        };
        Written {
            object: key.to_string(),
            at,
            result,
        }
    }
}

/// RFC 3339, to the second, in UTC: how every time is told.
#[must_use]
pub fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

fn by_name(counts: &BTreeMap<Reason, usize>) -> BTreeMap<String, usize> {
    counts
        .iter()
        .map(|(reason, count)| (reason.to_string(), *count))
        .collect()
}

fn service(key: &ServiceKey, known: &Known) -> ServiceStatus {
    ServiceStatus {
        registry: key.registry.to_string(),
        service: key.to_string(),
        host: known.host.clone().unwrap_or_default(),
        ports: known.ports.clone(),
        endpoints: if known.is_carried() {
            known.endpoints
        } else {
            0
        },
        instances: known.service.instances.len(),
        carried: known.is_carried(),
        refusal: known.refusal_text(),
        dropped: by_name(&known.dropped),
        advice: known.advice.iter().map(ToString::to_string).collect(),
        held: known.held.len(),
        hold: known.hold_text(),
        empty_since: known.empty_since.map(time),
    }
}

fn status(
    name: &str,
    registry: &RegistryView,
    health: &Health,
    ledger: Option<&Ledger>,
    generation: u64,
) -> RegistryStatus {
    let mut conditions = vec![
        connected(health),
        stale(health),
        complete(registry),
        removals_held(name, registry),
    ];
    conditions.extend(ledger.map(|ledger| synced(registry, ledger, name, generation)));
    conditions.push(refused(registry));
    conditions.extend(registry.pods.as_ref().map(pods_followed));
    RegistryStatus {
        name: name.to_owned(),
        phase: health.phase.as_str().to_owned(),
        detail: health.detail.to_string(),
        last_contact: health.last_contact.map(time),
        epoch: health.epoch,
        connections: health.connections,
        requests: health.requests,
        services: registry.services,
        instances: registry.instances,
        endpoints: registry.endpoints,
        objects: registry.objects,
        held_services: registry.held_services,
        held_instances: registry.held_instances,
        empty_services: registry.empty_services,
        refused: by_name(&registry.refused),
        dropped: by_name(&registry.dropped),
        advice: by_name(&registry.advice),
        holder: None,
        conditions,
    }
}

fn condition(kind: &str, status: bool, reason: &str, message: impl Into<String>) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
    }
}

/// Only where something is taken from Pods.
fn pods_followed(pods: &PodsView) -> Condition {
    let (reason, message) = match (&pods.trouble, pods.known) {
        (None, true) => ("Followed", "the Pods of the cluster are known".to_owned()),
        (Some(why), true) => ("Stale", format!("{why}; what was known of the Pods stays")),
        (why, false) => {
            let why = why.as_deref().unwrap_or("the Pods are being read");
            let message =
                format!("{why}; nothing of this registry is written before they are known");
            ("NotRead", message)
        }
    };
    condition("PodsFollowed", reason == "Followed", reason, message)
}

/// Only where several replicas share the registries.
fn leased(holder: &Holder, error: Option<String>) -> Condition {
    match (error, &holder.identity) {
        (Some(error), _) => condition("Leased", false, "LeasesUnavailable", error),
        (None, None) => {
            let message = "no replica writes this registry; one will within a Lease's time";
            condition("Leased", false, "Nobody", message)
        }
        (None, Some(identity)) => {
            let reason = if holder.ours { "Held" } else { "HeldByAnother" };
            let message = format!("replica {identity} writes this registry");
            condition("Leased", true, reason, message)
        }
    }
}

fn connected(health: &Health) -> Condition {
    let up = health.phase.is_connected();
    let message = match (up, health.phase) {
        (true, _) => health.detail.to_string(),
        (false, Phase::Connecting) => "no answer from the registry yet".to_owned(),
        (false, _) => format!("{}; the mesh stays as it is", health.detail),
    };
    condition("Connected", up, health.phase.as_str(), message)
}

/// Whether what the mesh holds may be out of date.
fn stale(health: &Health) -> Condition {
    if health.phase.is_connected() {
        return condition("Stale", false, "Live", "the mesh follows the registry");
    }
    let message = match health.last_contact {
        Some(at) => format!(
            "the last answer came at {}; the mesh stays as it was then",
            time(at)
        ),
        None => "no answer since the start; the mesh stays as it was before".to_owned(),
    };
    condition("Stale", true, health.phase.as_str(), message)
}

/// Whether removals are held back, why, and how that ends.
fn removals_held(name: &str, registry: &RegistryView) -> Condition {
    let what = || {
        let (services, instances) = (registry.held_services, registry.held_instances);
        format!("{services} services and {instances} instances that the registry lacks stay")
    };
    let release = format!("`diolkos registries release {name}` lets them go now");
    let Some(hold) = &registry.hold else {
        if registry.held_services + registry.held_instances == 0 {
            return condition("RemovalsHeld", false, "None", "nothing is held back");
        }
        // An answer about single services leaves no word on the registry as a whole.
        let why = registry.partial.as_deref().map(|why| format!(" ({why})"));
        let why = why.unwrap_or_default();
        let message = format!("{}, since its answer is incomplete{why}; {release}", what());
        return condition("RemovalsHeld", true, "PartialAnswer", message);
    };
    let end = match hold.why {
        Why::Shrink => format!(
            "until {} complete snapshots in a row have said the same ({} so far)",
            hold.needed, hold.confirmations
        ),
        Why::Empty => format!(
            "until a complete snapshot says the same {} after that",
            humantime::format_duration(hold.empty_hold)
        ),
    };
    let since = time(hold.since);
    condition(
        "RemovalsHeld",
        true,
        hold.why.as_str(),
        format!("{} since {since}, {end}; {release}", what()),
    )
}

fn complete(registry: &RegistryView) -> Condition {
    match (&registry.partial, registry.complete) {
        (Some(why), _) => condition(
            "Complete",
            false,
            "PartialAnswer",
            format!(
                "{why}; nothing is removed ({} services and {} instances held)",
                registry.held_services, registry.held_instances
            ),
        ),
        (None, false) => condition("Complete", false, "NoSnapshot", "no complete snapshot yet"),
        (None, true) => condition(
            "Complete",
            true,
            "CompleteSnapshot",
            format!(
                "{} services, {} instances",
                registry.services, registry.instances
            ),
        ),
    }
}

fn synced(registry: &RegistryView, ledger: &Ledger, name: &str, generation: u64) -> Condition {
    if let Some(error) = ledger.unreadable() {
        return condition("Synced", false, "SinkUnreadable", error);
    }
    let Totals { failing, example } = ledger.totals(name);
    if let Some((category, _)) = failing.iter().max_by_key(|(_, count)| **count) {
        let all: usize = failing.values().sum();
        let example = example.unwrap_or_default();
        return condition(
            "Synced",
            false,
            category,
            format!("{all} objects cannot be written, for example {example}"),
        );
    }
    if ledger.generation() < generation || ledger.pending() > 0 {
        return condition(
            "Synced",
            false,
            "Writing",
            format!("{} objects to write", ledger.pending()),
        );
    }
    if !registry.synced {
        return condition(
            "Synced",
            false,
            "NoSnapshot",
            "no snapshot of the registry yet",
        );
    }
    condition(
        "Synced",
        true,
        "UpToDate",
        format!(
            "{} objects with {} endpoints are as they should be",
            registry.objects, registry.endpoints
        ),
    )
}

fn refused(registry: &RegistryView) -> Condition {
    let wrong: Vec<String> = registry
        .refused
        .iter()
        .filter(|(reason, _)| {
            reason.verdict() == Verdict::Refused && **reason != Reason::ServiceExcluded
        })
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    if wrong.is_empty() {
        return condition(
            "ServicesRefused",
            false,
            "None",
            "every selected service is carried over",
        );
    }
    let example = registry.example.clone().unwrap_or_default();
    condition(
        "ServicesRefused",
        true,
        "SomeRefused",
        format!(
            "{}; for example {example}. `diolkos explain SERVICE` tells all",
            wrong.join(", ")
        ),
    )
}
