//! `export.podLabels`.

#![expect(clippy::unwrap_used, reason = "a test")]

use diolkos_api::{Fault, check, raw::RegistrySpec};
use diolkos_plan::{PodPolicy, ServiceAccount};
use serde_json::{Value, json};

fn checked(export: &Value) -> Result<(Option<PodPolicy>, ServiceAccount), Vec<Fault>> {
    let spec = json!({"consul": {}, "export": export});
    let spec: RegistrySpec = serde_json::from_value(spec).unwrap();
    let policy = check("web", &spec, None)?.policy;
    Ok((policy.pods, policy.service_account))
}

#[test]
fn nothing_is_taken_unless_it_is_asked_for() {
    assert!(checked(&json!({})).unwrap().0.is_none());
}

#[test]
fn what_is_taken_by_default() {
    let export = json!({"podLabels": {}, "serviceAccount": "mine"});
    let (pods, account) = checked(&export).unwrap();
    let pods = pods.unwrap();
    assert!(pods.service_account && pods.locality);
    assert_eq!(account, ServiceAccount::Fixed("mine".into()));
    for (key, taken) in [
        ("version", true),
        ("service.istio.io/canonical-name", true),
        ("service.istio.io/canonical-revision", true),
        ("security.istio.io/tlsMode", true),
        ("app", false),
        ("istio.io/rev", false),
        ("pod-template-hash", false),
    ] {
        assert_eq!(pods.labels.is_match(key), taken, "{key}");
    }
}

#[test]
fn globs_are_taken_instead_of_the_default_ones() {
    let export = json!({
        "podLabels": {"include": ["app.kubernetes.io/*"], "serviceAccount": false, "locality": false},
    });
    let pods = checked(&export).unwrap().0.unwrap();
    assert!(!pods.service_account && !pods.locality);
    assert!(pods.labels.is_match("app.kubernetes.io/version"));
    assert!(!pods.labels.is_match("version"));
    assert_eq!(pods.include, ["app.kubernetes.io/*"]);
}

#[test]
fn a_faulty_glob_is_named() {
    let faults = checked(&json!({"podLabels": {"include": ["version", "a["]}})).unwrap_err();
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
    let expected = "spec.export.podLabels.include[1]: no valid glob: ";
    assert!(faults[0].starts_with(expected), "{faults:?}");
}
