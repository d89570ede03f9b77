//! The specs. Field numbers and JSON names are those of istio.io/api `networking/v1alpha3`.
//!
//! Maps are `BTreeMap`s: their order, and so the hash of an object, is the same in every process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `istio.networking.v1alpha3.ServiceEntry`.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntry {
    /// DNS names of the service.
    #[prost(string, repeated, tag = "1")]
    pub hosts: Vec<String>,
    /// Virtual IP addresses; empty lets Istio allocate one (in `status.addresses`).
    #[prost(string, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The ports that clients dial.
    #[prost(message, repeated, tag = "3")]
    pub ports: Vec<ServicePort>,
    /// [`Location`].
    #[prost(enumeration = "Location", tag = "4")]
    #[serde(with = "location")]
    pub location: i32,
    /// [`Resolution`].
    #[prost(enumeration = "Resolution", tag = "5")]
    #[serde(with = "resolution")]
    pub resolution: i32,
    /// Endpoints, if they are given inline.
    #[prost(message, repeated, tag = "6")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<WorkloadEntry>,
    /// Namespaces that see the service; empty is the mesh's default, all.
    #[prost(string, repeated, tag = "7")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Names that the certificates of the endpoints must carry.
    #[prost(string, repeated, tag = "8")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    /// Selects workload entries and pods of the same namespace as endpoints.
    #[prost(message, optional, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
}

/// `istio.networking.v1alpha3.ServicePort`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// The port that clients dial.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// `HTTP`, `GRPC`, `TCP`, …
    #[prost(string, tag = "2")]
    pub protocol: String,
    /// A DNS label, unique in the entry.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The endpoints' port, where an endpoint names none; 0 is `number`.
    #[prost(uint32, tag = "4")]
    #[serde(skip_serializing_if = "is_zero")]
    pub target_port: u32,
}

/// `istio.networking.v1alpha3.WorkloadEntry`: one endpoint.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// A literal IP address, where the resolution is `STATIC`.
    #[prost(string, tag = "1")]
    pub address: String,
    /// Service port name to the endpoint's own port number.
    #[prost(btree_map = "string, uint32", tag = "2")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u32>,
    /// What `DestinationRule` subsets select on.
    #[prost(btree_map = "string, string", tag = "3")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The network that the address belongs to.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// `region/zone/subzone`.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
    /// Relative weight; 0 means unset.
    #[prost(uint32, tag = "6")]
    #[serde(skip_serializing_if = "is_zero")]
    pub weight: u32,
    /// The service account of the workload, if it is part of the mesh.
    #[prost(string, tag = "7")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
}

/// `istio.networking.v1alpha3.WorkloadSelector`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadSelector {
    /// All of them must match.
    #[prost(btree_map = "string, string", tag = "1")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// `ServiceEntry.Location`: whether the service counts as part of the mesh (mTLS, metrics).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    prost::Enumeration,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(i32)]
pub enum Location {
    /// Outside of the mesh.
    MeshExternal = 0,
    /// Part of the mesh.
    MeshInternal = 1,
}

/// `ServiceEntry.Resolution`: how the endpoints are found.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    prost::Enumeration,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(i32)]
pub enum Resolution {
    /// Traffic goes to the address that the client asked for.
    None = 0,
    /// The addresses of the endpoints.
    Static = 1,
    /// The proxies resolve the names of the endpoints.
    Dns = 2,
    /// As `DNS`, connecting to the first address only.
    DnsRoundRobin = 3,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Enum fields are `i32` in prost and names in JSON.
macro_rules! enum_by_name {
    ($module:ident, $type:ty) => {
        mod $module {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            pub(super) fn serialize<S: Serializer>(
                value: &i32,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                <$type>::try_from(*value)
                    .map_err(serde::ser::Error::custom)?
                    .serialize(serializer)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<i32, D::Error> {
                <$type>::deserialize(deserializer).map(|value| value as i32)
            }
        }
    };
}
enum_by_name!(location, super::Location);
enum_by_name!(resolution, super::Resolution);

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn sample() -> ServiceEntry {
        ServiceEntry {
            hosts: vec!["student-service.service.consul".into()],
            ports: vec![ServicePort {
                number: 9098,
                protocol: "TCP".into(),
                name: "tcp".into(),
                target_port: 9098,
            }],
            location: Location::MeshInternal.into(),
            resolution: Resolution::Static.into(),
            endpoints: vec![WorkloadEntry {
                address: "10.244.6.42".into(),
                ports: [("tcp".to_owned(), 9098)].into(),
                locality: "dc1".into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn json_has_istios_names_and_leaves_out_what_is_unset() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "hosts": ["student-service.service.consul"],
                "ports": [{"number": 9098, "protocol": "TCP", "name": "tcp", "targetPort": 9098}],
                "location": "MESH_INTERNAL", "resolution": "STATIC",
                "endpoints": [{"address": "10.244.6.42", "ports": {"tcp": 9098}, "locality": "dc1"}],
            })
        );
        assert_eq!(
            serde_json::from_value::<ServiceEntry>(json).unwrap(),
            sample()
        );
    }

    #[test]
    fn protobuf_round_trip() {
        let bytes = sample().encode_to_vec();
        assert_eq!(ServiceEntry::decode(&bytes[..]).unwrap(), sample());
        assert_eq!(bytes, sample().encode_to_vec());
    }
}
