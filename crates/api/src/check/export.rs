//! How services become objects: the templates, ports and labels of `export`, with its presets.

use std::sync::Arc;

use diolkos_istio::{Location, Resolution, validate};
use diolkos_plan::{
    Endpoints, Exception, LabelPolicy, PodPolicy, PortNaming, PortPolicy, ProtocolRule,
    ServiceAccount, Template,
};
use globset::GlobSet;

use super::{
    defaults::{self, DUBBO_HOST, Defaults, Dubbo},
    grant, pods,
    text::{self, Makes},
};
use crate::{
    fault::{Faults, FieldPath, Problem},
    raw::{
        self, EndpointMode, ExportSpec, LabelsSpec, Naming, PortsSpec, Protocol, RegistrySpec,
        TlsMode,
    },
};

/// What the sources say of services of Dubbo, and of no others.
const DUBBO_KEY: &str = "dubboHost";

/// The part of the policy that `export` decides.
pub(super) struct Export {
    pub(super) namespace: Template,
    pub(super) host: Template,
    pub(super) exception: Option<Exception>,
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
    let aliases = if spec.aliases.is_empty() {
        defaults.aliases.iter().map(|a| (*a).to_owned()).collect()
    } else {
        spec.aliases.clone()
    };
    let aliases: Vec<_> = text::items(&aliases, &at.key("aliases"))
        .map(|(at, alias)| hosts.template(alias, &at))
        .collect();
    let dubbo_host = spec.dubbo.as_ref().and_then(|dubbo| dubbo.host.as_deref());
    let dubbo_host = hosts.template(
        dubbo_host.unwrap_or(DUBBO_HOST),
        &at.key("dubbo").key("host"),
    );
    let locality = match &spec.locality {
        None => Some(None),
        Some(text) => text::template(text, Makes::Locality, &at.key("locality"), faults).map(Some),
    };
    let ports = ports(
        spec.ports.as_ref(),
        (defaults.naming, defaults.protocol),
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
    let (ports, dubbo_host) = (ports?, dubbo_host?);
    let exception = matches!(Dubbo::of(registry), Dubbo::Some | Dubbo::Only).then(|| Exception {
        key: DUBBO_KEY.to_owned(),
        host: dubbo_host,
        ports: dubbo_ports(spec.ports.as_ref(), &ports),
    });
    Some(Export {
        namespace: namespace?,
        host: host?,
        exception,
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
        ports,
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
    if let Some(problem) = spec.preset.and_then(|p| defaults::unfit(p, registry)) {
        faults.add(&at.key("preset"), problem);
    }
    of_dubbo(spec, Dubbo::of(registry), at, faults);
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

/// What is Dubbo's own goes with registries that have services of Dubbo.
fn of_dubbo(spec: &ExportSpec, dubbo: Dubbo, at: &FieldPath, faults: &mut Faults) {
    let host = spec.dubbo.as_ref().and_then(|dubbo| dubbo.host.as_ref());
    let (at, problem) = match dubbo {
        Dubbo::None if spec.dubbo.is_some() => (
            at.key("dubbo"),
            "only etcd, nacos (unless its 'services' is Other) and zookeeper have services of Dubbo",
        ),
        Dubbo::Only if spec.host.is_some() => (
            at.key("host"),
            "only services of Dubbo are read: write their host in 'dubbo.host'",
        ),
        Dubbo::Always if host.is_some() => (
            at.key("dubbo").key("host"),
            "this registry has services of Dubbo only: write their host in 'export.host'",
        ),
        _ => return,
    };
    faults.add(&at, Problem::Conflict(problem));
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
    (naming, protocol): (PortNaming, Protocol),
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
    let default_protocol: Arc<str> = spec.default_protocol.unwrap_or(protocol).as_str().into();
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

/// The ports of Dubbo's services in a registry that has others too: as from one that has no others.
fn dubbo_ports(spec: Option<&PortsSpec>, ports: &PortPolicy) -> PortPolicy {
    let mut ports = ports.clone();
    if spec.is_none_or(|spec| spec.naming.is_none()) {
        ports.naming = PortNaming::Protocol;
    }
    if spec.is_none_or(|spec| spec.default_protocol.is_none()) {
        ports.default_protocol = Protocol::Tcp.as_str().into();
    }
    ports
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
