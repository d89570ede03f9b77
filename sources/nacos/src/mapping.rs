//! From what a Nacos says to services.
//!
//! Pure: no I/O, no clock. The source tells a [`Directory`] what the services of a namespace hold,
//! and the directory tells which services of ours that makes.
//!
//! # Services
//!
//! - A service of Nacos is one of ours: its key has the namespace's id (`public` for the one without
//!   an id), the group and the name. It is listed without instances too.
//! - `providers:INTERFACE:VERSION:GROUP` is a part of an interface of Dubbo, as
//!   [`diolkos_source_dubbo`] makes it. Groups of Nacos are kept apart: a consumer in one sees no
//!   provider of another.
//! - Hosts with the metadata of an application of Dubbo are its instances. Others of that service,
//!   as Spring Cloud registers them under the same name, are a service as above.
//!
//! # Health
//!
//! A host gets traffic if it is healthy and enabled. What Nacos says while a service is under its
//! protection threshold, that all are healthy, is never believed (`standing`).

mod dubbo;
mod names;
mod plain;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use diolkos_model::{ContentHash, Hasher, Interner, Service, ServiceKey};
use diolkos_nacos::{Host, Name, ServiceInfo};
use diolkos_source_dubbo::{Catalog, Change, Discovery, Place, Registration};

use crate::{Config, Groups, Services};
use dubbo::Told;
use names::Kind;
use standing::{Known, Seen};

/// Strings that are not worth a sweep.
const FEW: usize = 1024;

/// All that one namespace of Nacos holds, and the services that it makes.
#[derive(Debug)]
pub struct Directory {
    config: Config,
    /// The id, or `public`.
    namespace: Arc<str>,
    entries: BTreeMap<Name, Entry>,
    /// Those under their protection threshold.
    protected: usize,
    /// Those that have something in a catalogue.
    in_catalogs: usize,
    /// Plain services that may be different from `told`.
    touched: BTreeSet<Name>,
    /// Plain services that were handed out, with hashes of them.
    told: HashMap<Name, ContentHash>,
    /// Services of Dubbo, by group of Nacos.
    catalogs: BTreeMap<Arc<str>, Catalog>,
    /// Rules and mappings, which are for all groups: also for those that turn up later.
    shared: BTreeMap<Place, Bytes>,
    interner: Interner,
    /// How many strings the interner had when it was last swept.
    swept: usize,
}

/// A service of Nacos.
#[derive(Debug, Default)]
struct Entry {
    /// Of all that was told of it.
    hash: Option<ContentHash>,
    protected: bool,
    known: Known,
    /// What it makes, apart from what it has in a catalogue.
    plain: Option<Service>,
    dubbo: Told,
}

impl Directory {
    /// A directory of a namespace with nothing in it.
    #[must_use]
    pub fn new(config: &Config, namespace: &str) -> Self {
        Self {
            config: config.clone(),
            namespace: names::namespace(namespace).into(),
            entries: BTreeMap::new(),
            protected: 0,
            in_catalogs: 0,
            touched: BTreeSet::new(),
            told: HashMap::new(),
            catalogs: BTreeMap::new(),
            shared: BTreeMap::new(),
            interner: Interner::new(),
            swept: 0,
        }
    }

    /// Whether a service of this name is read at all.
    #[must_use]
    pub fn takes(&self, name: &Name) -> bool {
        let Config {
            groups,
            services,
            dubbo,
            select,
            ..
        } = &self.config;
        let group = match groups {
            Groups::All => true,
            Groups::Named(named) => named.iter().any(|group| **group == *name.group),
        };
        let kind = match Kind::of(&name.service) {
            Kind::Nothing => false,
            Kind::Providers(variant) => {
                *services != Services::Other
                    && dubbo.discovery != Discovery::Application
                    && select(&variant.interface)
            }
            // Only the instances tell applications of Dubbo from others.
            Kind::Other => {
                let read = *services != Services::Dubbo || dubbo.discovery != Discovery::Interface;
                read && select(&name.service)
            }
        };
        group && kind
    }

    /// What Nacos says of a service, all of it. `health`: its hosts with their true health, where
    /// that had to be asked for since the service is under its protection threshold
    /// ([`ServiceInfo::protected`]) and the answer is there.
    pub fn set(&mut self, info: &ServiceInfo, health: Option<&[Host]>) {
        if !self.takes(&info.name) {
            return;
        }
        let hash = hash(info, health);
        let entry = self.entries.entry(info.name.clone()).or_default();
        if entry.hash.replace(hash) == Some(hash) {
            return;
        }
        let (mut seen, known) = standing::seen(info, health, &entry.known);
        entry.known = known;
        let before = std::mem::replace(&mut entry.protected, info.protected);
        self.protected = self.protected - usize::from(before) + usize::from(info.protected);
        let clusters = &self.config.clusters;
        seen.retain(|seen| clusters.is_empty() || clusters.contains(&seen.host.cluster));
        match Kind::of(&info.name.service) {
            Kind::Nothing => {}
            Kind::Providers(variant) => {
                let now = dubbo::providers(&info.name.service, &variant, &seen);
                self.set_providers(&info.name, &variant.interface, &now);
            }
            Kind::Other => self.set_service(info, &seen),
        }
    }

