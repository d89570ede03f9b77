//! The guard at work.

use super::*;

/// One registry with the usual limits.
fn guarded() -> State {
    let mut state = State::default();
    state.configure(&[("r".into(), configured(policy("r", 0), &Limits::default()))].into());
    state
}

fn many(names: std::ops::Range<u32>, hosts: &[u8]) -> Vec<Arc<Service>> {
    names
        .map(|n| service("r", &format!("s{n}"), hosts))
        .collect()
}

/// A complete snapshot at that second.
fn read(state: &mut State, second: u64, services: &[Arc<Service>]) {
    let now = at(second);
    let epoch = second + 1;
    say_at(state, now, "r", Event::SnapshotStart { epoch });
    for service in services {
        let service = service.clone();
        let evidence = Evidence::Complete;
        say_at(state, now, "r", Event::Upsert { service, evidence });
    }
    let evidence = Evidence::Complete;
    say_at(state, now, "r", Event::SnapshotEnd { epoch, evidence });
}

fn change(state: &mut State, second: u64, service: Arc<Service>) {
    let evidence = Evidence::Complete;
    say_at(state, at(second), "r", Event::Upsert { service, evidence });
}

/// Endpoints in the mesh, of all services.
fn endpoints(state: &mut State) -> usize {
    mesh(state).iter().map(|(_, endpoints)| endpoints).sum()
}

#[test]
fn an_empty_answer_changes_nothing_until_it_is_confirmed() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..10, &[1, 2]));
    for second in [100, 120] {
        read(&mut state, second, &[]);
        assert_eq!(endpoints(&mut state), 20, "after {second} s");
        let (_, view) = state.publish(at(second));
        let hold = view.registries["r"].hold.clone().expect("held");
        assert_eq!((hold.services, hold.since), (10, at(100).wall));
        let expected = second + 20;
        assert_eq!(state.wake(), Some(at(expected).moment));
        assert_eq!(state.tick(at(expected)), ["r".into()], "it is asked for");
    }
    read(&mut state, 140, &[]);
    assert_eq!((mesh(&mut state).len(), endpoints(&mut state)), (10, 0));
    let (desired, view) = state.publish(at(141));
    assert_eq!(view.registries["r"].hold, None);
    assert_eq!(view.registries["r"].empty_services, 10, "the hosts stay");
    assert!(desired.registries["r"].complete);
    assert_eq!(state.wake(), Some(at(140 + 600).moment));
    state.tick(at(740));
    assert_eq!(mesh(&mut state), [], "and go with their grace");
    assert_eq!(state.wake(), None);
}

#[test]
fn what_comes_back_in_time_was_never_away() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..10, &[1, 2]));
    let (before, _) = state.publish(at(1));
    read(&mut state, 100, &[]);
    read(&mut state, 120, &many(0..10, &[1, 2]));
    let (after, view) = state.publish(at(120));
    for (key, planned) in &before.services {
        assert_eq!(planned.objects(), after.services[key].objects());
    }
    assert_eq!(view.registries["r"].hold, None);
    assert!(
        state.tick(at(1_000)).is_empty(),
        "nothing is asked any more"
    );
}

#[test]
fn single_deregistrations_pass_at_once() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..3, &[1, 2, 3]));
    for hosts in [&[1u8, 2] as &[u8], &[1], &[]] {
        change(&mut state, 1, service("r", "s0", hosts));
        assert_eq!(endpoints(&mut state), 6 + hosts.len());
    }
    assert_eq!(mesh(&mut state).len(), 3, "the host stays");
    let key = key("r", "s0");
    say_at(&mut state, at(2), "r", Event::Remove { key });
    assert_eq!(mesh(&mut state).len(), 3, "also when the service is gone");
    state.tick(at(601));
    assert_eq!(mesh(&mut state).len(), 2, "until the grace is over");
}

#[test]
fn a_large_loss_of_one_service_is_held_for_a_while() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..10, &[1, 2, 3]));
    change(&mut state, 10, service("r", "s0", &[]));
    assert_eq!(endpoints(&mut state), 30);
    let (_, view) = state.publish(at(10));
    let known = &view.services[&key("r", "s0")];
    assert_eq!(known.held.len(), 3);
    assert!(known.hold.is_some());
    let left: Vec<_> = [vec![service("r", "s0", &[])], many(1..10, &[1, 2, 3])].concat();
    for second in [30, 50] {
        read(&mut state, second, &left);
        assert_eq!(endpoints(&mut state), 30);
    }
    read(&mut state, 70, &left);
    assert_eq!(endpoints(&mut state), 27);
}

#[test]
fn an_operator_may_release() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..10, &[1, 2]));
    read(&mut state, 10, &many(0..2, &[1, 2]));
    assert_eq!(endpoints(&mut state), 20);
    state.command(at(11), Command::Release("r".into()));
    assert_eq!(endpoints(&mut state), 4);
    let (_, view) = state.publish(at(11));
    assert_eq!(view.registries["r"].hold, None);
}

