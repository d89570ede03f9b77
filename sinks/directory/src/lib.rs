//! Writes Istio objects as files, one an object, or as a stream of YAML documents.
//!
//! The directory may be one that istiod reads (`pilot-discovery discovery --configDir`). A file is
//! ours if its content says so by label and has the name that belongs to it; other files are never
//! touched. Each file carries its hash in the annotation `diolkos.io/hash`, as objects in
//! Kubernetes do. Unlike those, a file is written as a whole: what others add to one is undone.

#![forbid(unsafe_code)]

mod manifest;
mod name;
mod store;

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use diolkos_istio::Object;
use diolkos_sink_api::{Applied, Change, Observed, Outcome, Sink, SinkError, WriteError};
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
    store: Store,
    /// All files as last seen, so that our own writes are not taken for those of others. Shared
    /// with the thread that looks at the directory.
    seen: Arc<SeenFiles>,
    /// When to look next. Kept here because [`Sink::drift`] is dropped and called again at will.
    next_look: Instant,
    turn: Arc<Mutex<()>>,
}

impl DirectorySink {
    /// A sink that writes to `path`, which has to exist: a volume that is not mounted must not be
    /// taken for an empty directory.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            store: Store { path },
            seen: Arc::default(),
            next_look: Instant::now(),
            turn: Arc::default(),
        }
    }

    /// Runs `work` off the async threads. One at a time: a file system that hangs holds one thread,
    /// however often we try.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (store, turn) = (self.store.clone(), self.turn.clone());
        let done = async {
            let turn = turn.lock_owned().await;
            let work = move || {
                let result = work(&store);
                drop(turn);
                result
            };
            tokio::task::spawn_blocking(work).await
        };
        match timeout(DEADLINE, done).await {
            Ok(done) => done.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the file system did not answer within {DEADLINE:?}"),
            )),
        }
    }

    async fn difference(&self, before: Arc<SeenFiles>) -> Result<Difference, SinkError> {
        let path = self.store.path.display();
        self.blocking(move |store| store.difference(&before))
            .await
            .flatten()
            .map_err(|error| SinkError(format!("cannot read {path}: {error}")))
    }

    fn take(&mut self, difference: Difference) -> Vec<Observed> {
        let seen = Arc::make_mut(&mut self.seen);
        seen.extend(difference.changed);
        for file in difference.gone {
            seen.remove(&file);
        }
        self.next_look = Instant::now() + DRIFT_POLL;
        difference.observed
    }

    async fn apply_one(&mut self, change: Change) -> Result<Outcome, WriteError> {
        let key = change.key().clone();
        let file = name::file_name(&key);
        let written = self
            .blocking(move |store| match change {
                Change::Put { object, hash } => {
                    let (outcome, stamp) = store.put(&object, hash)?;
                    Ok((outcome, Some(stamp)))
                }
                Change::Delete(key) => Ok((store.delete(&key)?, None)),
            })
            .await
            .map_err(|error| WriteError::Retry {
                reason: error.to_string(),
                after: None,
            });
        let (outcome, stamp) = written.flatten()?;
        let seen = Arc::make_mut(&mut self.seen);
        match stamp {
            Some(stamp) => {
                let key = Some(key);
                seen.insert(file, Seen { stamp, key });
            }
            None => {
                seen.remove(&file);
            }
        }
        Ok(outcome)
    }
}

impl Sink for DirectorySink {
    fn name(&self) -> &'static str {
        "directory"
    }

    async fn observe(&mut self) -> Result<Vec<Observed>, SinkError> {
        let path = self.store.path.display();
        self.blocking(Store::sweep)
            .await
            .flatten()
            .map_err(|error| SinkError(format!("cannot read {path}: {error}")))?;
        let all = self.difference(Arc::default()).await?;
        self.seen = Arc::default();
        Ok(self.take(all))
    }

    async fn drift(&mut self) -> Result<Vec<Observed>, SinkError> {
        loop {
            sleep_until(self.next_look).await;
            let difference = self.difference(self.seen.clone()).await?;
            // From here on nothing waits: a difference is either taken and returned or neither.
            let observed = self.take(difference);
            if !observed.is_empty() {
                return Ok(observed);
            }
        }
    }

    async fn apply(&mut self, changes: Vec<Change>) -> Vec<Applied> {
        let mut applied = Vec::with_capacity(changes.len());
        let end = Instant::now() + DEADLINE;
        for change in changes {
            let key = change.key().clone();
            let result = if Instant::now() < end {
                self.apply_one(change).await
            } else {
                Err(WriteError::Retry {
                    reason: "the file system is too slow for all changes of this batch".to_owned(),
                    after: None,
                })
            };
            applied.push(Applied { key, result });
        }
        applied
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