    /// A service is gone.
    pub fn remove(&mut self, name: &Name) {
        let Some(entry) = self.entries.remove(name) else {
            return;
        };
        self.protected -= usize::from(entry.protected);
        self.in_catalogs -= usize::from(entry.dubbo != Told::Nothing);
        self.touched.insert(name.clone());
        let Some(catalog) = self.catalogs.get_mut(&name.group) else {
            return;
        };
        match entry.dubbo {
            Told::Nothing => {}
            Told::Providers { interface, ids } => {
                for id in ids {
                    catalog.set_provider(&interface, id, None);
                }
            }
            Told::Application => catalog.set_registrations(&name.service, BTreeMap::new()),
        }
    }

    /// The providers that one service of Nacos holds; others may hold more of the interface.
    fn set_providers(
        &mut self,
        name: &Name,
        interface: &Arc<str>,
        now: &BTreeMap<ContentHash, Registration>,
    ) {
        let told = Told::Providers {
            interface: interface.clone(),
            ids: now.keys().copied().collect(),
        };
        let before = self.replace(name, told);
        let catalog = self.catalog(&name.group);
        let before = match before {
            Told::Providers { ids, .. } => ids,
            Told::Nothing | Told::Application => Vec::new(),
        };
        for gone in before.iter().filter(|id| !now.contains_key(*id)) {
            catalog.set_provider(interface, *gone, None);
        }
        for (id, provider) in now {
            catalog.set_provider(interface, *id, Some(provider));
        }
    }

