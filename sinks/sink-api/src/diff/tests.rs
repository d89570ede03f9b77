use diolkos_plan::Endpoints;
use proptest::prelude::*;

use super::*;
use crate::shop::Shop;

const NAMESPACE: &str = "mesh";

fn shop() -> Shop {
    let mut shop = Shop::default();
    shop.registry("one", NAMESPACE, Endpoints::WorkloadEntry);
    shop.registry("two", NAMESPACE, Endpoints::Inline);
    shop
}

fn ours(registry: &str, hash: Option<ContentHash>) -> State {
    State::Ours {
        registry: registry.into(),
        hash,
    }
}

fn observed(key: &ObjectKey, state: State) -> Observed {
    let key = key.clone();
    Observed { key, state }
}

/// All objects as they should be.
fn written(shop: &Shop, registry: &str) -> Vec<Observed> {
    let hashes = shop.hashes();
    hashes
        .iter()
        .map(|(key, hash)| observed(key, ours(registry, Some(*hash))))
        .collect()
}

/// Deals with all that is dirty as if each write worked, and returns the steps.
fn settle(differ: &mut Differ) -> Vec<(ObjectKey, Step)> {
    let mut steps = Vec::new();
    for key in differ.take_dirty().objects.into_keys() {
        let step = differ.step(&key);
        match &step {
            Step::Put { service } => {
                let hash = differ.wanted_hash(&key);
                differ.written(&key, service.registry.clone(), hash);
            }
            Step::Delete { registry } => differ.written(&key, registry.clone(), None),
            Step::Nothing | Step::Foreign { .. } => {}
        }
        if step != Step::Nothing {
            steps.push((key, step));
        }
    }
    steps
}

fn names(steps: &[(ObjectKey, Step)]) -> Vec<(Kind, &str, &'static str)> {
    let what = |step: &Step| match step {
        Step::Nothing => "nothing",
        Step::Foreign { .. } => "foreign",
        Step::Put { .. } => "put",
        Step::Delete { .. } => "delete",
    };
    steps
        .iter()
        .map(|(key, step)| (key.kind, &*key.name, what(step)))
        .collect()
}

#[test]
fn a_restart_with_nothing_changed_has_nothing_to_do() {
    let mut shop = shop();
    shop.put("one", "orders", &["a", "b"], 80);
    let mut differ = Differ::default();
    differ.observed_all(written(&shop, "one"));
    differ.desired(&shop.publish());
    assert_eq!(differ.dirty.objects.len(), 3);
    assert_eq!(differ.preview(), []);
    assert_eq!(settle(&mut differ), []);
    assert_eq!(differ.held(Kind::WorkloadEntry), 2);
}

#[test]
fn only_what_changed_is_looked_at() {
    let mut shop = shop();
    shop.put("one", "orders", &["a"], 80);
    shop.put("one", "stock", &["a"], 80);
    let mut differ = Differ::default();
    differ.desired(&shop.publish());
    assert_eq!(settle(&mut differ).len(), 4);
    shop.put("one", "stock", &["a", "b"], 80);
    differ.desired(&shop.publish());
    assert!(
        differ
            .dirty
            .objects
            .keys()
            .all(|key| key.name.contains("stock"))
    );
    let steps = settle(&mut differ);
    assert_eq!(steps.len(), 1, "{steps:?}");
    differ.desired(&shop.publish());
    assert!(differ.dirty.objects.is_empty());
}

#[test]
fn what_a_service_wants_no_more_goes_unless_its_registry_waits() {
    for (waits, expected) in [(false, 3), (true, 0)] {
        let mut shop = shop();
        shop.put("one", "orders", &["a", "b"], 80);
        shop.complete("one", false);
        let mut differ = Differ::default();
        differ.desired(&shop.publish());
        assert_eq!(settle(&mut differ).len(), 3);
        let written_late = shop.hashes().into_keys().next().unwrap();
        shop.waits("one", waits);
        shop.remove("one", "orders");
        differ.desired(&shop.publish());
        let steps = settle(&mut differ);
        let deletes = |step: &Step| matches!(step, Step::Delete { .. });
        assert_eq!(steps.len(), expected, "{steps:?}");
        assert!(steps.iter().all(|(_, step)| deletes(step)));
        // By a request that was under way.
        differ.written(&written_late, "one".into(), Some(ContentHash(7)));
        assert_eq!(deletes(&differ.step(&written_late)), !waits);
    }
}

