//! The document types as CustomResourceDefinitions and as a JSON schema.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use schemars::{
    Schema,
    generate::SchemaSettings,
    transform::{Transform, transform_subschemas},
};
use serde_json::{Value, json};

use crate::{
    document::RegistryDocument,
    raw::{Registry, RegistrySpec},
    yaml,
};

/// The CustomResourceDefinitions, as YAML documents for `kubectl apply`.
#[must_use]
pub fn crds() -> String {
    definitions()
        .iter()
        .map(|crd| format!("---\n{}", yaml::write(crd)))
        .collect()
}

fn definitions() -> [Value; 1] {
    [Registry::crd()].map(|crd: CustomResourceDefinition| {
        let mut crd = json!(crd);
        remove_formats(&mut crd);
        crd
    })
}

/// Removes the formats of unsigned integers: API servers do not know them and warn of each.
/// `minimum` and `maximum` say the same.
fn remove_formats(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| {
                key != "format"
                    || !value
                        .as_str()
                        .is_some_and(|format| format.starts_with("uint"))
            });
            fields.values_mut().for_each(remove_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_formats),
        _ => {}
    }
}

/// The JSON schema of a document of any kind, for editors (`# yaml-language-server: $schema=`).
#[must_use]
pub fn json_schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with_transform(ForEditors)
        .into_generator();
    let kinds = [generator.subschema_for::<RegistryDocument>()];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Documents of Diolkos",
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    })
}

/// Says what only API servers understand in words that editors understand.
#[derive(Clone, Debug)]
struct ForEditors;

impl Transform for ForEditors {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        schema.remove("x-kubernetes-validations");
        if schema.remove("x-kubernetes-int-or-string").is_some() {
            schema.insert("type".to_owned(), json!(["integer", "string"]));
        }
        let variants = RegistrySpec::default().variants();
        let properties = schema.get("properties").and_then(Value::as_object);
        if properties.is_some_and(|fields| variants.iter().all(|(v, _)| fields.contains_key(*v))) {
            let one_of = variants.map(|(variant, _)| json!({"required": [variant]}));
            schema.insert("oneOf".to_owned(), json!(one_of));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_crd_know_every_kind_of_registry() {
        let [crd] = definitions();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let rule = spec["x-kubernetes-validations"][0].to_string();
        for (variant, _) in RegistrySpec::default().variants() {
            assert!(spec["properties"][variant].is_object(), "{variant}");
            assert!(rule.contains(&format!("has(self.{variant})")), "{rule}");
        }
    }
}
