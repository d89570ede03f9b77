//! What `metadata.managedFields` tells of who set what in a spec. Pure.

use diolkos_istio::label;
use kube::api::ObjectMeta;
use serde_json::{Map, Value};

/// The fields of one manager in `spec`, in the form of `FieldsV1`.
type Fields = Map<String, Value>;

/// The managers of the spec; those of `status` are left out.
fn managers(meta: &ObjectMeta) -> impl Iterator<Item = (&str, &Fields)> {
    let entries = meta.managed_fields.as_deref().unwrap_or_default().iter();
    let entries = entries.filter(|e| e.subresource.as_deref().unwrap_or_default().is_empty());
    entries.filter_map(|entry| {
        let spec = entry.fields_v1.as_ref()?.0.get("f:spec")?.as_object()?;
        Some((entry.manager.as_deref().unwrap_or_default(), spec))
    })
}

/// The managers that own a part of the spec that we own as well. What we made ourselves has none: another manager
/// comes to share a field only by writing the same value, and the first writer of a foreign object did.
pub(crate) fn shares_spec(meta: &ObjectMeta) -> Option<String> {
    let (ours, theirs): (Vec<_>, Vec<_>) =
        managers(meta).partition(|(manager, _)| *manager == label::MANAGER);
    let shared = |spec: &Fields| {
        ours.iter()
            .any(|(_, mine)| mine.keys().any(|field| spec.contains_key(field)))
    };
    let names: Vec<&str> = theirs
        .into_iter()
        .filter(|(_, spec)| shared(spec))
        .map(|(name, _)| name)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// A merge patch that makes an object's spec ours alone; `None` if nobody added anything to it. After an apply by
/// force what we set is as it should be, but a further port, or a field that we leave out, is still there.
pub(crate) fn additions(meta: &ObjectMeta, spec: &Value) -> Option<Value> {
    let mut patch = spec.clone();
    let mut added = false;
    for (manager, fields) in managers(meta) {
        if manager != label::MANAGER {
            added |= take_out(&mut patch, fields);
        }
    }
    added.then_some(patch)
}

/// Sets to null in `patch`, which holds what should be, the fields that should not. Lists need no nulls: they are
/// replaced as a whole. Returns whether there is anything to take out.
fn take_out(patch: &mut Value, fields: &Fields) -> bool {
    let mut added = false;
    for (path, below) in fields {
        let Some(below) = below.as_object() else {
            continue;
        };
        added |= match path.split_once(':') {
            Some(("f", name)) => match patch.get_mut(name) {
                Some(wanted) => !wanted.is_null() && take_out(wanted, below),
                None => {
                    patch[name] = Value::Null;
                    true
                }
            },
            Some(("k", names)) => adds_to_item(patch, names, below),
            Some(("v", value)) => {
                let value: Option<Value> = serde_json::from_str(value).ok();
                let items = patch.as_array();
                !items.is_some_and(|items| items.iter().any(|item| Some(item) == value.as_ref()))
            }
            _ => false,
        };
    }
    added
}

/// Whether somebody added the item of a list that `names` its keys and values, or something to it.
fn adds_to_item(list: &Value, names: &str, below: &Fields) -> bool {
    let Ok(names) = serde_json::from_str::<Map<String, Value>>(names) else {
        return false;
    };
    let is_meant = |item: &&Value| {
        names
            .iter()
            .all(|(name, value)| item.get(name) == Some(value))
    };
    let item = list
        .as_array()
        .and_then(|items| items.iter().find(is_meant));
    item.is_none_or(|item| take_out(&mut item.clone(), below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(managers: &[(&str, Value)]) -> ObjectMeta {
        let entry = |(manager, spec): &(&str, Value)| json!({"manager": manager, "fieldsV1": {"f:spec": spec}});
        let entries: Vec<Value> = managers.iter().map(entry).collect();
        serde_json::from_value(json!({"managedFields": entries})).unwrap()
    }

    #[test]
    fn what_others_added_is_taken_out_and_what_they_only_repeat_is_not() {
        let spec = json!({
            "hosts": ["a"],
            "ports": [{"name": "http", "number": 80}],
            "workloadSelector": {"labels": {"app": "a"}},
        });
        let port = |fields: Value| json!({"f:ports": {r#"k:{"number":80}"#: fields}});
        for (theirs, nulls) in [
            (json!({"f:exportTo": {}}), Some(json!({"exportTo": null}))),
            (
                json!({"f:workloadSelector": {"f:labels": {"f:team": {}}}}),
                Some(json!({"workloadSelector": {"labels": {"app": "a", "team": null}}})),
            ),
            (
                json!({"f:ports": {".": {}, r#"k:{"number":81}"#: {".": {}}}}),
                Some(json!({})),
            ),
            (port(json!({"f:targetPort": {}})), Some(json!({}))),
            (port(json!({".": {}, "f:name": {}, "f:number": {}})), None),
            (json!({"f:hosts": {}, "f:workloadSelector": {}}), None),
        ] {
            let ours = json!({"f:hosts": {}, "f:ports": {}});
            let meta = meta(&[("diolkos", ours), ("kubectl-edit", theirs.clone())]);
            let expected = nulls.map(|nulls| {
                let mut patch = spec.clone();
                let nulls = nulls.as_object().unwrap().clone();
                patch.as_object_mut().unwrap().extend(nulls);
                patch
            });
            assert_eq!(additions(&meta, &spec), expected, "{theirs}");
        }
        let ours = json!({"f:hosts": {}, "f:exportTo": {}});
        assert_eq!(additions(&meta(&[("diolkos", ours)]), &spec), None);
    }
}
