//! Writes Istio objects as files, one an object, or as a stream of YAML documents.
//!
//! The directory may be one that istiod reads (`pilot-discovery discovery --configDir`). A file is
//! ours if its content says so by label and has the name that belongs to it; other files are never
//! touched. Each file carries its hash in the annotation `diolkos.io/hash`, as objects in
//! Kubernetes do. Unlike those, a file is written as a whole: what others add to one is undone.

#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod fuzz;
mod manifest;
mod name;
mod store;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use diolkos_istio::{Object, ObjectKey};
use diolkos_sink_api::{
    Change, Observed, Outcome, Permit, Remembered, Sink, SinkError, State, WriteError,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until, timeout},
};

use crate::store::{Difference, Seen, SeenFiles, Store};

/// How often the directory is looked at for changes that others made.
const DRIFT_POLL: Duration = Duration::from_secs(1);
/// A file system that takes longer than this for one thing (a network mount) is not waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// A directory with one file an object. See the [crate documentation](crate).
#[derive(Debug)]
pub struct DirectorySink {
    writer: Writer,
    /// When to look next. Kept here because [`Sink::drift`] may be dropped and called again.
    next_look: Instant,
    /// What the last observation tells of the time before.
    remembered: Vec<Remembered>,
}

/// Writes to the directory of a [`DirectorySink`].
#[derive(Clone, Debug)]
pub struct Writer {
    store: Store,
    /// All files as last seen or written, so that our own writes are not taken for those of others.
    /// Who works on the directory holds it: one at a time, and a file system that hangs holds one
    /// thread, however often we try.
    files: Arc<Mutex<Files>>,
}

/// What is known of the directory.
#[derive(Debug, Default)]
struct Files {
    seen: SeenFiles,
    /// What others changed and was not told yet.
    changed: BTreeMap<ObjectKey, State>,
}

impl Files {
    fn take(&mut self, difference: Difference) {
        self.seen.extend(difference.changed);
        for file in difference.gone {
            self.seen.remove(&file);
        }
        let observed = difference.observed.into_iter();
        self.changed.extend(observed.map(|o| (o.key, o.state)));
    }

    fn tell(&mut self) -> Vec<Observed> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .map(|(key, state)| Observed { key, state })
            .collect()
    }
}

impl DirectorySink {
    /// A sink that writes to `path`, which has to exist: a volume that is not mounted must not be
    /// taken for an empty directory.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            writer: Writer {
                store: Store { path },
                files: Arc::default(),
            },
            next_look: Instant::now(),
            remembered: Vec::new(),
        }
    }

    /// Looks at the directory and takes over what is different.
    async fn look<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&Store, &mut Files) -> io::Result<T> + Send + 'static,
    ) -> Result<T, SinkError> {
        let path = self.writer.store.path.display();
        let looked = self.writer.blocking(look).await.flatten();
        let looked = looked.map_err(|error| SinkError(format!("cannot read {path}: {error}")))?;
        self.next_look = Instant::now() + DRIFT_POLL;
        Ok(looked)
    }
}

impl Writer {
    /// Runs `work` off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &mut Files) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (store, files) = (self.store.clone(), self.files.clone());
        let done = async {
            let mut files = files.lock_owned().await;
            tokio::task::spawn_blocking(move || work(&store, &mut files)).await
        };
        match timeout(DEADLINE, done).await {
            Ok(done) => done.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the file system did not answer within {DEADLINE:?}"),
            )),
        }
    }
}

impl Sink for DirectorySink {
    type Writer = Writer;

    fn name(&self) -> &'static str {
        "directory"
    }

    async fn observe(&mut self) -> Result<Vec<Observed>, SinkError> {
        let (observed, remembered) = self
            .look(|store, files| {
                store.sweep()?;
                let mut all = store.difference(&SeenFiles::new())?;
                let remembered = std::mem::take(&mut all.remembered);
                *files = Files::default();
                files.take(all);
                Ok((files.tell(), remembered))
            })
            .await?;
        self.remembered = remembered;
        Ok(observed)
    }

    fn remembered(&self) -> Vec<Remembered> {
        self.remembered.clone()
    }

    async fn drift(&mut self) -> Result<Vec<Observed>, SinkError> {
        loop {
            sleep_until(self.next_look).await;
            self.look(|store, files| {
                let difference = store.difference(&files.seen)?;
                files.take(difference);
                Ok(())
            })
            .await?;
            // From here on nothing waits: it is told, or it stays for the next call.
            let observed = self.writer.files.lock().await.tell();
            if !observed.is_empty() {
                return Ok(observed);
            }
        }
    }

    fn writer(&self) -> Writer {
        self.writer.clone()
    }
}

impl diolkos_sink_api::Writer for Writer {
    fn parallel(&self) -> usize {
        1
    }

    async fn apply(&self, change: Change, permit: &Permit) -> Result<Outcome, WriteError> {
        let permit = permit.clone();
        let done = self.blocking(move |store, files| {
            let key = change.key().clone();
            let file = name::file_name(&key);
            // Here, not before: there may have been others to wait for.
            permit.check()?;
            let outcome = match change {
                Change::Put { object, hash } => {
                    let (outcome, stamp) = store.put(&object, hash)?;
                    let key = Some(key.clone());
                    files.seen.insert(file, Seen { stamp, key });
                    outcome
                }
                Change::Delete(key) => {
                    let outcome = store.delete(&key)?;
                    files.seen.remove(&file);
                    outcome
                }
            };
            files.changed.remove(&key);
            Ok(outcome)
        });
        let done = done.await.map_err(|error| WriteError::Retry {
            reason: error.to_string(),
            after: None,
        });
        done.flatten()
    }
}

/// Writes objects as a stream of YAML documents, sorted by key, without hashes: for people, `git`
/// and `kubectl apply`. The same objects give the same bytes.
///
/// # Errors
/// `out` does not take them.
pub fn write_stream<'a>(
    objects: impl IntoIterator<Item = &'a Object>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut objects: Vec<&Object> = objects.into_iter().collect();
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    for (place, object) in objects.into_iter().enumerate() {
        if place > 0 {
            out.write_all(b"---\n")?;
        }
        out.write_all(manifest::to_yaml(object, None)?.as_bytes())?;
    }
    out.flush()
}
