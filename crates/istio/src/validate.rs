//! Istio's own rules, so that nothing is sent that would be refused.
//!
//! Two parties refuse an object of Istio, and an object has to please both:
//! - the API server, by the schemas and CEL rules of the CRDs
//!   (istio.io/api `networking/v1alpha3/*.proto`, in `crd-all.gen.yaml`) and by the rules for
//!   object metadata of Kubernetes;
//! - istiod's webhook, by `pkg/config/validation` of istio.io/istio. A receiver of MCP has only
//!   this one.
//!
//! Written after Istio 1.31; `tests/oracles` compares with the real `istioctl` and API server. What
//! Istio only warns of is no [`Violation`]. A rule is an error here if and only if one of the two
//! refuses the object, with two exceptions: protocol names are compared in ASCII, and `DYNAMIC_DNS`,
//! which Diolkos does not use, is refused.

mod endpoint;
mod name;
mod object;
mod protocol;
mod service;
mod violation;

pub use endpoint::{endpoint, is_ip_address, workload_entry};
pub use name::{
    annotation_key, dns1123_label, dns1123_subdomain, fqdn, host, is_partial_wildcard, label_key,
    label_value, port_name,
};
pub use object::object;
pub use protocol::{Protocol, protocol};
pub use service::service_entry;
pub use violation::Violation;

/// Limits on sizes, for whoever cuts or splits to stay below them.
pub mod limit {
    /// Hosts of a service entry (CRD).
    pub const HOSTS: usize = 256;
    /// Service addresses of a service entry (CRD).
    pub const ADDRESSES: usize = 256;
    /// Characters of a service address (CRD).
    pub const SERVICE_ADDRESS: usize = 64;
    /// Ports of a service entry (CRD).
    pub const PORTS: usize = 256;
    /// Endpoints of a service entry (CRD).
    pub const ENDPOINTS: usize = 4096;
    /// Labels of an endpoint or a workload selector (CRD).
    pub const LABELS: usize = 256;
    /// Characters of an endpoint's address (CRD).
    pub const ADDRESS: usize = 256;
    /// Characters of an endpoint's network (CRD).
    pub const NETWORK: usize = 2048;
    /// Characters of an endpoint's locality (CRD).
    pub const LOCALITY: usize = 2048;
    /// Characters of an endpoint's service account (CRD).
    pub const SERVICE_ACCOUNT: usize = 253;
    /// Ports of an endpoint (CRD).
    pub const ENDPOINT_PORTS: usize = 128;
    /// Characters of a port name in an endpoint (CRD: `size(key) < 63`).
    pub const ENDPOINT_PORT_NAME: usize = 62;
    /// Bytes of a DNS label (RFC 1123), of a namespace and of a service port's name.
    pub const DNS_LABEL: usize = 63;
    /// Bytes of a DNS name, for Istio.
    pub const DNS_NAME: usize = 255;
    /// Bytes of an object's name and of the prefix of a label key (Kubernetes).
    pub const DNS_SUBDOMAIN: usize = 253;
    /// Bytes of a label key after its prefix.
    pub const LABEL_NAME: usize = 63;
    /// Bytes of a label value in metadata or in a workload selector.
    pub const LABEL_VALUE: usize = 63;
    /// Bytes of all annotations together, keys and values (Kubernetes).
    pub const ANNOTATIONS: usize = 256 * 1024;
    /// Bytes of an object as JSON: etcd takes requests of 1.5 MiB (`--max-request-bytes`), less
    /// 128 KiB for what the API server and istiod add (`managedFields`, `status`).
    pub const OBJECT: usize = (1536 - 128) * 1024;
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection, prelude::*};

    use super::*;
    use crate::{
        Kind, Object, ObjectKey, Resolution, ServiceEntry, ServicePort, Spec, WorkloadEntry,
        WorkloadSelector,
    };

    fn text_map() -> impl Strategy<Value = BTreeMap<String, String>> {
        collection::btree_map(any::<String>(), any::<String>(), 0..3)
    }

    prop_compose! {
        fn workload()(
            address in any::<String>(),
            ports in collection::btree_map(any::<String>(), any::<u32>(), 0..3),
            labels in text_map(),
            network in any::<String>(),
        ) -> WorkloadEntry {
            WorkloadEntry { address, ports, labels, network, ..Default::default() }
        }
    }

    prop_compose! {
        fn service()(
            hosts in collection::vec(any::<String>(), 0..3),
            addresses in collection::vec(any::<String>(), 0..3),
            ports in collection::vec((any::<u32>(), any::<String>(), any::<String>(), any::<u32>()), 0..3),
            location in any::<i32>(),
            resolution in -1..6,
            endpoints in collection::vec(workload(), 0..3),
            export_to in collection::vec(any::<String>(), 0..3),
            selector in proptest::option::of(text_map()),
        ) -> ServiceEntry {
            let port = |(number, protocol, name, target_port)| ServicePort { number, protocol, name, target_port };
            ServiceEntry {
                hosts, addresses, location, resolution, endpoints, export_to,
                ports: ports.into_iter().map(port).collect(),
                workload_selector: selector.map(|labels| WorkloadSelector { labels }),
                ..Default::default()
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_objects_are_judged_without_a_panic(
            spec in prop_oneof![service().prop_map(Spec::ServiceEntry), workload().prop_map(Spec::WorkloadEntry)],
            namespace in any::<String>(),
            name in any::<String>(),
            labels in text_map(),
            annotations in text_map(),
        ) {
            let key = ObjectKey { kind: Kind::ServiceEntry, namespace: namespace.into(), name: name.into() };
            for violation in object(&Object { key, labels, annotations, spec }) {
                prop_assert!(!violation.to_string().is_empty());
            }
        }

        #[test]
        fn a_service_entry_is_valid_only_if_its_endpoints_are(
            endpoints in collection::vec(workload(), 0..3),
        ) {
            let names = BTreeSet::from(["http"]);
            let alone = endpoints.iter().all(|one| endpoint(one, Resolution::Static, &names).is_empty());
            let spec = ServiceEntry {
                hosts: vec!["a.b".into()],
                ports: vec![ServicePort { number: 80, name: "http".into(), protocol: "HTTP".into(), target_port: 0 }],
                resolution: Resolution::Static.into(),
                endpoints,
                ..Default::default()
            };
            prop_assert_eq!(service_entry(&spec).is_empty(), alone);
        }

        #[test]
        fn what_is_a_full_name_is_a_host(name in "[*.a-z0-9-]{1,12}") {
            prop_assert!(fqdn(&name).is_err() || host(&name).is_ok());
        }
    }
}
