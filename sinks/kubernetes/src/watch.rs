//! The tasks that follow the objects of a kind.

use std::sync::Arc;

use diolkos_istio::Kind;
use diolkos_kube_ext::{Client, MetadataEvent, WatchError, metadata_watch};
use diolkos_sink_api::SinkError;
use futures::StreamExt as _;
use kube::runtime::watcher::Event;
use tokio::{sync::watch, task::JoinHandle};

use crate::{cache::Cache, resource, shared::Shared};

/// A running watch. Ends when it is dropped.
pub(crate) struct Watch {
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

/// How far the first list is.
#[derive(Clone, Debug)]
enum Progress {
    Listing,
    Failed(SinkError),
    Ready,
}

impl Watch {
    pub(crate) fn start(client: Client, kind: Kind, shared: Arc<Shared>) -> Self {
        let (sender, progress) = watch::channel(Progress::Listing);
        Self {
            progress,
            task: tokio::spawn(follow(client, kind, shared, sender)),
        }
    }

    /// Waits until the first list is there, or failed.
    pub(crate) async fn ready(&mut self) -> Result<(), SinkError> {
        let ended = || SinkError("the watch ended; this is a defect of Diolkos".to_owned());
        let reached = self
            .progress
            .wait_for(|progress| !matches!(progress, Progress::Listing))
            .await;
        match &*reached.map_err(|_| ended())? {
            Progress::Failed(error) => Err(error.clone()),
            Progress::Listing | Progress::Ready => Ok(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    client: Client,
    kind: Kind,
    shared: Arc<Shared>,
    progress: watch::Sender<Progress>,
) {
    let mut events = std::pin::pin!(metadata_watch(client, resource(kind)));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let ready = matches!(event, Event::InitDone);
                shared.update(|cache| take(cache, kind, event));
                if ready {
                    progress.send_replace(Progress::Ready);
                }
            }
            Err(error) => {
                tracing::warn!(kind = kind.name(), %error, "cannot watch objects, trying again");
                progress.send_if_modified(|progress| {
                    let first = !matches!(progress, Progress::Ready);
                    if first {
                        *progress = Progress::Failed(explain(kind, &error));
                    }
                    first
                });
            }
        }
    }
}

fn take(cache: &mut Cache, kind: Kind, event: MetadataEvent) {
    match event {
        Event::Init => cache.list_begins(kind),
        Event::InitDone => cache.list_ends(kind),
        Event::InitApply(object) | Event::Apply(object) => match cache.read(kind, &object.metadata)
        {
            Some((key, entry)) => cache.is(key, entry),
            None => unreadable(kind, &object.metadata.name),
        },
        Event::Delete(object) => match cache.read(kind, &object.metadata) {
            Some((key, entry)) => cache.gone(key, entry.version),
            None => unreadable(kind, &object.metadata.name),
        },
    }
}

fn unreadable(kind: Kind, name: &Option<String>) {
    tracing::warn!(
        kind = kind.name(),
        name,
        "an object without namespace, uid or numeric resourceVersion is left out"
    );
}

fn explain(kind: Kind, error: &WatchError) -> SinkError {
    match error {
        WatchError::NotServed { plural, group } => SinkError(format!(
            "the Istio CRD {plural}.{group} is not installed: install Istio's base chart"
        )),
        WatchError::Deadline(_) | WatchError::Other(_) => SinkError(format!(
            "cannot list the {} of the cluster: {error}",
            kind.plural()
        )),
    }
}
