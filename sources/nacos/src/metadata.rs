//! What Dubbo keeps in Nacos' configuration: rules, mappings of interfaces to applications, and
//! metadata of applications.
//!
//! | in group | as | is |
//! |---|---|---|
//! | `dubbo` | `KEY.configurators` | a rule |
//! | `mapping` | `INTERFACE` | its applications, joined by commas |
//! | a revision | the application | what that revision provides |
//! | `dubbo` | `INTERFACE:VERSION:GROUP:provider:APPLICATION` | what an application published |
//!
//! Nacos tells of changes only those who know the name of an item, so it is all polled.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use diolkos_model::ContentHash;
use diolkos_nacos::{ConfigItem, Error};
use diolkos_source_dubbo::Place;
use futures::{StreamExt, stream};

use crate::{Directory, reader::Reader};

const DUBBO: &str = "dubbo";
const MAPPING: &str = "mapping";
const RULE_SUFFIX: &str = ".configurators";
/// The items of a page: they come with their contents.
const PAGE: u32 = 100;

/// Between the parts of a data id.
const PROVIDER: &str = ":provider:";
/// Items read at the same time.
const READS: usize = 16;

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// Rules and mappings that were told.
    told: HashMap<Place, ContentHash>,
    /// What is wanted and was not there, or could not be read.
    missing: BTreeSet<Place>,
    /// What is asked for now.
    asked: Vec<Place>,
    /// Whether something is wanted that was not asked for yet.
    new: bool,
}

/// Items, by what they are.
type Items = Vec<(Place, Bytes)>;

/// What a reading found.
#[derive(Debug)]
pub(crate) struct Found {
    /// All rules and mappings.
    listed: Result<Items, Error>,
    /// What was wanted, as it is.
    wanted: Vec<(Place, Result<Items, Error>)>,
}

impl Metadata {
    /// A new connection begins: nothing is asked for.
    pub(crate) fn begin(&mut self) {
        self.missing.append(&mut self.asked.drain(..).collect());
    }

    /// Takes over what the directory wants. Returns whether there is something that was not asked
    /// for yet.
    pub(crate) fn want(&mut self, directory: &mut Directory) -> bool {
        let before = self.missing.len();
        self.missing.extend(directory.wanted());
        self.new |= self.missing.len() > before;
        self.new
    }

    /// What to read now. [`Metadata::found`] has to follow.
    pub(crate) fn missing(&mut self) -> Vec<Place> {
        self.new = false;
        self.asked = std::mem::take(&mut self.missing).into_iter().collect();
        self.asked.clone()
    }

    /// Takes over what was found. Returns why something could not be read.
    pub(crate) fn found(&mut self, directory: &mut Directory, found: Found) -> Option<Arc<str>> {
        let mut trouble = None;
        self.asked.clear();
        match found.listed {
            Ok(items) => self.listed(directory, items),
            Err(error) => trouble = Some(error),
        }
        for (place, read) in found.wanted {
            match read {
                // It may come yet.
                Ok(items) if items.is_empty() => {
                    self.missing.insert(place);
                }
                Ok(items) => {
                    for (place, data) in items {
                        directory.set_data(&place, Some(data));
                    }
                }
                Err(error) => {
                    self.missing.insert(place);
                    trouble = Some(error);
                }
            }
        }
        trouble.map(|error| {
            format!(
                "Dubbo's metadata in the configuration cannot be read: {error}; let the user read the \
                 groups `{MAPPING}` and `{DUBBO}`, or read registrations of interfaces only"
            )
            .into()
        })
    }

    fn listed(&mut self, directory: &mut Directory, items: Items) {
        let mut gone = std::mem::take(&mut self.told);
        for (place, data) in items {
            let hash = ContentHash::of(&data);
            if gone.remove(&place) != Some(hash) {
                directory.set_data(&place, Some(data));
            }
            self.told.insert(place, hash);
        }
        for place in gone.into_keys() {
            directory.set_data(&place, None);
        }
    }
}

/// Reads all rules and mappings, and what is wanted besides.
pub(crate) async fn read(reader: &Reader, wanted: Vec<Place>) -> Found {
    let listed = list(reader).await;
    let wanted = stream::iter(wanted)
        .map(async |place| {
            let read = read_one(reader, &place).await;
            (place, read)
        })
        .buffer_unordered(READS)
        .collect()
        .await;
    Found { listed, wanted }
}

async fn list(reader: &Reader) -> Result<Items, Error> {
    let mut items = Vec::new();
    for item in search(reader, DUBBO, &format!("*{RULE_SUFFIX}")).await? {
        if let Some(key) = item.data_id.strip_suffix(RULE_SUFFIX) {
            let key = key.into();
            items.push((Place::Rule { key }, item.content.into()));
        }
    }
    for item in search(reader, MAPPING, "*").await? {
        let interface = item.data_id.into();
        items.push((Place::Mapping { interface }, item.content.into()));
    }
    Ok(items)
}

async fn read_one(reader: &Reader, place: &Place) -> Result<Items, Error> {
    match place {
        Place::Revision {
            application,
            revision,
        } => {
            let content = item(reader, revision, application).await?;
            Ok(content
                .map(|content| (place.clone(), content.into()))
                .into_iter()
                .collect())
        }
        Place::Definitions { interface } => {
            let pattern = format!("{interface}:*{PROVIDER}*");
            let items = search(reader, DUBBO, &pattern).await?;
            Ok(items
                .into_iter()
                .filter_map(|item| {
                    Some((definition(interface, &item.data_id)?, item.content.into()))
                })
                .collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// The definition of an interface that a data id names.
fn definition(interface: &Arc<str>, data_id: &str) -> Option<Place> {
    let rest = data_id.strip_prefix(&**interface)?.strip_prefix(':')?;
    let (variant, application) = rest.split_once(PROVIDER)?;
    let (version, group) = variant.split_once(':').unwrap_or((variant, ""));
    Some(Place::Definition {
        interface: interface.clone(),
        version: version.into(),
        group: group.into(),
        application: application.into(),
    })
}

async fn item(reader: &Reader, group: &str, data_id: &str) -> Result<Option<String>, Error> {
    if let Some(connection) = &reader.connection {
        return connection.config(group, data_id).await;
    }
    let mut items = search(reader, group, data_id).await?.into_iter();
    Ok(items
        .find(|item| item.data_id == data_id)
        .map(|item| item.content))
}

/// All items of a group that match. What changes meanwhile is found the next time.
async fn search(reader: &Reader, group: &str, pattern: &str) -> Result<Vec<ConfigItem>, Error> {
    let mut items = Vec::new();
    let mut entries = 0;
    for page in 1.. {
        let found = reader
            .http
            .configs(&reader.namespace, group, pattern, page, PAGE)
            .await?;
        let read = found.items.len() + found.others;
        entries += read;
        items.extend(found.items);
        if read == 0 || entries >= found.total {
            break;
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_ids_of_definitions() {
        let interface: Arc<str> = "a.B".into();
        for (data_id, expected) in [
            ("a.B:1.0:g:provider:app", Some(("1.0", "g"))),
            ("a.B:::provider:app", Some(("", ""))),
            ("a.B:1.0::provider:app", Some(("1.0", ""))),
            ("a.Bc:1.0::provider:app", None),
            ("a.B:1.0::consumer:app", None),
        ] {
            let expected = expected.map(|(version, group)| Place::Definition {
                interface: interface.clone(),
                version: version.into(),
                group: group.into(),
                application: "app".into(),
            });
            assert_eq!(definition(&interface, data_id), expected, "{data_id}");
        }
    }
}
