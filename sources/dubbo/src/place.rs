//! Where Dubbo puts what: paths, and what they hold.

use std::{fmt::Write as _, sync::Arc};

/// What a path (below the registry's root) holds.
///
/// Names are kept as the path has them, so that [`Place::path`] leads back to the same node. The
/// [`Catalog`](crate::Catalog) decodes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Names of the children are encoded URLs of providers.
    Providers {
        /// The interface.
        interface: Arc<str>,
    },
    /// Names of the children are encoded URLs of configurators (`override://`).
    Configurators {
        /// The interface.
        interface: Arc<str>,
    },
    /// A rule of the configuration centre, `KEY.configurators`.
    Rule {
        /// The key: `INTERFACE[:VERSION[:GROUP]]` or an application.
        key: Arc<str>,
    },
    /// The applications of an interface, joined by commas.
    Mapping {
        /// The interface.
        interface: Arc<str>,
    },
    /// Metadata of all services of an application's revision.
    ///
    /// A path cannot tell this from the directory of an interface's version
    /// (`metadata/INTERFACE/VERSION`): a revision that no instance names has no effect.
    Revision {
        /// The application.
        application: Arc<str>,
        /// The revision.
        revision: Arc<str>,
    },
    /// A directory: all [`Place::Definition`]s of an interface are somewhere below it.
    ///
    /// Only [`Catalog::wanted`](crate::Catalog::wanted) names it, to have it listed; it holds
    /// nothing itself.
    Definitions {
        /// The interface.
        interface: Arc<str>,
    },
    /// Metadata that an application published of one interface.
    Definition {
        /// The interface.
        interface: Arc<str>,
        /// The version; may be empty. Where the path has one of version and group only, it is
        /// here: just the data says which of the two it is.
        version: Arc<str>,
        /// The group; may be empty.
        group: Arc<str>,
        /// The application.
        application: Arc<str>,
    },
    /// An instance of an application.
    Instance {
        /// The application.
        application: Arc<str>,
        /// The node's name, usually `ip:port`.
        id: Arc<str>,
    },
}

const PROVIDERS: &str = "providers";
const CONFIGURATORS: &str = "configurators";
const CONFIG: &str = "config";
const MAPPING: &str = "mapping";
const METADATA: &str = "metadata";
/// The group of the configuration centre that governance rules are in.
const RULES: &str = "config/dubbo/";
const RULE_SUFFIX: &str = ".configurators";
/// The side of metadata that is of use: the other one is `consumer`.
const PROVIDER: &str = "provider";

impl Place {
    /// What the node at `path` holds, where it is one that Diolkos reads.
    ///
    /// `root` is Dubbo's root (`/dubbo`), `applications` that of application-level registration
    /// (`/services`); a slash at their end makes no difference. It is the node itself that the
    /// path names: a child of a list of URLs is for [`Place::of_child`].
    #[must_use]
    pub fn parse(root: &str, applications: &str, path: &str) -> Option<Self> {
        // First, since it may well be below the root.
        if let Some(rest) = below(applications, path) {
            let (application, id) = split(rest)?;
            return single(id).then(|| Self::Instance {
                application: application.into(),
                id: id.into(),
            });
        }
        let rest = below(root, path)?;
        let Some((first, rest)) = rest.split_once('/') else {
            // A directory: of interfaces, of metadata, or of an interface.
            return None;
        };
        match first {
            "" => None,
            CONFIG => rule(below(root, path)?),
            MAPPING => single(rest).then(|| Self::Mapping {
                interface: rest.into(),
            }),
            METADATA => metadata(rest),
            interface => list(interface, rest),
        }
    }

