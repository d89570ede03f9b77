//! The loop's behaviour in time and in trouble, with a sink that does as it is told. What a sink does
//! with objects is the matter of the conformance suite, on real ones.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use diolkos_plan::Endpoints;
use tokio::{sync::Notify, task::JoinHandle};

use super::*;
use crate::{Permit, Terms, shop::Shop};

mod ends;

/// What the sink is told to do, and what was asked of it.
#[derive(Default)]
struct Script {
    there: Vec<Observed>,
    /// Reading fails.
    unreadable: bool,
    /// Changes of others cannot be heard.
    deaf: bool,
    /// Objects whose writes end with an error after ten seconds.
    hangs: HashSet<ObjectKey>,
    /// Objects whose writes fail.
    fails: HashMap<ObjectKey, WriteError>,
    /// How long a write takes.
    takes: Duration,
    drifts: VecDeque<Vec<Observed>>,
    reads: usize,
    writes: Vec<(Instant, Change)>,
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
        let writes = script.writes.iter();
        writes
            .filter(|(_, change)| change.key() == key)
            .map(|(at, _)| *at)
            .collect()
    }

    fn writes(&self) -> Vec<(Instant, Change)> {
        self.script().writes.clone()
    }
}

/// The seconds between tries.
fn waits(tries: &[Instant]) -> Vec<f32> {
    let pairs = tries.windows(2);
    pairs.map(|w| (w[1] - w[0]).as_secs_f32()).collect()
}

impl Sink for Scripted {
    type Writer = Self;

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

    fn remembered(&self) -> Vec<Remembered> {
        let script = self.script();
        let there = script.there.iter();
        let remembered = there.filter_map(|observed| match &observed.state {
            State::Ours { registry, .. } => {
                Remembered::read(&observed.key, registry, |_| Some("one/orders"))
            }
            State::Foreign | State::Gone => None,
        });
        remembered.collect()
    }

    fn writer(&self) -> Self {
        self.clone()
    }
}

const SLOTS: usize = 8;

impl Writer for Scripted {
    fn parallel(&self) -> usize {
        SLOTS
    }

    async fn apply(&self, change: Change, permit: &Permit) -> Result<Outcome, WriteError> {
        permit.check()?;
        let key = change.key().clone();
        let done = match change {
            Change::Put { .. } => Outcome::Created,
            Change::Delete(_) => Outcome::Deleted,
        };
        let (hangs, takes) = {
            let mut script = self.script();
            script.writes.push((Instant::now(), change));
            (script.hangs.contains(&key), script.takes)
        };
        if hangs {
            tokio::time::sleep(10 * SECOND).await;
            return Err(lost());
        }
        tokio::time::sleep(takes).await;
        self.script().fails.get(&key).cloned().map_or(Ok(done), Err)
    }
}

