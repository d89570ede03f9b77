//! What holds where a document says nothing: by kind of registry, and by preset.

use std::collections::BTreeMap;

use diolkos_plan::{Annotation, Endpoints, PortNaming, ServiceAccount};

use super::{DEFAULT_NAMESPACE, nacos};
use crate::{
    fault::Problem,
    raw::{NacosServices, Preset, Protocol, RegistrySpec},
};

const CONSUL_HOST: &str = "{service}.service.consul";
pub(super) const DUBBO_HOST: &str = "{meta.dubboHost}";
/// Eureka knows no upper and lower case; its source has all names in lower case.
const EUREKA_HOST: &str = "{service}.eureka";
/// The group and the namespace are one label each, or service `a.b` in group `c` would come to the
/// host of `a` in `b.c`.
const NACOS_HOST: &str = "{service}.{group|dns}.{namespace|dns}.nacos";

/// What holds where a document says nothing.
pub(super) struct Defaults {
    pub(super) namespace: &'static str,
    pub(super) host: &'static str,
    pub(super) aliases: &'static [&'static str],
    pub(super) endpoints: Endpoints,
    pub(super) naming: PortNaming,
    pub(super) protocol: Protocol,
    /// Globs on keys that do not become labels.
    pub(super) exclude_labels: &'static [&'static str],
    pub(super) service_account: ServiceAccount,
    pub(super) object_labels: BTreeMap<String, String>,
    pub(super) object_annotations: BTreeMap<String, Annotation>,
}

/// A kind of registry, as far as it decides what services become.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Consul { several_datacenters: bool },
    Dubbo,
    Eureka,
    File,
    Nacos,
}

impl Kind {
    /// The first that is given; there should be one.
    fn of(spec: &RegistrySpec) -> Self {
        if spec.etcd.is_some() || spec.zookeeper.is_some() {
            return Self::Dubbo;
        }
        match &spec.consul {
            Some(consul) => Self::Consul {
                several_datacenters: consul.datacenters.len() > 1,
            },
            None if spec.eureka.is_some() => Self::Eureka,
            None if spec.nacos.is_some() => Self::Nacos,
            None => Self::File,
        }
    }
}

/// Which services of Dubbo a registry has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dubbo {
    /// No service is Dubbo's.
    None,
    /// Some are.
    Some,
    /// All are, and the registry can hold others.
    Only,
    /// All are, in a registry that holds no others.
    Always,
}

impl Dubbo {
    pub(super) fn of(spec: &RegistrySpec) -> Self {
        match (Kind::of(spec), &spec.nacos) {
            (Kind::Dubbo, _) => Self::Always,
            (Kind::Nacos, Some(given)) => match nacos::services(given, spec) {
                NacosServices::All => Self::Some,
                NacosServices::Dubbo => Self::Only,
                NacosServices::Other => Self::None,
            },
            _ => Self::None,
        }
    }
}

/// What speaks against a preset for this registry.
pub(super) fn unfit(preset: Preset, spec: &RegistrySpec) -> Option<Problem> {
    use Preset::{Aeraki, Higress, Nacos};
    let problem = match (preset, Kind::of(spec)) {
        (Aeraki, Kind::File | Kind::Eureka) => {
            "the preset aeraki is what consul2istio and dubbo2istio write: it goes with consul, \
             etcd, nacos and zookeeper; leave it out"
        }
        (Nacos, kind) if kind != Kind::Nacos => {
            "the preset nacos is what Nacos' own server for Istio writes: it goes with nacos only; \
             leave it out"
        }
        (Higress, Kind::Dubbo) => {
            "what Higress calls a service of Dubbo (providers:...) can be no host; leave the preset out"
        }
        (Higress, Kind::File) => {
            "the preset higress goes with consul, eureka and nacos only; leave it out"
        }
        _ => return None,
    };
    Some(Problem::Conflict(problem))
}

