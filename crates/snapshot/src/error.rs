//! What can go wrong, for people.

use std::{
    io,
    path::{Path, PathBuf},
};

use diolkos_model::ServiceKey;

/// A file that is not believed. Its registry starts without memory.
#[derive(Debug, thiserror::Error)]
#[error(
    "the snapshot {} is not used, and its registry starts without memory of what it carried: {problem}",
    file.display()
)]
pub struct Fault {
    /// The file. [`Store::file`](crate::Store::file) gives the same path for the registry.
    pub file: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The operating system does not give it out.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It begins as something else.
    #[error("it is not a snapshot; the next one replaces it")]
    NoSnapshot,
    /// It ends too early.
    #[error("its end is missing; the next snapshot replaces it")]
    Truncated,
    /// It is longer than it says, or its checksum is another.
    #[error("it is damaged (its length or checksum does not fit); the next snapshot replaces it")]
    Damaged,
    /// An older version of Diolkos wrote it.
    #[error(
        "it has the format {version}, which is not read any more; the next snapshot replaces it"
    )]
    Older {
        /// The format's version.
        version: u32,
    },
    /// A newer version of Diolkos wrote it.
    #[error(
        "it has the format {version} of a newer version of Diolkos and is left as it is: run that \
         version, or remove the file"
    )]
    Newer {
        /// The format's version.
        version: u32,
    },
    /// It is longer than any snapshot is.
    #[error("it has {length} bytes, more than a snapshot may have; the next one replaces it")]
    TooLong {
        /// Its length in bytes.
        length: u64,
    },
    /// The checksum fits, the content makes no sense.
    #[error("it makes no sense ({0}); the next snapshot replaces it")]
    Content(String),
    /// It was renamed or copied by hand.
    #[error(
        "it holds the services of the registry '{registry}', whose file has another name: rename \
         or remove it"
    )]
    Misnamed {
        /// The registry that it is of.
        registry: String,
    },
}

/// A snapshot was not taken. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Two processes must not write the same files.
    #[error(
        "the state directory {} is in use by another process: give each its own",
        dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is of a newer version of Diolkos.
    #[error(
        "the snapshot {} has the format {version} of a newer version of Diolkos and is left as it \
         is: run that version, or remove the file and restart",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// The format's version.
        version: u32,
    },
    /// The snapshot would be longer than any that is read.
    #[error(
        "the snapshot of the registry '{registry}' would have {length} bytes, which is too long"
    )]
    TooLong {
        /// The registry.
        registry: String,
        /// The length in bytes.
        length: u64,
    },
    /// A service of another registry.
    #[error("the service {service} is not one of the registry '{registry}'")]
    Foreign {
        /// The registry whose snapshot it is.
        registry: String,
        /// The service.
        service: ServiceKey,
    },
}

impl SnapshotError {
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl Fn(io::Error) -> Self + use<'a> {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
