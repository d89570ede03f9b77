//! From instances to endpoints.

use std::{collections::HashSet, sync::Arc};

use diolkos_istio::{Resolution, WorkloadEntry, validate};
use diolkos_model::{Health, Instance, Service, Weight};

use crate::{
    Policy, Reason, ServiceAccount, address,
    decision::Decisions,
    labels,
    ports::Layout,
    workloads::{self, Pod, Pods, TLS_MODE},
};

/// An endpoint and the instance that it is.
pub(crate) struct Endpoint {
    pub(crate) id: Arc<str>,
    pub(crate) entry: WorkloadEntry,
    /// Whether its service account is that of the Pod.
    pub(crate) account_of_pod: bool,
}

/// The endpoints of a service, sorted by address, ports and id: a stable order on every replica.
pub(crate) fn endpoints(
    policy: &Policy,
    service: &Service,
    instances: &[&Instance],
    layout: &Layout,
    pods: Option<Pods<'_>>,
    decisions: &mut Decisions,
) -> Vec<Endpoint> {
    let fractional = instances
        .iter()
        .any(|i| i.weight.is_some_and(|Weight(milli)| milli % 1000 != 0));
    let mut endpoints: Vec<Endpoint> = instances
        .iter()
        .filter_map(|instance| {
            let made = endpoint(
                policy, service, instance, layout, fractional, pods, decisions,
            );
            made.map_err(|(reason, detail)| decisions.instance(&instance.id, reason, detail))
                .ok()
        })
        .collect();
    endpoints.sort_by(|a, b| order(a).cmp(&order(b)));
    drop_duplicates(&mut endpoints, decisions);
    drop_invalid(&mut endpoints, policy.resolution, layout, decisions);
    clip(&mut endpoints, policy.grant.max_endpoints, decisions);
    workloads::settle_accounts(&mut endpoints, decisions);
    endpoints
}

fn order(
    endpoint: &Endpoint,
) -> (
    Option<std::net::IpAddr>,
    &std::collections::BTreeMap<String, u32>,
    &str,
) {
    let entry = &endpoint.entry;
    (entry.address.parse().ok(), &entry.ports, &endpoint.id)
}

fn endpoint(
    policy: &Policy,
    service: &Service,
    instance: &Instance,
    layout: &Layout,
    fractional: bool,
    pods: Option<Pods<'_>>,
    decisions: &mut Decisions,
) -> Result<Endpoint, (Reason, String)> {
    if let (Health::Unhealthy(why), true) = (&instance.health, policy.select.healthy_only) {
        return Err((Reason::Unhealthy, why.to_string()));
    }
    if instance.weight == Some(Weight(0)) {
        return Err((Reason::WeightZero, "its weight is 0".into()));
    }
    let ip = address::usable(&instance.address, &policy.grant)?;
    let (ports, lacks) = layout
        .endpoint(instance)
        .ok_or((Reason::NoPort, "it has no usable port".to_owned()))?;
    if let Some(port) = lacks {
        decisions.instance(
            &instance.id,
            Reason::PortFallback,
            format!("it has no port for '{port}'; its first port takes that traffic"),
        );
    }
    let pod = pods.and_then(|pods| pods.at(ip));
    let mut labels = labels::of(instance, &policy.labels, decisions);
    if let Some(pod) = pod {
        pod.put_labels(&mut labels);
    }
    if let Some(mode) = &policy.tls_mode {
        labels.insert(TLS_MODE.to_owned(), mode.clone());
    }
    if let Some(pod) = pod {
        decisions.instance(&instance.id, Reason::Workload, pod.describe(&labels));
    }
    let account = pod.and_then(|pod| pod.service_account(&labels));
    let (service_account, account_of_pod) = match (&policy.service_account, account) {
        (ServiceAccount::None | ServiceAccount::FromLabel { .. }, Some(account)) => {
            (account.to_owned(), true)
        }
        (policy, _) => (service_account(policy, instance)?, false),
    };
    let entry = WorkloadEntry {
        address: ip.to_string(),
        ports,
        labels,
        network: policy.network.clone().unwrap_or_default(),
        locality: locality(policy, service, instance, pod),
        weight: weight(instance.weight, fractional),
        service_account,
    };
    decisions.instance(
        &instance.id,
        Reason::Endpoint,
        format!("{ip} {}", describe_ports(&entry)),
    );
    Ok(Endpoint {
        id: instance.id.clone(),
        entry,
        account_of_pod,
    })
}

