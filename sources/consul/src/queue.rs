//! The services that wait to be read.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Names in the order in which they came, each once. Bounded by the number of services.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    names: Mutex<Names>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Names {
    order: VecDeque<Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl Queue {
    /// Adds names that do not wait already.
    pub(crate) fn extend(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let mut queue = self.lock();
        for name in names {
            if queue.known.insert(name.clone()) {
                queue.order.push_back(name);
            }
        }
        drop(queue);
        self.grown.notify_one();
    }

    /// Takes the first name that is not in `busy`: of one service, reads must not overtake each other.
    pub(crate) fn take(&self, busy: &HashSet<Arc<str>>) -> Option<Arc<str>> {
        let mut queue = self.lock();
        let free = queue.order.iter().position(|name| !busy.contains(name))?;
        let name = queue.order.remove(free)?;
        queue.known.remove(&name);
        Some(name)
    }

    /// Forgets all names.
    pub(crate) fn clear(&self) {
        *self.lock() = Names::default();
    }

    /// Waits for an [`extend`](Self::extend) since the last call.
    pub(crate) async fn grown(&self) {
        self.grown.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_once_in_order_and_none_that_is_busy() {
        let queue = Queue::default();
        queue.extend(["a", "b", "a", "c"].map(Arc::from));
        let busy = HashSet::from(["a".into()]);
        assert_eq!(queue.take(&busy).as_deref(), Some("b"));
        queue.extend(["b".into()]);
        assert_eq!(queue.take(&busy).as_deref(), Some("c"));
        assert_eq!(queue.take(&busy).as_deref(), Some("b"));
        assert_eq!(queue.take(&busy), None);
        assert_eq!(queue.take(&HashSet::new()).as_deref(), Some("a"));
    }
}
