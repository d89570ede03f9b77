//! A store with drivers on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use diolkos_istio::{Object, ObjectKey};
use diolkos_plan::Endpoints;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::Fixture;
use crate::{
    Authority, Desired, Driving, Ledger, Outcome, Pace, Remembered, Terms, WriteError, drive,
    shop::Shop,
};

/// Far above what anything takes; only a failing case waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The registry whose endpoints are workload entries.
pub(super) const WORK: &str = "work";
/// The registry whose endpoints are in the service entries.
pub(super) const INLINE: &str = "inline";
/// A registry for what other registries must not be concerned by.
pub(super) const ELSEWHERE: &str = "elsewhere";
/// A service of [`WORK`] whose objects are removed by hand to see that everything before was heard.
const CANARY: &str = "canary";

/// Results of writes, in order.
type Log = Arc<Mutex<Vec<(ObjectKey, Result<Outcome, WriteError>)>>>;

pub(super) struct Driver {
    desired: watch::Sender<Arc<Desired>>,
    terms: watch::Sender<Arc<Terms>>,
    pub(super) remembered: mpsc::Receiver<Vec<Remembered>>,
    pub(super) ledger: Ledger,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// The store and the log at some time.
pub(super) struct Mark {
    versions: BTreeMap<ObjectKey, String>,
    log: usize,
}

impl Mark {
    /// Whether the store is as it was.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.versions == other.versions
    }

    pub(super) fn version(&self, key: &ObjectKey) -> Option<&str> {
        self.versions.get(key).map(String::as_str)
    }
}

pub(super) struct Bed<F> {
    pub(super) fixture: F,
    pub(super) shop: Shop,
    pub(super) drivers: Vec<Driver>,
    published: Arc<Desired>,
    log: Log,
}

impl<F: Fixture> Bed<F> {
    /// Two registries and the canary; no driver yet.
    pub(super) fn new(fixture: F) -> Self {
        let mut shop = Shop::default();
        shop.registry(WORK, fixture.namespace(), Endpoints::WorkloadEntry);
        shop.registry(INLINE, fixture.namespace(), Endpoints::Inline);
        shop.put(WORK, CANARY, &["canary"], 80);
        Self {
            fixture,
            published: shop.publish(),
            shop,
            drivers: Vec::new(),
            log: Log::default(),
        }
    }

    /// A bed with a driver that has written `services` of [`WORK`], each with two instances.
    pub(super) async fn settled_with(fixture: F, services: &[&str]) -> Result<Self> {
        let mut bed = Self::new(fixture);
        for name in services {
            bed.shop.put(WORK, name, &["a", "b"], 80);
        }
        bed.publish();
        bed.start();
        bed.settled().await?;
        Ok(bed)
    }

    /// Starts one more driver, with a sink of its own.
    pub(super) fn start(&mut self) {
        let (desired, receiver) = watch::channel(self.published.clone());
        let (ledger, cancel) = (Ledger::new(), CancellationToken::new());
        let pace = Pace {
            retry: Duration::from_millis(100),
            slowest: Duration::from_secs(1),
            ..Pace::default()
        };
        let log = self.log.clone();
        let (terms, authority) = watch::channel(Arc::new(for_ever()));
        let (remember, remembered) = mpsc::channel(1);
        let driving = Driving {
            pace,
            on_applied: Box::new(move |key, result| {
                locked(&log).push((key.clone(), result.clone()));
            }),
            remember: Some(remember),
            authority: Authority::until(authority),
            ..Driving::new(receiver, ledger.clone(), cancel.clone())
        };
        let task = tokio::spawn(drive(self.fixture.sink(), driving));
        self.drivers.push(Driver {
            desired,
            terms,
            remembered,
            ledger,
            cancel,
            task,
        });
    }

    /// From now on no driver may write, or all may.
    pub(super) fn permit(&self, on: bool) {
        let terms = if on { for_ever() } else { Terms::new() };
        for driver in &self.drivers {
            driver.terms.send_replace(Arc::new(terms.clone()));
        }
    }

    /// Cancels all drivers and returns how long they take to end.
    pub(super) async fn stop(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        for driver in &self.drivers {
            driver.cancel.cancel();
        }
        for driver in self.drivers.drain(..) {
            tokio::time::timeout(PATIENCE, driver.task)
                .await
                .context("the loop does not end")??;
        }
        Ok(begin.elapsed())
    }

    /// Ends all drivers in the middle of whatever they do.
    pub(super) async fn kill(&mut self) {
        for driver in self.drivers.drain(..) {
            driver.task.abort();
            // Only the end matters: it is cancelled, or it was just done.
            driver.task.await.ok();
        }
    }

    /// The shop as it is now becomes the desired state.
    pub(super) fn publish(&mut self) {
        self.published = self.shop.publish();
        for driver in &self.drivers {
            driver.desired.send_replace(self.published.clone());
        }
    }

