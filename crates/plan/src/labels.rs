//! Labels of endpoints: what subsets and canary releases select on.

use std::collections::BTreeMap;

use diolkos_model::Instance;

use crate::{LabelPolicy, Reason, decision::Decisions, names, select::TAGS};

/// The label that Istio's own conventions use for the version.
const VERSION: &str = "version";

/// Domains whose labels steer Kubernetes, Istio or Diolkos: registry data may not set them.
const DENIED: [&str; 4] = ["istio.io", "kubernetes.io", "k8s.io", "diolkos.io"];

/// The labels that an instance's tags and metadata give.
pub(crate) fn of(
    instance: &Instance,
    policy: &LabelPolicy,
    decisions: &mut Decisions,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value) in instance.labels.iter() {
        let wanted = policy.include.as_ref().is_none_or(|g| g.is_match(&**key))
            && !policy.exclude.is_match(&**key);
        // The list of plain tags says nothing as one label; a rename can ask for it.
        if !wanted || (&**key == TAGS && !policy.rename.contains_key(TAGS)) {
            continue;
        }
        // A rename is the operator's word, so its target is not checked against the denied domains.
        let renamed = policy.rename.get(&**key);
        if renamed.is_none() && is_denied(key) {
            decisions.instance(
                &instance.id,
                Reason::LabelDenied,
                format!("label '{key}': registry data may not set labels of that domain"),
            );
            continue;
        }
        insert(
            &mut labels,
            renamed.map_or(key, |name| name),
            value,
            instance,
            decisions,
        );
    }
    if let Some(version) = &instance.version
        && !labels.contains_key(VERSION)
    {
        insert(&mut labels, VERSION, version, instance, decisions);
    }
    labels
}

fn insert(
    labels: &mut BTreeMap<String, String>,
    key: &str,
    value: &str,
    instance: &Instance,
    decisions: &mut Decisions,
) {
    let safe = names::label_value(value);
    let Some(safe_key) = names::label_key(key).filter(|_| value.is_empty() || !safe.is_empty())
    else {
        decisions.instance(
            &instance.id,
            Reason::LabelInvalid,
            format!("label '{key}={value}' cannot be made valid"),
        );
        return;
    };
    if safe_key != key || safe != value {
        decisions.instance(
            &instance.id,
            Reason::LabelAltered,
            format!("label '{key}={value}' became '{safe_key}={safe}'"),
        );
        // What was valid as it stood goes before what had to be changed to the same key.
        labels.entry(safe_key).or_insert(safe);
    } else {
        labels.insert(safe_key, safe);
    }
}

/// Whether the key, as it is or as it would be written, is of a denied domain (`-istio.io/rev` would
/// be written as `istio.io/rev`).
fn is_denied(key: &str) -> bool {
    let safe = names::label_key(key);
    has_denied_domain(key) || safe.is_some_and(|safe| has_denied_domain(&safe))
}

fn has_denied_domain(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| {
        let domain = domain.to_ascii_lowercase();
        DENIED
            .iter()
            .any(|denied| domain == *denied || domain.ends_with(&format!(".{denied}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{instance, label_policy, with_labels};

    #[test]
    fn table() {
        for (labels, expected, reasons) in [
            (&[("zone", "a")][..], &[("zone", "a")][..], &[][..]),
            (
                &[
                    ("istio.io/rev", "x"),
                    ("security.istio.io/tlsMode", "istio"),
                ],
                &[],
                &[Reason::LabelDenied, Reason::LabelDenied],
            ),
            (
                &[("Topology.Kubernetes.IO/zone", "x")],
                &[],
                &[Reason::LabelDenied],
            ),
            (
                &[(" istio.io/rev", "x"), ("-security.istio..io/tlsMode", "x")],
                &[],
                &[Reason::LabelDenied, Reason::LabelDenied],
            ),
            (&[("myistio.io/x", "y")], &[("myistio.io/x", "y")], &[]),
            (
                &[("a b", "c,d")],
                &[("a-b", "c-d")],
                &[Reason::LabelAltered],
            ),
            (
                &[("a-b", "1"), ("a b", "2")],
                &[("a-b", "1")],
                &[Reason::LabelAltered],
            ),
            (&[("a", "!!")], &[], &[Reason::LabelInvalid]),
            (&[("//", "x")], &[], &[Reason::LabelInvalid]),
            (&[("empty", "")], &[("empty", "")], &[]),
        ] {
            let mut decisions = Decisions::default();
            let made = of(
                &with_labels(instance("a", 80), labels),
                &label_policy(),
                &mut decisions,
            );
            let made: Vec<_> = made.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(made, expected, "{labels:?}");
            let seen: Vec<_> = decisions.0.iter().map(|d| d.reason).collect();
            assert_eq!(seen, reasons, "{labels:?}");
        }
    }

    #[test]
    fn the_version_is_a_label_unless_metadata_has_one() {
        let mut instance = instance("a", 80);
        instance.version = Some("v1".into());
        let made = of(&instance, &label_policy(), &mut Decisions::default());
        assert_eq!(made["version"], "v1");
        let instance = with_labels(instance, &[("version", "v2")]);
        let made = of(&instance, &label_policy(), &mut Decisions::default());
        assert_eq!(made["version"], "v2");
    }
}
