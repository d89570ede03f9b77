//! Which keys are read, and what they are to the catalogue.

use bytes::Bytes;
use diolkos_source_api::SourceError;
use diolkos_source_dubbo::{Catalog, Discovery, Place};

use crate::{
    Config,
    proto::{DELETE, Event, KeyValue},
};

/// All keys with a common beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Ends with a slash.
    prefix: String,
    /// Whether nothing is of use without these keys.
    pub(crate) required: bool,
}

impl Range {
    fn new(root: &str, below: &str, required: bool) -> Self {
        let root = root.trim_end_matches('/');
        Self {
            prefix: format!("{root}/{below}"),
            required,
        }
    }

    /// The common beginning.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The first key.
    pub(crate) fn start(&self) -> Bytes {
        Bytes::copy_from_slice(self.prefix.as_bytes())
    }

    /// The first key behind the range.
    pub(crate) fn end(&self) -> Bytes {
        let mut end = self.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            // It is a slash.
            *last += 1;
        }
        end.into()
    }
}

/// The ranges that are read, a required one first. None lies in another one.
pub(crate) fn ranges(config: &Config) -> Vec<Range> {
    let (root, applications) = (&*config.prefix, &*config.applications);
    let all = match config.dubbo.discovery {
        Discovery::Interface => vec![Range::new(root, "", true)],
        Discovery::Application => vec![
            Range::new(applications, "", true),
            Range::new(root, "mapping/", false),
            Range::new(root, "metadata/", false),
            Range::new(root, "config/", false),
        ],
        Discovery::Both => vec![
            Range::new(root, "", true),
            Range::new(applications, "", false),
        ],
    };
    let mut ranges: Vec<Range> = Vec::new();
    for range in all {
        if ranges.iter().any(|r| range.prefix.starts_with(&r.prefix)) {
            continue;
        }
        ranges.retain(|r| !r.prefix.starts_with(&range.prefix));
        ranges.push(range);
    }
    if let Some(first) = ranges.first_mut() {
        // It may have taken in the one that was.
        first.required = true;
    }
    ranges
}

impl Config {
    /// What to tell somebody who may not read a range.
    pub(crate) fn denied(&self, range: &Range) -> SourceError {
        let who = match &self.user {
            Some(user) => format!("user `{}`", user.name),
            None => "whoever has no user or this certificate".to_owned(),
        };
        let prefix = range.prefix();
        SourceError::Denied(format!(
            "{who} may not read {prefix}: grant it with `etcdctl role grant-permission ROLE --prefix=true read {prefix}`"
        ))
    }

    /// A key that is there.
    pub(crate) fn put(&self, catalog: &mut Catalog, kv: &KeyValue) {
        match self.entry(&kv.key) {
            Some(Entry::Child(place, name)) => catalog.add_child(&place, &name),
            Some(Entry::Data(place)) => {
                // A copy: the value shares its memory with all values of its page.
                let value = Bytes::copy_from_slice(&kv.value);
                catalog.set_data(&place, Some(value));
            }
            None => {}
        }
    }

    /// A change of a key.
    pub(crate) fn apply(&self, catalog: &mut Catalog, event: &Event) {
        let Some(kv) = &event.kv else {
            return;
        };
        if event.kind != DELETE {
            return self.put(catalog, kv);
        }
        match self.entry(&kv.key) {
            Some(Entry::Child(place, name)) => catalog.remove_child(&place, &name),
            Some(Entry::Data(place)) => catalog.set_data(&place, None),
            None => {}
        }
    }

    /// What a key is, unless it is of no use here.
    fn entry(&self, key: &[u8]) -> Option<Entry> {
        let path = std::str::from_utf8(key).ok()?;
        let (root, applications) = (&*self.prefix, &*self.applications);
        let entry = match place::of_child(root, applications, path) {
            Some((place, name)) => Entry::Child(place, name),
            None => Entry::Data(place::parse(root, applications, path)?),
        };
        self.wants(&entry).then_some(entry)
    }

    fn wants(&self, entry: &Entry) -> bool {
        let by_interface = self.dubbo.discovery != Discovery::Application;
        let by_application = self.dubbo.discovery != Discovery::Interface;
        let select = &*self.select;
        match entry {
            Entry::Child(
                Place::Providers { interface } | Place::Configurators { interface },
                _,
            ) => by_interface && select(interface),
            Entry::Data(place) => match place {
                Place::Rule { .. } => true,
                Place::Instance { application, .. } | Place::Revision { application, .. } => {
                    by_application && select(application)
                }
                // What an application that is wanted says of any interface.
                Place::Definition { application, .. } => by_application && select(application),
                Place::Mapping { .. } => by_application,
                Place::Providers { .. } | Place::Configurators { .. } => false,
            },
            Entry::Child(..) => false,
        }
    }
}

/// What a key is to the catalogue.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// One of the children, which have no data of their own.
    Child(Place, String),
    /// A node with data.
    Data(Place),
}

/// Until the model has it.
mod place {
    use super::Place;
    pub(super) fn of_child(_: &str, _: &str, _: &str) -> Option<(Place, String)> {
        None
    }
    pub(super) fn parse(_: &str, _: &str, _: &str) -> Option<Place> {
        None
    }
}
