//! What the mesh held before the start.

use diolkos_istio::{ObjectKey, annotation};
use diolkos_plan::Remembered;

use super::*;

fn limits() -> Limits {
    Limits::default()
}

/// A started process that has not heard of anything, with endpoints written in that way.
fn started(endpoints: Endpoints) -> State {
    let mut state = State::with_memory(true);
    let mut policy = Policy::clone(&policy("r", 0));
    policy.endpoints = endpoints;
    state.configure(&[("r".into(), configured(Arc::new(policy), &limits()))].into());
    state
}

/// What the mesh would hold of these services, as the metadata of the objects tells.
fn memory(endpoints: Endpoints, services: &[Arc<Service>]) -> Vec<Remembered> {
    let mut state = started(endpoints);
    state.command(at(0), Command::Remember(Vec::new()));
    for service in services {
        let (service, evidence) = (service.clone(), Evidence::Complete);
        say_at(&mut state, at(0), "r", Event::Upsert { service, evidence });
    }
    let (desired, _) = state.publish(at(0));
    let objects = desired
        .services
        .values()
        .flat_map(|planned| planned.build());
    objects
        .map(|object| {
            let read = |name: &str| object.annotations.get(name).map(String::as_str);
            assert!(read(annotation::SERVICE).is_some());
            Remembered::read(&object.key, &"r".into(), read).unwrap()
        })
        .collect()
}

fn many(count: u32) -> Vec<Arc<Service>> {
    (0..count)
        .map(|n| service("r", &format!("s{n}"), &[1, 2]))
        .collect()
}

fn read(state: &mut State, second: u64, services: &[Arc<Service>]) {
    let (now, epoch) = (at(second), second);
    say_at(state, now, "r", Event::SnapshotStart { epoch });
    for service in services {
        let (service, evidence) = (service.clone(), Evidence::Complete);
        say_at(state, now, "r", Event::Upsert { service, evidence });
    }
    let evidence = Evidence::Complete;
    say_at(state, now, "r", Event::SnapshotEnd { epoch, evidence });
}

/// The objects that would stay in the mesh: those that are wanted and those that are kept.
fn stays(state: &mut State, second: u64) -> BTreeSet<ObjectKey> {
    let (desired, _) = state.publish(at(second));
    let wanted = desired.services.values();
    let wanted = wanted.flat_map(|planned| planned.objects().iter().map(|(key, _)| key.clone()));
    wanted.chain(desired.kept.iter().cloned()).collect()
}

const BOTH: [Endpoints; 2] = [Endpoints::Inline, Endpoints::WorkloadEntry];

#[test]
fn nothing_is_an_orphan_before_the_memory_is_there() {
    let mut state = started(Endpoints::Inline);
    read(&mut state, 1, &many(2));
    let (desired, _) = state.publish(at(1));
    assert!(!desired.registries["r"].complete);
    state.command(at(2), Command::Remember(Vec::new()));
    let (desired, _) = state.publish(at(2));
    assert!(desired.registries["r"].complete);
}

#[test]
fn an_empty_answer_after_a_restart_takes_nothing() {
    for endpoints in BOTH {
        let mut state = started(endpoints);
        let before = memory(endpoints, &many(4));
        let all: BTreeSet<_> = before.iter().map(|r| r.object.clone()).collect();
        state.command(at(0), Command::Remember(before));
        assert_eq!(stays(&mut state, 0), all, "while the registry is silent");
        for second in [1, 21] {
            read(&mut state, second, &[]);
            assert_eq!(
                stays(&mut state, second),
                all,
                "{endpoints:?} after {second} s"
            );
            let (_, view) = state.publish(at(second));
            assert_eq!(view.registries["r"].hold.as_ref().unwrap().services, 4);
        }
        read(&mut state, 41, &[]);
        // Service entries that hold their endpoints themselves go as a whole.
        let hosts = if endpoints == Endpoints::Inline { 0 } else { 4 };
        assert_eq!(stays(&mut state, 41).len(), hosts);
        state.tick(at(41 + 600));
        assert!(stays(&mut state, 641).is_empty());
    }
}

