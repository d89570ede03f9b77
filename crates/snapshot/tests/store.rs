//! What is written is read again; what is not what was written is refused.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests count as code outside of tests"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use diolkos_model::{
    Address, Health, Instance, Interner, Labels, Locality, Port, Service, ServiceKey, Weight,
};
use diolkos_snapshot::{FileProblem, Loaded, SnapshotError, Store};
use proptest::prelude::*;

fn key(registry: &str, name: &str) -> ServiceKey {
    ServiceKey {
        registry: registry.into(),
        namespace: "dc1".into(),
        group: "".into(),
        name: name.into(),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Interner::new().labels(pairs.iter().copied())
}

fn service(name: &str, instances: u8) -> Service {
    let instance = |number: u8| Instance {
        id: format!("node-{number}/{name}-{number}").into(),
        address: format!("10.0.{}.{number}", name.len()).parse().unwrap(),
        ports: [Port {
            name: "".into(),
            number: 8080,
            protocol: Some("http".into()),
        }]
        .into(),
        health: Health::Healthy,
        weight: Some(Weight::whole(1)),
        locality: Locality {
            region: "dc1".into(),
            ..Locality::default()
        },
        version: Some("v1".into()),
        labels: labels(&[("team", "shop"), ("version", "v1")]),
    };
    let instances = (0..instances).map(instance).collect();
    Service::new(key("consul", name), [].into(), instances)
}

fn load(dir: &Path) -> Loaded {
    Store::open(dir).unwrap().load().unwrap()
}

/// The one fault of a directory with one bad file and nothing else.
fn fault(dir: &Path) -> FileProblem {
    let mut loaded = load(dir);
    assert!(loaded.registries.is_empty(), "{:?}", loaded.registries);
    assert_eq!(loaded.faults.len(), 1);
    let fault = loaded.faults.remove(0);
    assert!(fault.to_string().contains("consul.snapshot"), "{fault}");
    fault.problem
}

/// A file with two services.
fn good(dir: &Path) -> Vec<u8> {
    let store = Store::open(dir).unwrap();
    let saved = store.save("consul", &[service("web", 2), service("db", 1)]);
    assert!(saved.unwrap());
    fs::read(store.file("consul")).unwrap()
}

#[test]
fn registries_have_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let other = Service::new(key("a/b", "x"), [].into(), Vec::new());
    {
        let store = Store::open(dir.path()).unwrap();
        store.save("consul", &[service("web", 3)]).unwrap();
        store.save("a/b", [&other]).unwrap();
        store.save("empty", []).unwrap();
        fs::write(store.file("broken"), "rubbish").unwrap();
    }
    let loaded = load(dir.path());
    let expected: BTreeMap<_, _> = [
        ("a/b".into(), vec![other]),
        ("consul".into(), vec![service("web", 3)]),
        ("empty".into(), Vec::new()),
    ]
    .into();
    assert_eq!(loaded.registries, expected);
    let faults: Vec<_> = loaded.faults.iter().map(|fault| &fault.file).collect();
    assert_eq!(faults, [&dir.path().join("broken.snapshot")]);
}

#[test]
fn equal_content_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (service("one", 2), service("two", 2));
    let store = Store::open(dir.path()).unwrap();
    assert!(store.save("consul", [&one, &two]).unwrap());
    assert!(!store.save("consul", [&two, &one]).unwrap());
    drop(store);

    // Nor by the next process, whether it reads the files first or not.
    let store = Store::open(dir.path()).unwrap();
    assert!(!store.save("consul", [&one, &two]).unwrap());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.load().unwrap().faults.is_empty());
    assert!(!store.save("consul", [&one, &two]).unwrap());

    // Somebody removes the file.
    fs::remove_file(store.file("consul")).unwrap();
    assert!(store.save("consul", [&one, &two]).unwrap());
    assert!(store.save("consul", [&one]).unwrap());
}

