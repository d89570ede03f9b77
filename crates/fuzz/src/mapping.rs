//! What holds of the objects of any service.

use std::{collections::BTreeSet, net::IpAddr};

use diolkos_istio::{Object, ServiceEntry, Spec, WorkloadEntry, label, validate};
use diolkos_model::Service;
use diolkos_plan::{Plan, Policy, plan};

use crate::{arbitrary, policies};

/// Domains whose labels steer Kubernetes, Istio or Diolkos. Written again here, on purpose.
const STEERING: [&str; 4] = ["istio.io", "kubernetes.io", "k8s.io", "diolkos.io"];

/// The objects that a service made of these bytes gives, for validators that are programs.
#[must_use]
pub fn planned(bytes: &[u8]) -> Vec<Object> {
    let service = arbitrary::service(bytes);
    let plans = policies::ALL.iter().map(|policy| plan(policy, &service));
    plans.flat_map(|plan| plan.objects).collect()
}

/// Plans a service under all policies.
pub(crate) fn check(service: &Service) {
    for policy in policies::ALL.iter() {
        check_with(policy, service);
    }
}

/// Plans a service.
pub(crate) fn check_with(policy: &Policy, service: &Service) {
    let again = plan(policy, service);
    let plan = plan(policy, service);
    assert_eq!(plan, again, "planned again");
    assert_eq!(plan.objects.is_empty(), plan.refusal().is_some());
    assert_eq!(
        plan.service_entry().is_some(),
        !plan.objects.is_empty(),
        "no endpoints without their host"
    );
    let keys: BTreeSet<_> = plan.objects.iter().map(|object| &object.key).collect();
    assert_eq!(keys.len(), plan.objects.len(), "two objects of one name");
    for object in &plan.objects {
        let violations = validate::object(object);
        assert!(violations.is_empty(), "{violations:?}: {object:?}");
        ours(policy, object);
        let allowed = &policy.grant.namespaces;
        assert!(allowed.is_empty() || allowed.iter().any(|n| **n == *object.key.namespace));
        match &object.spec {
            Spec::ServiceEntry(entry) => service_entry(policy, entry),
            Spec::WorkloadEntry(entry) => endpoint(policy, entry),
        }
    }
    endpoints_add_up(policy, service, &plan);
}

/// An object says whose it is, whatever the registry says.
fn ours(policy: &Policy, object: &Object) {
    let get = |key| object.labels.get(key).map(String::as_str);
    assert_eq!(get(label::MANAGED_BY), Some(label::MANAGER));
    let registry = get(label::REGISTRY);
    assert_eq!(
        registry,
        Some(&*diolkos_plan::names::label_value(&policy.registry))
    );
}

fn service_entry(policy: &Policy, entry: &ServiceEntry) {
    for host in &entry.hosts {
        let cluster = format!("svc.{}", policy.grant.cluster_domain);
        let lower = host.to_lowercase();
        let bare = lower.trim_end_matches('.');
        let denied = [&*cluster, "svc"]
            .iter()
            .any(|suffix| bare == *suffix || bare.ends_with(&format!(".{suffix}")));
        assert!(!denied || bare == "svc", "{host} is the cluster's");
        let granted = policy.grant.hosts.iter().any(|suffix| {
            let suffix = suffix.trim_start_matches("*.").trim_start_matches('.');
            bare == suffix || bare.ends_with(&format!(".{suffix}"))
        });
        assert!(
            policy.grant.hosts.is_empty() || granted,
            "{host} is not granted"
        );
    }
    let endpoints = &entry.endpoints;
    endpoints.iter().for_each(|one| endpoint(policy, one));
}

fn endpoint(policy: &Policy, entry: &WorkloadEntry) {
    let ip: IpAddr = entry.address.parse().expect("an address");
    assert_eq!(ip, ip.to_canonical());
    let cidrs = &policy.grant.cidrs;
    let granted = cidrs.iter().any(|net| net.contains(&ip));
    assert!(cidrs.is_empty() || granted, "{ip} is not granted");
    assert!(!ip.is_loopback() || granted, "{ip}");
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    assert!(
        !ip.is_unspecified() && !ip.is_multicast() && !link_local,
        "{ip}"
    );
    for key in entry.labels.keys() {
        let wanted = *key == label::SERVICE
            || policy.labels.rename.values().any(|name| name == key)
            || (policy.tls_mode.is_some() && key == "security.istio.io/tlsMode");
        let domain = key.split_once('/').map(|(domain, _)| domain.to_lowercase());
        let steers = domain.is_some_and(|domain| {
            STEERING
                .iter()
                .any(|s| domain == *s || domain.ends_with(&format!(".{s}")))
        });
        assert!(wanted || !steers, "the registry set the label {key}");
    }
}

/// Every instance is an endpoint or has a reason.
fn endpoints_add_up(policy: &Policy, service: &Service, plan: &Plan) {
    if plan.objects.is_empty() {
        return;
    }
    let dropped: BTreeSet<_> = plan.dropped_instances().map(|(id, _)| id).collect();
    let written = plan.objects.iter().map(|object| match &object.spec {
        Spec::ServiceEntry(entry) => entry.endpoints.len(),
        Spec::WorkloadEntry(_) => 1,
    });
    let written: usize = written.sum();
    assert_eq!(written, plan.endpoints);
    assert!(
        policy
            .grant
            .max_endpoints
            .is_none_or(|most| written <= most)
    );
    assert!(
        written + dropped.len() >= service.instances.len(),
        "{} instances, {written} endpoints, left out {dropped:?}",
        service.instances.len()
    );
}
