//! Levels: gauges that are set as a whole and rendered when somebody asks. A reason that no longer
//! occurs, a phase that is over and a registry that is gone leave no stale series behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// The health of a source, as the metrics show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceHealth {
    /// Whether there is a working connection: `diolkos_source_up`.
    pub up: bool,
    /// The phase's name: `diolkos_source_phase`.
    pub phase: &'static str,
    /// The number of the connection: `diolkos_source_epoch`.
    pub epoch: u64,
    /// The last answer: `diolkos_source_last_contact_timestamp_seconds`; no series before the first.
    pub last_contact: Option<SystemTime>,
    /// Requests since the start: `diolkos_source_requests_total`.
    pub requests: u64,
    /// Connections open now: `diolkos_source_connections`.
    pub connections: u64,
}

/// How much of a registry is carried over, and how much is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryLevels {
    /// Services known: `diolkos_services`.
    pub services: u64,
    /// Their instances: `diolkos_instances`.
    pub instances: u64,
    /// Endpoints that the mesh gets: `diolkos_endpoints`.
    pub endpoints: u64,
    /// Services that the registry lacks, wholly or in part, and that stay for now: `diolkos_held_services`.
    pub held_services: u64,
    /// Instances that the registry lacks and that stay for now: `diolkos_held_instances`.
    pub held_instances: u64,
    /// Since when removals are held back: `diolkos_removals_held_since_timestamp_seconds`; no series
    /// while none are.
    pub held_since: Option<SystemTime>,
    /// Instances left out, by reason: `diolkos_dropped_instances`.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Services left out, by reason: `diolkos_refused_services`.
    pub refused: BTreeMap<&'static str, u64>,
}

/// How far a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkLevels {
    /// Changes that wait: `diolkos_sink_pending`.
    pub pending: u64,
    /// Objects of ours that are there, by kind: `diolkos_sink_objects`.
    pub objects: BTreeMap<&'static str, u64>,
}

/// All levels. One lock: they change a few times a second at most.
#[derive(Debug, Default)]
pub(crate) struct Levels(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sources: BTreeMap<Arc<str>, SourceHealth>,
    registries: BTreeMap<Arc<str>, RegistryLevels>,
    sinks: BTreeMap<&'static str, SinkLevels>,
}

impl Levels {
    pub(crate) fn set_source(&self, registry: &Arc<str>, health: SourceHealth) {
        self.state().sources.insert(registry.clone(), health);
    }

    pub(crate) fn set_registry(&self, registry: &Arc<str>, levels: RegistryLevels) {
        self.state().registries.insert(registry.clone(), levels);
    }

    pub(crate) fn set_sink(&self, sink: &'static str, levels: SinkLevels) {
        self.state().sinks.insert(sink, levels);
    }

    /// The registries that have levels.
    pub(crate) fn registries(&self) -> BTreeSet<Arc<str>> {
        let state = self.state();
        let names = state.sources.keys().chain(state.registries.keys());
        names.cloned().collect()
    }

    pub(crate) fn forget_registry(&self, registry: &str) {
        let mut state = self.state();
        state.sources.remove(registry);
        state.registries.remove(registry);
    }

    /// A panic of another holder leaves whole values behind: each change is one insertion.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Levels {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.state();
        let mut page = Page(encoder);
        page.sources(&state)?;
        page.registries(&state)?;
        page.sinks(&state)
    }
}

