//! The registry as the events tell it, with a check of each event.

use std::collections::{BTreeMap, BTreeSet};

use diolkos_model::{ContentHash, Service, ServiceKey};

use super::{Content, content};
use crate::{Epoch, Event, Evidence};

/// A service as it was last named.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) content: BTreeSet<Content>,
    hash: ContentHash,
    ids: BTreeSet<String>,
}

/// A snapshot that came to its end.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) epoch: Epoch,
    pub(super) complete: bool,
    /// The names in it.
    pub(super) names: BTreeSet<String>,
}

/// What the events said so far.
#[derive(Debug, Default)]
pub(super) struct World {
    registry: String,
    /// By name.
    pub(super) services: BTreeMap<String, Seen>,
    keys: BTreeMap<String, ServiceKey>,
    /// What the registry holds for sure, since it was put there and seen: content by name.
    assured: BTreeMap<String, BTreeSet<Content>>,
    /// The connection that is under way, from 1.
    pub(super) run: Epoch,
    /// Whether it has begun its first snapshot.
    begun: bool,
    /// The names since the last `SnapshotStart`, until its end.
    open: Option<BTreeSet<String>>,
    pub(super) snapshots: Vec<Snapshot>,
    /// All events.
    pub(super) events: usize,
    /// Upserts that said something new, and services that went.
    pub(super) changes: usize,
    /// What was wrong, in order.
    pub(super) faults: Vec<String>,
}

impl World {
    pub(super) fn new(registry: &str) -> Self {
        Self {
            registry: registry.to_owned(),
            ..Self::default()
        }
    }

    /// The registry holds the service for sure, as it is seen now or as it is given.
    pub(super) fn assure(&mut self, name: &str, content: BTreeSet<Content>) {
        self.assured.insert(name.to_owned(), content);
    }

    /// The service is about to change or go.
    pub(super) fn release(&mut self, name: &str) {
        self.assured.remove(name);
    }

    /// Names of the services that are known.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.services.keys().map(String::as_str).collect()
    }

    /// A connection begins.
    pub(super) fn run_begins(&mut self, epoch: Epoch) {
        if epoch <= self.run {
            self.fault(format!("connection {epoch} comes after {}", self.run));
        }
        self.run = epoch;
        self.begun = false;
        self.open = None;
    }

    pub(super) fn apply(&mut self, registry: &str, event: Event) {
        self.events += 1;
        if registry != self.registry {
            self.fault(format!("an event of registry {registry}"));
        }
        match event {
            Event::SnapshotStart { epoch } => self.snapshot_starts(epoch),
            Event::Upsert { service, evidence } => self.upsert(&service, &evidence),
            Event::Remove { key } => self.remove(&key),
            Event::SnapshotEnd { epoch, evidence } => self.snapshot_ends(epoch, &evidence),
        }
    }

    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    fn snapshot_starts(&mut self, epoch: Epoch) {
        if epoch != self.run {
            self.fault(format!("SnapshotStart {epoch} in connection {}", self.run));
        }
        self.begun = true;
        self.open = Some(BTreeSet::new());
    }

    fn upsert(&mut self, service: &Service, evidence: &Evidence) {
        let name = service.key.name.to_string();
        if !self.begun {
            self.fault(format!("{name} is named before SnapshotStart"));
        }
        if *service.key.registry != *self.registry {
            self.fault(format!("the key {} is of another registry", service.key));
        }
        let other = self.keys.insert(name.clone(), service.key.clone());
        if other.is_some_and(|other| other != service.key) {
            self.fault(format!("{name} has several keys, one is {}", service.key));
        }
        let seen = Seen {
            content: service.instances.iter().map(content).collect(),
            hash: service.content_hash(),
            ids: service.instances.iter().map(|i| i.id.to_string()).collect(),
        };
        if seen.ids.len() != service.instances.len() {
            self.fault(format!("{name} has instances with the same id"));
        }
        if let Some(assured) = self.assured.get(&name)
            && evidence.is_complete()
            && !assured.is_subset(&seen.content)
        {
            let lacks: Vec<_> = assured.difference(&seen.content).collect();
            self.fault(format!("{name} lacks {lacks:?}"));
        }
        if let Some(open) = &mut self.open {
            open.insert(name.clone());
        }
        let hash = seen.hash;
        let before = self.services.insert(name, seen);
        self.changes += usize::from(before.is_none_or(|before| before.hash != hash));
    }

    fn remove(&mut self, key: &ServiceKey) {
        let name = key.name.to_string();
        if !self.begun {
            self.fault(format!("{name} is removed before SnapshotStart"));
        }
        if self.assured.contains_key(&name) {
            self.fault(format!("{name} is removed, and the registry has it"));
        }
        self.gone(&name);
    }

    fn snapshot_ends(&mut self, epoch: Epoch, evidence: &Evidence) {
        if epoch != self.run {
            self.fault(format!("SnapshotEnd {epoch} in connection {}", self.run));
        }
        let Some(names) = self.open.take() else {
            return self.fault("SnapshotEnd without SnapshotStart".to_owned());
        };
        let complete = evidence.is_complete();
        if complete {
            for name in self.assured.keys().cloned().collect::<Vec<_>>() {
                if !names.contains(&name) {
                    self.fault(format!("a complete snapshot lacks {name}"));
                }
            }
            let known: Vec<String> = self.services.keys().cloned().collect();
            for name in known.iter().filter(|name| !names.contains(*name)) {
                self.gone(name);
            }
        }
        self.snapshots.push(Snapshot {
            epoch,
            complete,
            names,
        });
    }

    fn gone(&mut self, name: &str) {
        self.changes += usize::from(self.services.remove(name).is_some());
    }
}
