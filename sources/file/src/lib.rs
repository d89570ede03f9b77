//! A directory of YAML documents as a source of services.
//!
//! The files are looked at four times a second; an edit is taken over within a second. What a
//! directory of files cannot say, it is not taken to say:
//!
//! - A file that is invalid, empty or cannot be read leaves the services that were last read from
//!   it as they are, and the evidence is [`Evidence::Partial`] until it is mended.
//! - A file is read when it has been left alone for a quarter of a second, so that a half-written
//!   one is not believed even where half of it makes sense. Writing elsewhere and renaming is safer
//!   still.
//! - A service is gone when a good file no longer has it, or when its file is removed.
//! - If the path itself is missing (a volume that is not mounted), the connection ends and nothing
//!   changes.
//!
//! Read are `*.yaml`, `*.yml` and `*.json`, each with any number of documents between `---` lines;
//! hidden files, other names and directories below are not. A service belongs in one file.
//!
//! ```yaml
//! name: orders            # required
//! namespace: prod         # the rest is optional
//! group: ""
//! metadata: {owner: shop}
//! instances:
//! - id: orders-1          # by default address:port
//!   address: 10.0.0.1     # required
//!   port: 8080            # or  ports: [{name: http, port: 8080, protocol: http}]
//!   protocol: http
//!   version: v1
//!   weight: 100           # may be a fraction; 0 is no traffic
//!   healthy: true         # or  unhealthy: draining
//!   locality: eu-west-1/eu-west-1a/rack1
//!   labels: {zone: a}
//! ```

#![forbid(unsafe_code)]

mod document;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod scan;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, TryLockError},
    time::Duration,
};

use diolkos_model::{Service, ServiceKey};
use diolkos_source_api::{Epoch, Event, Evidence, Source, SourceCx, SourceError};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::files::{Files, View};

/// How often the files are looked at. A change is taken over at the second look.
const POLL: Duration = Duration::from_millis(250);
/// A file system that takes longer to answer than this (a network mount) counts as lost.
const DEADLINE: Duration = Duration::from_secs(10);
/// The first snapshot waits this many polls for files that are being written.
const SETTLE_POLLS: u32 = 8;

/// A directory of YAML or JSON documents, or one such file. See the [crate documentation](crate).
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    files: Arc<Mutex<Files>>,
    /// What the engine was told, over all connections.
    sent: BTreeMap<ServiceKey, Arc<Service>>,
}

impl FileSource {
    /// The source of the registry of that name, reading `path`.
    #[must_use]
    pub fn new(registry: Arc<str>, path: PathBuf) -> Self {
        Self {
            files: Arc::new(Mutex::new(Files::new(registry, path.clone()))),
            path,
            sent: BTreeMap::new(),
        }
    }

    /// Looks at the files, off the async threads.
    async fn poll(&self, again: bool) -> Result<Option<View>, SourceError> {
        let files = self.files.clone();
        let look = tokio::task::spawn_blocking(move || match files.try_lock() {
            Ok(mut files) => files.poll(again),
            Err(TryLockError::Poisoned(files)) => files.into_inner().poll(again),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the file system has not answered the last look yet",
            )),
        });
        match timeout(DEADLINE, look).await {
            Ok(Ok(Ok(view))) => Ok(view),
            Ok(Ok(Err(error))) => Err(self.lost(&error)),
            Ok(Err(panic)) => Err(SourceError::Protocol(panic.to_string())),
            Err(_) => Err(self.lost(&io::ErrorKind::TimedOut.into())),
        }
    }

    fn lost(&self, error: &io::Error) -> SourceError {
        let message = format!("cannot read {}: {error}", self.path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => SourceError::Denied(message),
            _ => SourceError::Transport(message),
        }
    }

    /// Looks until no file is being written, or not much longer.
    async fn settle(&self) -> Result<View, SourceError> {
        let mut newest = self.poll(true).await?.unwrap_or_default();
        for _ in 0..SETTLE_POLLS {
            if !newest.settling {
                break;
            }
            sleep(POLL).await;
            if let Some(view) = self.poll(false).await? {
                newest = view;
            }
        }
        Ok(newest)
    }

    /// Names all services. Returns whether the evidence was complete.
    async fn snapshot(
        &mut self,
        epoch: Epoch,
        view: View,
        cx: &SourceCx,
    ) -> Result<bool, SourceError> {
        cx.events.send(Event::SnapshotStart { epoch }).await?;
        for service in view.services.values() {
            upsert(service, cx).await?;
        }
        let evidence = evidence(&view);
        let complete = evidence.is_complete();
        let end = Event::SnapshotEnd { epoch, evidence };
        cx.events.send(end).await?;
        self.finish(view, cx).await?;
        Ok(complete)
    }

    async fn changes(&mut self, view: View, cx: &SourceCx) -> Result<(), SourceError> {
        for (key, service) in &view.services {
            let known = self.sent.get(key);
            if known.is_none_or(|known| !Arc::ptr_eq(known, service) && known != service) {
                upsert(service, cx).await?;
            }
        }
        self.finish(view, cx).await
    }

    /// Names what was there and is not any more (a good file lacks it now, or its file was
    /// removed), and reports the state.
    async fn finish(&mut self, view: View, cx: &SourceCx) -> Result<(), SourceError> {
        let gone = self.sent.keys();
        for key in gone.filter(|key| !view.services.contains_key(*key)) {
            cx.events.send(Event::Remove { key: key.clone() }).await?;
        }
        cx.health.live(describe(&view));
        self.sent = view.services;
        Ok(())
    }
}

impl Source for FileSource {
    async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let view = self.settle().await?;
        // Not before: a path that cannot be read is no contact.
        cx.health
            .syncing(format!("reading {}", self.path.display()));
        let mut complete = self.snapshot(epoch, view, cx).await?;

        let mut polls = interval(POLL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost_before = false;
        loop {
            let again = tokio::select! {
                () = cx.cancel.cancelled() => return Err(SourceError::Stopped),
                Some(()) = cx.resync.recv() => true,
                _ = polls.tick() => false,
            };
            let view = match self.poll(again).await {
                Ok(view) => view,
                // As with the files: an editor may be replacing the one that the path names.
                Err(SourceError::Transport(_)) if !std::mem::replace(&mut lost_before, true) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            lost_before = false;
            cx.health.contact();
            match view {
                None => {}
                // The engine still waits for a snapshot that names all there is.
                Some(view) if again || (!complete && evidence(&view).is_complete()) => {
                    complete = self.snapshot(epoch, view, cx).await?;
                }
                Some(view) => self.changes(view, cx).await?,
            }
        }
    }
}

async fn upsert(service: &Arc<Service>, cx: &SourceCx) -> Result<(), SourceError> {
    let service = service.clone();
    // A file holds whole services, so this is all there is of it.
    let evidence = Evidence::Complete;
    cx.events.send(Event::Upsert { service, evidence }).await
}

fn evidence(view: &View) -> Evidence {
    match view.faults.first() {
        Some(_) => Evidence::Partial(describe(view).into()),
        None if view.settling => Evidence::Partial("a file is being written".into()),
        None => Evidence::Complete,
    }
}

/// One line for people.
fn describe(view: &View) -> String {
    match &*view.faults {
        [] => format!("{} services in {} files", view.services.len(), view.files),
        [fault] => fault.clone(),
        [fault, more @ ..] => format!("{fault} (and {} more faults)", more.len()),
    }
}