impl Defaults {
    pub(super) fn of(spec: &RegistrySpec) -> Self {
        let kind = Kind::of(spec);
        let preset = spec.export.as_ref().and_then(|export| export.preset);
        match (preset, kind) {
            (Some(Preset::Aeraki), Kind::Consul { .. }) => Self::consul2istio(),
            (Some(Preset::Aeraki), Kind::Dubbo | Kind::Nacos) => Self::dubbo2istio(),
            (Some(Preset::Nacos), Kind::Nacos) => Self::nacos2istio(),
            (Some(Preset::Higress), _) => Self::higress(kind),
            _ => Self::plain(kind),
        }
    }

    fn plain(kind: Kind) -> Self {
        Self {
            namespace: DEFAULT_NAMESPACE,
            host: match kind {
                Kind::Consul {
                    several_datacenters: true,
                } => "{service}.service.{datacenter}.consul",
                Kind::Consul { .. } => CONSUL_HOST,
                Kind::Dubbo => DUBBO_HOST,
                Kind::Eureka => EUREKA_HOST,
                Kind::File => "{service}",
                Kind::Nacos => NACOS_HOST,
            },
            aliases: match kind {
                // What clients of Eureka ask for; mostly the name itself.
                Kind::Eureka => &["{meta.vipAddress}.eureka"],
                _ => &[],
            },
            endpoints: Endpoints::WorkloadEntry,
            // Nearly all of Dubbo's services have one port; its users know it as `tcp-dubbo`.
            naming: match kind {
                Kind::Dubbo => PortNaming::Protocol,
                _ => PortNaming::ProtocolNumber,
            },
            // Both are what Spring Cloud registers with, and neither has a field for the protocol.
            protocol: match kind {
                Kind::Eureka | Kind::Nacos => Protocol::Http,
                _ => Protocol::Tcp,
            },
            exclude_labels: &[],
            service_account: ServiceAccount::None,
            object_labels: BTreeMap::new(),
            object_annotations: BTreeMap::new(),
        }
    }

    /// What a tool writes that knows inline endpoints only, and names ports by protocol.
    fn inline(kind: Kind, namespace: &'static str, host: &'static str) -> Self {
        Self {
            namespace,
            host,
            aliases: &[],
            endpoints: Endpoints::Inline,
            naming: PortNaming::Protocol,
            ..Self::plain(kind)
        }
    }

    /// What consul2istio writes; its users select on these labels.
    fn consul2istio() -> Self {
        let consul = Kind::Consul {
            several_datacenters: false,
        };
        Self {
            object_labels: texts([("manager", "Aeraki"), ("registry", "consul")]),
            ..Self::inline(consul, "istio-system", CONSUL_HOST)
        }
    }

    /// What dubbo2istio writes. The source has the values by these keys.
    fn dubbo2istio() -> Self {
        let meta = |key: &str| (key.to_owned(), Annotation::Meta(key.to_owned()));
        Self {
            exclude_labels: &["aeraki_meta_*"],
            service_account: ServiceAccount::FromLabel {
                key: "aeraki_meta_app_service_account".to_owned(),
                default: "default".to_owned(),
            },
            object_labels: texts([("manager", "aeraki"), ("registry", "dubbo2istio")]),
            object_annotations: ["interface", "workloadSelector"].map(meta).into(),
            ..Self::inline(Kind::Dubbo, "{meta.dubboNamespace}", DUBBO_HOST)
        }
    }

    /// What Nacos' own server for Istio means to write.
    fn nacos2istio() -> Self {
        let host = "{service}.{group}.{namespace}.nacos";
        let fixed = Annotation::Fixed("1".to_owned());
        Self {
            object_labels: texts([("registryType", "nacos")]),
            object_annotations: [("virtual".to_owned(), fixed)].into(),
            ..Self::inline(Kind::Nacos, "{namespace}", host)
        }
    }

    /// What Higress shows its gateway.
    fn higress(kind: Kind) -> Self {
        let host = match kind {
            Kind::Consul { .. } => "{service}.{datacenter}.consul",
            Kind::Eureka => EUREKA_HOST,
            _ => "{service}.{group}.{namespace}.nacos",
        };
        Self {
            protocol: Protocol::Http,
            ..Self::inline(kind, "mcp", host)
        }
    }
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
