//! The services that what was told makes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use diolkos_model::{Interner, Service};

use super::{Application, Interface, Node, Origin, Store};
use crate::{
    application::{Exported, Record, Storage},
    mapping::{self, Context, Seen, Unreadable},
    rules::Rule,
};

impl Store {
    /// Everything that may make services, in a fixed order.
    pub(in crate::catalog) fn origins(&self) -> BTreeSet<Origin> {
        let interfaces = self.interfaces.keys().cloned().map(Origin::Interface);
        let applications = self.applications.keys().cloned().map(Origin::Application);
        interfaces.chain(applications).collect()
    }

    /// The services of an origin that have instances.
    pub(in crate::catalog) fn services(
        &self,
        origin: &Origin,
        interner: &mut Interner,
    ) -> Vec<Service> {
        let mut services = match origin {
            Origin::Interface(name) => self.interface(name, interner),
            Origin::Application(name) => self.application(name, interner).into_iter().collect(),
        };
        services.retain(|service| !service.instances.is_empty());
        services
    }

    fn interface(&self, name: &Arc<str>, interner: &mut Interner) -> Vec<Service> {
        let Some(known) = self.interfaces.get(name) else {
            return Vec::new();
        };
        let mut seen = Vec::new();
        let mut unreadable = Vec::new();
        for (hash, node) in &known.providers {
            match node {
                Node::Provider(provider) => seen.push(Seen {
                    provider: Cow::Borrowed(provider),
                    of_interface: true,
                }),
                Node::Unreadable(why) => unreadable.push(Unreadable {
                    id: format!("unreadable/{hash}").into(),
                    why: why.clone(),
                }),
            }
        }
        seen.extend(self.by_application(name, known, interner));
        let rules = self.rules(name, known, &seen);
        mapping::interface(name, &seen, &unreadable, &rules, self.context(), interner)
    }

    /// The instances of applications that provide an interface.
    fn by_application(
        &self,
        name: &Arc<str>,
        known: &Interface,
        interner: &mut Interner,
    ) -> Vec<Seen<'static>> {
        let mut providers = Vec::new();
        for ((application, _), exported) in &known.definitions {
            if !known.applications.contains(application) {
                continue;
            }
            for record in self.records(application) {
                if matches!(record.metadata_in, Storage::Local(_)) {
                    providers.extend(record.providers_of(
                        exported,
                        application,
                        &self.options,
                        interner,
                    ));
                }
            }
        }
        for (application, revision) in &known.revisions {
            let exported = self.exported(application, revision, name);
            for record in self.records(application) {
                if record.metadata_in == Storage::Remote(revision.clone()) {
                    providers.extend(exported.clone().flat_map(|exported| {
                        record.providers_of(exported, application, &self.options, interner)
                    }));
                }
            }
        }
        providers
            .into_iter()
            .map(|provider| Seen {
                provider: Cow::Owned(provider),
                of_interface: false,
            })
            .collect()
    }

    fn records(&self, application: &str) -> impl Iterator<Item = &Record> {
        let known = self.applications.get(application);
        known.into_iter().flat_map(Application::records)
    }

    /// What a revision says of an interface.
    fn exported<'a>(
        &'a self,
        application: &str,
        revision: &str,
        interface: &'a str,
    ) -> impl Iterator<Item = &'a Exported> + Clone + use<'a> {
        let application = self.applications.get(application);
        let list = application.and_then(|known| known.revisions.get(revision));
        list.into_iter()
            .flatten()
            .filter(move |(name, _)| **name == *interface)
            .map(|(_, exported)| exported)
    }

    /// The rules that may concern providers of an interface, in their order.
    fn rules<'a>(
        &'a self,
        interface: &str,
        known: &'a Interface,
        seen: &[Seen<'_>],
    ) -> Vec<&'a Rule> {
        let applications = seen.iter().map(|seen| &*seen.provider.application);
        let subjects: BTreeSet<&str> = applications.chain([interface]).collect();
        let documents = subjects
            .iter()
            .filter_map(|subject| self.rules.get(*subject))
            .flat_map(BTreeMap::values)
            .flatten();
        let overrides = known.overrides.iter().map(|(_, rule)| rule);
        let mut rules: Vec<&Rule> = overrides.chain(documents).collect();
        rules.sort_by(|a, b| a.order.cmp(&b.order));
        rules
    }

    fn application(&self, name: &Arc<str>, interner: &mut Interner) -> Option<Service> {
        let known = self.applications.get(name)?;
        let mut instances = Vec::new();
        let mut unreadable = Vec::new();
        for (id, record) in &known.instances {
            match record {
                Ok(record) => {
                    let providers = record.providers(name, &self.options, interner);
                    instances.push((id.clone(), providers));
                }
                Err(why) => unreadable.push(Unreadable {
                    id: id.clone(),
                    why: why.clone(),
                }),
            }
        }
        Some(mapping::application(
            name,
            &instances,
            &unreadable,
            self.context(),
            interner,
        ))
    }

    fn context(&self) -> Context<'_> {
        Context {
            options: &self.options,
            namespaces: &self.namespaces,
        }
    }
}
