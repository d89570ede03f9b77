//! The source as the engine sees it: real files, the real supervisor.

#![allow(clippy::unwrap_used)] // as in all tests; clippy does not see that helpers are tests

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use diolkos_source_api::{
    Envelope, Event, EventSender, Evidence, Health, HealthReporter, Phase, SourceCx, Stopped,
    supervise,
};
use diolkos_source_file::FileSource;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Far above what anything here takes; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    directory: TempDir,
    events: mpsc::Receiver<Envelope>,
    health: watch::Receiver<Health>,
    resync: mpsc::Sender<()>,
    task: JoinHandle<Stopped>,
    cancel: CancellationToken,
    _stop: DropGuard,
}

impl Bed {
    fn start(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("services")).unwrap();
        for (name, content) in files {
            fs::write(directory.path().join("services").join(name), content).unwrap();
        }
        let (sender, events) = mpsc::channel(4);
        let (resync, requests) = mpsc::channel(1);
        let (reporter, health) = HealthReporter::new();
        let cancel = CancellationToken::new();
        let cx = SourceCx {
            events: EventSender::new("files".into(), sender),
            health: reporter,
            resync: requests,
            cancel: cancel.clone(),
        };
        let source = FileSource::new("files".into(), directory.path().join("services"));
        let task = tokio::spawn(async move { supervise("files", source, cx).await });
        Self {
            directory,
            events,
            health,
            resync,
            task,
            _stop: cancel.clone().drop_guard(),
            cancel,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path().join("services").join(name), content).unwrap();
    }

    /// The next event, in short form.
    async fn next(&mut self) -> String {
        let envelope = timeout(PATIENCE, self.events.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&*envelope.registry, "files");
        match envelope.event {
            Event::SnapshotStart { epoch } => format!("start {epoch}"),
            Event::Upsert { service, evidence } => {
                assert_eq!(evidence, Evidence::Complete);
                format!("{} {}", service.key.name, service.instances[0].address)
            }
            Event::Remove { key } => format!("remove {}", key.name),
            Event::SnapshotEnd { epoch, evidence } => match evidence {
                Evidence::Complete => format!("end {epoch}"),
                Evidence::Partial(why) | Evidence::Stale(why) => format!("partial {epoch}: {why}"),
            },
        }
    }

    async fn expect<const N: usize>(&mut self, events: [&str; N]) {
        for expected in events {
            assert_eq!(self.next().await, expected);
        }
    }

    async fn health(&mut self, test: impl FnMut(&Health) -> bool) -> Health {
        let waiting = self.health.wait_for(test);
        timeout(PATIENCE, waiting).await.unwrap().unwrap().clone()
    }
}

const ONE: &str = "name: one\ninstances:\n- {address: 10.0.0.1, port: 80}\n";
const TWO: &str = "name: two\ninstances:\n- {address: 10.0.0.2, port: 80}\n";
const BAD: &str = "name: two\ninstances:\n- {adress: 10.0.0.2, port: 80}\n";

#[tokio::test]
async fn an_edit_shows_up_within_a_second() {
    let mut bed = Bed::start(&[("a.yaml", ONE), ("b.yaml", TWO)]);
    bed.expect(["start 1", "one 10.0.0.1", "two 10.0.0.2", "end 1"])
        .await;
    let health = bed.health(|health| health.phase == Phase::Live).await;
    assert_eq!(&*health.detail, "2 services in 2 files");

    let edited = Instant::now();
    bed.write("a.yaml", &ONE.replace("10.0.0.1", "10.0.0.10"));
    bed.expect(["one 10.0.0.10"]).await;
    let took = edited.elapsed();
    assert!(took < Duration::from_secs(1), "the edit took {took:?}");

    fs::remove_file(bed.path().join("services/b.yaml")).unwrap();
    bed.expect(["remove two"]).await;
}

#[tokio::test]
async fn a_new_snapshot_on_demand() {
    let mut bed = Bed::start(&[("a.yaml", ONE)]);
    bed.expect(["start 1", "one 10.0.0.1", "end 1"]).await;
    bed.resync.send(()).await.unwrap();
    bed.expect(["start 1", "one 10.0.0.1", "end 1"]).await;
}

#[tokio::test]
async fn a_bad_file_makes_the_evidence_partial_until_it_is_mended() {
    let mut bed = Bed::start(&[("a.yaml", ONE), ("b.yaml", BAD)]);
    bed.expect(["start 1", "one 10.0.0.1"]).await;
    let end = bed.next().await;
    assert!(
        end.starts_with("partial 1: b.yaml:3:4: unknown field `adress`"),
        "{end}"
    );
    let health = bed.health(|health| health.phase == Phase::Live).await;
    assert!(health.detail.starts_with("b.yaml:3:4: "), "{health:?}");

    bed.write("b.yaml", TWO);
    bed.expect(["start 1", "one 10.0.0.1", "two 10.0.0.2", "end 1"])
        .await;
    let health = bed.health(|health| !health.detail.contains("b.yaml")).await;
    assert_eq!(&*health.detail, "2 services in 2 files");

    // Broken again: nothing is said of its service, and a snapshot still has it.
    bed.write("b.yaml", BAD);
    bed.health(|health| health.detail.contains("b.yaml:3:4"))
        .await;
    bed.resync.send(()).await.unwrap();
    bed.expect(["start 1", "one 10.0.0.1", "two 10.0.0.2"])
        .await;
    let end = bed.next().await;
    assert!(end.starts_with("partial 1: b.yaml:3:4"), "{end}");
}

#[tokio::test]
async fn a_directory_that_vanishes_changes_nothing() {
    let mut bed = Bed::start(&[("a.yaml", ONE), ("b.yaml", TWO)]);
    bed.expect(["start 1", "one 10.0.0.1", "two 10.0.0.2", "end 1"])
        .await;
    let (here, away) = (bed.path().join("services"), bed.path().join("away"));
    fs::rename(&here, &away).unwrap();
    let health = bed
        .health(|health| health.phase == Phase::Unreachable)
        .await;
    assert!(health.detail.contains("cannot read"), "{health:?}");
    // What happened meanwhile is told after the snapshot, by name.
    fs::remove_file(away.join("b.yaml")).unwrap();
    fs::rename(&away, &here).unwrap();
    // Whatever number the connection has by then.
    let start = bed.next().await;
    let epoch = start.strip_prefix("start ").unwrap().to_owned();
    let mut events = Vec::new();
    while events.last().is_none_or(|event| event != "remove two") {
        events.push(bed.next().await);
    }
    let end = format!("end {epoch}");
    assert_eq!(events, ["one 10.0.0.1", "two 10.0.0.2", &end, "remove two"]);
}

#[tokio::test]
async fn ends_quickly_even_when_nobody_listens() {
    let many: String = (0..100).map(|i| format!("name: s{i}\n---\n")).collect();
    // Nobody receives, so the source hangs on the full channel.
    let bed = Bed::start(&[("a.yaml", &many)]);
    let mut health = bed.health.clone();
    let syncing = health.wait_for(|health| health.phase == Phase::Syncing);
    timeout(PATIENCE, syncing).await.unwrap().unwrap();
    let asked = Instant::now();
    bed.cancel.cancel();
    assert_eq!(timeout(PATIENCE, bed.task).await.unwrap().unwrap(), Stopped);
    assert!(asked.elapsed() < Duration::from_secs(1));
}
