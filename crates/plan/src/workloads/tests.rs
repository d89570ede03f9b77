use std::collections::BTreeMap;

use diolkos_istio::{Spec, WorkloadEntry};
use diolkos_model::{Instance, Interner, Workload};
use globset::{Glob, GlobSet};

use super::*;
use crate::{
    Plan, ServiceAccount, Template, plan, plan_with,
    testing::{instance, policy, with_instances, with_labels},
};

/// What is taken where a document says `podLabels: {}`, of these labels.
fn from_pods(include: &[&str]) -> Policy {
    let mut globs = GlobSet::builder();
    for glob in include {
        globs.add(Glob::new(glob).unwrap());
    }
    Policy {
        pods: Some(PodPolicy {
            include: Vec::new(),
            labels: globs.build().unwrap(),
            service_account: true,
            locality: true,
        }),
        ..policy()
    }
}

fn pod(namespace: &str, account: &str, labels: &[(&str, &str)]) -> Workload {
    Workload {
        namespace: namespace.into(),
        name: "web-0".into(),
        labels: Interner::new().labels(labels.iter().copied()),
        service_account: Some(account.into()),
        locality: Locality {
            region: "r1".into(),
            zone: "z1".into(),
            sub_zone: "".into(),
        },
    }
}

fn at(host: u8, id: &str) -> Instance {
    Instance {
        address: format!("10.0.0.{host}").parse().unwrap(),
        ..instance(id, 80)
    }
}

fn workloads(pods: impl IntoIterator<Item = (u8, Workload)>) -> Workloads {
    let pods = pods.into_iter();
    pods.map(|(host, pod)| ([10, 0, 0, host].into(), pod.into()))
        .collect()
}

fn made(policy: &Policy, instances: Vec<Instance>, workloads: &Workloads) -> Plan {
    plan_with(policy, &with_instances("web", "dc1", instances), workloads)
}

/// The endpoints by address.
fn entries(plan: &Plan) -> BTreeMap<String, WorkloadEntry> {
    let entries = plan.objects.iter().filter_map(|object| match &object.spec {
        Spec::WorkloadEntry(entry) => Some((entry.address.clone(), entry.clone())),
        Spec::ServiceEntry(_) => None,
    });
    entries.collect()
}

const MUTUAL: (&str, &str) = (TLS_MODE, ISTIO);

#[test]
fn a_pod_goes_before_the_registry_and_other_addresses_are_left_alone() {
    let policy = from_pods(&["version", TLS_MODE]);
    let labels = [("version", "2"), ("secret", "x"), MUTUAL];
    let pods = workloads([(1, pod("diolkos", "web", &labels))]);
    let said = |host, id| with_labels(at(host, id), &[("version", "1"), ("stage", "test")]);
    let plan = made(&policy, vec![said(1, "a")], &pods);
    let entry = &entries(&plan)["10.0.0.1"];
    let label = |key: &str| entry.labels.get(key).map(String::as_str);
    assert_eq!(label("version"), Some("2"));
    assert_eq!(label("stage"), Some("test"), "what the registry says stays");
    assert_eq!(label("secret"), None, "nobody asked for it");
    assert_eq!(label(TLS_MODE), Some("istio"));
    assert_eq!(
        (&*entry.service_account, &*entry.locality),
        ("web", "r1/z1")
    );
    let decision = plan.decisions.iter().find(|d| d.reason == Reason::Workload);
    let detail = &decision.unwrap().detail;
    assert!(
        detail.starts_with("from Pod diolkos/web-0: ") && detail.contains("version=2"),
        "{detail}"
    );

    let service = with_instances("web", "dc1", vec![said(2, "b")]);
    let without = super::super::plan(&self::policy(), &service);
    assert_eq!(plan_with(&policy, &service, &pods).objects, without.objects);
}

#[test]
fn without_the_policy_pods_change_nothing() {
    let pods = workloads([(1, pod("diolkos", "web", &[("version", "2")]))]);
    let service = with_instances("web", "dc1", vec![at(1, "a")]);
    assert_eq!(
        plan_with(&policy(), &service, &pods),
        plan(&policy(), &service)
    );
}

