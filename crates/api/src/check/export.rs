//! How services become objects: the templates, ports and labels of `export`, with its presets.

use std::{collections::BTreeMap, sync::Arc};

use diolkos_istio::{Location, Resolution, validate};
use diolkos_plan::{
    Endpoints, LabelPolicy, PodPolicy, PortNaming, PortPolicy, ProtocolRule, ServiceAccount,
    Template,
};
use globset::GlobSet;

use super::{
    DEFAULT_NAMESPACE, grant, pods,
    text::{self, Makes},
};
use crate::{
    fault::{Faults, FieldPath, Problem},
    raw::{
        self, EndpointMode, ExportSpec, LabelsSpec, Naming, PortsSpec, Preset, Protocol,
        RegistrySpec, TlsMode,
    },
};

/// What holds where a document says nothing: by kind of registry, and by preset.
pub(super) struct Defaults {
    namespace: &'static str,
    host: &'static str,
    endpoints: Endpoints,
    naming: PortNaming,
    /// Globs on keys that do not become labels.
    exclude_labels: &'static [&'static str],
    service_account: ServiceAccount,
    pub(super) object_labels: BTreeMap<String, String>,
    pub(super) object_annotations: BTreeMap<String, String>,
}

impl Defaults {
    pub(super) fn of(spec: &RegistrySpec) -> Self {
        let preset = spec.export.as_ref().and_then(|export| export.preset);
        match (preset, has_dubbo(spec)) {
            (None, _) => Self::plain(spec),
            (Some(Preset::Aeraki), false) => Self::consul2istio(),
            (Some(Preset::Aeraki), true) => Self::dubbo2istio(),
        }
    }

    fn plain(spec: &RegistrySpec) -> Self {
        let dubbo = has_dubbo(spec);
        Self {
            namespace: DEFAULT_NAMESPACE,
            host: match &spec.consul {
                _ if dubbo => DUBBO_HOST,
                None => "{service}",
                Some(consul) if consul.datacenters.len() > 1 => {
                    "{service}.service.{datacenter}.consul"
                }
                Some(_) => CONSUL_HOST,
            },
            endpoints: Endpoints::WorkloadEntry,
            // Nearly all of Dubbo's services have one port; its users know it as `tcp-dubbo`.
            naming: if dubbo {
                PortNaming::Protocol
            } else {
                PortNaming::ProtocolNumber
            },
            exclude_labels: &[],
            service_account: ServiceAccount::None,
            object_labels: BTreeMap::new(),
            object_annotations: BTreeMap::new(),
        }
    }

    /// What consul2istio writes; its users select on these labels.
    fn consul2istio() -> Self {
        Self {
            namespace: "istio-system",
            host: CONSUL_HOST,
            endpoints: Endpoints::Inline,
            naming: PortNaming::Protocol,
            exclude_labels: &[],
            service_account: ServiceAccount::None,
            object_labels: texts([("manager", "Aeraki"), ("registry", "consul")]),
            object_annotations: BTreeMap::new(),
        }
    }

    /// What dubbo2istio writes. The source has the values by these keys.
    fn dubbo2istio() -> Self {
        Self {
            namespace: "{meta.dubboNamespace}",
            host: DUBBO_HOST,
            endpoints: Endpoints::Inline,
            naming: PortNaming::Protocol,
            exclude_labels: &["aeraki_meta_*"],
            service_account: ServiceAccount::FromLabel {
                key: "aeraki_meta_app_service_account".to_owned(),
                default: "default".to_owned(),
            },
            object_labels: texts([("manager", "aeraki"), ("registry", "dubbo2istio")]),
            object_annotations: texts([
                ("interface", "interface"),
                ("workloadSelector", "workloadSelector"),
            ]),
        }
    }
}

const CONSUL_HOST: &str = "{service}.service.consul";
const DUBBO_HOST: &str = "{meta.dubboHost}";

