use super::*;
use crate::Shrink;
use proptest::prelude::*;

const HOLD: Duration = Duration::from_secs(60);

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        registry: "r".into(),
        namespace: "".into(),
        group: "".into(),
        name: name.into(),
    }
}

fn loss(name: &str, known: usize, left: usize) -> Loss {
    Loss {
        service: key(name),
        known,
        left,
        gone: false,
    }
}

fn gone(name: &str, known: usize) -> Loss {
    Loss {
        gone: true,
        ..loss(name, known, 0)
    }
}

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

/// A registry of `services` with two instances each, of which the named are missing.
fn missing(services: usize, names: &[&str]) -> Comparison {
    Comparison {
        services,
        instances: services * 2,
        instances_now: (services - names.len()) * 2,
        losses: names.iter().map(|name| gone(name, 2)).collect(),
        ..Comparison::default()
    }
}

#[test]
fn one_instance_less_passes_at_once() {
    let mut guard = Guard::new(Limits::default());
    for left in [9, 8, 7, 1, 0] {
        let step = loss("a", left + 1, left);
        assert!(guard.step(at(1), &step, 1, left + 1), "{left} left");
    }
    assert!(guard.step(at(1), &gone("b", 1), 100, 1));
    assert_eq!(guard.ask_at(), None);
}

#[test]
fn several_at_once_pass_within_the_limit() {
    let mut guard = Guard::new(Limits::default());
    // 15 % of 100.
    assert!(guard.step(at(1), &loss("a", 20, 10), 5, 100));
    assert!(
        !guard.step(at(2), &loss("b", 20, 10), 5, 90),
        "10 and 10 are 20"
    );
    assert_eq!(guard.holds()[&key("b")].why, Why::Shrink);
    // Another window, and 90 are the whole now.
    assert!(guard.step(at(70), &loss("c", 20, 10), 5, 90));
}

#[test]
fn the_last_several_of_a_service_are_held_and_the_hold_ends() {
    let mut guard = Guard::new(Limits::default());
    assert!(!guard.step(at(100), &gone("a", 3), 50, 1_000));
    assert_eq!(guard.holds()[&key("a")].why, Why::Empty);
    assert_eq!(guard.ask_at(), Some(at(120)), "a third of the hold later");
    let said = Comparison {
        services: 50,
        instances: 1_000,
        instances_now: 997,
        losses: vec![gone("a", 3)],
        ..Comparison::default()
    };
    for moment in [120, 140, 159] {
        assert!(guard.snapshot(at(moment), &said).is_empty());
    }
    assert_eq!(guard.snapshot(at(160), &said), [key("a")]);
}

#[test]
fn an_empty_registry_is_held_until_it_is_confirmed() {
    let mut guard = Guard::new(Limits::default());
    let all = missing(3, &["a", "b", "c"]);
    assert!(guard.snapshot(at(0), &all).is_empty());
    assert!(guard.snapshot(at(20), &all).is_empty());
    let doubtful = Comparison {
        uncertain: [key("a"), key("b"), key("c")].into(),
        ..Comparison::default()
    };
    assert!(guard.snapshot(at(30), &doubtful).is_empty());
    assert!(guard.snapshot(at(40), &all).is_empty(), "not in a row");
    assert!(guard.snapshot(at(60), &all).is_empty());
    assert_eq!(guard.snapshot(at(80), &all).len(), 3);
}

#[test]
fn the_last_service_of_a_registry_is_held_too() {
    let mut guard = Guard::new(Limits::default());
    let mut last = missing(1, &["a"]);
    (last.instances, last.losses[0].known) = (1, 1);
    assert!(guard.snapshot(at(0), &last).is_empty());
}

#[test]
fn what_comes_back_is_held_no_more() {
    let mut guard = Guard::new(Limits::default());
    guard.snapshot(at(0), &missing(4, &["a", "b", "c"]));
    guard.settle(&key("a"));
    assert_eq!(guard.holds().len(), 2);
    // The two that stay away do not make the third a large loss.
    let again = missing(4, &["b", "c"]);
    guard.snapshot(at(20), &again);
    assert_eq!(guard.snapshot(at(40), &again), [key("b"), key("c")]);
}

#[test]
fn a_deployment_that_replaces_everything_is_no_loss() {
    let mut guard = Guard::new(Limits::default());
    let replaced = Comparison {
        services: 10,
        instances: 100,
        instances_now: 100,
        losses: vec![loss("a", 10, 10)],
        ..Comparison::default()
    };
    assert_eq!(guard.snapshot(at(0), &replaced), [key("a")]);
    assert!(guard.step(at(1), &loss("b", 10, 10), 10, 100));
}

#[test]
fn without_limits_everything_passes() {
    let mut guard = Guard::new(Limits::NONE);
    assert_eq!(
        guard.snapshot(at(0), &missing(3, &["a", "b", "c"])).len(),
        3
    );
    assert!(guard.step(at(0), &gone("a", 10), 1, 10));
}

#[test]
fn numbers_limit_as_shares_do() {
    let shrink = Shrink::Count(2);
    assert!(!shrink.is_exceeded(2, 100) && shrink.is_exceeded(3, 100));
    let none = Shrink::Percent(0);
    assert!(!none.is_exceeded(1, 100) && none.is_exceeded(2, 100) && none.is_exceeded(1, 1));
}

proptest! {
    /// Whatever a registry leaves out, no more than the limit goes at first, and all of it in the end.
    #[test]
    fn never_more_than_the_limit_and_never_for_ever(services in 1usize..40, lost in 0usize..40) {
        let lost = lost.min(services);
        let names: Vec<String> = (0..lost).map(|n| format!("s{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut guard = Guard::new(Limits::default());
        let first = guard.snapshot(at(0), &missing(services, &names));
        prop_assert!(first.is_empty(), "a service that is missing is held in any case");
        let mut passed = 0;
        for moment in [20, 40, 60] {
            passed += guard.snapshot(at(moment), &missing(services, &names)).len();
            if passed > 0 { break; }
        }
        prop_assert_eq!(passed, lost);
        prop_assert!(HOLD == guard.limits().empty_hold);
    }
}
