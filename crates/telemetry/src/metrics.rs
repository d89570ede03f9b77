//! The metrics of a process.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::{
    levels::{Levels, RegistryLevels, SinkLevels, SourceHealth},
    process::Process,
};

/// The content type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a source said, for `diolkos_events_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceEvent {
    /// A snapshot begins.
    SnapshotStart,
    /// A service as it is now.
    Upsert,
    /// A service is gone.
    Remove,
    /// A snapshot is complete.
    SnapshotEnd,
}

impl SourceEvent {
    fn name(self) -> &'static str {
        match self {
            Self::SnapshotStart => "snapshot_start",
            Self::Upsert => "upsert",
            Self::Remove => "remove",
            Self::SnapshotEnd => "snapshot_end",
        }
    }

    const ALL: [Self; 4] = [
        Self::SnapshotStart,
        Self::Upsert,
        Self::Remove,
        Self::SnapshotEnd,
    ];
}

type EventLabels = (
    [(&'static str, Arc<str>); 1],
    [(&'static str, &'static str); 1],
);
type WriteLabels = [(&'static str, &'static str); 3];
type ErrorLabels = [(&'static str, &'static str); 2];

/// All metrics of a process. Made once and handed on as `Arc<Metrics>`.
///
/// | name | type | labels | meaning |
/// |---|---|---|---|
/// | `diolkos_build_info` | info | `version` | 1 |
/// | `diolkos_source_up` | gauge | `registry` | 1 while there is a working connection |
/// | `diolkos_source_phase` | gauge | `registry`, `phase` | 1 for the phase that the source is in |
/// | `diolkos_source_last_contact_timestamp_seconds` | gauge | `registry` | Unix time of the last answer |
/// | `diolkos_source_epoch` | gauge | `registry` | number of the connection |
/// | `diolkos_source_connections` | gauge | `registry` | connections that are open |
/// | `diolkos_source_requests_total` | counter | `registry` | requests sent |
/// | `diolkos_services` | gauge | `registry` | services known |
/// | `diolkos_instances` | gauge | `registry` | instances known |
/// | `diolkos_endpoints` | gauge | `registry` | endpoints that the mesh gets |
/// | `diolkos_dropped_instances` | gauge | `registry`, `reason` | instances left out now |
/// | `diolkos_refused_services` | gauge | `registry`, `reason` | services left out now |
/// | `diolkos_events_total` | counter | `registry`, `event` | events of the source |
/// | `diolkos_plans_total` | counter | | times that changes were planned and published |
/// | `diolkos_plan_seconds` | histogram | | time to plan what changed and to publish it |
/// | `diolkos_sink_writes_total` | counter | `sink`, `kind`, `outcome` | changes made |
/// | `diolkos_sink_errors_total` | counter | `sink`, `reason` | changes not made |
/// | `diolkos_sink_pending` | gauge | `sink` | changes that wait |
/// | `diolkos_sink_objects` | gauge | `sink`, `kind` | objects of ours that are there |
/// | `process_resident_memory_bytes` | gauge | | resident memory |
/// | `process_cpu_seconds_total` | counter | | CPU time, user and system |
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    levels: Arc<Levels>,
    events: Family<EventLabels, Counter>,
    plans: Counter,
    plan_seconds: Histogram,
    writes: Family<WriteLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
}

impl Metrics {
    /// Metrics of a process of that version, with nothing counted yet.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            levels: Arc::default(),
            events: Family::default(),
            plans: Counter::default(),
            // One service of ten instances takes about 14 µs, ten thousand 0.15 s: 10 µs to 2.6 s.
            plan_seconds: Histogram::new(exponential_buckets(1e-5, 4.0, 10)),
            writes: Family::default(),
            errors: Family::default(),
        };
        metrics.register(version);
        metrics
    }

    fn register(&mut self, version: &'static str) {
        let all = &mut self.registry;
        all.register_collector(Box::new(self.levels.clone()));
        all.register_collector(Box::new(Process));
        let ours = all.sub_registry_with_prefix("diolkos");
        let build = Info::new([("version", version)]);
        ours.register("build", "The version that runs", build);
        ours.register("events", "Events of the source", self.events.clone());
        ours.register(
            "plans",
            "Times that changes were planned and published",
            self.plans.clone(),
        );
        let seconds = || Unit::Seconds;
        let help = "Time to plan what changed and to publish it";
        ours.register_with_unit("plan", help, seconds(), self.plan_seconds.clone());
        ours.register("sink_writes", "Changes made", self.writes.clone());
        ours.register("sink_errors", "Changes not made", self.errors.clone());
    }

    /// The health of a registry's source, as it is now.
    pub fn source_health(&self, registry: &Arc<str>, health: SourceHealth) {
        self.levels.set_source(registry, health);
    }

    /// How much of a registry is carried over, as it is now.
    pub fn registry_levels(&self, registry: &Arc<str>, levels: RegistryLevels) {
        self.levels.set_registry(registry, levels);
    }

    /// The registries that have series.
    #[must_use]
    pub fn registries(&self) -> BTreeSet<Arc<str>> {
        self.levels.registries()
    }

    /// A registry is no longer configured: its series end.
    pub fn forget_registry(&self, registry: &Arc<str>) {
        self.levels.forget_registry(registry);
        for event in SourceEvent::ALL {
            self.events.remove(&event_labels(registry, event));
        }
    }

    /// A source said something.
    pub fn source_event(&self, registry: &Arc<str>, event: SourceEvent) {
        self.events
            .get_or_create(&event_labels(registry, event))
            .inc();
    }

    /// Changes were planned and published.
    pub fn planned(&self, took: Duration) {
        self.plans.inc();
        self.plan_seconds.observe(took.as_secs_f64());
    }

    /// How far a sink is, as it is now.
    pub fn sink_levels(&self, sink: &'static str, levels: SinkLevels) {
        self.levels.set_sink(sink, levels);
    }

    /// A change was made. `kind` is the object's kind, `outcome` what was done.
    pub fn sink_write(&self, sink: &'static str, kind: &'static str, outcome: &'static str) {
        let labels = [("sink", sink), ("kind", kind), ("outcome", outcome)];
        self.writes.get_or_create(&labels).inc();
    }

    /// A change could not be made, for a reason of the sink's error categories.
    pub fn sink_error(&self, sink: &'static str, reason: &'static str) {
        let labels = [("sink", sink), ("reason", reason)];
        self.errors.get_or_create(&labels).inc();
    }

    /// All of it, as OpenMetrics text. See [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = String::new();
        if let Err(error) = text::encode(&mut page, &self.registry) {
            // Writing to a string does not fail, but what is half written must not be believed.
            tracing::error!(%error, "cannot encode the metrics");
            page.clear();
        }
        page
    }
}

fn event_labels(registry: &Arc<str>, event: SourceEvent) -> EventLabels {
    ([("registry", registry.clone())], [("event", event.name())])
}

#[cfg(test)]
mod tests;
