//! All that the registry holds, and the services that it makes.

mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use diolkos_model::{ContentHash, Interner, Service, ServiceKey};

use crate::{Discovery, Namespaces, Options, Place, Registration};
use store::{Origin, Store, Told};

/// A service that may be different from when it was last taken.
#[derive(Clone, Debug)]
pub enum Change {
    /// As it is now.
    Upsert(Service),
    /// It has no instances any more.
    Remove(ServiceKey),
}

/// All that the registry holds, and the services that it makes.
///
/// # What a source tells
///
/// - Lists of URLs: [`Catalog::set_children`] for a list that was read, [`Catalog::add_child`] and
///   [`Catalog::remove_child`] where the registry tells single changes.
/// - [`Place::Rule`] and, unless the registration of applications is not read
///   ([`Discovery::Interface`]), every [`Place::Mapping`]: [`Catalog::set_data`].
/// - Instances of applications: [`Catalog::set_instances`] for all of one application, or
///   [`Catalog::set_data`] with [`Place::Instance`] for one.
/// - What [`Catalog::wanted`] names, then or later, and changes of it: [`Catalog::set_data`].
///
/// The order does not matter. What was told stays until it is told anew, gone included. Only
/// metadata of a revision that no instance names is let go, when that of another one is told: it is
/// wanted again if an instance names it. What cannot be read costs itself only.
#[derive(Debug)]
pub struct Catalog {
    store: Store,
    /// What may be different from `told`.
    touched: BTreeSet<Origin>,
    /// The services that were handed out, with hashes of them.
    told: BTreeMap<Origin, Vec<(ServiceKey, ContentHash)>>,
    wanted: BTreeSet<Place>,
    interner: Interner,
    /// How many strings the interner had when it was last swept.
    swept: usize,
}