#[test]
fn a_removed_registry_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    good(dir.path());
    let store = Store::open(dir.path()).unwrap();
    store.remove("consul").unwrap();
    store.remove("consul").unwrap();
    assert!(store.load().unwrap().registries.is_empty());
    assert!(store.save("consul", &[service("web", 2)]).unwrap());
    assert_eq!(store.load().unwrap().registries.len(), 1);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let second = Store::open(dir.path()).unwrap_err();
    assert!(matches!(second, SnapshotError::InUse { .. }), "{second}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_volume_that_is_not_mounted_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(&dir.path().join("state")).unwrap();
    let error = Store::open(&dir.path().join("no/state")).unwrap_err();
    assert!(error.to_string().contains("no/state"), "{error}");
}

#[test]
fn services_of_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = store.save("nacos", &[service("web", 1)]).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Foreign { .. }),
        "{error}: {:?}",
        store.file("nacos")
    );
    assert!(!store.file("nacos").exists());
}

#[test]
fn every_flipped_bit_and_every_other_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = good(dir.path());
    let file = dir.path().join("consul.snapshot");
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(&file, &bad).unwrap();
            let problem = fault(dir.path());
            // A damaged version must not pass for a newer one, which would stay for ever.
            let expected = match at {
                0..8 => matches!(problem, FileProblem::NoSnapshot),
                _ => matches!(problem, FileProblem::Damaged | FileProblem::Truncated),
            };
            assert!(expected, "bit {bit} of byte {at}: {problem}");
        }
    }
    for length in 0..good.len() {
        fs::write(&file, &good[..length]).unwrap();
        let problem = fault(dir.path());
        let expected = matches!(problem, FileProblem::NoSnapshot | FileProblem::Truncated);
        assert!(expected, "{length} bytes: {problem}");
    }
    fs::write(&file, [&*good, b"\0"].concat()).unwrap();
    assert!(matches!(fault(dir.path()), FileProblem::Damaged));
    // A refused file does not stand in the way.
    let store = Store::open(dir.path()).unwrap();
    assert!(store.save("consul", &[service("web", 2)]).unwrap());
    assert!(store.load().unwrap().faults.is_empty());
}

#[test]
fn other_things_than_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("consul.snapshot");
    fs::create_dir(&file).unwrap();
    assert!(matches!(fault(dir.path()), FileProblem::Unreadable(_)));
    fs::remove_dir(&file).unwrap();
    // Would wait for ever if it were opened.
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    assert!(matches!(fault(dir.path()), FileProblem::Unreadable(_)));
    fs::remove_file(&file).unwrap();
    // Nor is a file of any length read: this one is sparse.
    let long = fs::File::create(&file).unwrap();
    long.set_len(1 << 40).unwrap();
    assert!(matches!(fault(dir.path()), FileProblem::TooLong { .. }));
}

#[test]
fn a_copy_under_another_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    good(dir.path());
    let from = dir.path().join("consul.snapshot");
    fs::rename(from, dir.path().join("copy-of-consul.snapshot")).unwrap();
    let problem = fault(dir.path());
    assert!(matches!(problem, FileProblem::Misnamed { .. }), "{problem}");
}

#[test]
fn a_write_that_fails_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    good(dir.path());
    let store = Store::open(dir.path()).unwrap();
    // Works for root too, who may write to read-only files.
    let obstacle = dir.path().join("consul.snapshot.tmp");
    fs::create_dir(&obstacle).unwrap();
    let changed = [service("web", 3)];
    let error = store.save("consul", &changed).unwrap_err();
    assert!(error.to_string().contains("consul.snapshot"), "{error}");
    let before = &store.load().unwrap().registries["consul"];
    assert_eq!(before, &[service("db", 1), service("web", 2)]);
    fs::remove_dir(&obstacle).unwrap();
    assert!(store.save("consul", &changed).unwrap());
    assert_eq!(store.load().unwrap().registries["consul"], changed);
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_file() {
    let disk = diolkos_testkit::SmallDisk::new(1 << 20).await.unwrap();
    let dir = disk.outside();
    let store = Store::open(&dir).unwrap();
    let before = [service("before", 10)];
    store.save("consul", &before).unwrap();

    // Full in the middle of a write: there is room for a part of it.
    let many: Vec<_> = (0..200).map(|n| service(&format!("s{n}"), 250)).collect();
    let full = |error: &SnapshotError| {
        matches!(error, SnapshotError::Io { source, .. }
            if source.kind() == std::io::ErrorKind::StorageFull)
    };
    let error = store.save("consul", &many).unwrap_err();
    assert!(full(&error), "{error}");
    // Full from the beginning.
    disk.fill().unwrap();
    let error = store.save("consul", &many[..1]).unwrap_err();
    assert!(full(&error), "{error}");
    let mut names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, [".filler", "consul.snapshot", "lock"]);
    assert_eq!(store.load().unwrap().registries["consul"], before);

    disk.free().unwrap();
    assert!(store.save("consul", &many[..2]).unwrap());
    assert_eq!(store.load().unwrap().registries["consul"].len(), 2);
}

