//! One registration of one interface: what a provider's URL says.

use std::sync::Arc;

use diolkos_model::{Address, Interner, Labels, Locality, Weight};

use crate::{
    Options, labels,
    url::{ProviderUrl, decode},
};

/// The weight that Dubbo gives to a provider that says nothing.
pub(crate) const DEFAULT_WEIGHT: i64 = 100;

/// What stands in lists of providers and is none.
const NO_PROVIDERS: [&str; 10] = [
    "absent",
    "admin",
    "condition",
    "consumer",
    "empty",
    "override",
    "registry",
    "route",
    "script",
    "service-discovery-registry",
];

/// What a registry itself says of what was registered with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Why it gets no traffic, whatever it says of itself and whatever rules say; `None`: it may.
    pub down: Option<Arc<str>>,
    /// By what its own weight is multiplied.
    pub share: Weight,
}

impl Default for Standing {
    /// Of a registry that says nothing.
    fn default() -> Self {
        Self {
            down: None,
            share: Weight::whole(1),
        }
    }
}

/// A provider, or an instance of an application, in a registry that keeps the parts of it instead
/// of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Of an instance: host and port, and its metadata as parameters.
    pub url: ProviderUrl,
    /// What the registry says of it.
    pub standing: Standing,
}

/// A provider of an interface, at one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// What it speaks, in Dubbo's words: `dubbo`, `tri`, `rest`, ….
    pub protocol: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// 0 if the URL has none.
    pub port: u32,
    /// The interface.
    pub interface: Arc<str>,
    /// The group; may be empty.
    pub group: Arc<str>,
    /// Dubbo's version of the interface; may be empty.
    pub version: Arc<str>,
    /// The application that provides it; may be empty.
    pub application: Arc<str>,
    /// The number of the process; empty in Dubbo 3. Only tells processes of one host apart.
    pub pid: Arc<str>,
    /// When the process registered, in milliseconds since 1970; 0 if the URL does not say.
    pub timestamp: u64,
    /// `None` if the URL has none, or none that can be read.
    pub weight: Option<i64>,
    /// The parameter `disabled`, which counts before `enabled`.
    pub disabled: Option<bool>,
    /// The parameter `enabled`.
    pub enabled: bool,
    /// What the registry says of it.
    pub standing: Standing,
    /// The version that the mesh knows it by: [`Provider::version`], or the one of
    /// `aeraki_meta_app_version`.
    pub mesh_version: Arc<str>,
    /// The parameters `region` and `zone`, or `aeraki_meta_locality`.
    pub locality: Locality,
    /// The parameter `aeraki_meta_app_namespace`; may be empty.
    pub mesh_namespace: Arc<str>,
    /// The parameter `aeraki_meta_workload_selector`; may be empty.
    pub workload_selector: Arc<str>,
    /// What tells it apart from others.
    pub labels: Labels,
}

impl Provider {
    /// Whether a URL with this protocol is one of a provider: lists hold others too.
    #[must_use]
    pub fn is_one(url: &ProviderUrl) -> bool {
        !NO_PROVIDERS.contains(&&*url.protocol)
    }

    /// What the URL says.
    #[must_use]
    pub fn new(url: &ProviderUrl, options: &Options, interner: &mut Interner) -> Self {
        let own = |name| url.get(name).unwrap_or_default();
        let of_aeraki = |name| if options.aeraki { own(name) } else { "" };
        let version = own("version");
        let mesh_version = either(of_aeraki("aeraki_meta_app_version"), version);
        let shown = (!mesh_version.is_empty()).then_some(mesh_version);
        Self {
            protocol: interner.string(&url.protocol),
            address: address(&url.host),
            port: url.port,
            interface: interner.string(either(own("interface"), &url.path)),
            group: interner.string(own("group")),
            version: interner.string(version),
            application: interner.string(own("application")),
            pid: interner.string(own("pid")),
            timestamp: own("timestamp").parse().unwrap_or(0),
            weight: own("weight").parse().ok(),
            disabled: url.get("disabled").map(is_true),
            enabled: url.get("enabled").is_none_or(is_true),
            standing: Standing::default(),
            mesh_version: interner.string(mesh_version),
            locality: locality(url, options, interner),
            mesh_namespace: interner.string(own("aeraki_meta_app_namespace")),
            workload_selector: interner.string(&decode(own("aeraki_meta_workload_selector"))),
            labels: labels::labels(options, labels::pairs(&url.parameters), shown, interner),
        }
    }
}

impl Standing {
    /// What is left of a weight: never nothing, unless one of the two is nothing.
    pub(crate) fn of_weight(&self, weight: i64) -> i64 {
        let Weight(thousandths) = self.share;
        let whole = weight.saturating_mul(thousandths.into()) / 1000;
        if weight > 0 && thousandths > 0 {
            whole.max(1)
        } else {
            whole
        }
    }
}

/// A host as Dubbo writes it.
pub(crate) fn address(host: &str) -> Address {
    match host.parse() {
        Ok(address) => address,
        Err(never) => match never {},
    }
}

pub(crate) fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

fn either<'a>(first: &'a str, second: &'a str) -> &'a str {
    if first.is_empty() { second } else { first }
}

/// `region` and `zone`; with [`Options::aeraki`] `aeraki_meta_locality` (`REGION/ZONE/SUBZONE`)
/// where it is set.
fn locality(url: &ProviderUrl, options: &Options, interner: &mut Interner) -> Locality {
    let own = |name| url.get(name).unwrap_or_default();
    let whole = url.get("aeraki_meta_locality");
    let mut parts = match whole.filter(|_| options.aeraki) {
        Some(whole) => whole.splitn(3, '/').collect(),
        None => vec![own("region"), own("zone")],
    }
    .into_iter();
    let mut part = || interner.string(parts.next().unwrap_or_default());
    Locality {
        region: part(),
        zone: part(),
        sub_zone: part(),
    }
}

/// The protocol of the mesh's port: what Dubbo's extensions put on the wire. An unknown one stays
/// as it is.
pub(crate) fn port_protocol(
    protocol: &str,
    options: &Options,
    interner: &mut Interner,
) -> Arc<str> {
    match protocol {
        "dubbo" => options.dubbo_protocol.clone(),
        "tri" | "grpc" => interner.string("grpc"),
        "rest" | "http" | "webservice" | "hessian" => interner.string("http"),
        other => interner.string(other),
    }
}
