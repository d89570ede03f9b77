//! From what is observed to the metrics.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use diolkos_console::Observer;
use diolkos_plan::Reason;
use diolkos_source_api::Event;
use diolkos_telemetry::{Metrics, RegistryLevels, SinkLevels, SourceEvent, SourceHealth};

/// Counts what the engine does.
pub(crate) struct Engine(pub(crate) Arc<Metrics>);

impl diolkos_engine::Observe for Engine {
    fn event(&self, registry: &Arc<str>, event: &Event) {
        let event = match event {
            Event::SnapshotStart { .. } => SourceEvent::SnapshotStart,
            Event::Upsert { .. } => SourceEvent::Upsert,
            Event::Remove { .. } => SourceEvent::Remove,
            Event::SnapshotEnd { .. } => SourceEvent::SnapshotEnd,
        };
        self.0.source_event(registry, event);
    }

    fn published(&self, took: Duration) {
        self.0.planned(took);
    }
}

/// Copies all levels into the metrics; called whenever somebody asks for them.
pub(crate) fn levels(observer: &Observer, sink: &'static str, metrics: &Metrics) {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let by_name = |counts: &BTreeMap<Reason, usize>| {
        counts
            .iter()
            .map(|(reason, n)| (reason.as_str(), count(*n)))
            .collect()
    };
    let health = observer.sources.health();
    let view: Arc<_> = observer.view.borrow().clone();
    for name in metrics.registries() {
        // Both: where only one of them is gone yet, the other would bring the series back.
        if !health.contains_key(&name) && !view.registries.contains_key(&name) {
            metrics.forget_registry(&name);
        }
    }
    for (name, health) in health {
        let levels = SourceHealth {
            up: health.phase.is_connected(),
            phase: health.phase.as_str(),
            epoch: health.epoch,
            last_contact: health.last_contact,
            requests: health.requests,
            connections: count(health.connections),
        };
        metrics.source_health(&name, levels);
    }
    for (name, registry) in &view.registries {
        let levels = RegistryLevels {
            services: count(registry.services),
            instances: count(registry.instances),
            endpoints: count(registry.endpoints),
            held_services: count(registry.held_services),
            held_instances: count(registry.held_instances),
            held_since: registry.hold.as_ref().map(|hold| hold.since),
            dropped: by_name(&registry.dropped),
            refused: by_name(&registry.refused),
        };
        metrics.registry_levels(name, levels);
    }
    if let Some(ledger) = &observer.ledger {
        let levels = SinkLevels {
            pending: count(ledger.pending()),
            objects: ledger
                .held()
                .into_iter()
                .map(|(kind, n)| (kind.name(), count(n)))
                .collect(),
        };
        metrics.sink_levels(sink, levels);
    }
}

#[cfg(test)]
mod tests {
    use diolkos_console::{Holders, Sources};
    use diolkos_engine::{RegistryView, View};
    use diolkos_source_api::HealthReporter;
    use tokio::sync::watch;

    use super::*;

    /// The engine and the supervisor of sources hear of the end of a registry at different times.
    #[test]
    fn a_registry_that_is_gone_from_both_leaves_no_series() {
        let (metrics, sources) = (Metrics::new("1"), Sources::new());
        let (_reporter, health) = HealthReporter::new();
        sources.insert("old".into(), health);
        let known = View {
            registries: [("old".into(), RegistryView::default())].into(),
            ..View::default()
        };
        let (view, receiver) = watch::channel(Arc::new(known));
        let observer = Observer {
            view: receiver,
            sources: sources.clone(),
            ledger: None,
            holders: Holders::default(),
        };
        let page = || {
            levels(&observer, "directory", &metrics);
            metrics.encode()
        };
        assert!(page().contains("registry=\"old\""));
        sources.remove("old");
        assert!(page().contains("registry=\"old\""), "the engine has it");
        view.send_replace(Arc::default());
        assert!(!page().contains("registry=\"old\""));
    }
}
