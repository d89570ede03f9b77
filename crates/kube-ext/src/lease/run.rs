//! The loop: looks, decides, sends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    LeaseSettings, LeaseTerms, LeaseView,
    election::{Call, Clock, Election, Failed, Subject},
    wire,
};
use crate::CallError;

/// The most calls at once.
const AT_ONCE: usize = 16;

/// Keeps Leases until it is dropped. Dropped without [`release`](Self::release), they run out by themselves.
pub struct Leases {
    terms: watch::Receiver<Arc<LeaseTerms>>,
    view: watch::Receiver<Arc<LeaseView>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Leases {
    /// What we may write, and until when.
    #[must_use]
    pub fn terms(&self) -> watch::Receiver<Arc<LeaseTerms>> {
        self.terms.clone()
    }

    /// Who holds what.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<LeaseView>> {
        self.view.clone()
    }

    /// Gives all Leases back, so that others can take them at once. Call it when the writer has ended. Ends in
    /// bounded time; what does not work by then runs out by itself.
    pub async fn release(mut self) {
        if let Some(stop) = self.stop.take()
            && stop.send(()).is_ok()
            && let Err(error) = (&mut self.task).await
        {
            tracing::error!(%error, "the keeper of the Leases failed");
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps the Leases of `registries`, which may change.
#[must_use]
pub fn start_leases(
    client: Client,
    settings: LeaseSettings,
    registries: watch::Receiver<BTreeSet<Arc<str>>>,
) -> Leases {
    let (terms, terms_out) = watch::channel(Arc::default());
    let (view, view_out) = watch::channel(Arc::default());
    let (stop, stopped) = oneshot::channel();
    let keeper = Keeper {
        api: Api::namespaced(client, &settings.namespace),
        election: Election::new(settings.clone()),
        settings,
        registries,
        terms,
        view,
        troubles: BTreeMap::new(),
        writing: BTreeSet::new(),
    };
    Leases {
        terms: terms_out,
        view: view_out,
        stop: Some(stop),
        task: tokio::spawn(keeper.run(stopped)),
    }
}

struct Keeper {
    api: Api<Lease>,
    settings: LeaseSettings,
    election: Election,
    registries: watch::Receiver<BTreeSet<Arc<str>>>,
    terms: watch::Sender<Arc<LeaseTerms>>,
    view: watch::Sender<Arc<LeaseView>>,
    /// What does not work, by what it is about: `None` is the list.
    troubles: BTreeMap<Option<Subject>, String>,
    /// The registries that we write, as last logged.
    writing: BTreeSet<Arc<str>>,
}

impl Keeper {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            self.step().await;
            let pause = self.settings.look.mul_f64(rand::random_range(0.9..1.1));
            tokio::select! {
                // Also where the sender was dropped: nobody wants the Leases any more.
                _ = &mut stopped => break,
                () = wanted_changes(&mut self.registries) => {}
                () = sleep(pause) => {}
            }
        }
        let calls = self.election.last_calls(Clock::read().wall);
        let (replica, registries) = calls
            .into_iter()
            .partition(|call| matches!(call.subject, Subject::Replica(_)));
        self.send(replica).await;
        self.send(registries).await;
    }

    /// One look at the Leases and what follows from it.
    async fn step(&mut self) {
        self.election
            .want(self.registries.borrow_and_update().clone());
        let looked = wire::list(&self.api, self.settings.call()).await;
        let fresh = looked.is_ok();
        match looked {
            Ok(all) => {
                self.works(&None);
                self.election.observe(all, Instant::now());
            }
            Err(error) => self.fails(None, &error),
        }
        let calls = self.election.calls(Clock::read(), fresh);
        // Before the calls: what we leave must not be written while they last.
        self.publish();
        self.send(calls).await;
        self.publish();
    }

    async fn send(&mut self, calls: Vec<Call>) {
        let (api, limit) = (self.api.clone(), self.settings.call());
        let mut answers = stream::iter(calls)
            .map(|call| {
                let api = api.clone();
                async move {
                    // The start: a term must not last longer than the others grant it.
                    let started = Instant::now();
                    let result = wire::send(&api, &call, limit).await;
                    (call, started, result)
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some((call, started, result)) = answers.next().await {
            let result = match result {
                Ok(version) => {
                    self.works(&Some(call.subject.clone()));
                    Ok(version)
                }
                Err(error) => {
                    let failed = wire::failed(&error);
                    // Others are faster at times; the next look tells.
                    if failed == Failed::Unknown {
                        self.fails(Some(call.subject.clone()), &error);
                    }
                    Err(failed)
                }
            };
            self.election.answer(call, started, Instant::now(), result);
            self.publish();
        }
    }

    fn publish(&mut self) {
        let (now, terms) = (Instant::now(), self.election.terms());
        self.log(&terms, now);
        let error = self.troubles.values().next().cloned();
        let view = self.election.view(now, error);
        replace(&self.terms, terms);
        replace(&self.view, view);
    }

    fn log(&mut self, terms: &LeaseTerms, now: Instant) {
        let writing =
            |(registry, until): (&Arc<str>, &Instant)| (*until > now).then(|| registry.clone());
        let writing: BTreeSet<Arc<str>> = terms.iter().filter_map(writing).collect();
        let replica = &self.settings.identity;
        for registry in writing.difference(&self.writing) {
            tracing::info!(%registry, %replica, "this replica writes the registry from now on");
        }
        for registry in self.writing.difference(&writing) {
            tracing::info!(%registry, %replica, "this replica does not write the registry any more");
        }
        self.writing = writing;
    }

    fn works(&mut self, what: &Option<Subject>) {
        if self.troubles.remove(what).is_some() && self.troubles.is_empty() {
            tracing::info!("the Leases can be read and written again");
        }
    }

    /// Logs a failure once for as long as it lasts.
    fn fails(&mut self, what: Option<Subject>, error: &CallError) {
        let verb = if what.is_some() { "written" } else { "read" };
        let namespace = &self.settings.namespace;
        let text = format!("the Leases in namespace {namespace} cannot be {verb}: {error}");
        if self.troubles.is_empty() {
            tracing::warn!(namespace, %error, "Leases cannot be {verb}; what we hold runs out, and others cannot be replaced");
        }
        self.troubles.insert(what, text);
    }
}

/// Waits for other registries. Without a sender they stay as they are.
async fn wanted_changes(registries: &mut watch::Receiver<BTreeSet<Arc<str>>>) {
    if registries.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<Arc<T>>, new: T) {
    sender.send_if_modified(|current| {
        let changed = **current != new;
        if changed {
            *current = Arc::new(new);
        }
        changed
    });
}
