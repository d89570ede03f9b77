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
    fn new(root: &str, required: bool) -> Self {
        let root = root.trim_end_matches('/');
        Self {
            prefix: format!("{root}/"),
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

/// The ranges that are read. None lies in another one; at least one is required.
///
/// Metadata before instances: else each instance would want what is about to come.
pub(crate) fn ranges(config: &Config) -> Vec<Range> {
    let discovery = config.dubbo.discovery;
    let root = Range::new(&config.prefix, discovery != Discovery::Application);
    if discovery == Discovery::Interface {
        return vec![root];
    }
    let applications = Range::new(&config.applications, discovery == Discovery::Application);
    match (&*root.prefix, &*applications.prefix) {
        (root, below) if below.starts_with(root) => vec![Range::new(root, true)],
        (below, applications) if below.starts_with(applications) => {
            vec![Range::new(applications, true)]
        }
        _ => vec![root, applications],
    }
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
        let entry = match Place::of_child(root, applications, path) {
            Some((place, name)) => Entry::Child(place, name),
            None => Entry::Data(Place::parse(root, applications, path)?),
        };
        self.wants(&entry).then_some(entry)
    }

    /// Whether the service that an entry belongs to is wanted. Instances make services of their
    /// application and of its interfaces, which only the catalogue knows, so they always are, with
    /// their metadata; what is not wanted of that is left out of what is told.
    fn wants(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Child(
                Place::Providers { interface } | Place::Configurators { interface },
                _,
            )
            | Entry::Data(Place::Mapping { interface }) => (self.select)(interface),
            Entry::Child(..) => false,
            Entry::Data(_) => true,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use diolkos_net::TlsConfig;
    use diolkos_source_dubbo::{Options, Variants};

    use super::*;

    fn config(discovery: Discovery, prefix: &str, applications: &str) -> Config {
        Config {
            endpoints: Vec::new(),
            user: None,
            tls: TlsConfig::default(),
            prefix: prefix.into(),
            applications: applications.into(),
            dubbo: Options {
                registry: "r".into(),
                variants: Variants::Labels,
                discovery,
                dubbo_protocol: "dubbo".into(),
                aeraki: false,
            },
            select: Arc::new(|name| name != "a.Unwanted"),
        }
    }

    #[test]
    fn ranges_follow_the_discovery_and_never_overlap() {
        use Discovery::{Application, Both, Interface};
        for (discovery, prefix, applications, expected) in [
            (Interface, "/dubbo", "/services", &[("/dubbo/", true)][..]),
            (
                Application,
                "/dubbo",
                "/services",
                &[("/dubbo/", false), ("/services/", true)],
            ),
            (
                Both,
                "/dubbo/",
                "/services/",
                &[("/dubbo/", true), ("/services/", false)],
            ),
            (Both, "/dubbo", "/dubbo/services", &[("/dubbo/", true)]),
            (Application, "/a/dubbo", "/a", &[("/a/", true)]),
            (Both, "/", "/services", &[("/", true)]),
            (
                Both,
                "/dubbo",
                "/dubbo-apps",
                &[("/dubbo/", true), ("/dubbo-apps/", false)],
            ),
        ] {
            let ranges = ranges(&config(discovery, prefix, applications));
            let found: Vec<_> = ranges.iter().map(|r| (r.prefix(), r.required)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_range_ends_behind_its_last_key() {
        let range = Range::new("/dubbo", true);
        assert!(range.start() < b"/dubbo/\0"[..]);
        assert!(range.end() > b"/dubbo/\xff\xff"[..]);
        assert!(range.end() < b"/dubbo1"[..]);
    }

    #[test]
    fn keys_of_no_use_are_no_entries() {
        let config = config(Discovery::Both, "/dubbo", "/services");
        for key in [
            &b"/dubbo/a.B/consumers/x"[..],
            b"/dubbo/a.Unwanted/providers/x",
            b"/dubbo/mapping/a.Unwanted",
            b"/dubbo/a.B/providers/\xff",
        ] {
            assert_eq!(config.entry(key), None, "{}", key.escape_ascii());
        }
        for key in [
            &b"/dubbo/a.B/providers/x"[..],
            b"/dubbo/a.B/configurators/x",
            b"/dubbo/mapping/a.B",
            b"/services/app/10.0.0.1:20880",
        ] {
            assert!(config.entry(key).is_some(), "{}", key.escape_ascii());
        }
    }
}