    /// Any other service: it may be one of ours, an application of Dubbo, or both.
    fn set_service(&mut self, info: &ServiceInfo, seen: &[Seen<'_>]) {
        let name = &info.name;
        let of_application = |seen: &&Seen<'_>| dubbo::is_of_application(seen.host);
        let (application, plain): (Vec<_>, Vec<_>) = seen.iter().partition(of_application);
        let services = self.config.services;
        let is_plain = services != Services::Dubbo && (application.is_empty() || !plain.is_empty());
        let key = self.key(name);
        let made = is_plain.then(|| {
            let plain = plain.into_iter().cloned().collect::<Vec<_>>();
            plain::service(key, &plain, info.protected, &mut self.interner)
        });
        if let Some(entry) = self.entries.get_mut(name) {
            entry.plain = made;
        }
        self.touched.insert(name.clone());
        if services == Services::Other {
            return;
        }
        let told = if application.is_empty() {
            Told::Nothing
        } else {
            Told::Application
        };
        let before = self.replace(name, told);
        if before == Told::Application || !application.is_empty() {
            let instances = dubbo::instances(application.into_iter());
            self.catalog(&name.group)
                .set_registrations(&name.service, instances);
        }
    }

    /// Remembers what a service has in a catalogue; returns what it had there before.
    fn replace(&mut self, name: &Name, told: Told) -> Told {
        let Some(entry) = self.entries.get_mut(name) else {
            return Told::Nothing;
        };
        let now = usize::from(told != Told::Nothing);
        let before = std::mem::replace(&mut entry.dubbo, told);
        self.in_catalogs = self.in_catalogs + now - usize::from(before != Told::Nothing);
        before
    }

    fn catalog(&mut self, group: &Arc<str>) -> &mut Catalog {
        self.catalogs.entry(group.clone()).or_insert_with(|| {
            let namespaces = names::namespaces(&self.namespace, group);
            let mut catalog = Catalog::within(self.config.dubbo.clone(), namespaces);
            for (place, data) in &self.shared {
                catalog.set_data(place, Some(data.clone()));
            }
            catalog
        })
    }

    fn key(&self, name: &Name) -> ServiceKey {
        ServiceKey {
            registry: self.config.registry.clone(),
            namespace: self.namespace.clone(),
            group: name.group.clone(),
            name: name.service.clone(),
        }
    }

    /// Metadata of Dubbo in Nacos' configuration that is to be read, and told by
    /// [`Directory::set_data`]: [`Place::Revision`], and [`Place::Definitions`], which is all
    /// [`Place::Definition`]s of an interface. Each is named once, and again when instances of
    /// another revision or of another group turn up. Names are as Nacos writes them (`___` for the
    /// `$` of a nested class).
    pub fn wanted(&mut self) -> Vec<Place> {
        let wanted: BTreeSet<Place> = self
            .catalogs
            .values_mut()
            .flat_map(Catalog::wanted)
            .map(names::for_nacos)
            .collect();
        wanted.into_iter().collect()
    }

    /// What an item of the configuration holds; `None` if there is none (any more). Every
    /// [`Place::Rule`] and [`Place::Mapping`] is to be told, and what [`Directory::wanted`] names.
    pub fn set_data(&mut self, place: &Place, data: Option<Bytes>) {
        let place = names::of_nacos(place);
        for catalog in self.catalogs.values_mut() {
            catalog.set_data(&place, data.clone());
        }
        if matches!(place, Place::Rule { .. } | Place::Mapping { .. }) {
            match data {
                Some(data) => self.shared.insert(place, data),
                None => self.shared.remove(&place),
            };
        }
    }

    /// The services that are different since this was last called, each once.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for name in std::mem::take(&mut self.touched) {
            let plain = self.entries.get(&name).and_then(|e| e.plain.as_ref());
            match plain {
                Some(service) => {
                    let hash = service.content_hash();
                    if self.told.insert(name, hash) != Some(hash) {
                        changes.push(Change::Upsert(service.clone()));
                    }
                }
                None if self.told.remove(&name).is_some() => {
                    changes.push(Change::Remove(self.key(&name)));
                }
                None => {}
            }
        }
        changes.extend(self.catalogs.values_mut().flat_map(Catalog::take_changes));
        if self.interner.len().0 > 2 * self.swept + FEW {
            self.sweep();
        }
        changes
    }

    /// All services. Those are no changes any more after this.
    pub fn snapshot(&mut self) -> Vec<Service> {
        self.touched.clear();
        self.told.clear();
        let mut all = Vec::new();
        for (name, entry) in &self.entries {
            if let Some(service) = &entry.plain {
                self.told.insert(name.clone(), service.content_hash());
                all.push(service.clone());
            }
        }
        all.extend(self.catalogs.values_mut().flat_map(Catalog::snapshot));
        self.sweep();
        all
    }

    /// Lets go of strings that nobody uses any more.
    fn sweep(&mut self) {
        self.interner.sweep();
        self.swept = self.interner.len().0;
    }

    /// Whether the namespace has anything of Dubbo, so that rules, mappings and metadata in its
    /// configuration count.
    #[must_use]
    pub fn needs_metadata(&self) -> bool {
        self.in_catalogs > 0
    }

    /// How many services are under their protection threshold.
    #[must_use]
    pub fn protected(&self) -> usize {
        self.protected
    }

    /// Whether instances of a service of Nacos may count for this service of ours: what cannot be
    /// read of the one casts doubt on the other.
    #[must_use]
    pub fn concerns(&self, name: &Name, key: &ServiceKey) -> bool {
        let namespaces = names::namespaces(&self.namespace, &name.group);
        let of_interface = key.namespace == namespaces.interfaces;
        match Kind::of(&name.service) {
            Kind::Nothing => false,
            Kind::Providers(variant) => of_interface && interface(key) == &*variant.interface,
            Kind::Other => {
                let provides = || match self.catalogs.get(&name.group) {
                    Some(catalog) => catalog.provides(&name.service, interface(key)),
                    // Nothing is known of Dubbo in this group yet.
                    None => !self.is_plain(key),
                };
                let of_application =
                    key.namespace == namespaces.applications && key.name == name.service;
                *key == self.key(name) || of_application || of_interface && provides()
            }
        }
    }

    /// Whether the configuration (mappings, metadata) may name instances of this service: an
    /// interface of Dubbo, where registrations of applications are read.
    #[must_use]
    pub fn rests_on_metadata(&self, key: &ServiceKey) -> bool {
        let is_read = self.config.services != Services::Other
            && self.config.dubbo.discovery != Discovery::Interface;
        is_read && names::is_of_interfaces(&self.namespace, &key.namespace) && !self.is_plain(key)
    }

    /// Whether this is the key of a plain service, as far as is known.
    fn is_plain(&self, key: &ServiceKey) -> bool {
        let name = Name {
            group: key.group.clone(),
            service: key.name.clone(),
        };
        let entry = self.entries.get(&name);
        entry.is_some_and(|entry| entry.plain.is_some()) && *key == self.key(&name)
    }
}

/// The interface of a key, which may have a version after it.
fn interface(key: &ServiceKey) -> &str {
    key.name
        .split_once(':')
        .map_or(&*key.name, |(interface, _)| interface)
}

/// Of all that counts: not of the time at which it was said.
fn hash(info: &ServiceInfo, health: Option<&[Host]>) -> ContentHash {
    let mut hasher = Hasher::new();
    hasher.u64(info.protected.into());
    let health = health.filter(|_| info.protected);
    for hosts in [Some(&*info.hosts), health] {
        hasher.u64(hosts.map_or(u64::MAX, |hosts| hosts.len() as u64));
        for host in hosts.unwrap_or_default() {
            dubbo::hash_host(&mut hasher, host);
        }
    }
    hasher.finish()
}
