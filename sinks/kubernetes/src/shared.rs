//! The cache, shared between the tasks that watch and those who write.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use diolkos_istio::{Kind, ObjectKey};
use diolkos_sink_api::{Observed, Remembered};
use kube::api::ObjectMeta;
use tokio::{sync::Notify, time::Instant};

use crate::{cache::Cache, entry::Entry};

/// How long changes are gathered before they are told: one `kubectl apply` of many objects is one batch.
const GATHER: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(crate) struct Shared {
    cache: Mutex<Cache>,
    changed: Notify,
    /// When the oldest change that was not told yet came in.
    since: Mutex<Option<Instant>>,
}

impl Shared {
    /// Changes the cache, and wakes who waits for changes of others.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Cache) -> T) -> T {
        let mut cache = self.lock();
        let result = change(&mut cache);
        if cache.has_changes() {
            self.waiting_since().get_or_insert_with(Instant::now);
            self.changed.notify_one();
        }
        result
    }

    pub(crate) fn remembered(&self) -> Vec<Remembered> {
        self.lock().remembered()
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Entry> {
        self.lock().get(key).cloned()
    }

    /// What the cache keeps of an answer.
    pub(crate) fn read(&self, kind: Kind, meta: &ObjectMeta) -> Option<Entry> {
        self.lock().read(kind, meta).map(|(_, entry)| entry)
    }

    /// Waits for changes of others. They are taken in the last step, so a dropped future loses nothing. The time of
    /// gathering begins with the first change and not with the call: who drops the future again and again, because
    /// something else is always ready before, must hear of them in the end.
    pub(crate) async fn changes(&self) -> Vec<Observed> {
        loop {
            if self.lock().has_changes() {
                let since = *self.waiting_since().get_or_insert_with(Instant::now);
                tokio::time::sleep_until(since + GATHER).await;
                *self.waiting_since() = None;
                return self.lock().take_changes();
            }
            self.changed.notified().await;
        }
    }

    fn waiting_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        // Nothing in the cache can be half done when a holder panics: each event is one insertion.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diolkos_sink_api::State;

    fn somebody_makes_an_object(shared: &Shared) {
        let key = ObjectKey {
            kind: Kind::ServiceEntry,
            namespace: "shop".into(),
            name: "a".into(),
        };
        let entry = Entry {
            uid: Default::default(),
            version: 1,
            generation: 1,
            state: State::Foreign,
            cause: None,
        };
        shared.update(|cache| cache.is(key, entry));
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_loses_nothing() {
        let shared = Shared::default();
        // Dropped while it waits for a change, and while it gathers more of them.
        let idle = tokio::time::timeout(Duration::from_millis(1), shared.changes()).await;
        assert!(idle.is_err(), "{idle:?}");
        somebody_makes_an_object(&shared);
        let gathering = tokio::time::timeout(GATHER / 5, shared.changes()).await;
        assert!(gathering.is_err(), "{gathering:?}");
        let told = tokio::time::timeout(Duration::from_secs(5), shared.changes()).await;
        assert_eq!(told.map(|changes| changes.len()), Ok(1));
    }

    /// The loop drops the future whenever there is a new desired state, which may be always.
    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_dropped_again_and_again_ends() {
        let shared = Shared::default();
        somebody_makes_an_object(&shared);
        let mut tries = 0;
        while tokio::time::timeout(GATHER / 5, shared.changes())
            .await
            .is_err()
        {
            tries += 1;
            assert!(tries < 10, "never told");
        }
    }
}
