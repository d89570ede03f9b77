//! What is known of each file, and what all of them together say.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use diolkos_model::{ContentHash, Interner, Service, ServiceKey};

use crate::{
    document::{Fault, decode, name_of},
    scan::{Entry, Stamp, read, scan},
};

/// A file that changes between this many polls in a row is reported.
const PATIENCE: u32 = 4;

/// All files together.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// What they say. A service of a file that cannot be read is as it was last read.
    pub(crate) services: BTreeMap<ServiceKey, Arc<Service>>,
    /// What is wrong, one line each, beginning with the file's name.
    pub(crate) faults: Vec<String>,
    /// How many files there are.
    pub(crate) files: usize,
    /// Whether a file is being written: what is in it is not known yet.
    pub(crate) settling: bool,
}

/// The files under a path.
#[derive(Debug)]
pub(crate) struct Files {
    registry: Arc<str>,
    path: PathBuf,
    known: BTreeMap<OsString, Known>,
    interner: Interner,
    /// The duplicates that were reported.
    reported: BTreeSet<String>,
    /// Whether a file was being written at the last poll.
    settling: bool,
}

impl Files {
    pub(crate) fn new(registry: Arc<str>, path: PathBuf) -> Self {
        Self {
            registry,
            path,
            known: BTreeMap::new(),
            interner: Interner::new(),
            reported: BTreeSet::new(),
            settling: false,
        }
    }

    /// Looks once, and reads what is due. A change is taken over when two polls in a row see the
    /// same: what is still being written is left alone, and a file that an editor moves away and
    /// writes anew is not taken as removed.
    ///
    /// Returns the view if anything is different from the last one, or if `again` asks to read all
    /// files anew.
    ///
    /// # Errors
    /// The path itself cannot be read; nothing is known then of the files in it.
    pub(crate) fn poll(&mut self, again: bool) -> io::Result<Option<View>> {
        let entries = scan(&self.path)?;
        let mut changed = again;
        for (name, entry) in &entries {
            let known = self.known.entry(name.clone()).or_default();
            let mut reader = Reader {
                registry: &self.registry,
                interner: &mut self.interner,
                name,
            };
            changed |= known.look(entry, again, &mut reader);
        }
        changed |= self.drop_removed(&entries);
        let settling = self.known.values().any(Known::is_settling);
        changed |= std::mem::replace(&mut self.settling, settling) != settling;
        if !changed {
            return Ok(None);
        }
        self.interner.sweep();
        Ok(Some(self.view()))
    }

    /// Forgets the files that are missing for the second time. Not while another one is being
    /// written, since a service may be on its way from one file to the other.
    fn drop_removed(&mut self, entries: &BTreeMap<OsString, Entry>) -> bool {
        let settling = self.known.values().any(Known::is_settling);
        let before = self.known.len();
        self.known.retain(|name, known| {
            let missing = !entries.contains_key(name);
            let removed = missing && known.missing && !settling;
            known.missing = missing;
            if removed {
                let file = display(name);
                tracing::info!(registry = &*self.registry, file, "the file is removed");
            }
            !removed
        });
        self.known.len() != before
    }

    /// Files in the order of their names. A service stays with the first file that has it.
    fn view(&mut self) -> View {
        let mut view = View {
            files: self.known.len(),
            settling: self.settling,
            ..View::default()
        };
        let mut owners: BTreeMap<&ServiceKey, &OsStr> = BTreeMap::new();
        let mut refused: BTreeMap<(&OsStr, &OsStr), Vec<&ServiceKey>> = BTreeMap::new();
        for (name, known) in &self.known {
            let fault = known.fault.iter();
            view.faults
                .extend(fault.map(|fault| fault.in_file(&display(name))));
            for service in &known.services {
                match owners.entry(&service.key) {
                    btree_map::Entry::Vacant(free) => {
                        free.insert(name);
                        view.services.insert(service.key.clone(), service.clone());
                    }
                    btree_map::Entry::Occupied(owner) => {
                        let pair = (&**name, *owner.get());
                        refused.entry(pair).or_default().push(&service.key);
                    }
                }
            }
        }
        let duplicates: BTreeSet<String> = refused
            .iter()
            .map(|((loser, owner), keys)| duplicates(loser, owner, keys))
            .collect();
        for fault in duplicates.difference(&self.reported) {
            tracing::warn!(registry = &*self.registry, fault, "refused a service");
        }
        view.faults.extend(duplicates.iter().cloned());
        self.reported = duplicates;
        view
    }
}

