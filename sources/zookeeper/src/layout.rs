//! Which node holds what: from paths to [`Target`]s and back.

use std::{fmt, sync::Arc};

use diolkos_model::ServiceKey;
use diolkos_source_dubbo::{Discovery, Place, decode};
use diolkos_zk::{Change, Changed};

use crate::{Config, Select};

/// What is read with one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The interfaces: the children of the root.
    Interfaces,
    /// The keys of the configuration centre's rules.
    Rules,
    /// The interfaces whose applications are known.
    Mappings,
    /// The applications.
    Applications,
    /// The ids of an application's instances.
    Instances(Arc<str>),
    /// A folder of an interface's metadata.
    Folder {
        /// The interface.
        interface: Arc<str>,
        /// What follows it in the path: nothing, or version, group and side.
        rest: Arc<str>,
    },
    /// The children at a place, whose names say all.
    Names(Place),
    /// The data at a place.
    Data(Place),
}

/// Nodes of the root that are no interfaces.
const RESERVED: [&str; 3] = ["config", "mapping", "metadata"];
/// Metadata of consumers: of no use here.
const CONSUMER: &str = "consumer";
/// Version, group and side: no folder is deeper.
const DEPTH: usize = 3;

impl Target {
    /// The list that names this target. What no list names is read because something refers to it.
    pub(crate) fn parent(&self) -> Option<Self> {
        match self {
            Self::Names(_) => Some(Self::Interfaces),
            Self::Instances(_) => Some(Self::Applications),
            Self::Folder { interface, rest } => (!rest.is_empty()).then(|| {
                let above = rest.rsplit_once('/').map_or("", |(above, _)| above);
                Self::folder(interface, above)
            }),
            Self::Data(place) => match place {
                Place::Rule { .. } => Some(Self::Rules),
                Place::Mapping { .. } => Some(Self::Mappings),
                Place::Instance { application, .. } => Some(Self::Instances(application.clone())),
                Place::Definition {
                    interface,
                    version,
                    group,
                    ..
                } => {
                    let parts = [&**version, &**group, "provider"];
                    let parts = parts.into_iter().filter(|part| !part.is_empty());
                    let rest: Vec<&str> = parts.collect();
                    Some(Self::folder(interface, &rest.join("/")))
                }
                _ => None,
            },
            Self::Interfaces | Self::Rules | Self::Mappings | Self::Applications => None,
        }
    }

    /// A folder of an interface's metadata; the topmost one if `rest` is empty.
    pub(crate) fn folder(interface: &Arc<str>, rest: &str) -> Self {
        Self::Folder {
            interface: interface.clone(),
            rest: rest.into(),
        }
    }

    /// What to read of a place that the catalogue wants.
    pub(crate) fn of(place: Place) -> Self {
        match place {
            Place::Providers { .. } | Place::Configurators { .. } => Self::Names(place),
            Place::Definitions { interface } => Self::folder(&interface, ""),
            place => Self::Data(place),
        }
    }

    /// Whether its children are asked for, not its data.
    pub(crate) fn is_list(&self) -> bool {
        !matches!(self, Self::Data(_))
    }

    /// Whether it is read only because something refers to it.
    pub(crate) fn is_metadata(&self) -> bool {
        matches!(
            self,
            Self::Folder { .. } | Self::Data(Place::Revision { .. } | Place::Definition { .. })
        )
    }

    /// Whether nothing but itself tells that it has come: no list that is read names it, or that
    /// list names an interface, below which it may come later.
    pub(crate) fn comes_unannounced(&self) -> bool {
        matches!(self, Self::Names(_)) || self.parent().is_none()
    }
}

