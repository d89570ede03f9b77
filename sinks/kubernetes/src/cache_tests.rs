use super::*;
use diolkos_model::ContentHash;

use crate::entry::Uid;

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        kind: Kind::ServiceEntry,
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn entry(version: u64, state: State) -> Entry {
    Entry {
        uid: Uid::default(),
        version,
        generation: 1,
        state,
        cause: None,
    }
}

fn ours(hash: u128) -> State {
    State::Ours {
        registry: "consul".into(),
        hash: Some(ContentHash(hash)),
    }
}

/// A cache that has listed `objects`, told of them, and has a write of `b` under way.
fn cache(objects: &[(&str, u64)]) -> Cache {
    let mut cache = Cache::default();
    list(&mut cache, objects);
    cache.take_all();
    cache.begin(&key("b"));
    cache
}

fn list(cache: &mut Cache, objects: &[(&str, u64)]) {
    cache.list_begins(Kind::ServiceEntry);
    for (name, version) in objects {
        cache.is(key(name), entry(*version, ours(1)));
    }
    cache.list_ends(Kind::ServiceEntry);
}

/// The changes that are told, by name.
fn changes(cache: &mut Cache) -> Vec<(String, State)> {
    let changes = cache.take_changes().into_iter();
    let mut changes: Vec<_> = changes.map(|o| (o.key.name.to_string(), o.state)).collect();
    changes.sort_by(|a, b| a.0.cmp(&b.0));
    changes
}

fn change(name: &str, state: State) -> Vec<(String, State)> {
    vec![(name.to_owned(), state)]
}

#[test]
fn the_echo_of_a_write_says_nothing_before_and_after_the_answer() {
    for before in [true, false] {
        let mut cache = cache(&[("b", 5)]);
        if before {
            cache.is(key("b"), entry(6, ours(2)));
        }
        cache.settle(&key("b"), Learned::Wrote(entry(6, ours(2))));
        if !before {
            cache.is(key("b"), entry(6, ours(2)));
        }
        assert_eq!(changes(&mut cache), []);
        assert_eq!(cache.get(&key("b")), Some(&entry(6, ours(2))));
    }
}

#[test]
fn a_change_on_top_of_a_write_is_told_whenever_it_comes() {
    for before in [true, false] {
        let mut cache = cache(&[]);
        if before {
            cache.is(key("b"), entry(6, ours(2)));
            cache.is(key("b"), entry(7, State::Foreign));
        }
        cache.settle(&key("b"), Learned::Wrote(entry(6, ours(2))));
        if !before {
            cache.is(key("b"), entry(7, State::Foreign));
        }
        assert_eq!(changes(&mut cache), change("b", State::Foreign));
    }
}

#[test]
fn newer_events_with_the_same_state_only_move_the_version() {
    let mut cache = cache(&[("a", 5)]);
    cache.is(key("a"), entry(9, ours(1)));
    assert_eq!(changes(&mut cache), []);
    assert_eq!(cache.get(&key("a")).unwrap().version, 9);
}

#[test]
fn a_write_that_failed_lets_the_events_of_meanwhile_pass() {
    let mut cache = cache(&[("b", 5)]);
    cache.is(key("b"), entry(6, ours(2)));
    assert_eq!(changes(&mut cache), []);
    cache.settle(&key("b"), Learned::Nothing);
    assert_eq!(changes(&mut cache), change("b", ours(2)));
}

#[test]
fn our_delete_is_no_change_whatever_comes_late() {
    let mut cache = cache(&[("b", 5)]);
    cache.settle(&key("b"), Learned::Removed(entry(5, ours(1))));
    cache.is(key("b"), entry(4, ours(1)));
    cache.is(key("b"), entry(5, ours(1)));
    assert_eq!(cache.get(&key("b")), None);
    cache.gone(key("b"), 8);
    assert_eq!(changes(&mut cache), []);
    assert!(
        cache.objects.is_empty(),
        "the tombstone goes with the event"
    );
}

#[test]
fn an_object_made_anew_after_our_delete_is_told() {
    let mut cache = cache(&[("b", 5)]);
    cache.settle(&key("b"), Learned::Removed(entry(5, ours(1))));
    cache.gone(key("b"), 8);
    cache.is(key("b"), entry(9, State::Foreign));
    assert_eq!(changes(&mut cache), change("b", State::Foreign));
}

#[test]
fn the_event_of_a_delete_does_not_remove_what_was_made_since() {
    let mut cache = cache(&[("b", 5)]);
    cache.settle(&key("b"), Learned::Removed(entry(5, ours(1))));
    cache.begin(&key("b"));
    cache.settle(&key("b"), Learned::Wrote(entry(9, ours(3))));
    cache.gone(key("b"), 8);
    assert_eq!(changes(&mut cache), []);
    assert_eq!(cache.get(&key("b")).unwrap().version, 9);
}

#[test]
fn what_a_list_does_not_mention_is_gone() {
    let mut cache = cache(&[("a", 4), ("b", 5), ("c", 6)]);
    cache.settle(&key("b"), Learned::Nothing);
    list(&mut cache, &[("c", 6), ("d", 7)]);
    let mut expected = change("a", State::Gone);
    expected.extend(change("b", State::Gone));
    expected.extend(change("d", ours(1)));
    assert_eq!(changes(&mut cache), expected);
}

#[test]
fn a_list_does_not_remove_what_is_being_written() {
    let mut cache = cache(&[]);
    list(&mut cache, &[]);
    cache.settle(&key("b"), Learned::Wrote(entry(9, ours(2))));
    list(&mut cache, &[("b", 9)]);
    assert_eq!(changes(&mut cache), []);
}

#[test]
fn what_is_written_during_a_list_and_not_in_it_comes_back_with_the_watch() {
    let mut cache = cache(&[]);
    cache.list_begins(Kind::ServiceEntry);
    cache.settle(&key("b"), Learned::Wrote(entry(9, ours(2))));
    cache.list_ends(Kind::ServiceEntry);
    cache.is(key("b"), entry(9, ours(2)));
    assert_eq!(
        changes(&mut cache),
        change("b", ours(2)),
        "told as it is, not as gone"
    );
}

#[test]
fn a_list_of_one_kind_says_nothing_of_the_other() {
    let mut cache = cache(&[("a", 4)]);
    cache.list_begins(Kind::WorkloadEntry);
    cache.list_ends(Kind::WorkloadEntry);
    assert_eq!(changes(&mut cache), []);
    assert!(cache.get(&key("a")).is_some());
}

#[test]
fn a_second_look_that_finds_something_else_is_told() {
    for (now, told) in [
        (None, State::Gone),
        (Some(entry(9, State::Foreign)), State::Foreign),
    ] {
        let mut cache = cache(&[("b", 5)]);
        cache.settle(&key("b"), Learned::Saw(now));
        assert_eq!(changes(&mut cache), change("b", told));
    }
}