/// Whether the registry is one that Dubbo writes into.
fn has_dubbo(spec: &RegistrySpec) -> bool {
    spec.etcd.is_some() || spec.zookeeper.is_some()
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The part of the policy that `export` decides.
pub(super) struct Export {
    pub(super) namespace: Template,
    pub(super) host: Template,
    pub(super) aliases: Vec<Template>,
    pub(super) endpoints: Endpoints,
    pub(super) location: Location,
    pub(super) resolution: Resolution,
    pub(super) export_to: Vec<String>,
    pub(super) ports: PortPolicy,
    pub(super) labels: LabelPolicy,
    pub(super) locality: Option<Template>,
    pub(super) network: Option<String>,
    pub(super) service_account: ServiceAccount,
    pub(super) tls_mode: Option<String>,
    pub(super) pods: Option<PodPolicy>,
}

pub(super) fn export(
    registry: &RegistrySpec,
    defaults: &Defaults,
    at: &FieldPath,
    faults: &mut Faults,
) -> Option<Export> {
    let spec = registry.export.clone().unwrap_or_default();
    let at = at.key("export");
    fixed(&spec, registry, &at, faults);
    let written = spec.namespace.as_deref().unwrap_or(defaults.namespace);
    let namespace = text::template(written, Makes::Namespace, &at.key("namespace"), faults);
    grant::export_to(&spec.export_to, &at.key("exportTo"), faults);
    let export_to = grant::ceiling(&spec, registry.grant.as_ref(), written, &at, faults);
    let domain = registry
        .grant
        .as_ref()
        .and_then(|grant| grant.cluster_domain.as_deref());
    let mut hosts = Hosts {
        domain: domain.unwrap_or(grant::CLUSTER_DOMAIN),
        faults,
    };
    let host = hosts.template(
        spec.host.as_deref().unwrap_or(defaults.host),
        &at.key("host"),
    );
    let aliases: Vec<_> = text::items(&spec.aliases, &at.key("aliases"))
        .map(|(at, alias)| hosts.template(alias, &at))
        .collect();
    let locality = match &spec.locality {
        None => Some(None),
        Some(text) => text::template(text, Makes::Locality, &at.key("locality"), faults).map(Some),
    };
    let ports = ports(
        spec.ports.as_ref(),
        defaults.naming,
        &at.key("ports"),
        faults,
    );
    let labels = labels(
        spec.labels.as_ref(),
        defaults.exclude_labels,
        &at.key("labels"),
        faults,
    );
    let pods = pods::pods(spec.pod_labels.as_ref(), &at.key("podLabels"), faults);
    Some(Export {
        namespace: namespace?,
        host: host?,
        aliases: aliases.into_iter().collect::<Option<_>>()?,
        endpoints: match spec.endpoints {
            None => defaults.endpoints,
            Some(EndpointMode::WorkloadEntry) => Endpoints::WorkloadEntry,
            Some(EndpointMode::Inline) => Endpoints::Inline,
        },
        location: match spec.location {
            None | Some(raw::Location::MeshInternal) => Location::MeshInternal,
            Some(raw::Location::MeshExternal) => Location::MeshExternal,
        },
        resolution: Resolution::Static,
        export_to,
        ports: ports?,
        labels: labels?,
        locality: locality?,
        network: spec.network,
        service_account: match spec.service_account {
            Some(account) => ServiceAccount::Fixed(account),
            None => defaults.service_account.clone(),
        },
        tls_mode: spec.tls_mode.map(|mode| match mode {
            TlsMode::Istio => "istio".to_owned(),
            TlsMode::Disabled => "disabled".to_owned(),
        }),
        pods: pods?,
    })
}

/// The fields without templates.
fn fixed(spec: &ExportSpec, registry: &RegistrySpec, at: &FieldPath, faults: &mut Faults) {
    if spec.preset == Some(Preset::Aeraki) && registry.file.is_some() {
        let problem = "the preset aeraki is what consul2istio and dubbo2istio write: it does not \
                       go with 'file'";
        faults.add(&at.key("preset"), Problem::Conflict(problem));
    }
    if spec.dubbo.is_some() && !has_dubbo(registry) {
        let problem = "only 'etcd' and 'zookeeper' have services of Dubbo";
        faults.add(&at.key("dubbo"), Problem::Conflict(problem));
    }
    let not_yet = match spec.resolution {
        None | Some(raw::Resolution::Static) => None,
        Some(raw::Resolution::Dns) => Some("DNS"),
        Some(raw::Resolution::DnsRoundRobin) => Some("DNS_ROUND_ROBIN"),
        Some(raw::Resolution::None) => Some("NONE"),
    };
    if let Some(value) = not_yet {
        let reason = "endpoints come from the registry as addresses, not from DNS; write STATIC \
                      or leave the field out";
        faults.add(&at.key("resolution"), Problem::NotYet { value, reason });
    }
    if let Some(network) = &spec.network {
        // It becomes the label topology.istio.io/network.
        text::not_empty(Some(network), &at.key("network"), faults);
        faults.take(&at.key("network"), validate::label_value(network));
    }
    if let Some(account) = &spec.service_account {
        faults.take(
            &at.key("serviceAccount"),
            validate::dns1123_subdomain(account),
        );
    }
}

struct Hosts<'a> {
    /// The cluster domain.
    domain: &'a str,
    faults: &'a mut Faults,
}