#[test]
fn orphans_go_once_their_registry_is_complete_and_never_if_it_is_unknown() {
    let mut old = shop();
    old.put("two", "gone", &["a"], 80);
    let orphan = written(&old, "two").remove(0);
    for (registry, complete, expected) in [
        ("two", false, false),
        ("two", true, true),
        ("three", true, false),
    ] {
        let mut shop = shop();
        shop.complete("two", false);
        let mut differ = Differ::default();
        differ.observed_all(vec![observed(&orphan.key, ours(registry, None))]);
        differ.desired(&shop.publish());
        assert_eq!(settle(&mut differ), []);
        shop.complete("two", complete);
        differ.desired(&shop.publish());
        let steps = settle(&mut differ);
        assert_eq!(!steps.is_empty(), expected, "{registry} {complete}");
        let unclaimed = differ.unclaimed();
        assert_eq!(unclaimed.contains_key("three"), registry == "three");
    }
}

#[test]
fn an_object_that_moves_between_registries_is_written_and_not_deleted() {
    let mut shop = shop();
    shop.put("two", "orders", &["a"], 80);
    let mut differ = Differ::default();
    differ.desired(&shop.publish());
    settle(&mut differ);
    shop.remove("two", "orders");
    shop.registry("one", NAMESPACE, Endpoints::Inline);
    shop.put("one", "orders", &["a"], 80);
    differ.desired(&shop.publish());
    let steps = settle(&mut differ);
    assert_eq!(
        names(&steps),
        [(Kind::ServiceEntry, "orders.example", "put")]
    );
    // And back, while the other way round in the order of keys.
    shop.remove("one", "orders");
    shop.put("two", "orders", &["a"], 80);
    differ.desired(&shop.publish());
    let steps = settle(&mut differ);
    assert_eq!(
        names(&steps),
        [(Kind::ServiceEntry, "orders.example", "put")]
    );
}

#[test]
fn a_label_that_says_another_registry_is_mended() {
    let mut shop = shop();
    shop.put("two", "orders", &["a"], 80);
    let mut differ = Differ::default();
    differ.observed_all(written(&shop, "one"));
    differ.desired(&shop.publish());
    assert_eq!(
        names(&settle(&mut differ)),
        [(Kind::ServiceEntry, "orders.example", "put")]
    );
}

#[test]
fn foreign_objects_are_reported_and_left_alone() {
    let mut shop = shop();
    shop.put("two", "orders", &["a"], 80);
    let key = shop.objects("two", "orders").remove(0).key;
    let mut differ = Differ::default();
    differ.observed_all(vec![observed(&key, State::Foreign)]);
    differ.desired(&shop.publish());
    assert_eq!(differ.preview(), [(key.clone(), "conflict")]);
    let service = "orders.example";
    assert_eq!(
        names(&settle(&mut differ)),
        [(Kind::ServiceEntry, service, "foreign")]
    );
    differ.observed(vec![observed(&key, State::Gone)]);
    assert_eq!(differ.preview(), [(key.clone(), "create")]);
    assert_eq!(
        names(&settle(&mut differ)),
        [(Kind::ServiceEntry, service, "put")]
    );
    // It is taken over by somebody, then nobody of us wants it.
    differ.observed(vec![observed(&key, State::Foreign)]);
    settle(&mut differ);
    shop.remove("two", "orders");
    differ.desired(&shop.publish());
    assert_eq!(settle(&mut differ), []);
}

#[test]
fn a_second_reading_finds_what_is_missing_in_it() {
    let mut shop = shop();
    shop.put("one", "orders", &["a", "b"], 80);
    let mut differ = Differ::default();
    differ.desired(&shop.publish());
    settle(&mut differ);
    let mut all = written(&shop, "one");
    let lost = all.remove(1).key;
    differ.observed_all(all);
    assert_eq!(differ.preview(), [(lost, "create")]);
}

