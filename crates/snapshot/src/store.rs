//! The directory.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use diolkos_model::{Interner, Service};

use crate::{
    Fault, FileProblem, MAX_FILE, SnapshotError,
    format::{self, HEADER},
    name::{self, file_name, temporary_name},
    wire,
};

/// Held while the directory is open, so that no other process writes to it.
const LOCK: &str = "lock";

/// A directory with a file for each registry. One process at a time may have it open. See the
/// [crate documentation](crate).
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// What the files hold, by their names, as far as it was looked at. Locked while a file is
    /// written, so that there is one writer at a time.
    known: Mutex<BTreeMap<String, Known>>,
    /// Locked as long as it is open.
    lock: File,
}

impl Drop for Store {
    fn drop(&mut self) {
        // Closing it is not enough if this process is just starting another one, which inherits it
        // for a moment. If this fails, the end of both processes unlocks it.
        self.lock.unlock().unwrap_or_default();
    }
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// A snapshot with this checksum and length.
    Snapshot { checksum: u128, length: u64 },
    /// A snapshot of a newer version, which stays.
    Newer { version: u32 },
    /// Nothing, or nothing that is worth keeping.
    Nothing,
}

/// What the files hold.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The services of the registries that have a good file, sorted by key.
    pub registries: BTreeMap<Arc<str>, Vec<Service>>,
    /// The files that are not believed.
    pub faults: Vec<Fault>,
}

impl Store {
    /// Opens a directory, and makes it if it is missing and the one above it is there (a volume
    /// that is not mounted must not be taken for an empty one). Removes what a process that was
    /// killed left half-written.
    ///
    /// # Errors
    /// It cannot be made or read, or another process has it open.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(SnapshotError::io("make the directory", dir)(error));
            }
            _ => {}
        }
        let lock = lock(dir)?;
        for file in files(dir, name::TEMPORARY).map_err(SnapshotError::io("read", dir))? {
            fs::remove_file(&file).map_err(SnapshotError::io("remove", &file))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            known: Mutex::default(),
            lock,
        })
    }

    /// The file of a registry, there or not.
    #[must_use]
    pub fn file(&self, registry: &str) -> PathBuf {
        self.dir.join(file_name(registry))
    }

    /// Reads all files. A file that is not believed is a [`Fault`] and costs its registry only.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load(&self) -> Result<Loaded, SnapshotError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut interner = Interner::new();
        let mut loaded = Loaded::default();
        let files = files(&self.dir, name::SUFFIX);
        for file in files.map_err(SnapshotError::io("read", &self.dir))? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let content = read(&file).and_then(|bytes| {
                let (payload, _) = format::unseal(&bytes)?;
                let (registry, services) = wire::decode(payload, &mut interner)?;
                if file_name(&registry) != name {
                    let registry = registry.to_string();
                    return Err(FileProblem::Misnamed { registry });
                }
                Ok((registry, services, Known::of(&bytes)))
            });
            let is = match content {
                Ok((registry, services, is)) => {
                    loaded.registries.insert(registry, services);
                    is
                }
                Err(problem) => {
                    let is = Known::of_fault(&problem);
                    let file = file.clone();
                    loaded.faults.push(Fault { file, problem });
                    is
                }
            };
            known.insert(name.into_owned(), is);
        }
        Ok(loaded)
    }

    /// Makes these the services of the registry's file. Their order does not count. Returns whether
    /// anything was written: not if the file holds just them already. When it returns, the file is
    /// on the disk.
    ///
    /// # Errors
    /// The file could not be written and is as it was; or it is left alone, being of a newer
    /// version.
    pub fn save<'a>(
        &self,
        registry: &str,
        services: impl IntoIterator<Item = &'a Service>,
    ) -> Result<bool, SnapshotError> {
        let bytes = encode(registry, services.into_iter().collect())?;
        let new = Known::of(&bytes);
        let (name, file) = (file_name(registry), self.file(registry));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let old = known.get(&name).copied().unwrap_or_else(|| look(&file));
        if let Known::Newer { version } = old {
            return Err(SnapshotError::Newer { file, version });
        }
        if new == old && new.is_length_of(&file) {
            return Ok(false);
        }
        // Until it is certain to be on the disk.
        known.insert(name.clone(), Known::Nothing);
        let temporary = self.dir.join(temporary_name(registry));
        let written = replace(&temporary, &file, &bytes).and_then(|()| self.sync());
        if let Err(error) = written {
            // It may not be there; and the error that is worth telling is the first one.
            fs::remove_file(&temporary).unwrap_or_default();
            return Err(error);
        }
        known.insert(name, new);
        Ok(true)
    }

    /// Removes the file of a registry that is no longer configured, if it is there.
    ///
    /// # Errors
    /// It could not be removed, or is of a newer version.
    pub fn remove(&self, registry: &str) -> Result<(), SnapshotError> {
        let (name, file) = (file_name(registry), self.file(registry));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let old = known.get(&name).copied().unwrap_or_else(|| look(&file));
        if let Known::Newer { version } = old {
            return Err(SnapshotError::Newer { file, version });
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::io("remove", &file)(error))
            }
            _ => {
                known.insert(name, Known::Nothing);
                self.sync()
            }
        }
    }

    /// Makes the names in the directory last.
    fn sync(&self) -> Result<(), SnapshotError> {
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(SnapshotError::io("flush", &self.dir))
    }
}

