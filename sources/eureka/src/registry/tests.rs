use proptest::prelude::*;

use super::*;

fn change(app: &str, id: &str, status: &str, updated: u64) -> Change {
    Change {
        app: app.into(),
        id: id.into(),
        deleted: false,
        entry: Entry {
            status: status.into(),
            updated,
            vips: ["".into(), "".into()],
            instance: None,
        },
    }
}

fn deleted(app: &str, id: &str, updated: u64) -> Change {
    Change {
        deleted: true,
        ..change(app, id, "UP", updated)
    }
}

fn answer(hash: &str, changes: Vec<Change>) -> Answer {
    Answer {
        hash: Some(hash.to_owned()),
        version: None,
        changes,
    }
}

fn registry(changes: Vec<Change>) -> Registry {
    let mut registry = Registry::default();
    registry.replace(answer("", changes));
    registry
}

fn state(registry: &Registry) -> Vec<(String, String, String)> {
    let applications = registry.applications.iter();
    applications
        .flat_map(|(app, instances)| {
            instances
                .iter()
                .map(move |(id, e)| (app.to_string(), id.to_string(), e.status.to_string()))
        })
        .collect()
}

#[test]
fn the_hash_is_eurekas() {
    let mut known = registry(vec![
        change("pay", "a", "UP", 1),
        change("cart", "b", "DOWN", 1),
        change("cart", "c", "UP", 1),
    ]);
    assert_eq!(known.hash(), "DOWN_1_UP_2_");
    known.replace(answer("", Vec::new()));
    assert_eq!(known.hash(), "");
    assert!(answer("UP_1_", vec![change("a", "a", "UP", 1)]).is_whole());
    assert!(!answer("UP_2_", vec![change("a", "a", "UP", 1)]).is_whole());
    assert!(
        Answer::default().is_whole(),
        "without a hash nothing is known against it"
    );
}

#[test]
fn a_delta_that_adds_up_is_taken_over() {
    let mut known = registry(vec![
        change("pay", "a", "UP", 1),
        change("pay", "b", "UP", 1),
    ]);
    let delta = answer(
        "DOWN_1_UP_1_",
        vec![
            deleted("pay", "a", 5),
            change("pay", "b", "DOWN", 6),
            change("cart", "c", "UP", 7),
        ],
    );
    for _ in 0..2 {
        let touched = known.follow(&delta).unwrap();
        assert_eq!(
            touched.iter().map(|n| &**n).collect::<Vec<_>>(),
            ["cart", "pay"]
        );
    }
    let last = answer("", vec![deleted("cart", "c", 8), deleted("pay", "b", 8)]);
    known.follow(&last).unwrap();
    assert_eq!(
        known.names().count(),
        0,
        "an application goes with its last instance"
    );
}

#[test]
fn a_delta_that_does_not_add_up_changes_nothing() {
    let mut known = registry(vec![change("pay", "a", "UP", 1)]);
    let before = state(&known);
    for delta in [
        answer("UP_3_", vec![change("pay", "b", "UP", 2)]),
        answer("UP_3_", vec![change("cart", "b", "UP", 2)]),
        answer("UP_1_", vec![deleted("pay", "a", 2)]),
        Answer {
            hash: None,
            version: None,
            changes: vec![deleted("pay", "a", 2)],
        },
    ] {
        assert_eq!(known.follow(&delta), None);
        assert_eq!(state(&known), before);
    }
}

#[test]
fn an_older_record_replaces_nothing() {
    let mut known = registry(vec![
        change("pay", "a", "DOWN", 9),
        change("pay", "b", "UP", 9),
    ]);
    let before = state(&known);
    let old = answer(
        "DOWN_1_UP_1_",
        vec![change("pay", "a", "UP", 8), deleted("pay", "b", 8)],
    );
    assert!(known.follow(&old).is_some());
    assert_eq!(state(&known), before);
    let old = answer("UP_2_", vec![change("pay", "a", "UP", 8)]);
    assert_eq!(known.follow(&old), None, "its counts are of that time, too");
    let same = answer("UP_2_", vec![change("pay", "a", "UP", 9)]);
    assert!(
        known.follow(&same).is_some(),
        "a record of the same time is the same or newer"
    );
}