#[test]
fn a_service_that_loses_an_endpoint_is_named_and_so_are_its_former_objects() {
    let mut shop = shop();
    shop.put("one", "orders", &["a", "b"], 80);
    shop.put("two", "stock", &["a", "b"], 80);
    let mut differ = Differ::default();
    differ.desired(&shop.publish());
    let dirty = differ.take_dirty();
    assert!(dirty.shrunk.is_empty(), "all is new");
    assert!(dirty.objects.values().all(Option::is_none));
    for (ids, shrunk) in [
        (&["a", "b", "c"][..], false),
        (&["a", "b", "d"], true),
        (&["a", "d"], true),
        (&["a", "c", "d"], false),
        (&["a", "c", "d"], false),
    ] {
        shop.put("two", "stock", ids, 80);
        differ.desired(&shop.publish());
        let dirty = differ.take_dirty();
        assert_eq!(!dirty.shrunk.is_empty(), shrunk, "{ids:?}");
    }
    let gone = shop.objects("one", "orders").remove(0).key;
    shop.put("one", "orders", &["b"], 80);
    differ.desired(&shop.publish());
    let dirty = differ.take_dirty();
    let former = dirty.objects[&gone].as_ref().map(|service| &*service.name);
    assert_eq!(former, Some("orders"));
}

/// Something that happens to a differ.
#[derive(Clone, Debug)]
enum Act {
    Put(u8, u8, u8),
    Remove(u8, u8),
    Complete(u8, bool),
    Observe(usize, State),
    ReadAll(Vec<(usize, State)>),
    Settle,
}

const REGISTRIES: [&str; 2] = ["one", "two"];
const NAMES: [&str; 3] = ["a", "b", "c"];

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Gone),
        Just(State::Foreign),
        (0..3usize, proptest::option::of(0..2u128))
            .prop_map(|(r, hash)| ours(["one", "two", "three"][r], hash.map(ContentHash))),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..2u8, 0..3u8, 1..4u8).prop_map(|(r, n, ids)| Act::Put(r, n, ids)),
        2 => (0..2u8, 0..3u8).prop_map(|(r, n)| Act::Remove(r, n)),
        1 => (0..2u8, any::<bool>()).prop_map(|(r, complete)| Act::Complete(r, complete)),
        2 => (0..6usize, any_state()).prop_map(|(k, state)| Act::Observe(k, state)),
        1 => proptest::collection::vec((0..6usize, any_state()), 0..4).prop_map(Act::ReadAll),
        2 => Just(Act::Settle),
    ]
}

proptest! {
    /// Nothing that differs is forgotten, and once all is settled all is as it should be.
    #[test]
    fn what_differs_is_dirty(acts in proptest::collection::vec(any_act(), 1..40)) {
        let mut shop = shop();
        let mut universe = shop.clone();
        for name in NAMES {
            universe.put("one", name, &["x", "y"], 80);
        }
        let keys: Vec<ObjectKey> = universe.hashes().into_keys().take(6).collect();
        let mut differ = Differ::default();
        for act in acts {
            match act {
                Act::Put(registry, name, ids) => {
                    // A host belongs to one service only: the engine sees to that.
                    let (registry, name) = (REGISTRIES[usize::from(registry)], NAMES[usize::from(name)]);
                    REGISTRIES.iter().for_each(|r| shop.remove(r, name));
                    shop.put(registry, name, &["x", "y", "z"][..usize::from(ids)], 80);
                    differ.desired(&shop.publish());
                }
                Act::Remove(registry, name) => {
                    shop.remove(REGISTRIES[usize::from(registry)], NAMES[usize::from(name)]);
                    differ.desired(&shop.publish());
                }
                Act::Complete(registry, complete) => {
                    shop.complete(REGISTRIES[usize::from(registry)], complete);
                    differ.desired(&shop.publish());
                }
                Act::Observe(key, state) => differ.observed(vec![observed(&keys[key], state)]),
                Act::ReadAll(all) => {
                    let all: BTreeMap<_, _> = all.into_iter().collect();
                    differ.observed_all(all.into_iter().map(|(key, state)| observed(&keys[key], state)).collect());
                }
                Act::Settle => {
                    settle(&mut differ);
                    prop_assert!(differ.dirty.objects.is_empty());
                }
            }
            let wanted = shop.hashes();
            for key in keys.iter().chain(wanted.keys()).chain(differ.there.keys()) {
                let step = differ.step(key);
                let idle = matches!(step, Step::Nothing | Step::Foreign { .. });
                prop_assert!(idle || differ.dirty.objects.contains_key(key), "{:?} of {:?} is forgotten", step, key);
                prop_assert_eq!(differ.wanted_hash(key), wanted.get(key).copied());
            }
        }
        settle(&mut differ);
        for (key, hash) in shop.hashes() {
            let there = differ.there.get(&key);
            let right = matches!(there, Some(State::Ours { hash: Some(there), .. }) if *there == hash);
            prop_assert!(right || there == Some(&State::Foreign), "{:?} is {:?}", key, there);
        }
    }
}