/// Where everything is, and what of it is wanted.
#[derive(Clone)]
pub(crate) struct Layout {
    root: String,
    applications: String,
    discovery: Discovery,
    select: Select,
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layout")
            .field("root", &self.root)
            .field("applications", &self.applications)
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

impl Layout {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            root: config.root.trim_end_matches('/').to_owned(),
            applications: config.applications.trim_end_matches('/').to_owned(),
            discovery: config.dubbo.discovery,
            select: config.select.clone(),
        }
    }

    fn interfaces(&self) -> bool {
        self.discovery != Discovery::Application
    }

    fn applications(&self) -> bool {
        self.discovery != Discovery::Interface
    }

    /// Dubbo's root.
    pub(crate) fn root(&self) -> &str {
        if self.root.is_empty() {
            "/"
        } else {
            &self.root
        }
    }

    /// Whether there is nothing to tell without this list.
    pub(crate) fn is_first(&self, list: &Target) -> bool {
        self.lists().first() == Some(list)
    }

    /// Where a full read begins.
    pub(crate) fn lists(&self) -> Vec<Target> {
        match self.discovery {
            Discovery::Interface => vec![Target::Interfaces, Target::Rules],
            Discovery::Application => vec![Target::Applications, Target::Mappings, Target::Rules],
            Discovery::Both => vec![
                Target::Interfaces,
                Target::Applications,
                Target::Mappings,
                Target::Rules,
            ],
        }
    }

    /// Whether a service is wanted.
    pub(crate) fn takes(&self, service: &ServiceKey) -> bool {
        (self.select)(&service.name)
    }

    /// The nodes at and below which everything is.
    pub(crate) fn trees(&self) -> Vec<String> {
        let mut trees = Vec::new();
        if self.interfaces() {
            trees.push(absolute(&self.root));
        } else {
            trees.extend(RESERVED.map(|name| format!("{}/{name}", self.root)));
        }
        // What is below the root is watched with it.
        if self.applications() && !(self.interfaces() && self.is_below_root(&self.applications)) {
            trees.push(absolute(&self.applications));
        }
        trees
    }

    fn is_below_root(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&self.root);
        rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// The node of a target.
    pub(crate) fn path(&self, target: &Target) -> String {
        let Self {
            root, applications, ..
        } = self;
        match target {
            Target::Interfaces => absolute(root),
            Target::Rules => format!("{root}/config/dubbo"),
            Target::Mappings => format!("{root}/mapping"),
            Target::Applications => absolute(applications),
            Target::Instances(application) => format!("{applications}/{application}"),
            Target::Folder { interface, rest } if rest.is_empty() => {
                format!("{root}/metadata/{interface}")
            }
            Target::Folder { interface, rest } => format!("{root}/metadata/{interface}/{rest}"),
            Target::Names(place) | Target::Data(place) => place.path(root, applications),
        }
    }

    /// What a list's entry leads to.
    pub(crate) fn children(&self, list: &Target, name: &str) -> Vec<Target> {
        let name: Arc<str> = name.into();
        match list {
            Target::Interfaces => self.interface(&name),
            Target::Applications => vec![Target::Instances(name)],
            Target::Mappings if self.selects(&name) => {
                vec![Target::Data(Place::Mapping { interface: name })]
            }
            Target::Rules => {
                let path = format!("{}/{name}", self.path(list));
                let rule = Place::parse(&self.root, &self.applications, &path);
                rule.map(Target::Data).into_iter().collect()
            }
            Target::Instances(application) => vec![Target::Data(Place::Instance {
                application: application.clone(),
                id: name,
            })],
            Target::Folder { interface, rest } => self.metadata(interface, rest, &name),
            _ => Vec::new(),
        }
    }

    fn interface(&self, name: &Arc<str>) -> Vec<Target> {
        let path = format!("{}/{name}", self.root);
        let other = RESERVED.contains(&&**name)
            || path == self.applications
            || self.applications.starts_with(&format!("{path}/"));
        if other || !self.selects(name) {
            return Vec::new();
        }
        let interface = name.clone();
        let configurators = Place::Configurators {
            interface: name.clone(),
        };
        vec![
            Target::Names(Place::Providers { interface }),
            Target::Names(configurators),
        ]
    }

    fn metadata(&self, interface: &Arc<str>, rest: &str, name: &str) -> Vec<Target> {
        let rest = if rest.is_empty() {
            name.to_owned()
        } else {
            format!("{rest}/{name}")
        };
        let path = format!("{}/metadata/{interface}/{rest}", self.root);
        match Place::parse(&self.root, &self.applications, &path) {
            Some(definition @ Place::Definition { .. }) => vec![Target::Data(definition)],
            _ if name == CONSUMER || rest.split('/').count() > DEPTH => Vec::new(),
            _ => vec![Target::folder(interface, &rest)],
        }
    }

    /// What there may be to read anew after a change.
    pub(crate) fn concerned(&self, changed: &Changed) -> Vec<Target> {
        let mut targets = self.at(&changed.path);
        targets.retain(|target| match changed.kind {
            Change::Created | Change::Deleted => true,
            Change::Data => !target.is_list(),
            Change::Children => target.is_list(),
        });
        targets
    }

    /// What a node, or its being there, is a part of.
    fn at(&self, path: &str) -> Vec<Target> {
        if let Some((list, _)) = Place::of_child(&self.root, &self.applications, path) {
            return self.if_wanted(Target::Names(list));
        }
        match Place::parse(&self.root, &self.applications, path) {
            // The path of a folder of metadata looks the same.
            Some(Place::Revision {
                application,
                revision,
            }) => {
                let folder = Target::folder(&application, &revision);
                let revision = Target::Data(Place::Revision {
                    application,
                    revision,
                });
                vec![revision, folder]
            }
            Some(place) => self.if_wanted(Target::of(place)),
            None => self.list_at(path),
        }
    }

    /// The list at a path, or what an interface's node tells of.
    fn list_at(&self, path: &str) -> Vec<Target> {
        let fixed = self.lists().into_iter();
        if let Some(list) = fixed.into_iter().find(|list| self.path(list) == path) {
            return vec![list];
        }
        if let Some(application) = child_of(&self.applications, path) {
            return self.if_wanted(Target::Instances(application.into()));
        }
        if let Some(interface) = child_of(&self.root, path) {
            return match self.interfaces() {
                true => self.interface(&interface.into()),
                false => Vec::new(),
            };
        }
        let metadata = path.strip_prefix(&format!("{}/metadata/", self.root));
        metadata.map_or_else(Vec::new, |rest| {
            let (interface, rest) = rest.split_once('/').unwrap_or((rest, ""));
            vec![Target::folder(&interface.into(), rest)]
        })
    }

    /// Whether the interface of this node is wanted.
    fn selects(&self, interface: &str) -> bool {
        (self.select)(&decode(interface))
    }

    /// Interfaces are not read if they are not wanted. Applications always are: only the catalogue
    /// knows the interfaces that their instances count for.
    fn if_wanted(&self, target: Target) -> Vec<Target> {
        let wanted = match &target {
            Target::Names(Place::Providers { interface } | Place::Configurators { interface }) => {
                self.interfaces() && self.selects(interface)
            }
            Target::Data(Place::Mapping { interface }) => {
                self.applications() && self.selects(interface)
            }
            Target::Instances(_) | Target::Data(Place::Instance { .. }) => self.applications(),
            _ => true,
        };
        if wanted { vec![target] } else { Vec::new() }
    }
}