    /// Waits until every driver has worked through what was published.
    pub(super) async fn settled(&self) -> Result<()> {
        self.worked_through().await?;
        self.until("nothing is left to write", async || {
            let pending: Vec<_> = self.drivers.iter().map(|d| d.ledger.pending()).collect();
            ensure!(pending.iter().all(|n| *n == 0), "{pending:?} are pending");
            Ok(())
        })
        .await
    }

    /// Waits until every driver has tried what was published.
    pub(super) async fn worked_through(&self) -> Result<()> {
        let wanted = self.published.generation;
        self.until("the desired state is worked through", async || {
            for driver in &self.drivers {
                let at = driver.ledger.generation();
                ensure!(at >= wanted, "generation {at} of {wanted}");
            }
            Ok(())
        })
        .await
    }

    /// Waits until `so` finds no fault.
    pub(super) async fn until(&self, what: &str, so: impl AsyncFn() -> Result<()>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match so().await {
                Ok(()) => return Ok(()),
                Err(fault) if Instant::now() >= end => {
                    return Err(fault.context(format!("not within {PATIENCE:?}: {what}")));
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What there is now, to compare with later.
    pub(super) async fn mark(&self) -> Result<Mark> {
        Ok(Mark {
            versions: self.fixture.versions().await?,
            log: locked(&self.log).len(),
        })
    }

    /// The objects that were written, removed or tried since then, the canary's left out. Waits
    /// until everything that happened so far was heard.
    pub(super) async fn touched(&self, since: &Mark) -> Result<BTreeSet<ObjectKey>> {
        self.barrier().await?;
        let now = self.fixture.versions().await?;
        let mut touched: BTreeSet<ObjectKey> = since
            .versions
            .keys()
            .chain(now.keys())
            .filter(|key| since.versions.get(*key) != now.get(*key))
            .cloned()
            .collect();
        touched.extend(self.tries(since).into_iter().map(|(key, _)| key));
        for key in self.keys(WORK, CANARY) {
            touched.remove(&key);
        }
        Ok(touched)
    }

    /// The results of all writes since then.
    pub(super) fn tries(&self, since: &Mark) -> Vec<(ObjectKey, Result<Outcome, WriteError>)> {
        locked(&self.log)[since.log..].to_vec()
    }

    /// Waits until everything that happened so far was heard: the canary's objects, removed by hand,
    /// are back.
    async fn barrier(&self) -> Result<()> {
        let canary = self.shop.objects(WORK, CANARY);
        for object in &canary {
            self.fixture.delete(&object.key).await?;
        }
        self.until("the canary's objects come back", async || {
            self.holds(&canary).await
        })
        .await?;
        self.settled().await
    }

    /// The names of a service's objects, workload entries first.
    pub(super) fn keys(&self, registry: &str, service: &str) -> Vec<ObjectKey> {
        let objects = self.shop.objects(registry, service);
        objects.into_iter().map(|object| object.key).collect()
    }

    /// Fails unless the store holds what is wanted, as wanted, and nothing else.
    pub(super) async fn is_right(&self) -> Result<()> {
        self.is_right_beside(&[]).await
    }

    /// As [`Self::is_right`], where there are other objects as well.
    pub(super) async fn is_right_beside(&self, others: &[ObjectKey]) -> Result<()> {
        let wanted = self.shop.all();
        self.holds(&wanted).await?;
        let mut more = self.fixture.versions().await?;
        for object in &wanted {
            more.remove(&object.key);
        }
        for key in others {
            ensure!(more.remove(key).is_some(), "{key} is gone");
        }
        ensure!(more.is_empty(), "nobody wants {:?}", more.keys());
        Ok(())
    }

    /// Fails unless these objects are stored as they are.
    pub(super) async fn holds(&self, objects: &[Object]) -> Result<()> {
        for object in objects {
            let key = &object.key;
            let Some(stored) = self.fixture.read(key).await? else {
                bail!("{key} is missing");
            };
            let wanted = object.manifest();
            ensure!(
                stored["spec"] == wanted["spec"],
                "{key} has the spec {} instead of {}",
                stored["spec"],
                wanted["spec"]
            );
            for part in ["labels", "annotations"] {
                let wanted = wanted["metadata"][part].as_object();
                for (name, value) in wanted.into_iter().flatten() {
                    let found = &stored["metadata"][part][name];
                    ensure!(
                        found == value,
                        "{key} has {found} as {name} instead of {value}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Fails unless no driver has anything to complain about.
    pub(super) fn nothing_fails(&self) -> Result<()> {
        for driver in &self.drivers {
            for registry in [WORK, INLINE] {
                let totals = driver.ledger.totals(registry);
                ensure!(totals.failing.is_empty(), "{registry}: {totals:?}");
            }
        }
        Ok(())
    }

    /// The manifest of an object that has to be there.
    pub(super) async fn stored(&self, key: &ObjectKey) -> Result<Value> {
        let stored = self.fixture.read(key).await?;
        stored.with_context(|| format!("{key} is missing"))
    }
}

/// Terms that outlast any test.
fn for_ever() -> Terms {
    let end = Instant::now() + 100 * PATIENCE;
    [WORK, INLINE, ELSEWHERE]
        .map(|registry| (registry.into(), end))
        .into()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
