//! Configurators: what operators say of providers after these have registered.
//!
//! There are two kinds. Until Dubbo 2.6, `override://` URLs (and `absent://`, which only fill in
//! what is missing) in the list `configurators` of an interface; since 2.7, rules in the
//! configuration centre, for an application or for an interface. Of both, the weight and the
//! switch `disabled` concern the mesh. All that match are applied, and the later one wins, in
//! Dubbo's order: URLs, then rules of applications, then rules of interfaces; in each of these
//! those for all addresses first, then by address and `priority`.
//!
//! Some rules are meant for certain consumers, by their address or application. The mesh has one
//! set of endpoints for everybody, so only rules that concern every consumer, or the provider
//! itself, are applied.

mod document;

use crate::{
    provider::{Provider, is_true},
    url::{ProviderUrl, get},
};

pub(crate) use document::parse as parse_document;

/// Which rules go first: the later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// URLs.
    Override,
    /// Rules of the configuration centre for an application.
    Application,
    /// Rules of the configuration centre for an interface.
    Service,
}

/// What one rule says, and of which providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) order: Order,
    /// The providers, of which each list has to have one that matches; an empty one names all.
    pub(crate) addresses: [Vec<Endpoint>; 2],
    /// The application; `None`: any.
    pub(crate) applications: Option<Vec<String>>,
    /// The interfaces and their variants; `None`: any.
    pub(crate) services: Option<Vec<ServicePattern>>,
    pub(crate) absent: bool,
    pub(crate) weight: Option<i64>,
    pub(crate) disabled: Option<bool>,
}

/// By what rules are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order {
    pub(crate) level: Level,
    /// As text, as Dubbo compares it: `0.0.0.0` is before all that is in use.
    pub(crate) host: String,
    pub(crate) priority: i64,
    /// Where two rules say the same of the same: the order in the document, or any fixed one.
    pub(crate) tie: u128,
}

/// A host and a port, of which each may be any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: Option<diolkos_model::Address>,
    port: Option<u32>,
}

/// `[GROUP/]INTERFACE[:VERSION]`: no group and no version is a variant too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePattern {
    /// `None`: any.
    pub(crate) interface: Option<String>,
    /// `*`: any.
    pub(crate) group: String,
    /// `*`: any.
    pub(crate) version: String,
}

/// What counts for a provider after all rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) weight: Option<i64>,
    pub(crate) disabled: Option<bool>,
}

impl Rule {
    /// The rule of a URL; `None` where it is switched off, is none, or has nothing to say.
    ///
    /// A URL with a port means the provider there. Without a port, Dubbo's documents mean a
    /// provider's host; with `side=consumer` it is a consumer's, which the mesh has no place for.
    pub(crate) fn of_url(url: &ProviderUrl, interface: &str, tie: u128) -> Option<Self> {
        let absent = url.protocol == "absent";
        let conditional = url.parameters.keys().any(|name| name.starts_with('~'));
        let on = url.get("enabled").is_none_or(is_true);
        if !on || conditional || !(absent || url.protocol == "override") {
            return None;
        }
        let any = is_any_host(&url.host);
        if url.get("side") == Some("consumer") && !any && url.port == 0 {
            return None;
        }
        let own = |name| url.get(name).unwrap_or_default().to_owned();
        let application = url.get("application").filter(|name| *name != "*");
        let endpoint = Endpoint {
            host: (!any).then(|| crate::provider::address(&url.host)),
            port: (url.port != 0).then_some(url.port),
        };
        let service = ServicePattern {
            interface: Some(interface.to_owned()),
            group: own("group"),
            version: own("version"),
        };
        Self {
            order: Order {
                level: Level::Override,
                host: url.host.clone(),
                priority: own("priority").parse().unwrap_or(0),
                tie,
            },
            addresses: [vec![endpoint], Vec::new()],
            applications: application.map(|name| vec![name.to_owned()]),
            services: Some(vec![service]),
            absent,
            weight: None,
            disabled: None,
        }
        .saying(&url.parameters)
    }

    /// The rule with what its parameters say; `None` where that is nothing of interest.
    fn saying(mut self, parameters: &crate::url::Parameters) -> Option<Self> {
        self.weight = get(parameters, "weight").and_then(|weight| weight.trim().parse().ok());
        self.disabled = get(parameters, "disabled").map(is_true);
        (self.weight.is_some() || self.disabled.is_some()).then_some(self)
    }

    fn matches(&self, interface: &str, provider: &Provider) -> bool {
        self.addresses
            .iter()
            .all(|list| list.is_empty() || list.iter().any(|endpoint| endpoint.matches(provider)))
            && self.applications.as_ref().is_none_or(|names| {
                names
                    .iter()
                    .any(|name| name == "*" || **name == *provider.application)
            })
            && self.services.as_ref().is_none_or(|services| {
                services
                    .iter()
                    .any(|service| service.matches(interface, provider))
            })
    }
}

impl Endpoint {
    /// `HOST`, `HOST:PORT`, `HOST:*`; the host `0.0.0.0` is any.
    pub(crate) fn parse(text: &str) -> Self {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, "*")) => (host, None),
            Some((host, port)) if text.parse::<std::net::IpAddr>().is_err() => {
                (host, port.parse().ok())
            }
            _ => (text, None),
        };
        Self {
            host: (!is_any_host(host)).then(|| crate::provider::address(host)),
            port,
        }
    }

    fn matches(&self, provider: &Provider) -> bool {
        self.host
            .as_ref()
            .is_none_or(|host| *host == provider.address)
            && self.port.is_none_or(|port| port == provider.port)
    }
}

impl ServicePattern {
    fn matches(&self, interface: &str, provider: &Provider) -> bool {
        let variant = |pattern: &str, own: &str| pattern == "*" || pattern == own;
        self.interface
            .as_ref()
            .is_none_or(|pattern| pattern == interface)
            && variant(&self.group, &provider.group)
            && variant(&self.version, &provider.version)
    }
}

pub(crate) fn is_any_host(host: &str) -> bool {
    matches!(host, "0.0.0.0" | "*" | "::" | "[::]")
}

/// What counts for a provider, after the rules in their order.
pub(crate) fn settle(rules: &[&Rule], interface: &str, provider: &Provider) -> Settings {
    let mut settings = Settings {
        weight: provider.weight,
        disabled: provider.disabled,
    };
    for rule in rules
        .iter()
        .filter(|rule| rule.matches(interface, provider))
    {
        let Settings { weight, disabled } = settings;
        settings = if rule.absent {
            Settings {
                weight: weight.or(rule.weight),
                disabled: disabled.or(rule.disabled),
            }
        } else {
            Settings {
                weight: rule.weight.or(weight),
                disabled: rule.disabled.or(disabled),
            }
        };
    }
    settings
}
