//! What Nacos is asked, counted for people.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use diolkos_source_api::HealthReporter;

/// Counts requests and tells of answers.
pub(crate) struct Meter {
    health: HealthReporter,
    /// Requests since the start.
    requests: Arc<AtomicU64>,
    /// Connections in use.
    connections: AtomicUsize,
}

impl Meter {
    pub(crate) fn new(health: HealthReporter, requests: Arc<AtomicU64>) -> Self {
        Self {
            health,
            requests,
            connections: AtomicUsize::new(0),
        }
    }

    /// So many connections are in use from now on.
    pub(crate) fn connected(&self, connections: usize) {
        self.connections.store(connections, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let connections = self.connections.load(Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed);
        self.health.traffic(connections, requests);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // The connections go with it.
        self.connected(0);
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("requests", &self.requests)
            .finish_non_exhaustive()
    }
}

impl diolkos_nacos::Meter for Meter {
    fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    fn answered(&self) {
        self.health.contact();
    }
}