/// Writes families.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn sources(&mut self, state: &State) -> fmt::Result {
        let sources = || state.sources.iter();
        self.gauges(
            (
                "diolkos_source_up",
                "Whether the source has a working connection to its registry",
            ),
            sources().map(|(name, health)| ([("registry", &**name)], u64::from(health.up))),
        )?;
        self.gauges(
            (
                "diolkos_source_phase",
                "1 for the phase that the source is in",
            ),
            sources().map(|(name, health)| ([("registry", &**name), ("phase", health.phase)], 1)),
        )?;
        self.last_contacts(state)?;
        self.gauges(
            (
                "diolkos_source_epoch",
                "Number of the connection to the registry, from 1",
            ),
            sources().map(|(name, health)| ([("registry", &**name)], health.epoch)),
        )?;
        self.gauges(
            (
                "diolkos_source_connections",
                "Connections to the registry that are open now",
            ),
            sources().map(|(name, health)| ([("registry", &**name)], health.connections)),
        )?;
        self.requests(state)
    }

    fn last_contacts(&mut self, state: &State) -> fmt::Result {
        let contacts = state.sources.iter().filter_map(|(name, health)| {
            let since_1970 = health.last_contact?.duration_since(UNIX_EPOCH).ok()?;
            Some((
                [("registry", &**name)],
                ConstGauge::new(since_1970.as_secs_f64()),
            ))
        });
        self.family(
            "diolkos_source_last_contact_timestamp",
            "Time of the registry's last answer, in seconds since 1970",
            Some(&Unit::Seconds),
            MetricType::Gauge,
            contacts,
        )
    }

    fn requests(&mut self, state: &State) -> fmt::Result {
        self.family(
            "diolkos_source_requests",
            "Requests sent to the registry",
            None,
            MetricType::Counter,
            state.sources.iter().map(|(name, health)| {
                ([("registry", &**name)], ConstCounter::new(health.requests))
            }),
        )
    }

    fn registries(&mut self, state: &State) -> fmt::Result {
        let registries = || state.registries.iter();
        self.gauges(
            ("diolkos_services", "Services known of the registry"),
            registries().map(|(name, levels)| ([("registry", &**name)], levels.services)),
        )?;
        self.gauges(
            ("diolkos_instances", "Instances known of the registry"),
            registries().map(|(name, levels)| ([("registry", &**name)], levels.instances)),
        )?;
        self.gauges(
            (
                "diolkos_endpoints",
                "Endpoints that the mesh gets of the registry",
            ),
            registries().map(|(name, levels)| ([("registry", &**name)], levels.endpoints)),
        )?;
        self.gauges(
            (
                "diolkos_held_services",
                "Services that the registry lacks, wholly or in part, and that stay for now",
            ),
            registries().map(|(name, levels)| ([("registry", &**name)], levels.held_services)),
        )?;
        self.gauges(
            (
                "diolkos_held_instances",
                "Instances that the registry lacks and that stay for now",
            ),
            registries().map(|(name, levels)| ([("registry", &**name)], levels.held_instances)),
        )?;
        let held_since = registries().filter_map(|(name, levels)| {
            let since_1970 = levels.held_since?.duration_since(UNIX_EPOCH).ok()?;
            let since = ConstGauge::new(since_1970.as_secs_f64());
            Some(([("registry", &**name)], since))
        });
        self.family(
            "diolkos_removals_held_since_timestamp",
            "Since when removals are held back, in seconds since 1970",
            Some(&Unit::Seconds),
            MetricType::Gauge,
            held_since,
        )?;
        self.gauges(
            (
                "diolkos_dropped_instances",
                "Instances that are left out now, by reason",
            ),
            registries().flat_map(|(name, levels)| by_reason(name, &levels.dropped)),
        )?;
        self.gauges(
            (
                "diolkos_refused_services",
                "Services that are left out now, by reason",
            ),
            registries().flat_map(|(name, levels)| by_reason(name, &levels.refused)),
        )
    }

    fn sinks(&mut self, state: &State) -> fmt::Result {
        self.gauges(
            ("diolkos_sink_pending", "Changes that wait to be written"),
            state
                .sinks
                .iter()
                .map(|(sink, levels)| ([("sink", *sink)], levels.pending)),
        )?;
        self.gauges(
            (
                "diolkos_sink_objects",
                "Objects of ours that the sink holds, by kind",
            ),
            state.sinks.iter().flat_map(|(sink, levels)| {
                levels
                    .objects
                    .iter()
                    .map(|(kind, count)| ([("sink", *sink), ("kind", *kind)], *count))
            }),
        )
    }

    fn gauges<'l, const N: usize>(
        &mut self,
        (name, help): (&'static str, &'static str),
        series: impl Iterator<Item = ([(&'static str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let series = series.map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, None, MetricType::Gauge, series)
    }

    /// Writes nothing at all for a family without series.
    fn family<'l, const N: usize, M: EncodeMetric>(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<&Unit>,
        metric_type: MetricType,
        series: impl Iterator<Item = ([(&'static str, &'l str); N], M)>,
    ) -> fmt::Result {
        let mut series = series.peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, unit, metric_type)?;
        for (labels, metric) in series {
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn by_reason<'a>(
    registry: &'a str,
    counts: &'a BTreeMap<&'static str, u64>,
) -> impl Iterator<Item = ([(&'static str, &'a str); 2], u64)> {
    counts
        .iter()
        .map(move |(reason, count)| ([("registry", registry), ("reason", reason)], *count))
}