#[test]
fn the_same_answer_after_a_restart_accounts_for_everything() {
    for endpoints in BOTH {
        for memory_first in [true, false] {
            let mut state = started(endpoints);
            let before = memory(endpoints, &many(4));
            let all: BTreeSet<_> = before.iter().map(|r| r.object.clone()).collect();
            let remember = Command::Remember(before);
            if memory_first {
                state.command(at(0), remember.clone());
            }
            read(&mut state, 1, &many(4));
            if !memory_first {
                state.command(at(2), remember);
            }
            assert_eq!(stays(&mut state, 2), all);
            let (desired, view) = state.publish(at(2));
            assert!(desired.kept.is_empty(), "{:?}", desired.kept);
            assert_eq!(view.registries["r"].remembered, 0);
            assert_eq!(view.registries["r"].hold, None);
        }
    }
}

#[test]
fn what_shrank_much_while_we_were_away_is_held() {
    for endpoints in BOTH {
        let before = |n| service("r", &format!("s{n}"), &[1, 2, 3, 4]);
        let now = |n| service("r", &format!("s{n}"), &[1]);
        let all: Vec<_> = (0..4).map(before).collect();
        let memory = memory(endpoints, &all);
        let objects: BTreeSet<_> = memory.iter().map(|r| r.object.clone()).collect();
        let mut state = started(endpoints);
        state.command(at(0), Command::Remember(memory));
        let less: Vec<_> = (0..4).map(now).collect();
        for second in [1, 21] {
            read(&mut state, second, &less);
            assert_eq!(stays(&mut state, second), objects, "{endpoints:?}");
            let (desired, _) = state.publish(at(second));
            let shrunk = match endpoints {
                Endpoints::Inline => 4,
                Endpoints::WorkloadEntry => 12,
            };
            assert_eq!(desired.kept.len(), shrunk);
        }
        read(&mut state, 41, &less);
        let (desired, view) = state.publish(at(41));
        assert!(desired.kept.is_empty());
        assert_eq!(view.registries["r"].hold, None);
    }
}

#[test]
fn the_grace_goes_on_across_restarts() {
    for endpoints in BOTH {
        let mut first = started(endpoints);
        first.command(at(0), Command::Remember(Vec::new()));
        read(
            &mut first,
            1,
            &[service("r", "a", &[1]), service("r", "b", &[1])],
        );
        first.publish(at(1));
        let key = key("r", "a");
        say_at(&mut first, at(100), "r", Event::Remove { key: key.clone() });
        let (desired, _) = first.publish(at(100));
        let objects = desired.services[&key].build();
        let memory = |registry: &str| {
            let read = objects.iter().map(|object| {
                let read = |name: &str| object.annotations.get(name).map(String::as_str);
                Remembered::read(&object.key, &registry.into(), read).unwrap()
            });
            read.collect::<Vec<_>>()
        };
        assert_eq!(memory("r").len(), 1, "the service entry alone");
        let mut second = started(endpoints);
        second.command(at(400), Command::Remember(memory("r")));
        read(&mut second, 400, &[service("r", "b", &[1])]);
        assert_eq!(stays(&mut second, 400).len(), stays(&mut second, 699).len());
        let before = stays(&mut second, 699);
        second.tick(at(699));
        assert_eq!(stays(&mut second, 699), before);
        second.tick(at(700));
        let after = stays(&mut second, 700);
        assert_eq!(
            before.difference(&after).count(),
            1,
            "600 s after it became empty"
        );
    }
}

#[test]
fn another_registry_does_not_take_a_host_while_its_owner_is_silent() {
    let mut state = started(Endpoints::Inline);
    let both = [
        ("r".into(), configured(policy("r", 0), &limits())),
        ("a".into(), configured(policy("a", 9), &limits())),
    ];
    state.configure(&both.into());
    let before = memory(Endpoints::Inline, &many(1));
    let object = before[0].object.clone();
    state.command(at(0), Command::Remember(before));
    upsert(&mut state, service("a", "s0", &[9]), Evidence::Complete);
    let (desired, _) = state.publish(at(1));
    assert!(desired.kept.contains(&object));
}