    /// The list and the name of the child at a path one below it:
    /// `/dubbo/INTERFACE/providers/NAME` gives [`Place::Providers`] and `NAME`.
    ///
    /// A name that was not encoded, and so has slashes in it, is one name all the same.
    #[must_use]
    pub fn of_child(root: &str, applications: &str, path: &str) -> Option<(Self, String)> {
        if below(applications, path).is_some() {
            return None;
        }
        let (interface, rest) = split(below(root, path)?)?;
        if [CONFIG, MAPPING, METADATA].contains(&interface) {
            return None;
        }
        let (category, name) = split(rest)?;
        Some((list(interface, category)?, name.into()))
    }

    /// The path of the node, as [`Place::parse`] reads it.
    #[must_use]
    pub fn path(&self, root: &str, applications: &str) -> String {
        let root = root.trim_end_matches('/');
        match self {
            Self::Providers { interface } => format!("{root}/{interface}/{PROVIDERS}"),
            Self::Configurators { interface } => format!("{root}/{interface}/{CONFIGURATORS}"),
            Self::Rule { key } => format!("{root}/{RULES}{key}{RULE_SUFFIX}"),
            Self::Mapping { interface } => format!("{root}/{MAPPING}/{interface}"),
            Self::Revision {
                application,
                revision,
            } => format!("{root}/{METADATA}/{application}/{revision}"),
            Self::Definitions { interface } => format!("{root}/{METADATA}/{interface}"),
            Self::Definition {
                interface,
                version,
                group,
                application,
            } => {
                let mut path = format!("{root}/{METADATA}/{interface}");
                for part in [&**version, &**group, PROVIDER, &**application] {
                    if !part.is_empty() {
                        // Writing to a string cannot fail.
                        write!(path, "/{part}").unwrap_or_default();
                    }
                }
                path
            }
            Self::Instance { application, id } => {
                let applications = applications.trim_end_matches('/');
                format!("{applications}/{application}/{id}")
            }
        }
    }
}

/// What follows the root and a slash.
fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(root.trim_end_matches('/'))?
        .strip_prefix('/')
}

/// The first segment and what follows it; neither is empty.
fn split(rest: &str) -> Option<(&str, &str)> {
    let (first, rest) = rest.split_once('/')?;
    (!first.is_empty() && !rest.is_empty()).then_some((first, rest))
}

/// Whether this is exactly one segment.
fn single(rest: &str) -> bool {
    !rest.is_empty() && !rest.contains('/')
}

fn list(interface: &str, category: &str) -> Option<Place> {
    let interface = interface.into();
    match category {
        PROVIDERS => Some(Place::Providers { interface }),
        CONFIGURATORS => Some(Place::Configurators { interface }),
        _ => None,
    }
}

fn rule(rest: &str) -> Option<Place> {
    let key = rest.strip_prefix(RULES)?.strip_suffix(RULE_SUFFIX)?;
    single(key).then(|| Place::Rule { key: key.into() })
}

