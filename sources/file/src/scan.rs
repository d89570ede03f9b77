//! Looking at the files: which there are, and whether one may have changed.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Files whose names end so are read; others (`orders.yaml~`, `#orders.yaml#`, `4913`) are not ours.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// As long as it stays the same, so does the content: no file is read in vain. The time of change
/// is in it since `cp -p` keeps the time of modification and `chmod` keeps all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether it is the same file, whatever is in it.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A file that is there.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    /// Fails for example for a symbolic link to nowhere.
    pub(crate) stamp: io::Result<Stamp>,
}

/// The files of a directory, or the one file, by file name.
///
/// # Errors
/// The path itself cannot be read. That says nothing about what is in it.
pub(crate) fn scan(path: &Path) -> io::Result<BTreeMap<OsString, Entry>> {
    let metadata = fs::metadata(path)?;
    let mut entries = BTreeMap::new();
    if !metadata.is_dir() {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_owned();
        entries.insert(
            name,
            Entry {
                path: path.to_owned(),
                stamp: Ok(Stamp::of(&metadata)),
            },
        );
        return Ok(entries);
    }
    for found in fs::read_dir(path)? {
        let found = found?;
        let name = found.file_name();
        if !is_ours(&name) {
            continue;
        }
        if let Some(entry) = examine(found.path()) {
            entries.insert(name, entry);
        }
    }
    Ok(entries)
}

fn is_ours(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// Follows symbolic links, as Kubernetes mounts a `ConfigMap` with them. `None` for what is no
/// file, and for a file that was removed since it was listed.
fn examine(path: PathBuf) -> Option<Entry> {
    let stamp = match fs::metadata(&path) {
        Ok(metadata) if !metadata.is_file() => return None,
        Ok(metadata) => Ok(Stamp::of(&metadata)),
        Err(_) if fs::symlink_metadata(&path).is_err() => return None,
        Err(error) => Err(error),
    };
    Some(Entry { path, stamp })
}

/// The content of a file that had this stamp; `None` if it has another one by now, so that what was
/// read may be half old and half new.
pub(crate) fn read(path: &Path, stamp: &Stamp) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let unchanged = Stamp::of(&file.metadata()?) == *stamp;
    Ok(unchanged.then_some(content))
}