#[test]
fn what_is_held_of_the_memory_is_counted_and_ends_when_it_comes_back() {
    for endpoints in [Endpoints::Inline, Endpoints::WorkloadEntry] {
        let mut state = started(endpoints);
        let all = many(3);
        state.command(at(0), Command::Remember(memory(endpoints, &all)));
        read(&mut state, 1, &[]);
        let (_, view) = state.publish(at(1));
        let held = |view: &crate::view::View| {
            let registry = &view.registries["r"];
            (registry.held_services, registry.held_instances)
        };
        assert_eq!(held(&view), (3, 6), "{endpoints:?}");
        for service in all {
            let evidence = Evidence::Complete;
            say_at(&mut state, at(2), "r", Event::Upsert { service, evidence });
        }
        let (_, view) = state.publish(at(2));
        assert_eq!(held(&view), (0, 0), "{endpoints:?}");
    }
}

#[test]
fn what_only_the_mesh_knows_of_can_be_explained() {
    let mut state = started(Endpoints::Inline);
    state.command(
        at(0),
        Command::Remember(memory(Endpoints::Inline, &many(1))),
    );
    let explained = |state: &mut State, second: u64| {
        let (_, view) = state.publish(at(second));
        crate::explain(&view, "s0.mesh")
    };
    let [before] = &*explained(&mut state, 0) else {
        panic!("it is known");
    };
    assert_eq!((before.remembered, before.hold.as_ref()), (Some(2), None));
    read(&mut state, 1, &[]);
    let held = explained(&mut state, 1);
    let hold = held[0].hold.as_deref().unwrap_or_default();
    assert!(hold.starts_with("Shrink since "), "{hold}");
    read(&mut state, 2, &many(1));
    let after = explained(&mut state, 2);
    assert_eq!((after.len(), after[0].remembered), (1, None));
}

/// As [`service`], in a namespace and a group of the registry.
fn grouped(name: &str, hosts: &[u8]) -> Arc<Service> {
    let mut service = Service::clone(&service("r", name, hosts));
    service.key.namespace = "ns".into();
    service.key.group = "g".into();
    Arc::new(service)
}

#[test]
fn what_comes_back_with_less_does_not_end_the_hold_of_the_rest() {
    let plain = |hosts: &[u8]| service("r", "s0", hosts);
    let in_group = |hosts: &[u8]| grouped("s0", hosts);
    for endpoints in BOTH {
        comes_back_with_less(endpoints, plain);
        comes_back_with_less(endpoints, in_group);
    }
}

fn comes_back_with_less(endpoints: Endpoints, service: impl Fn(&[u8]) -> Arc<Service>) {
    // Whether the first snapshot has the service, and what of it.
    for named in [None, Some(service(&[])), Some(service(&[1]))] {
        let mut state = started(endpoints);
        let before = memory(endpoints, &[service(&[1, 2, 3])]);
        state.command(at(0), Command::Remember(before));
        read(&mut state, 1, named.as_slice());
        let less = service(&[1, 2]);
        let event = Event::Upsert {
            service: less.clone(),
            evidence: Evidence::Complete,
        };
        say_at(&mut state, at(2), "r", event);
        let (_, view) = state.publish(at(2));
        assert_eq!(view.registries["r"].remembered, 1);
        // Else nobody would ask the registry again.
        assert!(
            view.registries["r"].hold.is_some(),
            "{endpoints:?}, {named:?}"
        );
        for second in [21, 41] {
            read(&mut state, second, std::slice::from_ref(&less));
        }
        let (_, view) = state.publish(at(41));
        assert_eq!(view.registries["r"].remembered, 0, "{endpoints:?}");
        assert!(view.registries["r"].hold.is_none());
    }
}
