//! What was told, in the form that services are made of, and which services each piece touches.

mod services;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use diolkos_model::{ContentHash, Interner};

use crate::{
    Namespaces, Options, Place,
    application::{Exported, Record, RecordError, Storage},
    provider::{Provider, Registration, Standing},
    rules::{self, Level, Rule},
    url::{ProviderUrl, UrlError, decode},
};

/// What services are made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// An interface: one service or, by variant, several.
    Interface(Arc<str>),
    /// An application: one service.
    Application(Arc<str>),
}

/// What came of telling something.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) touched: Vec<Origin>,
    pub(super) wanted: Vec<Place>,
}

impl Effect {
    fn touching(touched: Vec<Origin>) -> Self {
        Self {
            touched,
            wanted: Vec::new(),
        }
    }
}

/// A child of a list of providers.
#[derive(Debug)]
enum Node {
    Provider(Box<Provider>),
    /// And why.
    Unreadable(Arc<str>),
}

/// A child of a list of providers, as a registry tells it.
#[derive(Clone, Copy)]
pub(super) enum Told<'a> {
    /// The encoded URL.
    Name(&'a str),
    Parts(&'a Registration),
}

impl Node {
    /// `None` if it is of no interest.
    fn new(told: Told<'_>, options: &Options, interner: &mut Interner) -> Option<Self> {
        let (url, standing) = match told {
            Told::Name(name) => (
                ProviderUrl::parse(name).map(Cow::Owned),
                Standing::default(),
            ),
            Told::Parts(Registration { url, standing }) if !url.host.is_empty() => {
                (Ok(Cow::Borrowed(url)), standing.clone())
            }
            Told::Parts(_) => (Err(UrlError::NoHost), Standing::default()),
        };
        match url {
            Ok(url) => Provider::is_one(&url).then(|| {
                Self::Provider(Box::new(Provider {
                    standing,
                    ..Provider::new(&url, options, interner)
                }))
            }),
            Err(why) => Some(Self::Unreadable(
                format!("not a provider URL: {why}").into(),
            )),
        }
    }
}

#[derive(Debug, Default)]
struct Interface {
    /// Sorted by the hash of the node's name, so that the order of telling leaves no trace.
    providers: Vec<(ContentHash, Node)>,
    /// Sorted likewise.
    overrides: Vec<(ContentHash, Rule)>,
    /// The applications that the mapping names.
    applications: BTreeSet<Arc<str>>,
    /// What applications published, by application and the variant in the path.
    definitions: BTreeMap<(Arc<str>, Variant), Exported>,
    /// Applications and their revisions whose metadata names the interface.
    revisions: BTreeSet<(Arc<str>, Arc<str>)>,
}

/// Version and group, as a path has them.
type Variant = (Arc<str>, Arc<str>);

impl Interface {
    fn is_empty(&self) -> bool {
        self.providers.is_empty()
            && self.overrides.is_empty()
            && self.applications.is_empty()
            && self.definitions.is_empty()
            && self.revisions.is_empty()
    }
}

#[derive(Debug, Default)]
struct Application {
    /// By the node's name; why it is none where it cannot be read.
    instances: BTreeMap<Arc<str>, Result<Record, Arc<str>>>,
    /// The interfaces of a revision.
    revisions: BTreeMap<Arc<str>, Vec<(Arc<str>, Exported)>>,
    /// The interfaces whose mapping names it.
    interfaces: BTreeSet<Arc<str>>,
}

impl Application {
    fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.revisions.is_empty() && self.interfaces.is_empty()
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.instances
            .values()
            .filter_map(|record| record.as_ref().ok())
    }

    fn has(&self, storage: &Storage) -> bool {
        self.records().any(|record| record.metadata_in == *storage)
    }

    /// The interfaces that instances with this metadata count for.
    fn interfaces_of(&self, storage: &Storage) -> Vec<Arc<str>> {
        match storage {
            Storage::Local(_) => self.interfaces.iter().cloned().collect(),
            Storage::Remote(revision) => {
                let exported = self.revisions.get(revision).into_iter().flatten();
                exported.map(|(interface, _)| interface.clone()).collect()
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) options: Options,
    namespaces: Namespaces,
    interfaces: HashMap<Arc<str>, Interface>,
    applications: HashMap<Arc<str>, Application>,
    /// By the first part of the key, which is an interface or an application, and by the key.
    rules: HashMap<Box<str>, BTreeMap<Arc<str>, Vec<Rule>>>,
}

impl Store {
    pub(super) fn new(options: Options, namespaces: Namespaces) -> Self {
        Self {
            options,
            namespaces,
            interfaces: HashMap::new(),
            applications: HashMap::new(),
            rules: HashMap::new(),
        }
    }

    /// The children of a list that are not among these.
    pub(super) fn children_but(
        &self,
        place: &Place,
        names: &BTreeMap<ContentHash, String>,
    ) -> Vec<ContentHash> {
        fn but<T>(
            list: &[(ContentHash, T)],
            names: &BTreeMap<ContentHash, String>,
        ) -> Vec<ContentHash> {
            let hashes = list.iter().map(|(hash, _)| *hash);
            hashes.filter(|hash| !names.contains_key(hash)).collect()
        }
        let at = |interface: &str| self.interfaces.get(&*decode(interface));
        match place {
            Place::Providers { interface } => {
                at(interface).map(|known| but(&known.providers, names))
            }
            Place::Configurators { interface } => {
                at(interface).map(|known| but(&known.overrides, names))
            }
            _ => None,
        }
        .unwrap_or_default()
    }

    /// The instances of an application that are not among these.
    pub(super) fn instances_but<T>(
        &self,
        application: &str,
        records: &BTreeMap<Arc<str>, T>,
    ) -> Vec<Arc<str>> {
        let known = self.applications.get(application);
        let ids = known.into_iter().flat_map(|known| known.instances.keys());
        ids.filter(|id| !records.contains_key(*id))
            .cloned()
            .collect()
    }

    pub(super) fn set_provider(
        &mut self,
        interface: &str,
        hash: ContentHash,
        told: Option<Told<'_>>,
        interner: &mut Interner,
    ) -> Option<Origin> {
        let interface = interner.string(&decode(interface));
        let known = self.interfaces.entry(interface.clone()).or_default();
        let options = &self.options;
        let touched = set(&mut known.providers, hash, told, |told| {
            Node::new(told, options, interner)
        });
        self.tidy(&interface);
        touched.then_some(Origin::Interface(interface))
    }

    pub(super) fn set_override(
        &mut self,
        interface: &str,
        hash: ContentHash,
        name: Option<&str>,
        interner: &mut Interner,
    ) -> Option<Origin> {
        let interface = interner.string(&decode(interface));
        let known = self.interfaces.entry(interface.clone()).or_default();
        let touched = set(&mut known.overrides, hash, name, |name| {
            let url = ProviderUrl::parse(name)
                .inspect_err(|why| tracing::warn!(%interface, %why, "not a configurator"))
                .ok()?;
            Rule::of_url(&url, &interface, hash.0)
        });
        self.tidy(&interface);
        touched.then_some(Origin::Interface(interface))
    }

    pub(super) fn set_rule(&mut self, key: &Arc<str>, data: Option<&[u8]>) -> Effect {
        let parsed = data
            .map(|data| rules::parse_document(key, data))
            .transpose();
        let rules = parsed
            .inspect_err(
                |why| tracing::warn!(%key, %why, "a rule cannot be read and has no effect"),
            )
            .unwrap_or_default()
            .unwrap_or_default();
        let subject = subject(key);
        let of_application = |rules: &[Rule]| {
            rules
                .iter()
                .any(|rule| rule.order.level == Level::Application)
        };
        let wide = of_application(&rules);
        let known = self.rules.entry(subject.into()).or_default();
        let before = if rules.is_empty() {
            known.remove(key)
        } else {
            known.insert(key.clone(), rules)
        };
        if known.is_empty() {
            self.rules.remove(subject);
        }
        let before = before.unwrap_or_default();
        let mut touched = vec![Origin::Interface(subject.into())];
        if wide || of_application(&before) {
            touched.extend(self.provided_by(subject));
        }
        Effect::touching(touched)
    }

    /// The interfaces that an application provides. Walks over all of them: rules for
    /// applications hardly ever change, and this takes less than a millisecond for 20,000
    /// providers.
    fn provided_by(&self, application: &str) -> Vec<Origin> {
        let provides =
            |interface: &Interface| {
                interface.applications.contains(application)
                || interface.revisions.iter().any(|(name, _)| **name == *application)
                || interface.providers.iter().any(|(_, node)| {
                    matches!(node, Node::Provider(p) if *p.application == *application)
                })
            };
        self.interfaces
            .iter()
            .filter(|(_, interface)| provides(interface))
            .map(|(name, _)| Origin::Interface(name.clone()))
            .collect()
    }

    /// Whether the mapping or the metadata of an application names an interface.
    pub(super) fn provides(&self, application: &str, interface: &str) -> bool {
        self.interfaces.get(interface).is_some_and(|known| {
            let mut revisions = known.revisions.iter();
            known.applications.contains(application)
                || revisions.any(|(name, _)| **name == *application)
        })
    }

    pub(super) fn set_mapping(
        &mut self,
        interface: &str,
        data: Option<&[u8]>,
        interner: &mut Interner,
    ) -> Effect {
        let interface = interner.string(&decode(interface));
        let names = String::from_utf8_lossy(data.unwrap_or_default());
        let names: BTreeSet<Arc<str>> = names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(|name| interner.string(name))
            .collect();
        let known = self.interfaces.entry(interface.clone()).or_default();
        let before = std::mem::replace(&mut known.applications, names.clone());
        if before == names {
            self.tidy(&interface);
            return Effect::default();
        }
        let mut effect = Effect::touching(vec![Origin::Interface(interface.clone())]);
        for gone in before.difference(&names) {
            if let Some(application) = self.applications.get_mut(gone) {
                application.interfaces.remove(&interface);
            }
            self.tidy_application(gone);
        }
        for new in names.difference(&before) {
            let application = self.applications.entry(new.clone()).or_default();
            application.interfaces.insert(interface.clone());
            let local = |record: &Record| matches!(record.metadata_in, Storage::Local(_));
            if application.records().any(local) {
                effect.wanted.push(definitions(&interface));
            }
        }
        self.tidy(&interface);
        effect
    }

    pub(super) fn set_definition(
        &mut self,
        interface: &str,
        variant: Variant,
        application: &str,
        data: Option<&[u8]>,
        interner: &mut Interner,
    ) -> Effect {
        let interface = interner.string(&decode(interface));
        let application = interner.string(application);
        let exported = data.and_then(|data| {
            Exported::of_definition(data, &self.options)
                .inspect_err(|error| {
                    tracing::warn!(%interface, %application, %error, "a definition cannot be read");
                })
                .ok()
                .flatten()
        });
        let known = self.interfaces.entry(interface.clone()).or_default();
        let key = (application, variant);
        let same = known.definitions.get(&key) == exported.as_ref();
        match exported {
            Some(exported) => known.definitions.insert(key, exported),
            None => known.definitions.remove(&key),
        };
        self.tidy(&interface);
        let touched = (!same).then_some(Origin::Interface(interface));
        Effect::touching(touched.into_iter().collect())
    }

    pub(super) fn set_revision(
        &mut self,
        application: &str,
        revision: &str,
        data: Option<&[u8]>,
        interner: &mut Interner,
    ) -> Effect {
        let application = interner.string(application);
        let revision = interner.string(revision);
        let exported = data.and_then(|data| {
            Exported::of_revision(data, &self.options)
                .inspect_err(|error| {
                    tracing::debug!(%application, %revision, %error, "not a revision's metadata");
                })
                .ok()
        });
        let exported = exported.map(|list| {
            let intern = |(name, exported): (String, _)| (interner.string(&name), exported);
            list.into_iter().map(intern).collect::<Vec<_>>()
        });
        for old in self.unused_revisions(&application, &revision) {
            // No instance, so no service that this touches.
            self.replace_revision(&application, &old, None);
        }
        Effect::touching(self.replace_revision(&application, &revision, exported))
    }

    /// Revisions that no instance names any more, except for one. They are not let go together
    /// with their last instance: that may just be restarting.
    fn unused_revisions(&self, application: &str, except: &Arc<str>) -> Vec<Arc<str>> {
        let Some(known) = self.applications.get(application) else {
            return Vec::new();
        };
        let unused = |revision: &&Arc<str>| {
            *revision != except && !known.has(&Storage::Remote((*revision).clone()))
        };
        known.revisions.keys().filter(unused).cloned().collect()
    }

    /// Returns the interfaces that the revision named, and those that it names now.
    fn replace_revision(
        &mut self,
        application: &Arc<str>,
        revision: &Arc<str>,
        exported: Option<Vec<(Arc<str>, Exported)>>,
    ) -> Vec<Origin> {
        let names = |list: &[(Arc<str>, Exported)]| -> BTreeSet<Arc<str>> {
            list.iter().map(|(name, _)| name.clone()).collect()
        };
        let now = names(exported.as_deref().unwrap_or_default());
        let known = self.applications.entry(application.clone()).or_default();
        let before = match exported {
            Some(exported) => known.revisions.insert(revision.clone(), exported),
            None => known.revisions.remove(revision),
        };
        let before = names(&before.unwrap_or_default());
        let pair = (application.clone(), revision.clone());
        for gone in before.difference(&now) {
            if let Some(interface) = self.interfaces.get_mut(gone) {
                interface.revisions.remove(&pair);
            }
            self.tidy(gone);
        }
        for new in now.difference(&before) {
            let interface = self.interfaces.entry(new.clone()).or_default();
            interface.revisions.insert(pair.clone());
        }
        self.tidy_application(application);
        before.union(&now).cloned().map(Origin::Interface).collect()
    }

    pub(super) fn set_instance(
        &mut self,
        application: &str,
        id: &Arc<str>,
        data: Option<&[u8]>,
        interner: &mut Interner,
    ) -> Effect {
        let record = data.map(|data| Record::parse(data, &self.options));
        self.set_record(application, id, record, interner)
    }

    /// As [`Store::set_instance`], of a registry that keeps the parts.
    pub(super) fn set_registration(
        &mut self,
        application: &str,
        id: &Arc<str>,
        parts: Registration,
        interner: &mut Interner,
    ) -> Effect {
        let record = Record::of_parts(parts, &self.options);
        self.set_record(application, id, Some(record), interner)
    }

    fn set_record(
        &mut self,
        application: &str,
        id: &Arc<str>,
        record: Option<Result<Record, RecordError>>,
        interner: &mut Interner,
    ) -> Effect {
        let application = interner.string(application);
        let record = record.map(|record| {
            record.map_err(|why| Arc::<str>::from(format!("not an instance's record: {why}")))
        });
        let known = self.applications.entry(application.clone()).or_default();
        if known.instances.get(id) == record.as_ref() {
            self.tidy_application(&application);
            return Effect::default();
        }
        let storage = |record: Option<&Result<Record, Arc<str>>>| {
            Some(record?.as_ref().ok()?.metadata_in.clone())
        };
        let now = storage(record.as_ref());
        let wanted = now.as_ref().filter(|now| !known.has(now)).cloned();
        let before = match record {
            Some(record) => known.instances.insert(id.clone(), record),
            None => known.instances.remove(id),
        };
        let before = storage(before.as_ref());
        let mut touched = vec![Origin::Application(application.clone())];
        for storage in [&before, &now].into_iter().flatten() {
            touched.extend(
                known
                    .interfaces_of(storage)
                    .into_iter()
                    .map(Origin::Interface),
            );
        }
        let wanted = wanted.map(|storage| known.wanted(&application, &storage));
        self.tidy_application(&application);
        Effect {
            touched,
            wanted: wanted.unwrap_or_default(),
        }
    }

    fn tidy(&mut self, interface: &str) {
        if self
            .interfaces
            .get(interface)
            .is_some_and(Interface::is_empty)
        {
            self.interfaces.remove(interface);
        }
    }

    fn tidy_application(&mut self, application: &str) {
        let known = self.applications.get(application);
        if known.is_some_and(Application::is_empty) {
            self.applications.remove(application);
        }
    }
}

impl Application {
    /// What to read for instances with this metadata, which are the first ones.
    fn wanted(&self, name: &Arc<str>, storage: &Storage) -> Vec<Place> {
        match storage {
            Storage::Local(_) => self.interfaces.iter().map(definitions).collect(),
            Storage::Remote(revision) if self.revisions.contains_key(revision) => Vec::new(),
            Storage::Remote(revision) => vec![Place::Revision {
                application: name.clone(),
                revision: revision.clone(),
            }],
        }
    }
}

/// Sets or removes an element of a sorted list; `make` may refuse it. Returns whether it changed.
fn set<T, N>(
    list: &mut Vec<(ContentHash, T)>,
    hash: ContentHash,
    name: Option<N>,
    make: impl FnOnce(N) -> Option<T>,
) -> bool {
    match (list.binary_search_by_key(&hash, |(hash, _)| *hash), name) {
        (Ok(index), None) => {
            list.remove(index);
            true
        }
        (Err(index), Some(name)) => match make(name) {
            Some(item) => {
                list.insert(index, (hash, item));
                true
            }
            None => false,
        },
        // Same name, same thing.
        (Ok(_), Some(_)) | (Err(_), None) => false,
    }
}

/// The interface or the application that a rule's key is about.
fn subject(key: &str) -> &str {
    key.split_once(':').map_or(key, |(subject, _)| subject)
}

/// Java writes the names of nested classes with a `$`, which Dubbo encodes in these paths.
fn definitions(interface: &Arc<str>) -> Place {
    Place::Definitions {
        interface: interface.replace('$', "%24").into(),
    }
}
