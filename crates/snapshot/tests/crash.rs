//! A process that is killed while it writes. The test runs itself as that process, so it has a
//! `main` of its own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test without the harness"
)]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use diolkos_model::{Address, Health, Instance, Locality, Service, ServiceKey};
use diolkos_snapshot::Store;

const KILLS: u32 = 1_000;
/// Makes the program the one that is killed.
const WRITER: &str = "DIOLKOS_TEST_WRITER";
/// Longer than the writer takes for a few saves.
const SPREAD: Duration = Duration::from_millis(12);

fn main() {
    match env::var_os(WRITER) {
        Some(dir) => write(Path::new(&dir)),
        None => killed_while_writing(),
    }
}

/// Two versions of different length.
fn versions() -> [Vec<Service>; 2] {
    [50, 80].map(|count| (0..count).map(|n| service(n, count)).collect())
}

fn service(number: u32, version: u32) -> Service {
    let key = ServiceKey {
        registry: "consul".into(),
        namespace: "".into(),
        group: "".into(),
        name: format!("service-{number:03}").into(),
    };
    let instance = |id: u32| Instance {
        id: format!("{id:02}").into(),
        address: Address::Name(format!("host-{id}-{version}").into()),
        ports: [].into(),
        health: Health::Healthy,
        weight: None,
        locality: Locality::default(),
        version: None,
        labels: [].into(),
    };
    Service::new(key, [].into(), (0..20).map(instance).collect())
}

/// Saves the one and the other by turns until it is killed.
fn write(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let versions = versions();
    for round in 0usize.. {
        store.save("consul", &versions[round % 2]).unwrap();
        if round == 1 {
            std::io::stdout().write_all(b"!").unwrap();
            std::io::stdout().flush().unwrap();
        }
    }
}

fn killed_while_writing() {
    let dir = tempfile::tempdir().unwrap();
    let versions = versions();
    let mut seen = BTreeMap::from([("first", 0), ("second", 0), ("in the middle", 0)]);
    for kill in 0..KILLS {
        let mut writer = start(dir.path());
        // A low-discrepancy sequence: the moments are spread evenly and are the same in each run.
        let moment = (f64::from(kill) * 0.618_033_988_75).fract();
        spin(SPREAD.mul_f64(moment));
        writer.kill().unwrap();
        writer.wait().unwrap();

        let temporary = dir.path().join("consul.snapshot.tmp");
        if fs::exists(&temporary).unwrap() {
            *seen.get_mut("in the middle").unwrap() += 1;
        }
        let store = Store::open(dir.path()).unwrap();
        assert!(!fs::exists(&temporary).unwrap());
        let loaded = store.load().unwrap();
        assert!(loaded.faults.is_empty(), "{:?}", loaded.faults);
        let found = versions
            .iter()
            .position(|v| *v == loaded.registries["consul"]);
        let which = ["first", "second"][found.expect("one of the two versions, complete")];
        *seen.get_mut(which).unwrap() += 1;
    }
    println!("killed {KILLS} times: {seen:?}");
    assert!(seen.values().all(|times| *times > 20), "{seen:?}");
}

/// A writer that has written already.
fn start(dir: &Path) -> Child {
    let mut writer = Command::new(env::current_exe().unwrap())
        .env(WRITER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    writer
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut byte)
        .unwrap();
    writer
}

/// Sleeping is too coarse for moments within a write.
fn spin(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
