//! What names of services in Nacos mean.

use std::sync::Arc;

use diolkos_source_dubbo::{Namespaces, Place, decode};

/// Nacos' own name for the namespace without an id.
const PUBLIC: &str = "public";
/// The group of services that have no other.
const DEFAULT_GROUP: &str = "DEFAULT_GROUP";
/// How Dubbo writes the `$` of a nested class, which Nacos does not allow.
const NESTED: &str = "___";
/// What else Dubbo registers: never services.
const NO_PROVIDERS: [&str; 3] = ["consumers:", "configurators:", "routers:"];

/// A service, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One version and group of an interface of Dubbo.
    Providers(Variant),
    /// Of Dubbo, and no service.
    Nothing,
    /// Any other; an application of Dubbo may be among them.
    Other,
}

/// An interface of Dubbo in one version and group; both may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) interface: Arc<str>,
    pub(super) version: String,
    pub(super) group: String,
}

impl Kind {
    /// `providers:INTERFACE[:VERSION[:GROUP]]`; anything else is a service's own name.
    pub(super) fn of(service: &str) -> Self {
        if NO_PROVIDERS.iter().any(|start| service.starts_with(start)) {
            return Self::Nothing;
        }
        let Some(rest) = service.strip_prefix("providers:") else {
            return Self::Other;
        };
        let mut parts = rest.splitn(3, ':');
        let mut part = || parts.next().unwrap_or_default();
        match part() {
            "" => Self::Nothing,
            interface => Self::Providers(Variant {
                interface: nested(interface),
                version: part().to_owned(),
                group: part().to_owned(),
            }),
        }
    }
}

/// A name as Dubbo has it. A class that has `___` in its own name is taken for a nested one; Dubbo
/// cannot tell the two apart either.
fn nested(name: &str) -> Arc<str> {
    name.replace(NESTED, "$").into()
}

/// A place with the names that Dubbo has for what Nacos' configuration calls it.
pub(super) fn of_nacos(place: &Place) -> Place {
    match place.clone() {
        Place::Rule { key } => Place::Rule { key: nested(&key) },
        Place::Mapping { interface } => Place::Mapping {
            interface: nested(&interface),
        },
        Place::Definition {
            interface,
            version,
            group,
            application,
        } => Place::Definition {
            interface: nested(&interface),
            version,
            group,
            application,
        },
        other => other,
    }
}

/// The other way round: a place that a catalogue asks for.
pub(super) fn for_nacos(place: Place) -> Place {
    match place {
        Place::Definitions { interface } => Place::Definitions {
            interface: decode(&interface).replace('$', NESTED).into(),
        },
        other => other,
    }
}

/// The namespace by its name.
pub(super) fn namespace(id: &str) -> &str {
    if id.is_empty() { PUBLIC } else { id }
}

/// Where the keys of Dubbo's services are: the group of a key is Dubbo's, so that of Nacos, unless
/// it is the default one, goes to the namespace. No two of them make the same: ids of namespaces
/// have neither slashes nor an `@`. Hosts end in what is not usual of the two, as dubbo2istio has it.
pub(super) fn namespaces(namespace: &str, group: &str) -> Namespaces {
    let (group, of_group) = match group {
        DEFAULT_GROUP => (String::new(), String::new()),
        group => (format!("@{group}"), format!(".{group}")),
    };
    let of_namespace = match namespace {
        PUBLIC => String::new(),
        namespace => format!(".{namespace}"),
    };
    Namespaces {
        interfaces: format!("{namespace}{group}").into(),
        applications: format!("{namespace}/services{group}").into(),
        host_suffix: format!("{of_group}{of_namespace}").to_lowercase().into(),
    }
}

/// Whether keys of interfaces of this namespace, in any group of Nacos, have this as theirs.
pub(super) fn is_of_interfaces(namespace: &str, of_key: &str) -> bool {
    of_key
        .strip_prefix(namespace)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn providers(interface: &str, version: &str, group: &str) -> Kind {
        Kind::Providers(Variant {
            interface: interface.into(),
            version: version.into(),
            group: group.into(),
        })
    }

    #[test]
    fn kinds_of_names() {
        for (name, kind) in [
            (
                "providers:a.B:1.0.0:gray",
                providers("a.B", "1.0.0", "gray"),
            ),
            ("providers:a.B:1.0.0:", providers("a.B", "1.0.0", "")),
            ("providers:a.B::", providers("a.B", "", "")),
            ("providers:a.B::gray", providers("a.B", "", "gray")),
            ("providers:a.B:1.0.0", providers("a.B", "1.0.0", "")),
            ("providers:a.B", providers("a.B", "", "")),
            ("providers:a.B___C::", providers("a.B$C", "", "")),
            ("providers::1.0.0:", Kind::Nothing),
            ("consumers:a.B:1.0.0:", Kind::Nothing),
            ("configurators:a.B:1.0.0:", Kind::Nothing),
            ("routers:a.B:1.0.0:", Kind::Nothing),
            ("providers", Kind::Other),
            ("orders", Kind::Other),
            ("shop:orders", Kind::Other),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn hosts_end_in_what_is_not_usual() {
        for (namespace, group, suffix) in [
            (PUBLIC, DEFAULT_GROUP, ""),
            (PUBLIC, "Gray", ".gray"),
            ("dev", DEFAULT_GROUP, ".dev"),
            ("dev", "gray", ".gray.dev"),
        ] {
            assert_eq!(&*namespaces(namespace, group).host_suffix, suffix);
        }
    }

    #[test]
    fn nested_classes_in_configuration() {
        let told = of_nacos(&Place::Mapping {
            interface: "a.B___C".into(),
        });
        assert_eq!(
            told,
            Place::Mapping {
                interface: "a.B$C".into()
            }
        );
        let asked = for_nacos(Place::Definitions {
            interface: "a.B%24C".into(),
        });
        assert_eq!(
            asked,
            Place::Definitions {
                interface: "a.B___C".into()
            }
        );
    }
}
