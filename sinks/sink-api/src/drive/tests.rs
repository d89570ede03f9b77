//! The loop's behaviour in time and in trouble, with a sink that does as it is told. What a sink does
//! with objects is the matter of the conformance suite, on real ones.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use diolkos_plan::Endpoints;
use tokio::{sync::Notify, task::JoinHandle};

use super::*;
use crate::{SinkError, State, shop::Shop};

/// What the sink is told to do, and what was asked of it.
#[derive(Default)]
struct Script {
    there: Vec<Observed>,
    /// Reading fails.
    unreadable: bool,
    /// Changes of others cannot be heard.
    deaf: bool,
    /// Writes never end.
    hangs: bool,
    /// Objects whose writes fail.
    fails: HashMap<ObjectKey, WriteError>,
    /// Objects of whose writes it does not tell.
    silent: HashSet<ObjectKey>,
    drifts: VecDeque<Vec<Observed>>,
    reads: usize,
    batches: Vec<(Instant, Vec<Change>)>,
}

#[derive(Clone, Default)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    drifted: Arc<Notify>,
}

impl Scripted {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drift(&self, key: &ObjectKey, state: State) {
        let key = key.clone();
        self.script()
            .drifts
            .push_back(vec![Observed { key, state }]);
        self.drifted.notify_one();
    }

    /// When each write of an object was tried.
    fn tries(&self, key: &ObjectKey) -> Vec<Instant> {
        let script = self.script();
        let batches = script.batches.iter();
        batches
            .filter(|(_, changes)| changes.iter().any(|change| change.key() == key))
            .map(|(at, _)| *at)
            .collect()
    }

    fn batches(&self) -> Vec<(Instant, Vec<Change>)> {
        self.script().batches.clone()
    }
}

impl Sink for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn observe(&mut self) -> Result<Vec<Observed>, SinkError> {
        let mut script = self.script();
        script.reads += 1;
        if script.unreadable {
            return Err(SinkError("cannot be read".into()));
        }
        Ok(script.there.clone())
    }

    async fn drift(&mut self) -> Result<Vec<Observed>, SinkError> {
        loop {
            {
                let mut script = self.script();
                if script.deaf {
                    return Err(SinkError("cannot be heard".into()));
                }
                if let Some(drift) = script.drifts.pop_front() {
                    return Ok(drift);
                }
            }
            self.drifted.notified().await;
        }
    }

    async fn apply(&mut self, changes: Vec<Change>) -> Vec<Applied> {
        self.script()
            .batches
            .push((Instant::now(), changes.clone()));
        if self.script().hangs {
            std::future::pending::<()>().await;
        }
        let script = self.script();
        let told = changes
            .iter()
            .filter(|change| !script.silent.contains(change.key()));
        told.map(|change| {
            let key = change.key().clone();
            let done = match change {
                Change::Put { .. } => Outcome::Created,
                Change::Delete(_) => Outcome::Deleted,
            };
            let result = script.fails.get(&key).cloned().map_or(Ok(done), Err);
            Applied { key, result }
        })
        .collect()
    }
}

