//! A few policies that take different ways through the mapping.

use std::sync::LazyLock;

use diolkos_istio::{Location, Resolution};
use diolkos_plan::{Endpoints, Grant, Matcher, Policy, PortNaming, Template};
use globset::{Glob, GlobSet};

/// The host suffix, the namespace and the network that [`narrow`] grants.
pub(crate) const GRANTED: (&str, &str, &str) = ("granted.example", "allowed", "10.0.0.0/25");

/// All of them, made once: globs take longer to make than a service to plan.
pub(crate) static ALL: LazyLock<[Policy; 4]> =
    LazyLock::new(|| [plain(), inline(), narrow(), verbatim()]);

/// The usual values.
pub(crate) fn plain() -> Policy {
    Policy::new(
        "registry",
        Template::literal("diolkos"),
        Template::parse("{service}.service.consul").unwrap(),
    )
}

/// The other value of every switch.
fn inline() -> Policy {
    let mut policy = plain();
    policy.endpoints = Endpoints::Inline;
    policy.location = Location::MeshExternal;
    policy.export_to = vec![".".to_owned()];
    policy.ports.naming = PortNaming::Protocol;
    policy.ports.service_port = Some(80);
    policy.ports.default_protocol = "http".into();
    policy.select.healthy_only = false;
    policy.resolution = Resolution::Static;
    policy.aliases = vec![
        Template::parse("{service|dns}.alias").unwrap(),
        Template::parse("{meta.team}.{namespace}").unwrap(),
    ];
    policy.locality = Some(Template::parse("{region}/{zone}").unwrap());
    policy.network = Some("net".to_owned());
    policy.labels.exclude = globs("version");
    policy
}

/// Grants little.
fn narrow() -> Policy {
    let mut policy = plain();
    let (host, namespace, network) = GRANTED;
    policy.namespace = Template::parse("{namespace}").unwrap();
    policy.host = Template::parse("{service}.granted.example").unwrap();
    policy.aliases = vec![Template::parse("{group}").unwrap()];
    policy.grant = Grant {
        hosts: vec![host.to_owned()],
        namespaces: vec![namespace.to_owned()],
        cidrs: vec![network.parse().unwrap()],
        max_endpoints: Some(3),
        ..policy.grant
    };
    policy.select.exclude = vec![Matcher {
        tags: Some(globs("a*")),
        ..Matcher::default()
    }];
    policy
}

/// Hosts as the registry writes them.
fn verbatim() -> Policy {
    let mut policy = plain();
    policy.namespace = Template::parse("{namespace|dns}").unwrap();
    policy.host = Template::parse("{service}").unwrap();
    policy.aliases = vec![Template::parse("{group}{service}").unwrap()];
    policy.labels.include = Some(globs("*io/*"));
    policy
}

fn globs(glob: &str) -> GlobSet {
    let mut set = GlobSet::builder();
    set.add(Glob::new(glob).unwrap());
    set.build().unwrap()
}
