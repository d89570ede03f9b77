use std::{collections::BTreeMap, time::UNIX_EPOCH};

use super::*;

fn consul() -> Arc<str> {
    "consul".into()
}

/// One label set in each counter family: the library keeps those in a hash map.
fn filled() -> Metrics {
    let metrics = Metrics::new("1.2.3");
    metrics.source_health(
        &consul(),
        SourceHealth {
            up: true,
            phase: "Live",
            epoch: 2,
            last_contact: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_500)),
            requests: 41,
            connections: 3,
        },
    );
    metrics.registry_levels(
        &consul(),
        RegistryLevels {
            services: 10,
            instances: 100,
            endpoints: 97,
            held_services: 1,
            held_instances: 4,
            held_since: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            dropped: BTreeMap::from([("Unhealthy", 2), ("BadAddress", 1)]),
            refused: BTreeMap::from([("HostNotGranted", 1)]),
        },
    );
    metrics.sink_levels(
        "kubernetes",
        SinkLevels {
            pending: 4,
            objects: BTreeMap::from([("ServiceEntry", 10), ("WorkloadEntry", 97)]),
        },
    );
    metrics.source_event(&consul(), SourceEvent::Upsert);
    metrics.planned(Duration::from_micros(14));
    metrics.sink_write("kubernetes", "ServiceEntry", "Created");
    metrics.sink_error("kubernetes", "Denied");
    metrics
}

/// Without the lines that differ from run to run.
fn stable(page: &str) -> String {
    page.lines()
        .filter(|line| !line.starts_with("process_"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_page() {
    insta::assert_snapshot!(stable(&filled().encode()));
}

#[test]
fn the_process_is_measured() {
    let page = Metrics::new("1").encode();
    let resident: f64 = page
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(resident > 100_000.0, "{resident} bytes");
    assert!(page.contains("\nprocess_cpu_seconds_total "), "{page}");
}

#[test]
fn a_level_that_is_over_leaves_no_series() {
    let metrics = filled();
    metrics.source_health(
        &consul(),
        SourceHealth {
            phase: "Unreachable",
            ..SourceHealth::default()
        },
    );
    metrics.registry_levels(&consul(), RegistryLevels::default());
    let page = metrics.encode();
    assert!(page.contains(r#"diolkos_source_phase{registry="consul",phase="Unreachable"} 1"#));
    for gone in ["\"Live\"", "BadAddress", "HostNotGranted", "last_contact"] {
        assert!(!page.contains(gone), "{gone} is still in {page}");
    }
}

#[test]
fn a_forgotten_registry_has_no_series() {
    let metrics = filled();
    metrics.forget_registry(&consul());
    let page = metrics.encode();
    assert!(!page.contains("registry=\"consul\""), "{page}");
    assert!(page.contains("sink=\"kubernetes\""), "{page}");
}

#[test]
fn counters_count_each_label_set() {
    let metrics = Metrics::new("1");
    for event in SourceEvent::ALL {
        metrics.source_event(&consul(), event);
        metrics.source_event(&consul(), event);
    }
    let page = metrics.encode();
    for name in ["snapshot_start", "upsert", "remove", "snapshot_end"] {
        let line = format!(r#"diolkos_events_total{{registry="consul",event="{name}"}} 2"#);
        assert!(page.contains(&line), "{page} lacks {line}");
    }
}

/// Only registry names, which the configuration bounds, are not known at build time; a name cannot
/// break out of its quotes.
#[test]
fn odd_registry_names_are_escaped() {
    let metrics = Metrics::new("1");
    metrics.source_event(&"a\"} 1\n".into(), SourceEvent::Upsert);
    metrics.source_health(&"a\"} 1\n".into(), SourceHealth::default());
    let page = metrics.encode();
    let series = page
        .lines()
        .filter(|line| line.contains(r#"registry="a\"} 1\n""#));
    assert_eq!(series.count(), 6, "{page}");
}

#[test]
fn every_series_has_its_documented_labels_only() {
    let page = stable(&filled().encode());
    let allowed = [
        "registry", "phase", "reason", "event", "sink", "kind", "outcome", "le", "version",
    ];
    let mut labelled = 0;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, labels)) = line.split_once('{') else {
            continue;
        };
        let (labels, _) = labels.split_once('}').unwrap();
        for label in labels.split(',') {
            let (name, _) = label.split_once('=').unwrap();
            assert!(allowed.contains(&name), "{line}");
            labelled += 1;
        }
    }
    assert!(labelled > 30, "{labelled} labels");
}