/// The service account of an endpoint. A name that cannot be one costs the endpoint: without it,
/// clients would expect another identity than the registrant's.
fn service_account(
    policy: &ServiceAccount,
    instance: &Instance,
) -> Result<String, (Reason, String)> {
    let (key, default) = match policy {
        ServiceAccount::None => return Ok(String::new()),
        ServiceAccount::Fixed(account) => return Ok(account.clone()),
        ServiceAccount::FromLabel { key, default } => (key, default),
    };
    let own = instance.labels.iter().find(|(k, _)| **k == **key);
    let account = own.map_or("", |(_, account)| account);
    if account.is_empty() {
        return Ok(default.clone());
    }
    validate::dns1123_subdomain(account)
        .map_err(|why| (Reason::EndpointInvalid, format!("its label '{key}': {why}")))?;
    Ok(account.to_owned())
}

fn describe_ports(entry: &WorkloadEntry) -> String {
    let ports: Vec<_> = entry
        .ports
        .iter()
        .map(|(name, number)| format!("{name}={number}"))
        .collect();
    ports.join(" ")
}

/// Weights as Istio has them: whole numbers, where unset is 1. If an instance of the service has a
/// fraction, all are counted in hundredths.
fn weight(weight: Option<Weight>, fractional: bool) -> u32 {
    match (weight, fractional) {
        (None, false) => 0,
        (None, true) => 100,
        (Some(Weight(milli)), true) => (milli / 10).max(1),
        // 1 is what unset means; left out, as an unweighted registry would have it.
        (Some(Weight(milli)), false) => match milli / 1000 {
            1 => 0,
            whole => whole,
        },
    }
}

fn locality(
    policy: &Policy,
    service: &Service,
    instance: &Instance,
    pod: Option<Pod<'_>>,
) -> String {
    if let Some(template) = &policy.locality {
        // Without a value for it the instance just has no locality.
        return template.render(service, Some(instance)).unwrap_or_default();
    }
    let of_pod = pod.and_then(|pod| pod.locality());
    workloads::locality_text(of_pod.unwrap_or(&instance.locality))
}

fn drop_duplicates(endpoints: &mut Vec<Endpoint>, decisions: &mut Decisions) {
    let mut seen = HashSet::new();
    endpoints.retain(|endpoint| {
        let entry = &endpoint.entry;
        let first = seen.insert((entry.address.clone(), entry.ports.clone()));
        if !first {
            decisions.instance(
                &endpoint.id,
                Reason::Duplicate,
                format!(
                    "another instance is at {} with the same ports",
                    entry.address
                ),
            );
        }
        first
    });
}

fn drop_invalid(
    endpoints: &mut Vec<Endpoint>,
    resolution: Resolution,
    layout: &Layout,
    decisions: &mut Decisions,
) {
    let ports = layout.ports();
    let names = ports.iter().map(|port| port.name.as_str()).collect();
    endpoints.retain(|endpoint| {
        let violations = validate::endpoint(&endpoint.entry, resolution, &names);
        for violation in &violations {
            decisions.instance(&endpoint.id, Reason::EndpointInvalid, violation.to_string());
        }
        violations.is_empty()
    });
}

fn clip(endpoints: &mut Vec<Endpoint>, most: Option<usize>, decisions: &mut Decisions) {
    let Some(most) = most.filter(|most| endpoints.len() > *most) else {
        return;
    };
    for endpoint in &endpoints[most..] {
        decisions.instance(
            &endpoint.id,
            Reason::TooManyEndpoints,
            format!("grant.maxEndpoints is {most}"),
        );
    }
    endpoints.truncate(most);
}
