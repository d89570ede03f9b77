//! The last good services of each registry in a file, for sinks that have no memory of their own.
//!
//! A directory holds one file a registry, so that a broken file costs one registry. A file is either
//! complete and believed or refused as a whole; see [`FileProblem`]. It is replaced by writing a
//! temporary file beside it, flushing that to the disk and renaming it, so that whatever happens in
//! between (`kill -9`, a full disk, a loss of power) leaves the former version or the new one.
//!
//! All calls block on the disk.

#![forbid(unsafe_code)]

mod error;
mod format;
mod name;
mod store;
mod wire;

pub use error::{Fault, FileProblem, SnapshotError};
pub use store::{Loaded, Store};

/// The longest file that is read or written, in bytes. A million instances fit many times over.
const MAX_FILE: u64 = 512 << 20;

/// Doors for fuzzers, behind the checksum that they would never get past.
#[doc(hidden)]
pub mod fuzz {
    use diolkos_model::{Interner, Service};

    /// Reads a file's payload; if it is one, what it says has to survive being written and read.
    pub fn payload(bytes: &[u8]) {
        let Ok((registry, services)) = crate::wire::decode(bytes, &mut Interner::new()) else {
            return;
        };
        let all: Vec<&Service> = services.iter().collect();
        let mut written = Vec::new();
        crate::wire::encode(&registry, &all, &mut written);
        let again = crate::wire::decode(&written, &mut Interner::new());
        assert_eq!(again.ok(), Some((registry, services)));
    }

    /// Reads a whole file.
    pub fn file(bytes: &[u8]) {
        if let Ok((body, _)) = crate::format::unseal(bytes) {
            payload(body);
        }
    }
}
