//! What is known of one datacenter. Pure: no I/O, no clock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use diolkos_model::{ContentHash, Service, ServiceKey};
use diolkos_source_api::{Backoff, Event, Evidence};
use tokio::sync::Notify;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{
    Select,
    checks::Failing,
    index::Index,
    queue::Queue,
    wire::{Catalog, Entry},
};

/// One datacenter and the work that waits for it.
#[derive(Debug)]
pub(crate) struct Datacenter {
    pub(crate) name: Arc<str>,
    state: Mutex<State>,
    /// Services to read.
    pub(crate) queue: Queue,
    /// Told when the catalogue changed, in a way that only an inventory can name.
    pub(crate) inventory: Notify,
}

impl Datacenter {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            state: Mutex::default(),
            queue: Queue::default(),
            inventory: Notify::new(),
        }
    }

    /// What is known. Never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a datacenter, in a form that is small: contents went to the engine.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) services: HashMap<Arc<str>, Seen>,
    pub(crate) catalog_index: Index,
    pub(crate) failing: Failing,
    pub(crate) failing_index: Index,
    /// Why it cannot be followed now.
    pub(crate) down: Option<Arc<str>>,
    /// The waits between tries to get it back. Kept while it comes and goes, since each return
    /// costs a snapshot of all datacenters.
    pub(crate) backoff: Option<Backoff>,
}

/// What is known of a service.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whether the catalogue has it, and it is selected.
    listed: bool,
    /// A hash of the tags in the catalogue.
    tags: u64,
    /// What was read last, as an inventory sees it; `None` before the first read.
    signature: Option<Signature>,
    /// What was said of it last, if anything.
    sent: Option<Sent>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sent {
    content: ContentHash,
    complete: bool,
    instances: usize,
}

/// Which instances a service has, and at which revisions of theirs and of their nodes. A sum of
/// hashes: the order in which nodes answer plays no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signature(u64);

impl Signature {
    /// Differs from that of every inventory, as good as surely.
    const UNKNOWN: Self = Self(u64::MAX);

    /// Adds an instance.
    pub(crate) fn add(&mut self, (node, node_revision): (&str, u64), (id, revision): (&str, u64)) {
        let mut hash = Xxh3::new();
        hash.update(&(node.len() as u64).to_le_bytes());
        hash.update(node.as_bytes());
        hash.update(&node_revision.to_le_bytes());
        hash.update(&revision.to_le_bytes());
        hash.update(id.as_bytes());
        self.0 = self.0.wrapping_add(hash.digest());
    }

    fn of(entries: &[Entry]) -> Self {
        let mut signature = Self::default();
        for Entry { node, service, .. } in entries {
            signature.add(
                (&node.node, node.modify_index),
                (&service.id, service.modify_index),
            );
        }
        signature
    }
}

/// The answer to a read of one service.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    /// All that Consul has under the name.
    pub(crate) entries: &'a [Entry],
    /// What the mesh may use of it; `None` if it is no service, or not a selected one.
    pub(crate) service: Option<Service>,
    /// How far the answer can be believed.
    pub(crate) evidence: Evidence,
}

impl State {
    /// Starts anew with the names of a catalogue. Returns those that are to be read.
    pub(crate) fn reset(&mut self, catalog: &Catalog, select: &Select) -> Vec<Arc<str>> {
        self.services.clear();
        self.list(catalog, select)
    }

    /// Takes over a new catalogue. Returns the services to read: those that are new, gone, or have
    /// other tags. What is gone is only known after the read.
    pub(crate) fn list(&mut self, catalog: &Catalog, select: &Select) -> Vec<Arc<str>> {
        let mut moved = Vec::new();
        let selected: BTreeMap<&str, u64> = catalog
            .iter()
            .filter(|(name, tags)| is_readable(name) && select(name, tags))
            .map(|(name, tags)| (name.as_str(), hash_tags(tags)))
            .collect();
        for (name, seen) in &mut self.services {
            let tags = selected.get(&**name);
            if seen.listed && tags.is_none() {
                moved.push(name.clone());
            }
            seen.listed = tags.is_some();
        }
        for (name, tags) in selected {
            match self.services.get_mut(name) {
                Some(seen) if seen.tags == tags => {}
                Some(seen) => {
                    seen.tags = tags;
                    moved.push(name.into());
                }
                None => {
                    let seen = Seen {
                        listed: true,
                        tags,
                        ..Seen::default()
                    };
                    self.services.insert(name.into(), seen);
                    moved.push(name.into());
                }
            }
        }
        moved
    }

    /// The services that an inventory shows otherwise than they were last read.
    pub(crate) fn compare(&self, inventory: &HashMap<String, Signature>) -> Vec<Arc<str>> {
        let differs = |(name, seen): &(&Arc<str>, &Seen)| {
            let now = inventory.get(&***name).copied().unwrap_or_default();
            // What was never read waits to be read.
            seen.signature.is_some_and(|before| before != now)
        };
        self.services
            .iter()
            .filter(differs)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// All services that are known.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.services.keys().cloned().collect()
    }

    /// Takes over what was read of a service, and says what the engine has to hear of it. In a
    /// snapshot that is everything, else only what differs.
    pub(crate) fn settle(
        &mut self,
        key: ServiceKey,
        reading: Reading<'_>,
        snapshot: bool,
    ) -> Option<Event> {
        let Reading {
            entries,
            service,
            evidence,
        } = reading;
        let name = key.name.clone();
        let seen = self.services.entry(name.clone()).or_default();
        seen.signature = Some(match evidence {
            Evidence::Complete | Evidence::Partial(_) => Signature::of(entries),
            // The engine believes little of it, so it is read again even if nothing changes any more.
            Evidence::Stale(_) => Signature::UNKNOWN,
        });
        let service = match service {
            Some(service) => service,
            None if seen.sent.is_none() => {
                if !seen.listed {
                    self.services.remove(&name);
                }
                return None;
            }
            None if !seen.listed && evidence.is_complete() => {
                self.services.remove(&name);
                return Some(Event::Remove { key });
            }
            // Still in the catalogue, or perhaps hidden: no word that the service is gone.
            None => Service::new(key, [].into(), Vec::new()),
        };
        let sent = Sent {
            content: service.content_hash(),
            complete: evidence.is_complete(),
            instances: service.instances.len(),
        };
        if !snapshot && seen.sent == Some(sent) {
            return None;
        }
        seen.sent = Some(sent);
        Some(Event::Upsert {
            service: Arc::new(service),
            evidence,
        })
    }

    /// How many services and instances the engine knows.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.services
            .values()
            .filter_map(|seen| seen.sent.as_ref())
            .fold((0, 0), |(services, instances), sent| {
                (services + 1, instances + sent.instances)
            })
    }
}

/// Whether a name can stand in a path. Consul itself cleans a path, so that it would look for
/// another name and answer with a redirect.
pub(crate) fn is_readable(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn hash_tags(tags: &[String]) -> u64 {
    xxh3_64(tags.join("\0").as_bytes())
}

#[cfg(test)]
mod tests;
