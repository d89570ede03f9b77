//! From a host, a service or an instance back to every decision.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use diolkos_istio::{Kind, Object, ObjectKey};
use diolkos_model::{Health, Instance, Service, ServiceKey, Workloads};
use diolkos_plan::{Decision, Reason, Subject, plan_empty, plan_with};
use serde::Serialize;

use crate::{Known, RememberedView, View, view::hold_text};

/// All about one service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The service's key.
    pub service: String,
    /// What the registry says.
    pub record: RecordView,
    /// The host that it claims.
    pub host: Option<String>,
    /// Whether its objects are in the mesh.
    pub carried: bool,
    /// Why not, if not.
    pub refusal: Option<String>,
    /// Every decision, in the order in which they were taken.
    pub decisions: Vec<Decision>,
    /// Instances that the registry lacks and that stay for now.
    pub held: Vec<Arc<str>>,
    /// Why the guard holds them back, and since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Whether the registry does not have the service any more.
    pub gone: bool,
    /// The endpoints in the mesh of a service that is known by its objects alone: no complete snapshot since the
    /// start has accounted for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remembered: Option<usize>,
    /// Since when there are no instances, where the host stays for a while (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_since: Option<String>,
    /// When the record changed last.
    #[serde(skip)]
    pub changed: SystemTime,
    /// The objects that come of it (in the mesh only if `carried`).
    pub objects: Vec<serde_json::Value>,
    /// Their keys.
    #[serde(skip)]
    pub keys: Vec<ObjectKey>,
}

/// A service as the registry has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordView {
    /// The registry.
    pub registry: Arc<str>,
    /// Datacenter or namespace.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: Arc<str>,
    /// Group.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub group: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Its instances.
    pub instances: Vec<InstanceView>,
}

/// An instance as the registry has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// Its id.
    pub id: Arc<str>,
    /// Its address.
    pub address: String,
    /// Its ports, `name:number/protocol`.
    pub ports: Vec<String>,
    /// `healthy`, or why not.
    pub health: String,
    /// Its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
    /// `region/zone/subzone`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
    /// Tags and metadata.
    pub labels: std::collections::BTreeMap<Arc<str>, Arc<str>>,
}

/// Finds the services that `query` names, by host, key (`registry/namespace/group/name`), name,
/// object name, instance id or instance address, and explains each. Planning is pure, so the
/// decisions are made again instead of being kept.
#[must_use]
pub fn explain(view: &View, query: &str) -> Vec<Explanation> {
    let known = view
        .services
        .iter()
        .filter(|(key, known)| matches(key, known, query))
        .map(|(key, known)| explanation(key, known));
    let host = query.strip_suffix('.').unwrap_or(query);
    let remembered = view.remembered.iter().filter(|remembered| {
        // The service entry is called after its host.
        let named = |object: &ObjectKey| *object.name == *host;
        *remembered.service == *query || remembered.objects.iter().any(named)
    });
    known.chain(remembered.map(of_memory)).collect()
}

fn of_memory(remembered: &RememberedView) -> Explanation {
    let objects = &remembered.objects;
    let host = objects.iter().find(|key| key.kind == Kind::ServiceEntry);
    Explanation {
        service: remembered.service.to_string(),
        record: RecordView {
            registry: remembered.registry.clone(),
            namespace: "".into(),
            group: "".into(),
            name: remembered.service.clone(),
            instances: Vec::new(),
        },
        host: host.map(|key| key.name.to_string()),
        carried: true,
        refusal: None,
        decisions: Vec::new(),
        held: Vec::new(),
        hold: remembered.hold.map(hold_text),
        gone: remembered.hold.is_some(),
        remembered: Some(remembered.endpoints),
        empty_since: None,
        changed: SystemTime::UNIX_EPOCH,
        objects: Vec::new(),
        keys: objects.clone(),
    }
}

fn matches(key: &ServiceKey, known: &Known, query: &str) -> bool {
    let host = query.strip_suffix('.').unwrap_or(query);
    let named = known
        .host
        .as_deref()
        .is_some_and(|h| h.eq_ignore_ascii_case(host))
        || &*key.name == query
        || key.to_string() == query;
    let object = || {
        known.planned.as_ref().is_some_and(|planned| {
            planned
                .objects()
                .iter()
                .any(|(object, _)| &*object.name == query)
        })
    };
    let address: Option<IpAddr> = query.parse().ok();
    let instance = || {
        known.service.instances.iter().any(|i| {
            &*i.id == query || address.is_some_and(|ip| i.address == diolkos_model::Address::Ip(ip))
        })
    };
    named || object() || instance()
}

fn explanation(key: &ServiceKey, known: &Known) -> Explanation {
    let made = match &known.shape {
        Some(shape) => plan_empty(&known.policy, shape),
        None => {
            let nobody = Workloads::new();
            let planned = known.planned.as_ref();
            let workloads = planned.and_then(|planned| planned.workloads());
            plan_with(&known.policy, &known.service, workloads.unwrap_or(&nobody))
        }
    };
    let lost = known.lost_aliases.iter().map(|detail| Decision {
        subject: Subject::Service,
        reason: Reason::AliasRefused,
        detail: detail.clone(),
    });
    let time = |at| humantime::format_rfc3339_seconds(at).to_string();
    Explanation {
        service: key.to_string(),
        record: record(&known.service),
        host: made.host,
        carried: known.is_carried(),
        refusal: known.refusal_text(),
        decisions: made.decisions.into_iter().chain(lost).collect(),
        held: known.held.clone(),
        hold: known.hold_text(),
        gone: known.gone,
        remembered: None,
        empty_since: known.empty_since.map(time),
        changed: known.changed,
        objects: made.objects.iter().map(Object::manifest).collect(),
        keys: made.objects.into_iter().map(|object| object.key).collect(),
    }
}

fn record(service: &Service) -> RecordView {
    let ServiceKey {
        registry,
        namespace,
        group,
        name,
    } = service.key.clone();
    RecordView {
        registry,
        namespace,
        group,
        name,
        instances: service.instances.iter().map(instance_view).collect(),
    }
}

fn instance_view(instance: &Instance) -> InstanceView {
    let port = |port: &diolkos_model::Port| {
        let protocol = port
            .protocol
            .as_deref()
            .map(|p| format!("/{p}"))
            .unwrap_or_default();
        let name = if port.name.is_empty() {
            String::new()
        } else {
            format!("{}:", port.name)
        };
        format!("{name}{}{protocol}", port.number)
    };
    let locality = [
        &instance.locality.region,
        &instance.locality.zone,
        &instance.locality.sub_zone,
    ];
    InstanceView {
        id: instance.id.clone(),
        address: instance.address.to_string(),
        ports: instance.ports.iter().map(port).collect(),
        health: match &instance.health {
            Health::Healthy => "healthy".to_owned(),
            Health::Unhealthy(why) => format!("unhealthy: {why}"),
        },
        weight: instance.weight.map(|w| f64::from(w.0) / 1000.0),
        version: instance.version.clone(),
        locality: locality
            .map(|part| &**part)
            .join("/")
            .trim_end_matches('/')
            .to_owned(),
        labels: instance.labels.iter().cloned().collect(),
    }
}