#[test]
fn an_incomplete_answer_is_released_too() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..2, &[1, 2]));
    let epoch = 2;
    say_at(&mut state, at(5), "r", Event::SnapshotStart { epoch });
    let evidence = Evidence::Partial("filtered by ACLs".into());
    say_at(
        &mut state,
        at(5),
        "r",
        Event::SnapshotEnd { epoch, evidence },
    );
    assert_eq!(endpoints(&mut state), 4);
    state.command(at(11), Command::Release("r".into()));
    assert_eq!(endpoints(&mut state), 0);
}

/// One part of the registry cannot be read, for however long: the rest is judged all the same.
#[test]
fn what_a_partial_snapshot_tells_for_sure_is_judged() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..4, &[1, 2]));
    let partial = |state: &mut State, second: u64| {
        let (now, epoch) = (at(second), second);
        let doubt = Evidence::Partial("the list of s0 cannot be read".into());
        let mut say = |event| say_at(state, now, "r", event);
        say(Event::SnapshotStart { epoch });
        // s0 cannot be read, s1 lost one instance, s2 both, s3 is gone.
        for (service, evidence) in [
            (service("r", "s0", &[]), doubt.clone()),
            (service("r", "s1", &[1]), Evidence::Complete),
            (service("r", "s2", &[]), Evidence::Complete),
        ] {
            say(Event::Upsert { service, evidence });
        }
        let key = key("r", "s3");
        say(Event::Remove { key });
        let evidence = doubt.clone();
        say(Event::SnapshotEnd { epoch, evidence });
        endpoints(state)
    };
    assert_eq!(partial(&mut state, 10), 8, "much at once is held");
    assert_eq!(partial(&mut state, 40), 8);
    assert_eq!(partial(&mut state, 71), 3, "and confirmed");
    let (_, view) = state.publish(at(71));
    assert!(view.registries["r"].partial.is_some());
    assert_eq!(view.services[&key("r", "s0")].held.len(), 2);
    assert_eq!(view.registries["r"].hold, None);
}

/// What was said before of a service that cannot be read now does not count as confirmed.
#[test]
fn doubt_interrupts_what_was_confirmed() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..10, &[1, 2]));
    for second in [10, 40] {
        read(&mut state, second, &many(0..2, &[1, 2]));
    }
    let (now, epoch) = (at(60), 60);
    let evidence = Evidence::Partial("filtered by ACLs".into());
    say_at(&mut state, now, "r", Event::SnapshotStart { epoch });
    say_at(&mut state, now, "r", Event::SnapshotEnd { epoch, evidence });
    for second in [80, 110] {
        read(&mut state, second, &many(0..2, &[1, 2]));
        assert_eq!(endpoints(&mut state), 20, "{second}");
    }
    read(&mut state, 140, &many(0..2, &[1, 2]));
    assert_eq!(endpoints(&mut state), 4);
}

#[test]
fn a_deployment_during_a_break_is_taken_over_at_once() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..10, &[1, 2, 3]));
    read(&mut state, 10, &many(0..10, &[4, 5, 6]));
    assert_eq!(endpoints(&mut state), 30);
    let (_, view) = state.publish(at(10));
    assert!(view.services.values().all(|known| known.held.is_empty()));
}

#[test]
fn an_old_answer_replaces_nothing() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..2, &[1, 2]));
    change(&mut state, 1, service("r", "s0", &[]));
    let evidence = Evidence::Stale("no leader".into());
    for service in [service("r", "s0", &[7]), service("r", "new", &[1])] {
        let evidence = evidence.clone();
        say_at(&mut state, at(2), "r", Event::Upsert { service, evidence });
    }
    let (_, view) = state.publish(at(2));
    assert_eq!(view.services[&key("r", "s0")].held.len(), 2, "still held");
    assert_eq!(endpoints(&mut state), 5);
}

#[test]
fn who_has_instances_gets_the_host_of_one_who_has_none() {
    let mut state = guarded();
    let low = (
        "low".into(),
        configured(policy("low", -1), &Limits::default()),
    );
    let r = ("r".into(), configured(policy("r", 0), &Limits::default()));
    state.configure(&[low, r].into());
    change(&mut state, 0, service("r", "web", &[1]));
    upsert(&mut state, service("low", "web", &[2]), Evidence::Complete);
    assert_eq!(mesh(&mut state), [("r/web".to_owned(), 1)]);
    change(&mut state, 1, service("r", "web", &[]));
    assert_eq!(mesh(&mut state), [("low/web".to_owned(), 1)]);
    change(&mut state, 2, service("r", "web", &[3]));
    assert_eq!(mesh(&mut state), [("r/web".to_owned(), 1)]);
}

