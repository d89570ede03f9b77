//! Writes Istio objects through the Kubernetes API by server-side apply.
//!
//! ```text
//! watch of WorkloadEntries ─┐  metadata only      ┌─► observe, drift
//!                           ├──────────► Cache ───┤
//! watch of ServiceEntries ──┘              ▲      └─► what a write may assume
//!                                          └───────── answers to our own writes
//! ```
//!
//! - All namespaces are watched without a filter, so that the names that others hold are known.
//! - Only a few numbers are kept of each object: uid, resource version, generation, hash, registry.
//! - Whether an object is as it should be is told by the annotation
//!   [`diolkos.io/hash`](diolkos_istio::annotation::HASH) and `metadata.generation`, which grows with every change
//!   of the spec. A hand edit of our labels or annotations does not change the generation: it is mended with the
//!   next change of the object, not before.
//! - What others add to a spec of ours (a further port, an `exportTo`) is no business of an apply, since its fields
//!   are theirs; it is taken out of it by a patch of its own. Their labels, annotations and `status` stay.
//! - Objects are never made by POST: their fields would then belong to an *update* of our manager, and a later
//!   apply could not remove them.

#![forbid(unsafe_code)]

mod cache;
mod entry;
mod error;
mod fields;
#[doc(hidden)]
pub mod fuzz;
mod request;
mod shared;
mod watch;
mod write;

use std::{sync::Arc, time::Duration};

use diolkos_istio::Kind;
use diolkos_kube_ext::{CALL_DEADLINE, Client};
use diolkos_sink_api::{Observed, Remembered, Sink, SinkError};
use kube::{api::ApiResource, core::GroupVersionKind};

use crate::{cache::Cache, shared::Shared, watch::Watch};

pub use crate::write::Writer;

/// How the sink writes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Requests under way at once, each on a connection of its own. API servers allow 200 writes in flight for all
    /// their clients together.
    pub parallel: usize,
    /// How long a request may take.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel: 16,
            deadline: CALL_DEADLINE,
        }
    }
}

/// The Kubernetes API as a [`Sink`].
pub struct KubernetesSink {
    writer: Writer,
    /// Begun by the first [`Sink::observe`].
    watches: Vec<Watch>,
}

impl KubernetesSink {
    /// A sink with the default [`Options`].
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self::with_options(client, Options::default())
    }

    /// A sink.
    #[must_use]
    pub fn with_options(client: Client, options: Options) -> Self {
        let writer = Writer {
            client,
            shared: Arc::new(Shared::default()),
            deadline: options.deadline,
            parallel: options.parallel.max(1),
        };
        Self {
            writer,
            watches: Vec::new(),
        }
    }

    async fn ready(&mut self) -> Result<(), SinkError> {
        if self.watches.is_empty() {
            let start =
                |kind| Watch::start(self.writer.client.clone(), kind, self.writer.shared.clone());
            self.watches = Kind::ALL.into_iter().map(start).collect();
        }
        for watch in &mut self.watches {
            watch.ready().await?;
        }
        Ok(())
    }
}

impl Sink for KubernetesSink {
    type Writer = Writer;

    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn observe(&mut self) -> Result<Vec<Observed>, SinkError> {
        if let Err(error) = self.ready().await {
            // Who asks again wants an answer of then, not this one.
            self.watches.clear();
            return Err(error);
        }
        Ok(self.writer.shared.update(Cache::take_all))
    }

    async fn drift(&mut self) -> Result<Vec<Observed>, SinkError> {
        Ok(self.writer.shared.changes().await)
    }

    fn remembered(&self) -> Vec<Remembered> {
        self.writer.shared.remembered()
    }

    fn writer(&self) -> Writer {
        self.writer.clone()
    }
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version) = Kind::API_VERSION
        .split_once('/')
        .unwrap_or(("", Kind::API_VERSION));
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, kind.name()),
        kind.plural(),
    )
}