impl Catalog {
    /// A catalogue with nothing in it.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self::within(options, Namespaces::default())
    }

    /// A catalogue of one partition of a registry, with nothing in it.
    #[must_use]
    pub fn within(options: Options, namespaces: Namespaces) -> Self {
        Self {
            store: Store::new(options, namespaces),
            touched: BTreeSet::new(),
            told: BTreeMap::new(),
            wanted: BTreeSet::new(),
            interner: Interner::new(),
            swept: 0,
        }
    }

    /// The names of the children at [`Place::Providers`] or [`Place::Configurators`]: all of them.
    /// None: the place is empty or gone.
    pub fn set_children(&mut self, place: &Place, names: Vec<String>) {
        let names: BTreeMap<ContentHash, String> =
            names.into_iter().map(|name| (hash(&name), name)).collect();
        for gone in self.store.children_but(place, &names) {
            self.change_child(place, gone, None);
        }
        for (hash, name) in &names {
            self.change_child(place, *hash, Some(name));
        }
    }

    /// One more child at such a place.
    pub fn add_child(&mut self, place: &Place, name: &str) {
        self.change_child(place, hash(name), Some(name));
    }

    /// One child less at such a place.
    pub fn remove_child(&mut self, place: &Place, name: &str) {
        self.change_child(place, hash(name), None);
    }

    /// A provider in a registry that keeps the parts of URLs; `None` when it is gone. `id` is the
    /// hash of all that the registry has of it: a provider that changes is another one.
    pub fn set_provider(&mut self, interface: &str, id: ContentHash, told: Option<&Registration>) {
        let place = Place::Providers {
            interface: interface.into(),
        };
        if self.reads(&place) {
            let told = told.map(Told::Parts);
            let store = &mut self.store;
            let touched = store.set_provider(interface, id, told, &mut self.interner);
            self.touched.extend(touched);
        }
    }

    fn change_child(&mut self, place: &Place, hash: ContentHash, name: Option<&str>) {
        if !self.reads(place) {
            return;
        }
        let touched = match place {
            Place::Providers { interface } => {
                let name = name.map(Told::Name);
                self.store
                    .set_provider(interface, hash, name, &mut self.interner)
            }
            Place::Configurators { interface } => {
                self.store
                    .set_override(interface, hash, name, &mut self.interner)
            }
            _ => None,
        };
        self.touched.extend(touched);
    }

    /// The data of a node at any other place; `None` when it is gone.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "sources have it to give away, as they have lists"
    )]
    pub fn set_data(&mut self, place: &Place, data: Option<Bytes>) {
        if !self.reads(place) {
            return;
        }
        let data = data.as_deref();
        let (store, interner) = (&mut self.store, &mut self.interner);
        let effect = match place {
            Place::Rule { key } => store.set_rule(key, data),
            Place::Mapping { interface } => store.set_mapping(interface, data, interner),
            Place::Revision {
                application,
                revision,
            } => store.set_revision(application, revision, data, interner),
            Place::Definition {
                interface,
                version,
                group,
                application,
            } => {
                let variant = (version.clone(), group.clone());
                store.set_definition(interface, variant, application, data, interner)
            }
            Place::Instance { application, id } => {
                store.set_instance(application, id, data, interner)
            }
            Place::Providers { .. } | Place::Configurators { .. } | Place::Definitions { .. } => {
                return;
            }
        };
        self.touched.extend(effect.touched);
        self.wanted.extend(effect.wanted);
    }

    /// All instances of an application.
    pub fn set_instances(&mut self, application: &str, records: BTreeMap<Arc<str>, Bytes>) {
        let application: Arc<str> = application.into();
        let place = |id| Place::Instance {
            application: application.clone(),
            id,
        };
        let gone = self.store.instances_but(&application, &records);
        for (id, record) in records {
            self.set_data(&place(id), Some(record));
        }
        for id in gone {
            self.set_data(&place(id), None);
        }
    }

    /// All instances of an application, in a registry that keeps the parts of records.
    pub fn set_registrations(
        &mut self,
        application: &str,
        registrations: BTreeMap<Arc<str>, Registration>,
    ) {
        let place = |id| Place::Instance {
            application: application.into(),
            id,
        };
        if !self.reads(&place("".into())) {
            return;
        }
        for gone in self.store.instances_but(application, &registrations) {
            self.set_data(&place(gone), None);
        }
        for (id, parts) in registrations {
            let store = &mut self.store;
            let effect = store.set_registration(application, &id, parts, &mut self.interner);
            self.touched.extend(effect.touched);
            self.wanted.extend(effect.wanted);
        }
    }

    /// Metadata that instances refer to and that was not told yet: worth reading.
    ///
    /// - [`Place::Revision`]: to be read and told.
    /// - [`Place::Definitions`], a directory: to be searched to the bottom, and every
    ///   [`Place::Definition`] below it ([`Place::parse`] knows them) to be read and told. A source
    ///   that follows this part of the registry anyway need not.
    ///
    /// Each is named once, and again when instances of another revision turn up: what an
    /// application published may have changed with its release. A source that cannot read it at the
    /// moment has to remember that itself.
    pub fn wanted(&mut self) -> Vec<Place> {
        let wanted = std::mem::take(&mut self.wanted);
        wanted.into_iter().collect()
    }

    /// The services that may be different since this was last called, each once. Those that turn
    /// out to be the same are left out.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for origin in std::mem::take(&mut self.touched) {
            let services = self.store.services(&origin, &mut self.interner);
            let before = self.tell(origin, &services);
            let gone = before
                .iter()
                .filter(|(key, _)| !services.iter().any(|service| service.key == *key));
            changes.extend(gone.map(|(key, _)| Change::Remove(key.clone())));
            let same = |service: &Service| {
                let told = before.iter().find(|(key, _)| *key == service.key);
                told.is_some_and(|(_, hash)| *hash == service.content_hash())
            };
            changes.extend(
                services
                    .into_iter()
                    .filter(|service| !same(service))
                    .map(Change::Upsert),
            );
        }
        self.sweep();
        changes
    }

    /// All services with at least one instance. Those are no changes any more after this.
    pub fn snapshot(&mut self) -> Vec<Service> {
        self.touched.clear();
        self.told.clear();
        let mut all = Vec::new();
        for origin in self.store.origins() {
            let services = self.store.services(&origin, &mut self.interner);
            self.tell(origin, &services);
            all.extend(services);
        }
        self.interner.sweep();
        self.swept = self.interner.len().0;
        all
    }

    /// Whether instances of an application count for an interface, as far as is known. For a source
    /// that cannot read the application: this interface may have more instances.
    #[must_use]
    pub fn provides(&self, application: &str, interface: &str) -> bool {
        self.store.provides(application, interface)
    }

    /// Whether this way of registering is read.
    fn reads(&self, place: &Place) -> bool {
        match (self.store.options.discovery, place) {
            (Discovery::Both, _) => true,
            (_, Place::Configurators { .. } | Place::Rule { .. }) => true,
            (Discovery::Interface, place) => matches!(place, Place::Providers { .. }),
            (Discovery::Application, place) => !matches!(place, Place::Providers { .. }),
        }
    }

    /// Remembers what is told of an origin; returns what was told before.
    fn tell(&mut self, origin: Origin, services: &[Service]) -> Vec<(ServiceKey, ContentHash)> {
        let told: Vec<_> = services
            .iter()
            .map(|service| (service.key.clone(), service.content_hash()))
            .collect();
        let before = if told.is_empty() {
            self.told.remove(&origin)
        } else {
            self.told.insert(origin, told)
        };
        before.unwrap_or_default()
    }

    /// Lets go of strings that nobody uses any more, once there may be as many as others.
    fn sweep(&mut self) {
        const FEW: usize = 1024;
        if self.interner.len().0 > 2 * self.swept + FEW {
            self.interner.sweep();
            self.swept = self.interner.len().0;
        }
    }
}

/// Names are long, and only ever compared.
fn hash(name: &str) -> ContentHash {
    ContentHash::of(name.as_bytes())
}