/// The last segment of a path that is directly below `parent`.
fn child_of<'a>(parent: &str, path: &'a str) -> Option<&'a str> {
    let name = path.strip_prefix(parent)?.strip_prefix('/')?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The root of all is a slash; no other path ends with one.
fn absolute(path: &str) -> String {
    if path.is_empty() { "/" } else { path }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(root: &str, applications: &str, discovery: Discovery) -> Layout {
        Layout {
            root: root.trim_end_matches('/').to_owned(),
            applications: applications.trim_end_matches('/').to_owned(),
            discovery,
            select: Arc::new(|name| name != "unwanted"),
        }
    }

    fn both() -> Layout {
        layout("/dubbo", "/services", Discovery::Both)
    }

    /// The paths of what there is to read anew.
    fn concerned(layout: &Layout, path: &str, kind: Change) -> Vec<String> {
        let path = path.to_owned();
        let targets = layout.concerned(&Changed { path, kind });
        targets.iter().map(|target| layout.path(target)).collect()
    }

    #[test]
    fn an_event_leads_to_the_list_or_record_that_it_is_part_of() {
        let layout = both();
        for (path, kind, expected) in [
            ("/dubbo", Change::Created, &["/dubbo"][..]),
            ("/dubbo", Change::Children, &["/dubbo"]),
            ("/dubbo", Change::Data, &[]),
            (
                "/dubbo/a",
                Change::Created,
                &["/dubbo/a/providers", "/dubbo/a/configurators"],
            ),
            ("/dubbo/a", Change::Data, &[]),
            (
                "/dubbo/a/providers/x",
                Change::Created,
                &["/dubbo/a/providers"],
            ),
            (
                "/dubbo/a/providers/x",
                Change::Deleted,
                &["/dubbo/a/providers"],
            ),
            ("/dubbo/a/providers/x", Change::Data, &[]),
            ("/dubbo/a/consumers/x", Change::Created, &[]),
            ("/dubbo/unwanted/providers/x", Change::Created, &[]),
            ("/dubbo/config", Change::Created, &[]),
            (
                "/dubbo/config/dubbo/a.configurators",
                Change::Data,
                &["/dubbo/config/dubbo/a.configurators"],
            ),
            ("/dubbo/mapping/a", Change::Data, &["/dubbo/mapping/a"]),
            ("/dubbo/mapping/unwanted", Change::Data, &[]),
            (
                "/dubbo/metadata/a/1.0.0/provider/x",
                Change::Data,
                &["/dubbo/metadata/a/1.0.0/provider/x"],
            ),
            (
                "/dubbo/metadata/a",
                Change::Children,
                &["/dubbo/metadata/a"],
            ),
            ("/services", Change::Deleted, &["/services"]),
            ("/services/x", Change::Created, &["/services/x"]),
            ("/services/x/1:1", Change::Data, &["/services/x/1:1"]),
            ("/elsewhere/x", Change::Created, &[]),
        ] {
            assert_eq!(concerned(&layout, path, kind), expected, "{path} {kind:?}");
        }
    }

    #[test]
    fn what_is_not_discovered_concerns_nobody() {
        let interface = layout("/dubbo", "/services", Discovery::Interface);
        for path in ["/services/x/1:1", "/dubbo/mapping/a"] {
            assert!(concerned(&interface, path, Change::Created).is_empty());
        }
        assert_eq!(interface.trees(), ["/dubbo"]);
        let application = layout("/dubbo", "/services", Discovery::Application);
        for path in ["/dubbo/a", "/dubbo/a/providers/x"] {
            assert!(concerned(&application, path, Change::Created).is_empty());
        }
        assert!(application.trees().contains(&"/services".to_owned()));
        assert!(!application.trees().contains(&"/dubbo".to_owned()));
    }

    #[test]
    fn the_root_of_all_and_applications_below_the_root() {
        let top = layout("/", "/services/", Discovery::Both);
        assert_eq!(top.trees(), ["/"]);
        assert_eq!(top.path(&Target::Interfaces), "/");
        assert!(top.children(&Target::Interfaces, "services").is_empty());
        assert_eq!(top.children(&Target::Interfaces, "a").len(), 2);
        let created = Change::Created;
        assert_eq!(concerned(&top, "/a/providers/x", created), ["/a/providers"]);
        assert_eq!(concerned(&top, "/services/x", created), ["/services/x"]);
        let below = layout("/dubbo", "/dubbo/services", Discovery::Both);
        assert_eq!(below.trees(), ["/dubbo"]);
        assert!(below.children(&Target::Interfaces, "services").is_empty());
    }

    #[test]
    fn each_child_knows_its_list() {
        let layout = both();
        let mut lists = layout.lists();
        lists.push(Target::Instances("x".into()));
        for rest in ["", "1.0.0", "1.0.0/gray", "1.0.0/gray/provider", "provider"] {
            lists.push(Target::folder(&"a".into(), rest));
        }
        for list in lists {
            let name = match list {
                Target::Rules => "a.configurators",
                _ => "a",
            };
            let children = layout.children(&list, name);
            assert!(!children.is_empty(), "{list:?}");
            for child in children {
                assert_eq!(child.parent(), Some(list.clone()), "{child:?}");
            }
        }
        let deepest = Target::folder(&"a".into(), "1/2/3");
        assert!(layout.children(&deepest, "x").is_empty());
        let folder = Target::folder(&"a".into(), "1.0.0");
        assert!(layout.children(&folder, CONSUMER).is_empty());
    }
}