#[test]
fn ten_thousand_services_of_ten_instances() {
    let services: Vec<_> = (0..10_000)
        .map(|n| service(&format!("service-{n}"), 10))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        let took = start.elapsed();
        eprintln!("{what}: {took:?}");
        took
    };
    let first = timed("first save", &mut || {
        assert!(store.save("consul", &services).unwrap());
    });
    timed("save of the same", &mut || {
        assert!(!store.save("consul", &services).unwrap());
    });
    let size = fs::metadata(store.file("consul")).unwrap().len();
    eprintln!("size: {size} bytes");
    let second = timed("load", &mut || {
        assert_eq!(store.load().unwrap().registries["consul"].len(), 10_000);
    });
    assert!(size < 12 << 20, "{size} bytes");
    // Generous, as builds for tests are ten times slower and share the machine.
    assert!(first + second < Duration::from_secs(60));
}

fn text() -> impl Strategy<Value = String> {
    "[a-c]{0,2}|\\PC{0,8}"
}

fn any_labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map(text(), text(), 0..4)
        .prop_map(|map| Interner::new().labels(map.iter().map(|(k, v)| (&**k, &**v))))
}

prop_compose! {
    fn any_port()(name in text(), number: u32, protocol in proptest::option::of(text())) -> Port {
        Port { name: name.into(), number, protocol: protocol.map(Into::into) }
    }
}

prop_compose! {
    fn any_instance()(
        id in text(),
        address in prop_oneof![
            any::<std::net::IpAddr>().prop_map(Address::Ip),
            text().prop_map(|name| Address::Name(name.into())),
        ],
        ports in proptest::collection::vec(any_port(), 0..3),
        why in proptest::option::of(text()),
        weight in proptest::option::of(any::<u32>()),
        (region, zone, sub_zone) in (text(), text(), text()),
        version in proptest::option::of(text()),
        labels in any_labels(),
    ) -> Instance {
        Instance {
            id: id.into(),
            address,
            ports: ports.into(),
            health: why.map_or(Health::Healthy, |why| Health::Unhealthy(why.into())),
            weight: weight.map(Weight),
            locality: Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() },
            version: version.map(Into::into),
            labels,
        }
    }
}

prop_compose! {
    fn any_service()(
        (namespace, group, name) in (text(), text(), text()),
        meta in any_labels(),
        instances in proptest::collection::vec(any_instance(), 0..4),
    ) -> Service {
        let key = ServiceKey {
            registry: "consul".into(),
            namespace: namespace.into(),
            group: group.into(),
            name: name.into(),
        };
        Service::new(key, meta, instances)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_saved_is_loaded(services in proptest::collection::vec(any_service(), 0..6), turn: usize) {
        let services: BTreeMap<_, _> = services.into_iter().map(|s| (s.key.clone(), s)).collect();
        let services: Vec<_> = services.into_values().collect();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save("consul", &services).unwrap();
        let loaded = store.load().unwrap();
        prop_assert_eq!(&loaded.registries["consul"], &services);
        // Neither the order nor the sharing of texts changes the bytes.
        let mut other = loaded.registries["consul"].clone();
        if !other.is_empty() {
            let turn = turn % other.len();
            other.rotate_left(turn);
        }
        prop_assert!(!store.save("consul", &other).unwrap());
    }
}
