use std::collections::BTreeMap;

use kube::api::{DynamicObject, PartialObjectMeta};
use serde_json::{Value, json};

use super::*;

fn table() -> Table {
    Table::new(PodSettings {
        labels: Arc::new(|key| key == "version"),
        localities: true,
    })
}

/// A Pod of `shop` on the node `n1`, created in that second.
fn pod(name: &str, ip: &str, version: &str, created: u32) -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "labels": {"version": version, "other": "x"},
            "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
        },
        "spec": {"nodeName": "n1", "serviceAccountName": "web", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": []},
    })
}

fn object(pod: &Value) -> PodObject {
    serde_json::from_value(pod.clone()).expect("a Pod")
}

fn apply(table: &mut Table, pod: &Value) {
    table.pod(Event::Apply(object(pod)));
}

fn node(name: &str, zone: &str) -> PartialObjectMeta<DynamicObject> {
    let labels =
        json!({"topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": zone});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).expect("a node")
}

/// What is told, by address: name, labels and zone.
fn told(table: &mut Table) -> BTreeMap<String, Option<(String, Vec<String>, String)>> {
    let changes = table.take_changes().into_iter();
    let text = |pod: Arc<Workload>| {
        let labels = pod.labels.iter().map(|(k, v)| format!("{k}={v}"));
        let zone = pod.locality.zone.to_string();
        (pod.name.to_string(), labels.collect(), zone)
    };
    changes
        .map(|(ip, pod)| (ip.to_string(), pod.map(text)))
        .collect()
}

fn told_name(table: &mut Table) -> Option<Option<String>> {
    let name = told(table).remove("10.0.0.1")?;
    Some(name.map(|(name, ..)| name))
}

#[test]
fn what_is_asked_for_is_told_once() {
    let mut table = table();
    table.node(Event::Apply(node("n1", "z1")));
    apply(&mut table, &pod("a", "10.0.0.1", "1", 0));
    let expected = (
        "a".to_owned(),
        vec!["version=1".to_owned()],
        "z1".to_owned(),
    );
    assert_eq!(
        told(&mut table),
        [("10.0.0.1".to_owned(), Some(expected))].into()
    );

    // What nobody asked for is no change.
    let mut same = pod("a", "10.0.0.1", "1", 0);
    same["metadata"]["labels"]["other"] = json!("y");
    same["metadata"]["annotations"] = json!({"a": "b"});
    apply(&mut table, &same);
    assert_eq!(told(&mut table), BTreeMap::new());

    apply(&mut table, &pod("a", "10.0.0.1", "2", 0));
    assert_eq!(told_name(&mut table), Some(Some("a".into())));
    table.pod(Event::Delete(object(&pod("a", "10.0.0.1", "2", 0))));
    assert_eq!(told_name(&mut table), Some(None));
    assert!(table.owners.is_empty() && table.told.is_empty());
}

#[test]
fn pods_without_an_address_of_their_own_are_left_out() {
    for (field, value) in [
        ("/spec/hostNetwork", json!(true)),
        ("/status/phase", json!("Succeeded")),
        ("/status/phase", json!("Failed")),
        ("/status/podIPs", json!([])),
        ("/status/podIPs", json!([{"ip": "no address"}, {}])),
    ] {
        let mut table = table();
        let mut changed = pod("a", "10.0.0.1", "1", 0);
        changed["spec"]["hostNetwork"] = json!(false);
        *changed.pointer_mut(field).expect("a field") = value.clone();
        apply(&mut table, &changed);
        assert_eq!(told(&mut table), BTreeMap::new(), "{field}: {value}");
        // One that had an address and comes to this loses it.
        apply(&mut table, &pod("a", "10.0.0.1", "1", 0));
        assert!(told_name(&mut table).is_some());
        apply(&mut table, &changed);
        assert_eq!(told_name(&mut table), Some(None), "{field}: {value}");
    }
    let mut pending = pod("a", "10.0.0.1", "1", 0);
    pending["status"] = json!(null);
    let mut table = table();
    apply(&mut table, &pending);
    assert_eq!(told(&mut table), BTreeMap::new());
}

#[test]
fn of_two_pods_with_one_address_the_younger_running_one_counts() {
    let with = |name: &str, created: u32, change: &dyn Fn(&mut Value)| {
        let mut pod = pod(name, "10.0.0.1", "1", created);
        change(&mut pod);
        pod
    };
    let pending = |pod: &mut Value| pod["status"]["phase"] = json!("Pending");
    let deleted =
        |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    let plain = |_: &mut Value| {};
    for (a, b, wins) in [
        (with("a", 1, &plain), with("b", 2, &plain), "b"),
        (with("a", 2, &plain), with("b", 1, &plain), "a"),
        (with("a", 1, &plain), with("b", 2, &pending), "a"),
        (with("a", 1, &pending), with("b", 2, &deleted), "a"),
        (with("a", 1, &plain), with("b", 1, &plain), "b"),
    ] {
        for order in [[&a, &b], [&b, &a]] {
            let mut table = table();
            for pod in order {
                apply(&mut table, pod);
            }
            assert_eq!(told_name(&mut table), Some(Some(wins.into())), "{a} {b}");
            // When it goes, the other one has the address.
            let (winner, other) = if wins == "a" { (&a, "b") } else { (&b, "a") };
            table.pod(Event::Delete(object(winner)));
            assert_eq!(told_name(&mut table), Some(Some(other.into())));
        }
    }
}

#[test]
fn a_node_that_moves_takes_its_pods_along() {
    let mut table = table();
    apply(&mut table, &pod("a", "10.0.0.1", "1", 0));
    let zone = |table: &mut Table| {
        let told = told(table).remove("10.0.0.1").flatten();
        told.map(|(.., zone)| zone)
    };
    assert_eq!(zone(&mut table).as_deref(), Some(""));
    table.node(Event::Apply(node("n1", "z1")));
    assert_eq!(
        zone(&mut table).as_deref(),
        Some("z1"),
        "the node came later"
    );
    table.node(Event::Apply(node("n1", "z1")));
    table.node(Event::Apply(node("n2", "z2")));
    assert_eq!(zone(&mut table), None, "no change");
    table.node(Event::Apply(node("n1", "z3")));
    assert_eq!(zone(&mut table).as_deref(), Some("z3"));
    table.node(Event::Delete(node("n1", "z3")));
    assert_eq!(zone(&mut table), None, "its Pods are where they were");
}

#[test]
fn a_list_tells_what_is_gone_and_both_lists_are_needed() {
    let mut table = table();
    let (a, b) = (pod("a", "10.0.0.1", "1", 0), pod("b", "10.0.0.2", "1", 0));
    let list = |table: &mut Table, pods: &[&Value]| {
        table.pod(Event::Init);
        for pod in pods {
            table.pod(Event::InitApply(object(pod)));
        }
        table.pod(Event::InitDone);
    };
    list(&mut table, &[&a, &b]);
    assert!(!table.is_listed(), "the nodes are wanted, too");
    table.node(Event::Init);
    table.node(Event::InitDone);
    assert!(table.is_listed());
    assert_eq!(told(&mut table).len(), 2);
    list(&mut table, &[&b]);
    assert_eq!(told(&mut table), [("10.0.0.1".to_owned(), None)].into());
}