struct Bed {
    sink: Scripted,
    shop: Shop,
    desired: watch::Sender<Arc<Desired>>,
    terms: watch::Sender<Arc<Terms>>,
    remembered: mpsc::Receiver<Vec<Remembered>>,
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
        let term = Instant::now() + 86_400 * SECOND;
        let (terms, authority) = watch::channel(Arc::new(Terms::from([("one".into(), term)])));
        let (remember, remembered) = mpsc::channel(1);
        let driving = Driving {
            remember: Some(remember),
            authority: Authority::until(authority),
            ..Driving::new(receiver, ledger.clone(), cancel.clone())
        };
        let task = tokio::spawn(drive(sink.clone(), driving));
        Self {
            sink,
            shop,
            desired,
            terms,
            remembered,
            ledger,
            cancel,
            task,
        }
    }

    /// Gives authority for so long from now on.
    fn permit(&self, time: Duration) {
        let terms = Terms::from([("one".into(), Instant::now() + time)]);
        self.terms.send_replace(Arc::new(terms));
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
    let waits = waits(&tries);
    assert!((0.4..1.0).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).all(|w| w[1] > w[0] * 0.75), "{waits:?}");
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
async fn after_an_outage_nothing_waits_for_its_own_time() {
    let mut bed = Bed::start(Script::default());
    let mut keys = Vec::new();
    for service in 0..20 {
        keys.extend(bed.put(&format!("s{service}"), &["a"]));
    }
    let fails = keys.iter().map(|key| (key.clone(), lost()));
    bed.sink.script().fails.extend(fails);
    bed.after(600 * SECOND).await;
    assert_eq!(bed.ledger.pending(), keys.len());
    bed.sink.script().fails.clear();
    let mended = Instant::now();
    while bed.ledger.pending() > 0 {
        tokio::time::sleep(SECOND / 10).await;
    }
    // The first of many is due long before the last would be: the longest wait is a minute.
    assert!(mended.elapsed() < 10 * SECOND, "{:?}", mended.elapsed());
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
async fn new_endpoints_are_there_before_old_ones_go() {
    let mut bed = Bed::start(Script::default());
    bed.put("orders", &["a"]);
    bed.after(SECOND).await;
    // The instance gets another id, then the service another namespace.
    bed.put("orders", &["b"]);
    bed.after(SECOND).await;
    bed.shop
        .registry("one", "elsewhere", Endpoints::WorkloadEntry);
    bed.put("orders", &["b"]);
    bed.after(SECOND).await;
    let steps: Vec<_> = bed
        .sink
        .writes()
        .into_iter()
        .map(|(_, change)| match change {
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
async fn bursts_have_a_gap() {
    let mut bed = Bed::start(Script::default());
    for round in 0..100 {
        let name = format!("s{round}");
        bed.put(&name, &["a", "b", "c", "d"]);
        bed.after(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(SECOND).await;
    let mut bursts: Vec<Instant> = bed.sink.writes().iter().map(|(at, _)| *at).collect();
    assert_eq!(bursts.len(), 500);
    bursts.dedup();
    assert!((4..=9).contains(&bursts.len()), "{} bursts", bursts.len());
    let gap = Pace::default().gap;
    assert!(bursts.windows(2).all(|w| w[1] - w[0] >= gap), "{bursts:?}");
}

/// Services with an endpoint each.
fn many(bed: &mut Bed, services: std::ops::Range<usize>) {
    for name in services {
        bed.put(&format!("s{name:04}"), &["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_burst_has_gaps_and_a_removal_does_not_wait_for_its_end() {
    let takes = Duration::from_millis(20);
    let mut bed = Bed::start(Script {
        takes,
        ..Script::default()
    });
    let [gone, _] = bed.put("orders", &["a"]).try_into().unwrap();
    bed.put("orders", &["a", "b"]);
    bed.after(SECOND).await;
    // 8,000 objects at 400 a second.
    many(&mut bed, 0..4000);
    bed.after(2 * SECOND).await;
    bed.put("orders", &["b"]);
    let asked = Instant::now();
    bed.after(20 * SECOND).await;
    let removed = *bed.sink.tries(&gone).last().unwrap();
    assert!(removed - asked <= takes, "after {:?}", removed - asked);
    let mut times: Vec<Instant> = bed.sink.writes().iter().map(|(at, _)| *at).collect();
    assert!(times.len() > 7000, "{}", times.len());
    times.drain(..4);
    let gap = Pace::default().gap;
    let gaps: Vec<_> = times.windows(2).filter(|w| w[1] - w[0] >= gap).collect();
    assert!((3..=5).contains(&gaps.len()), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn what_hangs_or_is_refused_starves_nobody() {
    let mut bed = Bed::start(Script::default());
    let keys: Vec<_> = (0..50)
        .flat_map(|n| bed.put(&format!("bad-{n}"), &["a"]))
        .collect();
    for (n, key) in keys.into_iter().enumerate() {
        let mut script = bed.sink.script();
        match n % 2 {
            0 => drop(script.hangs.insert(key)),
            _ => drop(script.fails.insert(key, invalid())),
        }
    }
    // All of them have failed once.
    bed.after(100 * SECOND).await;
    assert_eq!(bed.ledger.pending(), 100);
    for round in 0..20 {
        let name = format!("good-{round}");
        let keys = bed.put(&name, &["a", "b"]);
        let asked = Instant::now();
        bed.after(SECOND).await;
        let last = keys
            .iter()
            .flat_map(|key| bed.sink.tries(key))
            .max()
            .unwrap();
        let took = last - asked;
        assert!(took <= Pace::default().gap, "{name} waited for {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_stop_all_of_them_for_as_long_as_was_asked() {
    let mut bed = Bed::start(Script::default());
    let [busy, _] = bed.put("orders", &["a"]).try_into().unwrap();
    let error = WriteError::Retry {
        reason: "too many".into(),
        after: Some(7 * SECOND),
    };
    bed.sink.script().fails.insert(busy.clone(), error);
    bed.after(SECOND).await;
    bed.sink.script().fails.clear();
    let refused = bed.sink.tries(&busy)[0];
    bed.put("stock", &["a"]);
    bed.after(20 * SECOND).await;
    let later: Vec<_> = bed
        .sink
        .writes()
        .iter()
        .skip(1)
        .map(|(at, _)| *at - refused)
        .collect();
    assert_eq!(later.len(), 4);
    assert!(later.iter().all(|after| *after >= 7 * SECOND), "{later:?}");
    assert!(later.iter().all(|after| *after < 8 * SECOND), "{later:?}");
}
