//! The files. Everything here blocks.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use diolkos_istio::{Object, ObjectKey};
use diolkos_model::ContentHash;
use diolkos_sink_api::{Observed, Outcome, Remembered, State, WriteError};

use crate::{
    manifest::{from_yaml, to_yaml},
    name::{EXTENSION, file_name, object_key},
};

/// A file that is being written is named so; hidden, so that istiod does not read it.
const TEMPORARY: (&str, &str) = (".diolkos-", ".tmp");
/// A temporary file of this age was left by a process that died: no write takes that long.
const ABANDONED: Duration = Duration::from_secs(60);
/// The first line of each file, for people who open it.
const HEADER: &str = "# Written by Diolkos, which undoes changes that others make here.\n";

/// As long as it stays the same, so does the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file as it was last seen or written.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) stamp: Stamp,
    /// The object that it holds or stands in the way of, if any.
    pub(crate) key: Option<ObjectKey>,
}

/// All files by name.
pub(crate) type SeenFiles = BTreeMap<String, Seen>;

/// What is different from what was seen before.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// The files that are new or changed.
    pub(crate) changed: SeenFiles,
    /// The files that are gone.
    pub(crate) gone: Vec<String>,
    /// The objects that are meant.
    pub(crate) observed: Vec<Observed>,
    /// What those that are new or changed tell of the time before.
    pub(crate) remembered: Vec<Remembered>,
}

/// What is in a file.
struct Looked {
    seen: Seen,
    state: State,
    remembered: Option<Remembered>,
}

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) path: PathBuf,
}

impl Store {
    /// Looks at all files, and reads those that are not as they were `before`.
    pub(crate) fn difference(&self, before: &SeenFiles) -> io::Result<Difference> {
        let stamps = self.list()?;
        let mut difference = Difference::default();
        for (file, stamp) in &stamps {
            if before.get(file).is_some_and(|seen| seen.stamp == *stamp) {
                continue;
            }
            let Some(Looked {
                seen,
                state,
                remembered,
            }) = self.look(file)?
            else {
                continue;
            };
            difference.remembered.extend(remembered);
            let key = seen.key.clone();
            difference
                .observed
                .extend(key.map(|key| Observed { key, state }));
            difference.changed.insert(file.clone(), seen);
        }
        for (file, seen) in before {
            if stamps.contains_key(file) {
                continue;
            }
            let key = seen.key.clone();
            let state = State::Gone;
            difference
                .observed
                .extend(key.map(|key| Observed { key, state }));
            difference.gone.push(file.clone());
        }
        Ok(difference)
    }

    fn list(&self) -> io::Result<BTreeMap<String, Stamp>> {
        let mut stamps = BTreeMap::new();
        for found in fs::read_dir(&self.path)? {
            let found = found?;
            let Ok(name) = found.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') || !name.ends_with(EXTENSION) {
                continue;
            }
            match fs::metadata(found.path()) {
                Ok(metadata) => stamps.insert(name, Stamp::of(&metadata)),
                // Removed since it was listed, or a link to nowhere: no object is there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
        }
        Ok(stamps)
    }

    /// Reads a file. `None` if it is not there.
    fn look(&self, file: &str) -> io::Result<Option<Looked>> {
        let path = self.path.join(file);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut stamp = Stamp::of(&metadata);
        let content = match metadata.is_file().then(|| read(&path)) {
            None => None,
            Some(Ok((bytes, stamp_of_bytes))) => {
                stamp = stamp_of_bytes;
                from_yaml(&bytes).filter(|content| file_name(&content.key) == file)
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // What cannot be read is not known to be ours.
            Some(Err(_)) => None,
        };
        Ok(Some(match content {
            Some(content) => {
                let key = Some(content.key);
                Looked {
                    seen: Seen { stamp, key },
                    state: content.state,
                    remembered: content.remembered,
                }
            }
            None => {
                let key = object_key(file);
                Looked {
                    seen: Seen { stamp, key },
                    state: State::Foreign,
                    remembered: None,
                }
            }
        }))
    }

    /// Whether an object of ours is there, at this moment.
    fn is_there(&self, file: &str) -> Result<bool, WriteError> {
        match self.look(file).map_err(|error| failed(file, &error))? {
            None => Ok(false),
            Some(looked) if matches!(looked.state, State::Ours { .. }) => Ok(true),
            Some(_) => Err(WriteError::Foreign(format!(
                "the file {file} is not one that Diolkos wrote"
            ))),
        }
    }

    /// Writes an object, all of it or nothing: elsewhere first, to the disk, then renamed. The
    /// directory itself is not synchronised, since a rename that a power cut undoes is repaired by
    /// the next observation.
    pub(crate) fn put(
        &self,
        object: &Object,
        hash: ContentHash,
    ) -> Result<(Outcome, Stamp), WriteError> {
        let file = file_name(&object.key);
        let there = self.is_there(&file)?;
        let yaml =
            to_yaml(object, Some(hash)).map_err(|error| WriteError::Invalid(error.to_string()))?;
        let stamp = self
            .replace(&file, &yaml, there)
            .map_err(|error| failed(&file, &error))?;
        let outcome = if there {
            Outcome::Updated
        } else {
            Outcome::Created
        };
        Ok((outcome, stamp))
    }

    fn replace(&self, file: &str, yaml: &str, there: bool) -> io::Result<Stamp> {
        let mut temporary = tempfile::Builder::new()
            .prefix(TEMPORARY.0)
            .suffix(TEMPORARY.1)
            // For all to read, as far as the umask allows: istiod may run as somebody else.
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(&self.path)?;
        temporary.write_all(HEADER.as_bytes())?;
        temporary.write_all(yaml.as_bytes())?;
        temporary.as_file().sync_all()?;
        let path = self.path.join(file);
        let written = if there {
            temporary.persist(path)?
        } else {
            // Fails if somebody else was faster.
            temporary.persist_noclobber(path)?
        };
        Ok(Stamp::of(&written.metadata()?))
    }

    pub(crate) fn delete(&self, key: &ObjectKey) -> Result<Outcome, WriteError> {
        let file = file_name(key);
        if !self.is_there(&file)? {
            return Ok(Outcome::AlreadyGone);
        }
        match fs::remove_file(self.path.join(&file)) {
            Ok(()) => Ok(Outcome::Deleted),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Outcome::AlreadyGone),
            Err(error) => Err(failed(&file, &error)),
        }
    }

    /// Removes what earlier processes left half-written.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for found in fs::read_dir(&self.path)? {
            let found = found?;
            let name = found.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with(TEMPORARY.0) || !name.ends_with(TEMPORARY.1) {
                continue;
            }
            let age = found.metadata().and_then(|metadata| metadata.modified());
            // A time in the future counts as new.
            let age = age.map(|time| time.elapsed().unwrap_or_default());
            if age.is_ok_and(|age| age >= ABANDONED) {
                match fs::remove_file(found.path()) {
                    Ok(()) => tracing::info!(file = &*name, "removed a half-written file"),
                    Err(error) => {
                        tracing::warn!(file = &*name, %error, "cannot remove a half-written file");
                    }
                }
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    let mut file = File::open(path)?;
    // Before the reading: a change during it shows up as a different stamp later.
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, stamp))
}

fn failed(file: &str, error: &io::Error) -> WriteError {
    WriteError::Retry {
        reason: format!("cannot write {file}: {error}"),
        after: None,
    }
}
