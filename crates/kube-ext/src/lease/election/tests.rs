use std::{collections::VecDeque, time::Duration};

use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(identity: &str) -> LeaseSettings {
    LeaseSettings::new("ns".into(), identity.into(), super::super::LEASE_DURATION)
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<Arc<str>> {
    names.into_iter().map(Into::into).collect()
}

/// The Leases of an API server.
#[derive(Default)]
struct Store {
    leases: BTreeMap<Subject, Listed>,
    version: u64,
}

impl Store {
    fn list(&self) -> Vec<Listed> {
        self.leases.values().cloned().collect()
    }

    fn send(&mut self, call: &Call) -> Result<String, Failed> {
        let there = self.leases.get(&call.subject).map(|l| l.version.clone());
        match (&there, &call.version) {
            (None, Some(_)) => return Err(Failed::Missing),
            (Some(_), None) => return Err(Failed::Conflict),
            (there, version) if there != version => return Err(Failed::Conflict),
            _ => {}
        }
        self.version += 1;
        let version = self.version.to_string();
        match &call.write {
            Write::Delete => drop(self.leases.remove(&call.subject)),
            Write::Put { record, serves } => {
                let lease = Listed {
                    subject: call.subject.clone(),
                    version: version.clone(),
                    record: record.clone(),
                    serves: serves.clone(),
                };
                self.leases.insert(call.subject.clone(), lease);
            }
        }
        Ok(version)
    }

    fn holder(&self, registry: &str) -> Option<Arc<str>> {
        let lease = self.leases.get(&Subject::Registry(registry.into()))?;
        lease.record.holder.clone()
    }
}

/// One look and all that follows from it, without trouble.
fn step(election: &mut Election, store: &mut Store, now: Instant) {
    election.observe(store.list(), now);
    for call in election.calls(clock(now), true) {
        let result = store.send(&call);
        election.answer(call, now, now, result);
    }
}

fn clock(now: Instant) -> Clock {
    let wall = Timestamp::UNIX_EPOCH;
    Clock { now, wall }
}

/// An election that holds `a` and `b`.
fn holder(store: &mut Store, now: Instant) -> Election {
    let mut election = Election::new(settings("me"));
    election.want(names(["a", "b"]));
    step(&mut election, store, now);
    election
}

#[test]
fn who_is_alone_takes_all_and_its_terms_run_from_the_start_of_the_renewal() {
    let (start, mut store) = (Instant::now(), Store::default());
    let mut me = Election::new(settings("me"));
    me.want(names(["a"]));
    me.observe(Vec::new(), start);
    for call in me.calls(clock(start), true) {
        let result = store.send(&call);
        me.answer(call, start, start + 2 * SECOND, result);
    }
    assert_eq!(me.terms(), [("a".into(), start + 12 * SECOND)].into());
    let view = me.view(start + 2 * SECOND, None);
    assert_eq!(view.registries["a"].identity.as_deref(), Some("me"));
    assert_eq!(view.replicas, names(["me"]));
}

#[test]
fn without_a_look_leases_are_renewed_but_not_taken() {
    let (start, mut store) = (Instant::now(), Store::default());
    let mut me = holder(&mut store, start);
    me.want(names(["a", "b", "c"]));
    me.observe(store.list(), start);
    let calls = me.calls(clock(start + 6 * SECOND), false);
    let about: Vec<_> = calls.iter().map(|call| call.subject.clone()).collect();
    let renewed = ["a", "b"].map(|name| Subject::Registry(name.into()));
    assert_eq!(about[..2], renewed);
    assert_eq!(about[2..], [Subject::Replica("me".into())]);
}

#[test]
fn another_holder_or_a_deleted_lease_ends_our_term_at_once() {
    let (start, mut store) = (Instant::now(), Store::default());
    let mut me = holder(&mut store, start);
    assert_eq!(me.terms().len(), 2);
    store.leases.remove(&Subject::Registry("a".into()));
    let taken = store.leases.get_mut(&Subject::Registry("b".into()));
    taken.expect("it is there").record.holder = Some("other".into());
    me.observe(store.list(), start + SECOND);
    assert_eq!(me.terms(), LeaseTerms::new());
}

#[test]
fn a_clean_stop_frees_everything_and_the_next_one_takes_it_at_once() {
    let (start, mut store) = (Instant::now(), Store::default());
    let me = holder(&mut store, start);
    let mut other = Election::new(settings("other"));
    other.want(names(["a", "b"]));
    step(&mut other, &mut store, start);
    assert_eq!(other.terms(), LeaseTerms::new());
    let last = me.last_calls(Timestamp::UNIX_EPOCH);
    assert_eq!(last[0].subject, Subject::Replica("me".into()), "first");
    for call in last {
        store.send(&call).expect("they are ours");
    }
    step(&mut other, &mut store, start + SECOND);
    assert_eq!(other.terms().len(), 2);
    let view = other.view(start + SECOND, None);
    assert_eq!(view.registries["a"].transitions, 1);
}

#[test]
fn a_registry_that_nobody_serves_any_more_loses_its_lease() {
    let (start, mut store) = (Instant::now(), Store::default());
    let mut me = holder(&mut store, start);
    let mut other = Election::new(settings("other"));
    other.want(names(["a", "b"]));
    step(&mut other, &mut store, start);
    // The other one serves it still: it is given back.
    me.want(names(["b"]));
    step(&mut me, &mut store, start + SECOND);
    assert!(me.terms().contains_key("b") && !me.terms().contains_key("a"));
    assert_eq!(store.holder("a"), None);
    assert!(store.leases.contains_key(&Subject::Registry("a".into())));
    step(&mut other, &mut store, start + SECOND);
    assert_eq!(store.holder("a").as_deref(), Some("other"));
    other.want(names(["b"]));
    step(&mut other, &mut store, start + 2 * SECOND);
    assert!(!store.leases.contains_key(&Subject::Registry("a".into())));
}

#[test]
fn the_lease_of_a_dead_replica_is_tidied_up() {
    let (start, mut store) = (Instant::now(), Store::default());
    let mut me = holder(&mut store, start);
    let mut other = Election::new(settings("other"));
    other.want(names(["a", "b"]));
    step(&mut other, &mut store, start);
    let is_there = |store: &Store| {
        let other = Subject::Replica("other".into());
        store.leases.contains_key(&other)
    };
    for after in 0..30 {
        step(&mut me, &mut store, start + after * SECOND);
        assert!(is_there(&store), "after {after} s");
        let alive = me.view(start + after * SECOND, None).replicas.len();
        assert_eq!(alive, if after < 15 { 2 } else { 1 }, "after {after} s");
    }
    step(&mut me, &mut store, start + 30 * SECOND);
    assert!(!is_there(&store));
}

/// A call, its start, and what the server answered, if it came there.
type UnderWay = (Call, Instant, Option<Result<String, Failed>>);

/// A replica with a clock of its own, calls under way, and pauses.
struct Simulated {
    election: Election,
    /// How fast its clock goes.
    speed: f64,
    asleep: Duration,
    next_look: Duration,
    under_way: VecDeque<UnderWay>,
}

struct Simulation {
    start: Instant,
    /// True time since then.
    time: Duration,
    store: Store,
    replicas: Vec<Simulated>,
    rng: StdRng,
    trouble: bool,
}

const TICK: Duration = Duration::from_millis(100);

impl Simulation {
    fn new(seed: u64, replicas: usize, registries: &BTreeSet<Arc<str>>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let replicas = (0..replicas).map(|n| {
            let mut election = Election::new(settings(&format!("replica-{n}")));
            election.want(registries.clone());
            Simulated {
                election,
                // The margin is good for a quarter between the slowest and the fastest.
                speed: rng.random_range(0.9..1.1),
                asleep: Duration::ZERO,
                next_look: Duration::ZERO,
                under_way: VecDeque::new(),
            }
        });
        Self {
            start: Instant::now(),
            time: Duration::ZERO,
            store: Store::default(),
            replicas: replicas.collect(),
            rng,
            trouble: true,
        }
    }

    fn local(&self, replica: &Simulated) -> Instant {
        self.start + self.time.mul_f64(replica.speed)
    }

    fn run(&mut self, duration: Duration) {
        let end = self.time + duration;
        while self.time < end {
            self.time += TICK;
            for n in 0..self.replicas.len() {
                let mut replica = self.replicas.remove(n);
                let now = self.local(&replica);
                self.turn(&mut replica, now);
                self.replicas.insert(n, replica);
            }
            self.at_most_one_writes();
        }
    }

    fn turn(&mut self, replica: &mut Simulated, now: Instant) {
        if self.time < replica.asleep {
            return;
        }
        if self.trouble && self.rng.random_bool(0.004) {
            replica.asleep = self.time + SECOND.mul_f64(self.rng.random_range(0.1..40.0));
            return;
        }
        if let Some(call) = replica.under_way.pop_front() {
            self.go_on(replica, call, now);
        } else if self.time >= replica.next_look {
            replica.next_look = self.time + SECOND;
            let fresh = !(self.trouble && self.rng.random_bool(0.2));
            if fresh {
                replica.election.observe(self.store.list(), now);
            }
            // Incident class 21: the wall clocks of the replicas jump by an hour.
            let wall = Timestamp::UNIX_EPOCH + SECOND * self.rng.random_range(0..7200);
            for call in replica.election.calls(Clock { now, wall }, fresh) {
                replica.under_way.push_back((call, now, None));
            }
        }
    }

    /// A request arrives or not, later its answer arrives or not.
    fn go_on(&mut self, replica: &mut Simulated, (call, started, done): UnderWay, now: Instant) {
        let lost = self.trouble && self.rng.random_bool(0.15);
        match done {
            _ if lost => replica
                .election
                .answer(call, started, now, Err(Failed::Unknown)),
            None => {
                let done = self.store.send(&call);
                replica.under_way.push_front((call, started, Some(done)));
            }
            Some(result) => replica.election.answer(call, started, now, result),
        }
    }

    fn at_most_one_writes(&self) {
        let mut writers: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (n, replica) in self.replicas.iter().enumerate() {
            let now = self.local(replica);
            for (registry, until) in replica.election.terms() {
                if now < until {
                    writers.entry(registry).or_default().push(n);
                }
            }
        }
        let two = writers.iter().find(|(_, who)| who.len() > 1);
        assert_eq!(two, None, "after {:?}", self.time);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Processes that are stopped for up to 40 s, lost requests, lost answers, clocks of different speed: never do
    /// two replicas count themselves as the writer of one registry, and afterwards each registry has its preferred.
    #[test]
    fn never_two_and_in_the_end_the_preferred(seed: u64, replicas in 1usize..5) {
        let registries = names(["a", "b", "c", "d", "e"]);
        let mut simulation = Simulation::new(seed, replicas, &registries);
        simulation.run(150 * SECOND);
        simulation.trouble = false;
        // The longest sleep, then a holder that should not be one: it expires or hands over.
        simulation.run(100 * SECOND);
        let serves = simulation.replicas.iter();
        let serves = serves.map(|r| (r.election.settings.identity.clone(), registries.clone()));
        for (registry, preferred) in share(&serves.collect()) {
            let replica = simulation.replicas.iter().find(|r| r.election.settings.identity == preferred);
            let replica = replica.expect("it is one of them");
            let until = replica.election.terms().get(&registry).copied();
            let now = simulation.local(replica);
            prop_assert!(until.is_some_and(|until| now < until), "{registry}: {until:?}");
            prop_assert_eq!(simulation.store.holder(&registry), Some(preferred));
        }
    }
}
