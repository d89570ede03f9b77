//! Consul's JSON, as far as it is used. Absent and `null` count as empty; unknown fields are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// The body of `/v1/catalog/services`: names with the tags of all their instances.
pub(crate) type Catalog = BTreeMap<String, Vec<String>>;

/// One instance, from `/v1/health/service/NAME`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    pub(crate) node: Node,
    pub(crate) service: Service,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Node {
    #[serde(deserialize_with = "nullable")]
    pub(crate) node: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) address: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) datacenter: String,
    pub(crate) locality: Option<Locality>,
    pub(crate) modify_index: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Service {
    #[serde(rename = "ID", deserialize_with = "nullable")]
    pub(crate) id: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) service: String,
    /// Empty for a service proper; else `connect-proxy`, `mesh-gateway`, ….
    #[serde(deserialize_with = "nullable")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) tags: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) address: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) port: i64,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ports: Vec<Port>,
    pub(crate) weights: Option<Weights>,
    pub(crate) locality: Option<Locality>,
    pub(crate) modify_index: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Port {
    #[serde(deserialize_with = "nullable")]
    pub(crate) name: String,
    pub(crate) port: i64,
    #[serde(deserialize_with = "nullable")]
    pub(crate) default: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Weights {
    pub(crate) passing: i64,
    pub(crate) warning: i64,
}

impl Default for Weights {
    /// As Consul's own default.
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Locality {
    #[serde(deserialize_with = "nullable")]
    pub(crate) region: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) zone: String,
}

/// A check, in an [`Entry`] or from `/v1/health/state/any`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Check {
    #[serde(deserialize_with = "nullable")]
    pub(crate) node: String,
    #[serde(rename = "CheckID", deserialize_with = "nullable")]
    pub(crate) check_id: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) status: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) notes: String,
    #[serde(rename = "ServiceID", deserialize_with = "nullable")]
    pub(crate) service_id: String,
    /// Empty for a check of the whole node.
    #[serde(deserialize_with = "nullable")]
    pub(crate) service_name: String,
}

/// The body of `/v1/catalog/node-services/NODE`. Both parts are `null` for an unknown node.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NodeServices {
    pub(crate) node: Option<Node>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) services: Vec<NodeService>,
}

/// What an inventory needs of an instance.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NodeService {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) service: String,
    pub(crate) modify_index: u64,
}

/// The answer of `/v1/acl/token/self`.
#[derive(Debug, Deserialize)]
pub(crate) struct Token {
    #[serde(rename = "AccessorID")]
    pub(crate) accessor_id: String,
}

/// The answer of `/v1/agent/self`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Agent {
    pub(crate) config: AgentConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentConfig {
    pub(crate) datacenter: String,
}

/// A list whose elements are decoded one by one, so that a bad one costs itself only.
#[derive(Debug)]
pub(crate) struct List<T> {
    /// Those that could be decoded.
    pub(crate) good: Vec<T>,
    /// Why the others could not.
    pub(crate) bad: Vec<String>,
}

/// Decodes a whole document.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body)
}

/// Decodes a list; `null` is an empty one.
pub(crate) fn decode_list<T: DeserializeOwned>(body: &[u8]) -> Result<List<T>, serde_json::Error> {
    let elements: Option<Vec<&RawValue>> = serde_json::from_slice(body)?;
    let mut list = List {
        good: Vec::new(),
        bad: Vec::new(),
    };
    for element in elements.unwrap_or_default() {
        match serde_json::from_str(element.get()) {
            Ok(element) => list.good.push(element),
            Err(error) => list.bad.push(error.to_string()),
        }
    }
    Ok(list)
}

/// Decodes the catalogue. Tags that are none cost themselves, not the service.
pub(crate) fn decode_catalog(body: &[u8]) -> Result<Catalog, serde_json::Error> {
    let services: Option<BTreeMap<String, &RawValue>> = serde_json::from_slice(body)?;
    let tags = |raw: &RawValue| {
        let tags: Option<Vec<String>> = serde_json::from_str(raw.get()).unwrap_or_default();
        tags.unwrap_or_default()
    };
    Ok(services
        .unwrap_or_default()
        .into_iter()
        .map(|(name, raw)| (name, tags(raw)))
        .collect())
}

fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