/// What happens in a Eureka: an instance comes or changes, or goes.
#[derive(Clone, Debug)]
enum Op {
    Set(u8, u8, u8),
    Delete(u8, u8),
    /// A client asks for the changes.
    Ask,
    /// The delta that is answered from now on is the one of this time.
    Cache,
    /// The same for everything.
    CacheFull,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..3, 0u8..3, 0u8..3).prop_map(|(a, i, s)| Op::Set(a, i, s)),
        2 => (0u8..3, 0u8..3).prop_map(|(a, i)| Op::Delete(a, i)),
        3 => Just(Op::Ask),
        3 => Just(Op::Cache),
        2 => Just(Op::CacheFull),
    ]
}

/// A Eureka: what is there, and the changes so far, the last one of each instance.
#[derive(Default)]
struct Model {
    now: BTreeMap<(String, String), Change>,
    recent: BTreeMap<(String, String), Change>,
    clock: u64,
}

impl Model {
    fn apply(&mut self, app: u8, id: u8, status: Option<u8>) {
        self.clock += 1;
        let (app, id) = (format!("app{app}"), format!("i{id}"));
        let key = (app.clone(), id.clone());
        let change = match status {
            Some(status) => {
                let status = ["DOWN", "STARTING", "UP"][usize::from(status)];
                change(&app, &id, status, self.clock)
            }
            None if self.now.contains_key(&key) => deleted(&app, &id, self.clock),
            None => return,
        };
        self.recent.insert(key.clone(), change.clone());
        if change.deleted {
            self.now.remove(&key);
        } else {
            self.now.insert(key, change);
        }
    }

    fn hash(&self) -> String {
        counts(self.now.values().map(|change| &*change.entry.status))
    }

    fn full(&self) -> Answer {
        answer(&self.hash(), self.now.values().cloned().collect())
    }

    fn delta(&self) -> Answer {
        answer(&self.hash(), self.recent.values().cloned().collect())
    }

    fn state(&self) -> Vec<(String, String, String)> {
        let state = self.now.iter();
        state
            .map(|((app, id), c)| (app.clone(), id.clone(), c.entry.status.to_string()))
            .collect()
    }
}

proptest! {
    /// However old the peer's caches are: what is known is what the peer once had, never older than
    /// both of them, and in the end what it has.
    #[test]
    fn caches_of_different_age_do_not_matter(ops in proptest::collection::vec(op(), 0..60)) {
        let mut model = Model::default();
        let mut known = Registry::default();
        let (mut delta, mut full) = (model.delta(), model.full());
        let mut newest: BTreeMap<(String, String), u64> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Set(app, id, status) => model.apply(app, id, Some(status)),
                Op::Delete(app, id) => model.apply(app, id, None),
                Op::Cache => delta = model.delta(),
                Op::CacheFull => full = model.full(),
                Op::Ask => {
                    if known.follow(&delta).is_none() {
                        prop_assert!(full.is_whole());
                        known.replace(full.clone());
                        known.follow(&delta);
                    } else {
                        for (app, instances) in &known.applications {
                            for (id, entry) in instances {
                                let key = (app.to_string(), id.to_string());
                                let before = newest.insert(key, entry.updated).unwrap_or(0);
                                prop_assert!(entry.updated >= before, "{app} {id} went back");
                            }
                        }
                        prop_assert_eq!(Some(known.hash()), delta.hash.clone());
                    }
                    newest.clear();
                    for (app, instances) in &known.applications {
                        for (id, entry) in instances {
                            newest.insert((app.to_string(), id.to_string()), entry.updated);
                        }
                    }
                }
            }
        }
        let (delta, full) = (model.delta(), model.full());
        if known.follow(&delta).is_none() {
            known.replace(full);
            prop_assert!(known.follow(&delta).is_some());
        }
        prop_assert_eq!(state(&known), model.state());
    }
}