/// `APP/REVISION`, or `INTERFACE[/VERSION][/GROUP]/provider/APP`.
fn metadata(rest: &str) -> Option<Place> {
    let segments: Vec<&str> = rest.split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    match segments.as_slice() {
        [application, revision] => Some(Place::Revision {
            application: (*application).into(),
            revision: (*revision).into(),
        }),
        [interface, variant @ .., PROVIDER, application] => Some(Place::Definition {
            interface: (*interface).into(),
            version: variant.first().copied().unwrap_or_default().into(),
            group: variant.get(1..).unwrap_or_default().join("/").into(),
            application: (*application).into(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(path: &str) -> Option<Place> {
        Place::parse("/dubbo", "/services", path)
    }

    fn definition(version: &str, group: &str) -> Place {
        Place::Definition {
            interface: "a.B".into(),
            version: version.into(),
            group: group.into(),
            application: "app".into(),
        }
    }

    #[test]
    fn paths_of_nodes() {
        let interface: Arc<str> = "a.B".into();
        for (path, expected) in [
            (
                "/dubbo/a.B/providers",
                Place::Providers {
                    interface: interface.clone(),
                },
            ),
            (
                "/dubbo/a.B/configurators",
                Place::Configurators {
                    interface: interface.clone(),
                },
            ),
            ("/dubbo/mapping/a.B", Place::Mapping { interface }),
            (
                "/dubbo/config/dubbo/a.B:1.0.0:gray.configurators",
                Place::Rule {
                    key: "a.B:1.0.0:gray".into(),
                },
            ),
            (
                "/dubbo/metadata/app/8c8a71",
                Place::Revision {
                    application: "app".into(),
                    revision: "8c8a71".into(),
                },
            ),
            ("/dubbo/metadata/a.B/provider/app", definition("", "")),
            (
                "/dubbo/metadata/a.B/1.0.0/provider/app",
                definition("1.0.0", ""),
            ),
            (
                "/dubbo/metadata/a.B/1.0.0/gray/provider/app",
                definition("1.0.0", "gray"),
            ),
            (
                "/services/app/10.0.0.1:20880",
                Place::Instance {
                    application: "app".into(),
                    id: "10.0.0.1:20880".into(),
                },
            ),
        ] {
            assert_eq!(parse(path).as_ref(), Some(&expected), "{path}");
            assert_eq!(expected.path("/dubbo", "/services"), path);
            assert_eq!(expected.path("/dubbo/", "/services/"), path);
        }
    }

    #[test]
    fn all_other_nodes_are_none() {
        for path in [
            "",
            "/",
            "/dubbo",
            "/dubbo/",
            "/dubbo/a.B",
            "/dubbo/a.B/",
            "/dubbo/a.B/consumers",
            "/dubbo/a.B/routers",
            "/dubbo/a.B/providers/",
            "/dubbo/a.B/providers/x",
            "/dubbo/mapping",
            "/dubbo/mapping/",
            "/dubbo/mapping/a.B/x",
            "/dubbo/metadata/providers",
            "/dubbo/metadata/a.B/1.0.0/provider",
            "/dubbo/metadata/a.B/1.0.0/consumer/app",
            "/dubbo/config/dubbo",
            "/dubbo/config/dubbo/app.tag-router",
            "/dubbo/config/dubbo/.configurators",
            "/dubbo/config/providers",
            "/dubbox/a.B/providers",
            "/services",
            "/services/app",
            "/services/app/id/more",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_root_may_be_empty_and_applications_below_it() {
        assert_eq!(
            Place::parse("/", "/services", "/a.B/providers"),
            parse("/dubbo/a.B/providers")
        );
        assert_eq!(
            Place::parse("/dubbo", "/dubbo/services", "/dubbo/services/app/id"),
            parse("/services/app/id")
        );
    }

    #[test]
    fn children_of_lists() {
        let child = |path| Place::of_child("/dubbo", "/services", path);
        for (path, name) in [
            (
                "/dubbo/a.B/providers/dubbo%3A%2F%2F10.0.0.1",
                "dubbo%3A%2F%2F10.0.0.1",
            ),
            (
                "/dubbo/a.B/providers/dubbo://10.0.0.1/a.B",
                "dubbo://10.0.0.1/a.B",
            ),
        ] {
            let list = parse("/dubbo/a.B/providers").unwrap();
            assert_eq!(child(path), Some((list, name.to_owned())));
        }
        let (list, _) = child("/dubbo/a.B/configurators/x").unwrap();
        assert_eq!(Some(list), parse("/dubbo/a.B/configurators"));
        for path in [
            "/dubbo/a.B/providers",
            "/dubbo/a.B/providers/",
            "/dubbo/a.B/consumers/x",
            "/dubbo/config/providers/x",
            "/dubbo/mapping/providers/x",
            "/dubbo/metadata/providers/x",
            "/services/providers/x",
        ] {
            assert_eq!(child(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_is_read_is_written_the_same(path in "(/dubbo|/services)(/(a\\.B|providers|provider|mapping|metadata|config|dubbo|x\\.configurators|1\\.0)){0,6}") {
            if let Some(place) = parse(&path) {
                prop_assert_eq!(place.path("/dubbo", "/services"), path);
            }
        }
    }
}
