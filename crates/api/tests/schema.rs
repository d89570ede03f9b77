//! What users install and what their editors read: a change of either is to be seen in review.

use diolkos_api::{crds, json_schema};

#[test]
fn golden() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::assert_snapshot!("crds", crds());
        insta::assert_json_snapshot!("schema", json_schema());
    });
}

#[test]
fn no_description_is_missing() {
    fn missing(path: &str, schema: &serde_json::Value) -> Vec<String> {
        let properties = schema.get("properties").and_then(|p| p.as_object());
        let here = properties.into_iter().flatten().flat_map(|(name, field)| {
            let path = format!("{path}.{name}");
            let deeper = missing(&path, field);
            field
                .get("description")
                .is_none()
                .then_some(path)
                .into_iter()
                .chain(deeper)
        });
        let items = schema
            .get("items")
            .map(|items| missing(&format!("{path}[]"), items));
        here.chain(items.into_iter().flatten()).collect()
    }
    let crd: serde_json::Value = serde_saphyr::from_str(&crds()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"];
    assert_eq!(
        missing("", &schema["openAPIV3Schema"]),
        Vec::<String>::new()
    );
}