#[test]
fn the_document_goes_before_the_pod() {
    let mut policy = from_pods(&["*"]);
    policy.service_account = ServiceAccount::Fixed("mine".into());
    policy.tls_mode = Some("disabled".into());
    policy.locality = Some(Template::literal("here"));
    let pods = workloads([(1, pod("diolkos", "web", &[MUTUAL]))]);
    let entry = &entries(&made(&policy, vec![at(1, "a")], &pods))["10.0.0.1"];
    assert_eq!(
        (
            &*entry.service_account,
            &*entry.locality,
            &*entry.labels[TLS_MODE]
        ),
        ("mine", "here", "disabled")
    );
}

#[test]
fn a_service_account_is_taken_only_where_istio_reads_it_right() {
    for (namespace, labels, globs, account) in [
        ("diolkos", &[MUTUAL][..], &["*"][..], "web"),
        // Istio would take it for an account of the objects' namespace.
        ("shop", &[MUTUAL], &["*"], ""),
        // Istio would conclude that the endpoint has a sidecar.
        ("diolkos", &[("version", "1")], &["*"], ""),
        ("diolkos", &[(TLS_MODE, "disabled")], &["*"], ""),
        ("diolkos", &[MUTUAL], &["version"], ""),
    ] {
        let pods = workloads([(1, pod(namespace, "web", labels))]);
        let plan = made(&from_pods(globs), vec![at(1, "a")], &pods);
        let entry = &entries(&plan)["10.0.0.1"];
        assert_eq!(entry.service_account, account, "{namespace} {labels:?}");
    }
}

#[test]
fn accounts_of_pods_are_written_for_all_that_take_mutual_tls_or_for_none() {
    let policy = from_pods(&["*"]);
    let ours = || pod("diolkos", "web", &[MUTUAL]);
    let accounts = |pods: &Workloads| {
        let plan = made(&policy, vec![at(1, "a"), at(2, "b")], pods);
        let mixed = plan
            .decisions
            .iter()
            .any(|d| d.reason == Reason::ServiceAccountsMixed);
        let accounts = entries(&plan).into_values().map(|e| e.service_account);
        (accounts.collect::<Vec<_>>(), mixed)
    };
    let other = pod("shop", "web", &[MUTUAL]);
    assert_eq!(
        accounts(&workloads([(1, ours()), (2, other)])),
        (vec![String::new(), String::new()], true)
    );
    // One that takes no mutual TLS shows no identity that could be refused.
    assert_eq!(
        accounts(&workloads([(1, ours())])),
        (vec!["web".to_owned(), String::new()], false)
    );
}

#[test]
fn an_account_that_the_registry_gives_is_that_of_the_pod_where_it_is_known() {
    let mut policy = from_pods(&["*"]);
    policy.service_account = ServiceAccount::FromLabel {
        key: "account".into(),
        default: "default".into(),
    };
    let pods = workloads([(1, pod("diolkos", "web", &[MUTUAL]))]);
    let claims = |host, id| with_labels(at(host, id), &[("account", "claimed")]);
    let plan = made(&policy, vec![claims(1, "a"), claims(2, "b")], &pods);
    let accounts: Vec<_> = entries(&plan)
        .into_values()
        .map(|e| e.service_account)
        .collect();
    assert_eq!(accounts, ["web", "claimed"]);
}

#[test]
fn what_was_planned_is_built_with_the_same_pods() {
    let policy = std::sync::Arc::new(from_pods(&["*"]));
    let service = std::sync::Arc::new(with_instances("web", "dc1", vec![at(1, "a")]));
    let pods = workloads([(1, pod("diolkos", "web", &[MUTUAL]))]);
    let plan = plan_with(&policy, &service, &pods);
    let planned = crate::Planned::with(service, policy, pods, &plan);
    assert_eq!(planned.build(), plan.objects);
}