struct Bed {
    sink: Scripted,
    shop: Shop,
    desired: watch::Sender<Arc<Desired>>,
    ledger: Ledger,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Bed {
    fn start(script: Script) -> Self {
        let sink = Scripted::default();
        *sink.script() = script;
        let mut shop = Shop::default();
        shop.registry("one", "mesh", Endpoints::WorkloadEntry);
        let (desired, receiver) = watch::channel(shop.publish());
        let (ledger, cancel) = (Ledger::new(), CancellationToken::new());
        let task = tokio::spawn(drive(
            sink.clone(),
            receiver,
            ledger.clone(),
            Pace::default(),
            Box::new(|_, _| {}),
            cancel.clone(),
        ));
        Self {
            sink,
            shop,
            desired,
            ledger,
            cancel,
            task,
        }
    }

    fn put(&mut self, name: &str, ids: &[&str]) -> Vec<ObjectKey> {
        self.shop.put("one", name, ids, 80);
        let objects = self.shop.objects("one", name);
        objects.into_iter().map(|object| object.key).collect()
    }

    fn publish(&mut self) {
        self.desired.send_replace(self.shop.publish());
    }

    /// Publishes and lets so much time pass.
    async fn after(&mut self, time: Duration) {
        self.publish();
        tokio::time::sleep(time).await;
    }

    /// How long the loop takes to end.
    async fn stop(self) -> Duration {
        let begin = Instant::now();
        self.cancel.cancel();
        self.task.await.unwrap();
        begin.elapsed()
    }
}

fn invalid() -> WriteError {
    WriteError::Invalid("no".into())
}

fn lost() -> WriteError {
    WriteError::Retry {
        reason: "lost".into(),
        after: None,
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_ever_more_slowly_and_holds_nobody_back() {
    let mut bed = Bed::start(Script::default());
    let [bad, entry] = bed.put("orders", &["a"]).try_into().unwrap();
    bed.sink.script().fails.insert(bad.clone(), lost());
    bed.after(600 * SECOND).await;
    assert_eq!(bed.sink.tries(&entry).len(), 1);
    let tries = bed.sink.tries(&bad);
    let waits: Vec<_> = tries
        .windows(2)
        .map(|w| (w[1] - w[0]).as_secs_f32())
        .collect();
    assert!((0.4..1.0).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).all(|w| w[1] > w[0] * 0.95), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait < 61.0), "{waits:?}");
    assert!(waits.len() > 10, "{waits:?}");
    assert_eq!(bed.ledger.pending(), 1);
    assert_eq!(
        bed.ledger.totals("one").failing,
        BTreeMap::from([("WriteFailed", 1)])
    );
    bed.sink.script().fails.clear();
    tokio::time::sleep(61 * SECOND).await;
    assert_eq!(bed.ledger.pending(), 0);
    assert_eq!(bed.ledger.totals("one"), Default::default());
}

#[tokio::test(start_paused = true)]
async fn something_else_is_tried_at_once_where_the_last_was_refused() {
    let mut bed = Bed::start(Script::default());
    let [bad, _] = bed.put("orders", &["a"]).try_into().unwrap();
    bed.sink.script().fails.insert(bad.clone(), invalid());
    bed.after(SECOND).await;
    assert_eq!(bed.sink.tries(&bad).len(), 1, "a refusal is not tried soon");
    // Another service changes: that is no reason to try.
    bed.put("stock", &["a"]);
    bed.after(SECOND).await;
    assert_eq!(bed.sink.tries(&bad).len(), 1);
    bed.sink.script().fails.clear();
    bed.shop.put("one", "orders", &["a"], 81);
    bed.after(SECOND).await;
    assert_eq!(bed.sink.tries(&bad).len(), 2);
    assert_eq!(bed.ledger.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_comes_again_when_it_was_asked_to() {
    let mut bed = Bed::start(Script::default());
    let [busy, _] = bed.put("orders", &["a"]).try_into().unwrap();
    let error = WriteError::Retry {
        reason: "too many".into(),
        after: Some(7 * SECOND),
    };
    bed.sink.script().fails.insert(busy.clone(), error);
    bed.after(16 * SECOND).await;
    let tries = bed.sink.tries(&busy);
    assert_eq!(tries.len(), 3);
    assert!((tries[1] - tries[0]).as_secs_f32() < 7.1, "{tries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_result_counts_as_failed() {
    let mut bed = Bed::start(Script::default());
    let [mute, _] = bed.put("orders", &["a"]).try_into().unwrap();
    bed.sink.script().silent.insert(mute.clone());
    bed.after(SECOND).await;
    assert_eq!(bed.ledger.pending(), 1);
    assert!(bed.ledger.record(&mute).unwrap().result.is_err());
    let tries = bed.sink.tries(&mute).len();
    assert!((2..4).contains(&tries), "{tries}");
    bed.sink.script().silent.clear();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(bed.ledger.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn new_endpoints_and_hosts_are_there_before_old_ones_go() {
    let mut bed = Bed::start(Script::default());
    bed.put("orders", &["a"]);
    bed.after(SECOND).await;
    // The instance gets another id, and the host another name.
    bed.put("orders", &["b"]);
    bed.after(SECOND).await;
    bed.shop.remove("one", "orders");
    bed.put("sales", &["b"]);
    bed.after(SECOND).await;
    let steps: Vec<_> = bed
        .sink
        .batches()
        .iter()
        .flat_map(|(_, changes)| changes.clone())
        .map(|change| match change {
            Change::Put { object, .. } => ("put", object.key.kind),
            Change::Delete(key) => ("delete", key.kind),
        })
        .collect();
    let (workload, service) = (Kind::WorkloadEntry, Kind::ServiceEntry);
    assert_eq!(
        steps,
        [
            ("put", workload),
            ("put", service),
            ("put", workload),
            ("delete", workload),
            ("put", workload),
            ("put", service),
            ("delete", workload),
            ("delete", service),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn bursts_have_a_gap_and_batches_a_size() {
    let mut bed = Bed::start(Script::default());
    for round in 0..100 {
        let name = format!("s{round}");
        bed.put(&name, &["a", "b", "c", "d"]);
        bed.after(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(SECOND).await;
    let mut bursts: Vec<Instant> = bed.sink.batches().iter().map(|(at, _)| *at).collect();
    bursts.dedup();
    assert!((4..=9).contains(&bursts.len()), "{} bursts", bursts.len());
    let gap = Pace::default().gap;
    assert!(bursts.windows(2).all(|w| w[1] - w[0] >= gap), "{bursts:?}");

    bed.sink.script().batches.clear();
    let ids: Vec<String> = (0..600).map(|id| format!("i{id}")).collect();
    bed.put("large", &ids.iter().map(String::as_str).collect::<Vec<_>>());
    bed.after(SECOND).await;
    let sizes: Vec<_> = bed.sink.batches().iter().map(|(_, c)| c.len()).collect();
    assert_eq!(sizes, [256, 256, 88, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_over_when_nobody_wants_the_object_or_it_is_as_it_should_be() {
    let mut bed = Bed::start(Script::default());
    let [_, first] = bed.put("orders", &["a"]).try_into().unwrap();
    let [_, second] = bed.put("stock", &["a"]).try_into().unwrap();
    for key in [&first, &second] {
        bed.sink.drift(key, State::Foreign);
    }
    tokio::time::sleep(SECOND).await;
    bed.after(SECOND).await;
    let conflicts = |n| BTreeMap::from([("ForeignObject", n)]);
    assert_eq!(bed.ledger.totals("one").failing, conflicts(2));
    assert_eq!(bed.ledger.pending(), 0, "nothing can be done about them");
    bed.shop.remove("one", "orders");
    bed.after(SECOND).await;
    assert_eq!(bed.ledger.totals("one").failing, conflicts(1));
    let state = State::Ours {
        registry: "one".into(),
        hash: bed.shop.hashes().get(&second).copied(),
    };
    bed.sink.drift(&second, state);
    tokio::time::sleep(SECOND).await;
    assert_eq!(bed.ledger.totals("one"), Default::default());
    assert!(bed.sink.tries(&first).is_empty() && bed.sink.tries(&second).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_not_written_and_is_read_again() {
    let mut bed = Bed::start(Script {
        unreadable: true,
        ..Script::default()
    });
    bed.put("orders", &["a"]);
    bed.after(300 * SECOND).await;
    assert_eq!(bed.sink.batches().len(), 0);
    assert_eq!(bed.ledger.unreadable().as_deref(), Some("cannot be read"));
    let reads = bed.sink.script().reads;
    assert!((5..15).contains(&reads), "{reads} reads");
    bed.sink.script().unreadable = false;
    tokio::time::sleep(61 * SECOND).await;
    assert_eq!(bed.ledger.unreadable(), None);
    assert_eq!((bed.ledger.pending(), bed.sink.batches().len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_deaf_is_read_now_and_then_and_written_all_the_same() {
    let mut bed = Bed::start(Script {
        deaf: true,
        ..Script::default()
    });
    let [workload, _] = bed.put("orders", &["a"]).try_into().unwrap();
    bed.after(10 * SECOND).await;
    let reads = bed.sink.script().reads;
    assert!((10..30).contains(&reads), "{reads} reads");
    assert!(!bed.sink.tries(&workload).is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_once_whatever_it_waits_for() {
    for script in [
        Script::default(),
        Script {
            unreadable: true,
            ..Script::default()
        },
        Script {
            deaf: true,
            ..Script::default()
        },
    ] {
        let mut bed = Bed::start(script);
        bed.put("orders", &["a"]);
        bed.after(3 * SECOND).await;
        let took = bed.stop().await;
        assert!(took < SECOND / 10, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_not_wait_for_ever_for_a_write() {
    let mut bed = Bed::start(Script {
        hangs: true,
        ..Script::default()
    });
    bed.put("orders", &["a"]);
    bed.after(SECOND).await;
    assert_eq!(bed.sink.batches().len(), 1);
    let took = bed.stop().await;
    assert!(took <= GRACE + SECOND / 10, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_publisher() {
    let mut bed = Bed::start(Script::default());
    bed.put("orders", &["a"]);
    bed.publish();
    drop(bed.desired);
    bed.task.await.unwrap();
    assert_eq!(bed.sink.batches().len(), 2, "the last word was heard");
}