impl Known {
    fn of(bytes: &[u8]) -> Self {
        match format::unseal(bytes) {
            Ok((_, checksum)) => Self::Snapshot {
                checksum,
                length: bytes.len() as u64,
            },
            Err(problem) => Self::of_fault(&problem),
        }
    }

    fn of_fault(problem: &FileProblem) -> Self {
        match problem {
            FileProblem::Newer { version } => Self::Newer { version: *version },
            _ => Self::Nothing,
        }
    }

    /// Whether the file is still there, as far as its length tells.
    fn is_length_of(self, file: &Path) -> bool {
        let found = fs::metadata(file).map(|found| found.len());
        matches!((self, found), (Self::Snapshot { length, .. }, Ok(found)) if length == found)
    }
}

fn encode(registry: &str, mut services: Vec<&Service>) -> Result<Vec<u8>, SnapshotError> {
    if let Some(other) = services.iter().find(|s| *s.key.registry != *registry) {
        return Err(SnapshotError::Foreign {
            registry: registry.to_owned(),
            service: other.key.clone(),
        });
    }
    services.sort_by(|a, b| a.key.cmp(&b.key));
    let mut bytes = vec![0; HEADER];
    wire::encode(registry, &services, &mut bytes);
    let length = bytes.len() as u64;
    if length > MAX_FILE {
        let registry = registry.to_owned();
        return Err(SnapshotError::TooLong { registry, length });
    }
    format::seal(&mut bytes);
    Ok(bytes)
}

/// What a file holds that was not loaded.
fn look(file: &Path) -> Known {
    read(file).map_or(Known::Nothing, |bytes| Known::of(&bytes))
}

fn read(file: &Path) -> Result<Vec<u8>, FileProblem> {
    // First of all, since opening a named pipe may wait for ever.
    let found = fs::metadata(file)?;
    if !found.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(error.into());
    }
    format::check_length(found.len())?;
    let mut bytes = Vec::new();
    // One byte more than there should be shows that it grew.
    let mut file = File::open(file)?.take(found.len() + 1);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn replace(temporary: &Path, file: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let mut out = File::create(temporary).map_err(SnapshotError::io("make", temporary))?;
    out.write_all(bytes)
        .and_then(|()| out.sync_all())
        .map_err(SnapshotError::io("write", temporary))?;
    fs::rename(temporary, file).map_err(SnapshotError::io("replace", file))
}

fn lock(dir: &Path) -> Result<File, SnapshotError> {
    let path = dir.join(LOCK);
    // A disk that became read-only can still be read.
    let lock = File::create(&path).or_else(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
        _ => Err(error),
    });
    let lock = lock.map_err(SnapshotError::io("make", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SnapshotError::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(SnapshotError::io("lock", &path)(error)),
    }
}

/// The files of the directory whose names end so, sorted.
fn files(dir: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.path();
        let name = file.file_name().and_then(OsStr::to_str);
        if name.is_some_and(|name| name.ends_with(suffix)) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