/// One line on the services of `loser` that are in `owner` as well.
fn duplicates(loser: &OsStr, owner: &OsStr, keys: &[&ServiceKey]) -> String {
    const NAMED: usize = 3;
    let names: Vec<String> = keys.iter().take(NAMED).map(|key| name_of(key)).collect();
    let more = match keys.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{}: {}{more} also in {}, which counts; remove one of them",
        display(loser),
        names.join(", "),
        display(owner)
    )
}

fn display(name: &OsStr) -> String {
    Path::new(name).display().to_string()
}

/// One file.
#[derive(Debug, Default)]
struct Known {
    /// As it was at the last poll.
    seen: Option<Stamp>,
    /// How many polls in a row saw it change. Until one sees it unchanged, it is not read.
    restless: u32,
    /// Whether the last poll did not find it.
    missing: bool,
    /// As it was when it was last read.
    read: Option<Stamp>,
    /// What was in it then, if that was good.
    content: Option<ContentHash>,
    services: Vec<Arc<Service>>,
    fault: Option<Fault>,
}

/// What it takes to read a file.
struct Reader<'a> {
    registry: &'a Arc<str>,
    interner: &'a mut Interner,
    name: &'a OsStr,
}

impl Known {
    fn is_settling(&self) -> bool {
        self.restless > 0
    }

    /// Looks at the file, and reads it if that is due. Returns whether anything is different now.
    fn look(&mut self, entry: &Entry, again: bool, reader: &mut Reader<'_>) -> bool {
        let stamp = match &entry.stamp {
            Ok(stamp) => *stamp,
            Err(error) => return self.unreadable(error, reader),
        };
        if !self.settled(stamp) {
            let message = "it is being written all the time; it will be read when it is left alone";
            return self.restless == PATIENCE
                && self.set_fault(Some(Fault::of_file(message)), reader);
        }
        if self.read == Some(stamp) && !again {
            return false;
        }
        match read(&entry.path, &stamp) {
            Ok(Some(content)) => {
                self.read = Some(stamp);
                self.take(&content, reader)
            }
            // It is being written at this moment: the next poll sees another stamp.
            Ok(None) => false,
            Err(error) => self.unreadable(&error, reader),
        }
    }

    /// Whether the file may be read. One that is *replaced* all the time never rests but is whole
    /// at each moment, so it is read in the end.
    fn settled(&mut self, stamp: Stamp) -> bool {
        let before = self.seen.replace(stamp);
        let replaced = before.is_some_and(|before| !before.same_file(&stamp));
        if before == Some(stamp) || (replaced && self.restless >= PATIENCE) {
            self.restless = 0;
            return true;
        }
        self.restless = self.restless.saturating_add(1);
        false
    }

    fn unreadable(&mut self, error: &io::Error, reader: &Reader<'_>) -> bool {
        self.seen = None;
        self.read = None;
        self.restless = 0;
        self.set_fault(
            Some(Fault::of_file(format!("cannot be read: {error}"))),
            reader,
        )
    }

    /// Takes over what was read, if it is good. An empty file is a file that somebody is about to
    /// write, or was about to when the machine stopped: it says nothing.
    fn take(&mut self, content: &[u8], reader: &mut Reader<'_>) -> bool {
        if content.trim_ascii().is_empty() {
            let message =
                "the file is empty; remove it, or write a comment to say that it has no services";
            return self.set_fault(Some(Fault::of_file(message)), reader);
        }
        let hash = ContentHash::of(content);
        if self.content == Some(hash) {
            return self.set_fault(None, reader);
        }
        match decode(reader.registry, content, reader.interner) {
            Ok(services) => {
                self.services = services.into_iter().map(Arc::new).collect();
                self.content = Some(hash);
                self.set_fault(None, reader);
                true
            }
            Err(fault) => self.set_fault(Some(fault), reader),
        }
    }

    fn set_fault(&mut self, fault: Option<Fault>, reader: &Reader<'_>) -> bool {
        if self.fault == fault {
            return false;
        }
        let registry = &**reader.registry;
        match &fault {
            Some(fault) => {
                let fault = fault.in_file(&display(reader.name));
                let kept = self.services.len();
                tracing::warn!(
                    registry,
                    fault,
                    kept,
                    "cannot use a file, its services stay"
                );
            }
            None => {
                let file = display(reader.name);
                tracing::info!(registry, file, "the file is good again");
            }
        }
        self.fault = fault;
        true
    }
}

#[cfg(test)]
mod tests;
