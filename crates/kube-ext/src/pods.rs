//! What the cluster's Pods say of themselves, by address.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use diolkos_model::{Workload, Workloads};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, api::ApiResource};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{MetadataEvent, WatchError, metadata_watch, watch::object_watch};
use table::{PodObject, Table};

mod table;

/// How long changes are gathered: a rollout changes many Pods.
const GATHER: Duration = Duration::from_millis(100);

/// A watch that does not work says so again within this time, however long its pauses are. So without a word for that long
/// it works: a watch of objects that do not change says nothing else.
const QUIET: Duration = Duration::from_secs(100);

/// News that wait at most.
const QUEUE: usize = 16;

/// What to keep of Pods. All else is thrown away as it is read.
#[derive(Clone)]
pub struct PodSettings {
    /// Keys of the labels to keep.
    pub labels: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Whether the localities of the nodes are wanted: nodes are watched, too, then.
    pub localities: bool,
}

impl fmt::Debug for PodSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodSettings")
            .field("localities", &self.localities)
            .finish_non_exhaustive()
    }
}

/// An address, and the Pod that has it now; `None` if none has.
pub type PodChange = (IpAddr, Option<Arc<Workload>>);

/// What is new of the Pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodNews {
    /// All Pods that have an address of their own: once, when they (and the nodes, if wanted) have been listed.
    All(Workloads),
    /// What changed since. Never empty.
    Changed(Vec<PodChange>),
    /// Why they cannot be followed at the moment; `None` if they can again. What was told before still holds as far as is
    /// known.
    Trouble(Option<Arc<str>>),
}

/// Follows the Pods of all namespaces. Needs list and watch of `pods`, and of `nodes` for localities. The task runs until
/// the receiver is dropped.
///
/// A Pod on the network of its node is left out, since it shares the node's address; so is one that is finished. Of
/// several Pods with one address that counts which is not being deleted, runs, and is the youngest.
#[must_use]
pub fn watch_pods(
    client: Client,
    settings: PodSettings,
) -> (mpsc::Receiver<PodNews>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (receiver, tokio::spawn(follow(client, settings, sender)))
}

async fn follow(client: Client, settings: PodSettings, news: mpsc::Sender<PodNews>) {
    let kind = ApiResource::erase::<Pod>(&());
    let api: Api<PodObject> = Api::all_with(client.clone(), &kind);
    let mut pods = object_watch(api, kind).boxed();
    let mut nodes = nodes(client, settings.localities);
    let mut follower = Follower {
        table: Table::new(settings),
        trouble: Trouble::default(),
        told_all: false,
        due: None,
    };
    loop {
        let (due, quiet) = (follower.due, follower.trouble.quiet);
        let told = tokio::select! {
            event = pods.next() => match event {
                None => return,
                Some(event) => follower.pod(event),
            },
            event = nodes.next() => match event {
                None => return,
                Some(event) => follower.node(event),
            },
            () = until(due) => follower.tell(),
            () = until(quiet) => follower.trouble.clear(),
            () = news.closed() => return,
        };
        if let Some(told) = told
            && news.send(told).await.is_err()
        {
            return;
        }
    }
}

fn nodes(client: Client, wanted: bool) -> BoxStream<'static, Result<MetadataEvent, WatchError>> {
    if wanted {
        metadata_watch(client, ApiResource::erase::<Node>(&())).boxed()
    } else {
        stream::pending().boxed()
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

struct Follower {
    table: Table,
    trouble: Trouble,
    told_all: bool,
    /// When to tell what has gathered.
    due: Option<Instant>,
}

type PodEvent = kube::runtime::watcher::Event<PodObject>;

impl Follower {
    fn pod(&mut self, event: Result<PodEvent, WatchError>) -> Option<PodNews> {
        match event {
            Err(error) => self.trouble.pods("pods", &error),
            Ok(event) => {
                // Each try to list begins with it.
                let works = !matches!(event, PodEvent::Init);
                self.table.pod(event);
                self.gather();
                works.then(|| self.trouble.pods_work()).flatten()
            }
        }
    }

    fn node(&mut self, event: Result<MetadataEvent, WatchError>) -> Option<PodNews> {
        match event {
            Err(error) => self.trouble.nodes("nodes", &error),
            Ok(event) => {
                let works = !matches!(event, MetadataEvent::Init);
                self.table.node(event);
                self.gather();
                works.then(|| self.trouble.nodes_work()).flatten()
            }
        }
    }

    fn gather(&mut self) {
        let news = !self.told_all || self.table.has_changes();
        if self.table.is_listed() && news {
            self.due.get_or_insert_with(|| Instant::now() + GATHER);
        }
    }

    fn tell(&mut self) -> Option<PodNews> {
        self.due = None;
        let changes = self.table.take_changes();
        if std::mem::replace(&mut self.told_all, true) {
            return (!changes.is_empty()).then_some(PodNews::Changed(changes));
        }
        let all = changes.into_iter().filter_map(|(ip, pod)| Some((ip, pod?)));
        Some(PodNews::All(all.collect()))
    }
}

/// Why the watches do not work.
#[derive(Default)]
struct Trouble {
    pods: Option<Arc<str>>,
    nodes: Option<Arc<str>>,
    /// When it is over if nothing more is heard of it.
    quiet: Option<Instant>,
}

impl Trouble {
    fn pods(&mut self, resource: &str, error: &WatchError) -> Option<PodNews> {
        let text = self.note(resource, error);
        self.change(|trouble| trouble.pods = Some(text))
    }

    fn nodes(&mut self, resource: &str, error: &WatchError) -> Option<PodNews> {
        let text = self.note(resource, error);
        self.change(|trouble| trouble.nodes = Some(text))
    }

    fn pods_work(&mut self) -> Option<PodNews> {
        self.change(|trouble| trouble.pods = None)
    }

    fn nodes_work(&mut self) -> Option<PodNews> {
        self.change(|trouble| trouble.nodes = None)
    }

    fn clear(&mut self) -> Option<PodNews> {
        self.quiet = None;
        self.change(|trouble| (trouble.pods, trouble.nodes) = (None, None))
    }

    fn note(&mut self, resource: &str, error: &WatchError) -> Arc<str> {
        tracing::warn!(resource, %error, "cannot watch what `export.podLabels` needs, what is known of Pods stays; `diolkos` needs list and watch of it");
        self.quiet = Some(Instant::now() + QUIET);
        format!("cannot watch {resource}: {error}").into()
    }

    /// The news, if what it says is another.
    fn change(&mut self, change: impl FnOnce(&mut Self)) -> Option<PodNews> {
        let before = self.text();
        change(self);
        let now = self.text();
        (now != before).then_some(PodNews::Trouble(now))
    }

    fn text(&self) -> Option<Arc<str>> {
        self.pods.as_ref().or(self.nodes.as_ref()).cloned()
    }
}

#[cfg(test)]
mod tests;