#[test]
fn a_jump_of_the_wall_clock_ends_nothing() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..10, &[1, 2]));
    let jumped = |seconds: u64| Now {
        wall: at(seconds).wall + Duration::from_secs(3_600),
        ..at(seconds)
    };
    read(&mut state, 10, &[]);
    state.tick(jumped(11));
    assert_eq!(endpoints(&mut state), 20);
    change(&mut state, 12, service("r", "s0", &[1]));
    change(&mut state, 12, service("r", "s0", &[]));
    state.tick(jumped(13));
    assert_eq!(mesh(&mut state).len(), 10);
}

#[test]
fn what_select_leaves_out_goes_at_once() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..4, &[1, 2]));
    let mut other = Policy::clone(&policy("r", 0));
    let globs = globset::GlobSetBuilder::new()
        .add(globset::Glob::new("s[123]").unwrap())
        .build();
    other.select.exclude = vec![diolkos_plan::Matcher {
        services: Some(globs.unwrap()),
        ..Default::default()
    }];
    let other = configured(Arc::new(other), &Limits::default());
    state.configure(&[("r".into(), other)].into());
    read(&mut state, 1, &many(0..1, &[1, 2]));
    assert_eq!(mesh(&mut state), [("r/s0".to_owned(), 2)]);
    let (_, view) = state.publish(at(1));
    assert_eq!(view.registries["r"].hold, None);
}

#[test]
fn hosts_of_the_clusters_services_cannot_be_claimed() {
    let mut state = guarded();
    read(&mut state, 0, &many(0..2, &[1]));
    let reserved = [("s0.mesh".to_owned(), "Service mesh/s0".to_owned())];
    state.command(at(1), Command::Reserve(Arc::new(reserved.into())));
    assert_eq!(mesh(&mut state), [("r/s1".to_owned(), 1)]);
    let (_, view) = state.publish(at(1));
    assert_eq!(view.registries["r"].refused[&Reason::HostOfService], 1);
    state.command(at(2), Command::Reserve(Arc::default()));
    assert_eq!(mesh(&mut state).len(), 2);
}

#[test]
fn restored_services_are_in_the_mesh_before_the_registry_answers() {
    let mut state = guarded();
    let services: Vec<Service> = many(0..4, &[1, 2])
        .into_iter()
        .map(Arc::unwrap_or_clone)
        .collect();
    state.command(at(0), Command::Restore(services));
    assert_eq!(endpoints(&mut state), 8);
    read(&mut state, 1, &many(0..1, &[1, 2]));
    assert_eq!(endpoints(&mut state), 8, "the guard covers them");
}

proptest! {
    /// Never more than the limits at once; and when the registry says the same for long enough, everything.
    #[test]
    fn it_ends_at_what_the_registry_says(
        first in proptest::collection::btree_map(0u32..8, proptest::collection::vec(1u8..6, 1..4), 0..8),
        then in proptest::collection::btree_map(0u32..8, proptest::collection::vec(1u8..6, 0..4), 0..8),
    ) {
        let list = |all: &BTreeMap<u32, Vec<u8>>| -> Vec<_> {
            all.iter().map(|(n, hosts)| service("r", &format!("s{n}"), hosts)).collect()
        };
        let mut state = guarded();
        read(&mut state, 0, &list(&first));
        for second in [20, 40, 60, 80, 100] {
            read(&mut state, second, &list(&then));
        }
        let hosts = |hosts: &Vec<u8>| hosts.iter().collect::<BTreeSet<_>>().len();
        let expected: usize = then.values().map(hosts).sum();
        prop_assert_eq!(endpoints(&mut state), expected);
        state.tick(at(10_000));
        let (_, view) = state.publish(at(10_000));
        prop_assert_eq!(view.services.len(), then.len());
        prop_assert_eq!(state.wake(), None);
    }
}

/// The rights of a token may come back without a word of the registry.
#[test]
fn an_incomplete_answer_is_asked_for_again_and_less_and_less_often() {
    let mut state = guarded();
    let doubtful = |state: &mut State, second: u64| {
        let (now, epoch) = (at(second), second);
        say_at(state, now, "r", Event::SnapshotStart { epoch });
        let evidence = Evidence::Partial("filtered by ACLs".into());
        say_at(state, now, "r", Event::SnapshotEnd { epoch, evidence });
        state.publish(now);
    };
    for (second, next) in [(1, 41), (41, 121), (121, 281)] {
        doubtful(&mut state, second);
        assert_eq!(state.wake(), Some(at(next).moment));
        assert_eq!(state.tick(at(next)), ["r".into()], "it is asked for");
    }
    read(&mut state, 281, &many(0..2, &[1]));
    state.publish(at(281));
    assert_eq!(state.wake(), None);
}
