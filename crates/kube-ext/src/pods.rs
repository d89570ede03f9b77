//! What the cluster's Pods say of themselves, by address.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::Duration};

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

/// A watch that does not work says so again after its pause, which doubles from 0.8 s to 30 s. Without a word for that
/// long and this it works: one of objects that do not change says nothing else.
const QUIET: Duration = Duration::from_secs(10);

/// The longest pause of a watch, and then some.
const LONGEST: Duration = Duration::from_secs(40);

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
        troubles: Troubles::default(),
        told_all: false,
        due: None,
    };
    loop {
        let (due, over) = (follower.due, follower.troubles.over());
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
            () = until(over) => follower.troubles.expire(),
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
    troubles: Troubles,
    told_all: bool,
    /// When to tell what has gathered.
    due: Option<Instant>,
}

type PodEvent = kube::runtime::watcher::Event<PodObject>;

impl Follower {
    fn pod(&mut self, event: Result<PodEvent, WatchError>) -> Option<PodNews> {
        match event {
            Err(error) => self.troubles.fails("pods", &error),
            Ok(event) => {
                // Each try to list begins with it.
                let works = !matches!(event, PodEvent::Init);
                self.table.pod(event);
                self.gather();
                works.then(|| self.troubles.works("pods")).flatten()
            }
        }
    }

    fn node(&mut self, event: Result<MetadataEvent, WatchError>) -> Option<PodNews> {
        match event {
            Err(error) => self.troubles.fails("nodes", &error),
            Ok(event) => {
                let works = !matches!(event, MetadataEvent::Init);
                self.table.node(event);
                self.gather();
                works.then(|| self.troubles.works("nodes")).flatten()
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

/// The watches that do not work, by resource.
#[derive(Default)]
struct Troubles {
    now: BTreeMap<&'static str, Trouble>,
    told: Option<Arc<str>>,
}

struct Trouble {
    why: String,
    /// Errors in a row.
    errors: u32,
    /// When it is over if nothing more is heard of it.
    over: Instant,
}

impl Troubles {
    fn fails(&mut self, resource: &'static str, error: &WatchError) -> Option<PodNews> {
        tracing::warn!(resource, %error, "cannot watch what `export.podLabels` needs, what is known of Pods stays; `diolkos` needs list and watch of it");
        let errors = self.now.get(resource).map_or(0, |trouble| trouble.errors) + 1;
        let pause = Duration::from_secs(2_u64.saturating_pow(errors)).min(LONGEST);
        let trouble = Trouble {
            why: format!("cannot watch {resource}: {error}"),
            errors,
            over: Instant::now() + pause + QUIET,
        };
        self.now.insert(resource, trouble);
        self.news()
    }

    fn works(&mut self, resource: &str) -> Option<PodNews> {
        self.now.remove(resource);
        self.news()
    }

    fn over(&self) -> Option<Instant> {
        self.now.values().map(|trouble| trouble.over).min()
    }

    fn expire(&mut self) -> Option<PodNews> {
        let now = Instant::now();
        self.now.retain(|_, trouble| trouble.over > now);
        self.news()
    }

    /// What there is to tell, if it is not what was told.
    fn news(&mut self) -> Option<PodNews> {
        let all: Vec<&str> = self.now.values().map(|trouble| &*trouble.why).collect();
        let text = (!all.is_empty()).then(|| Arc::from(all.join("; ")));
        if text == self.told {
            return None;
        }
        self.told.clone_from(&text);
        Some(PodNews::Trouble(text))
    }
}

#[cfg(test)]
mod tests;