impl Hosts<'_> {
    fn template(&mut self, text: &str, at: &FieldPath) -> Option<Template> {
        let template = text::template(text, Makes::Host, at, self.faults)?;
        let cluster = [".svc".to_owned(), format!(".svc.{}", self.domain)];
        if let Some(suffix) = cluster.iter().find(|suffix| text.ends_with(*suffix)) {
            let domain = suffix.trim_start_matches('.').to_owned();
            self.faults.add(at, Problem::ClusterHost(domain));
            return None;
        }
        Some(template)
    }
}

fn ports(
    spec: Option<&PortsSpec>,
    naming: PortNaming,
    at: &FieldPath,
    faults: &mut Faults,
) -> Option<PortPolicy> {
    let spec = spec.cloned().unwrap_or_default();
    text::at_least_one(spec.service_port, &at.key("servicePort"), faults);
    let rules: Vec<_> = spec
        .protocols
        .iter()
        .enumerate()
        .map(|(n, rule)| {
            let at = at.key("protocols").index(n);
            text::at_least_one(rule.port, &at.key("port"), faults);
            Some(ProtocolRule {
                services: text::globs(&rule.services, &at.key("services"), faults)?,
                port: rule.port,
                protocol: rule.protocol.as_str().into(),
            })
        })
        .collect();
    let default_protocol: Arc<str> = spec
        .default_protocol
        .unwrap_or(Protocol::Tcp)
        .as_str()
        .into();
    Some(PortPolicy {
        naming: match spec.naming {
            None => naming,
            Some(Naming::ProtocolNumber) => PortNaming::ProtocolNumber,
            Some(Naming::Protocol) => PortNaming::Protocol,
        },
        service_port: spec.service_port,
        protocols: rules.into_iter().collect::<Option<_>>()?,
        default_protocol,
    })
}

fn labels(
    spec: Option<&LabelsSpec>,
    exclude: &[&str],
    at: &FieldPath,
    faults: &mut Faults,
) -> Option<LabelPolicy> {
    let mut spec = spec.cloned().unwrap_or_default();
    if spec.exclude.is_empty() {
        spec.exclude = exclude.iter().map(|glob| (*glob).to_owned()).collect();
    }
    let include = text::globs(&spec.include, &at.key("include"), faults);
    let exclude = text::globs(&spec.exclude, &at.key("exclude"), faults);
    let rename = at.key("rename");
    for (key, label) in &spec.rename {
        faults.take(&rename.key(key), validate::label_key(label));
    }
    // Two keys for one label: which value it gets would depend on their order.
    text::no_repeats(
        spec.rename
            .iter()
            .map(|(key, label)| (rename.key(key), label)),
        faults,
    );
    Some(LabelPolicy {
        include: include?,
        exclude: exclude?.unwrap_or_else(GlobSet::empty),
        rename: spec.rename,
    })
}
