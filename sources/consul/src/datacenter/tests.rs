use diolkos_model::Interner;
use serde_json::json;

use super::*;
use crate::mapping;

fn everything() -> Select {
    Arc::new(|name, tags| name != "consul" && !tags.iter().any(|tag| tag == "hidden"))
}

fn catalog(services: &[(&str, &[&str])]) -> Catalog {
    let owned = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    services
        .iter()
        .map(|(name, tags)| ((*name).to_owned(), owned(tags)))
        .collect()
}

fn entry(id: &str, revision: u64) -> Entry {
    serde_json::from_value(json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1", "ModifyIndex": 5},
        "Service": {"ID": id, "Service": "web", "Port": revision, "ModifyIndex": revision},
    }))
    .unwrap()
}

fn key() -> ServiceKey {
    ServiceKey {
        registry: "r".into(),
        namespace: "dc1".into(),
        group: "".into(),
        name: "web".into(),
    }
}

fn settle(state: &mut State, entries: &[Entry], evidence: Evidence) -> Option<Event> {
    let service =
        (!entries.is_empty()).then(|| mapping::service(key(), entries, &mut Interner::new()));
    let reading = Reading {
        entries,
        service,
        evidence,
    };
    state.settle(key(), reading, false)
}

fn partial() -> Evidence {
    Evidence::Partial("no leader".into())
}

/// A state that has `web` with one instance.
fn with_web() -> State {
    let mut state = State::default();
    state.reset(&catalog(&[("web", &[])]), &everything());
    let event = settle(&mut state, &[entry("w1", 7)], Evidence::Complete);
    assert!(matches!(event, Some(Event::Upsert { .. })), "{event:?}");
    state
}

#[test]
fn a_catalogue_names_what_is_new_gone_or_tagged_otherwise() {
    let mut state = State::default();
    let first = catalog(&[("a", &[]), ("b", &["x"]), ("c", &[]), ("consul", &[])]);
    let mut read = state.reset(&first, &everything());
    read.sort();
    assert_eq!(read, ["a", "b", "c"].map(Arc::from));
    assert!(state.list(&first, &everything()).is_empty());

    let second = catalog(&[("a", &[]), ("b", &["y"]), ("d", &[]), ("consul", &["z"])]);
    let mut read = state.list(&second, &everything());
    read.sort();
    assert_eq!(read, ["b", "c", "d"].map(Arc::from));

    let hidden = catalog(&[("a", &["hidden"]), ("b", &["y"]), ("d", &[])]);
    assert_eq!(state.list(&hidden, &everything()), ["a"].map(Arc::from));
}

#[test]
fn names_that_no_path_can_carry_are_left_out() {
    let mut state = State::default();
    let read = state.reset(
        &catalog(&[("..", &[]), ("a/../b", &[]), ("", &[]), ("a/b", &[])]),
        &everything(),
    );
    assert_eq!(read, ["a/b"].map(Arc::from));
}

#[test]
fn the_same_again_says_nothing() {
    let mut state = with_web();
    assert!(settle(&mut state, &[entry("w1", 7)], Evidence::Complete).is_none());
    // Firmer or weaker evidence is news even without a change.
    assert!(settle(&mut state, &[entry("w1", 7)], partial()).is_some());
    assert!(settle(&mut state, &[entry("w1", 7)], Evidence::Complete).is_some());
}

#[test]
fn gone_only_if_out_of_the_catalogue_and_empty_on_complete_evidence() {
    let still_listed = &mut with_web();
    let event = settle(still_listed, &[], Evidence::Complete);
    assert!(
        matches!(&event, Some(Event::Upsert { service, .. }) if service.instances.is_empty()),
        "{event:?}"
    );

    let hidden = &mut with_web();
    assert_eq!(hidden.list(&catalog(&[]), &everything()).len(), 1);
    let event = settle(hidden, &[], partial());
    assert!(
        matches!(&event, Some(Event::Upsert { evidence, .. }) if !evidence.is_complete()),
        "{event:?}"
    );
    let event = settle(hidden, &[], Evidence::Complete);
    assert!(matches!(event, Some(Event::Remove { .. })), "{event:?}");
    assert!(hidden.services.is_empty());

    let back_already = &mut with_web();
    back_already.list(&catalog(&[]), &everything());
    let event = settle(back_already, &[entry("w2", 9)], Evidence::Complete);
    assert!(matches!(event, Some(Event::Upsert { .. })), "{event:?}");
}

#[test]
fn what_was_never_sent_is_not_removed() {
    let mut state = State::default();
    state.reset(&catalog(&[("web", &[])]), &everything());
    assert!(settle(&mut state, &[], Evidence::Complete).is_none());
    state.list(&catalog(&[]), &everything());
    assert!(settle(&mut state, &[], Evidence::Complete).is_none());
    assert!(state.services.is_empty());
}

#[test]
fn an_inventory_finds_what_moved() {
    let state = with_web();
    let inventory = |node: u64, instances: &[(&str, u64)]| {
        let mut signature = Signature::default();
        for (id, revision) in instances {
            signature.add(("n1", node), (id, *revision));
        }
        HashMap::from([("web".to_owned(), signature)])
    };
    assert!(state.compare(&inventory(5, &[("w1", 7)])).is_empty());
    for (what, moved) in [
        ("a new instance", inventory(5, &[("w1", 7), ("w2", 8)])),
        ("another revision", inventory(5, &[("w1", 8)])),
        ("another revision of the node", inventory(6, &[("w1", 7)])),
        ("another instance", inventory(5, &[("w2", 7)])),
        ("no instance", HashMap::new()),
    ] {
        assert_eq!(state.compare(&moved), ["web"].map(Arc::from), "{what}");
    }
}
