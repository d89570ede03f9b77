use std::{collections::BTreeMap, time::SystemTime};

use diolkos_guard::{Evidence, Limits};
use diolkos_model::{Health, Instance, Locality, Port};
use diolkos_plan::{Endpoints, Reason, RegistryState, Template};
use diolkos_source_api::{Envelope, Event};
use proptest::prelude::*;

use super::*;

mod guarded;
mod names;
mod pods;
mod remembered;

/// That many seconds after the start.
fn at(seconds: u64) -> Now {
    Now {
        moment: Duration::from_secs(seconds),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds),
    }
}

/// For tests in which time does not matter.
const NOW: Now = Now {
    moment: Duration::ZERO,
    wall: SystemTime::UNIX_EPOCH,
};

fn configured(policy: Arc<Policy>, limits: &Limits) -> Configured {
    Configured {
        policy,
        limits: limits.clone(),
    }
}

fn policy(registry: &str, priority: i32) -> Arc<Policy> {
    let host = Template::parse("{service}.mesh").unwrap();
    Arc::new(Policy {
        priority,
        endpoints: Endpoints::Inline,
        ..Policy::new(registry, Template::literal("diolkos"), host)
    })
}

/// Registries with priorities, of which everything may vanish at once.
fn state(registries: &[(&str, i32)]) -> State {
    let mut state = State::default();
    let policies = registries.iter().map(|(name, priority)| {
        let configured = configured(policy(name, *priority), &Limits::NONE);
        ((*name).into(), configured)
    });
    state.configure(&policies.collect());
    state
}

fn key(registry: &str, name: &str) -> ServiceKey {
    ServiceKey {
        registry: registry.into(),
        namespace: "".into(),
        group: "".into(),
        name: name.into(),
    }
}

fn service(registry: &str, name: &str, hosts: &[u8]) -> Arc<Service> {
    let instances = hosts.iter().map(|n| Instance {
        id: n.to_string().into(),
        address: format!("10.0.0.{n}").parse().unwrap(),
        ports: [Port {
            name: "".into(),
            number: 80,
            protocol: None,
        }]
        .into(),
        health: Health::Healthy,
        weight: None,
        locality: Locality::default(),
        version: None,
        labels: [].into(),
    });
    Arc::new(Service::new(
        key(registry, name),
        [].into(),
        instances.collect(),
    ))
}

fn say(state: &mut State, registry: &str, event: Event) {
    say_at(state, NOW, registry, event);
}

fn say_at(state: &mut State, now: Now, registry: &str, event: Event) {
    let registry = registry.into();
    state.apply(now, Envelope { registry, event });
}

fn upsert(state: &mut State, service: Arc<Service>, evidence: Evidence) {
    let registry = service.key.registry.to_string();
    say(state, &registry, Event::Upsert { service, evidence });
}

fn snapshot(
    state: &mut State,
    registry: &str,
    epoch: Epoch,
    services: &[Arc<Service>],
    evidence: Evidence,
) {
    say(state, registry, Event::SnapshotStart { epoch });
    for service in services {
        upsert(state, service.clone(), Evidence::Complete);
    }
    say(state, registry, Event::SnapshotEnd { epoch, evidence });
}

fn partial() -> Evidence {
    Evidence::Partial("no leader".into())
}

/// Services in the mesh, with the number of their endpoints.
fn mesh(state: &mut State) -> Vec<(String, usize)> {
    let (desired, view) = state.publish(NOW);
    desired
        .services
        .keys()
        .map(|key| (key.to_string(), view.services[key].endpoints))
        .collect()
}

#[test]
fn a_complete_snapshot_removes_and_a_partial_one_does_not() {
    let mut state = state(&[("r", 0)]);
    let (a, b) = (service("r", "a", &[1]), service("r", "b", &[2]));
    snapshot(
        &mut state,
        "r",
        1,
        &[a.clone(), b.clone()],
        Evidence::Complete,
    );
    assert_eq!(mesh(&mut state).len(), 2);
    snapshot(&mut state, "r", 2, std::slice::from_ref(&a), partial());
    assert_eq!(mesh(&mut state).len(), 2, "held");
    let (_, view) = state.publish(NOW);
    assert_eq!(
        (
            view.registries["r"].held_services,
            view.registries["r"].partial.is_some()
        ),
        (1, true)
    );
    snapshot(&mut state, "r", 3, &[a], Evidence::Complete);
    assert_eq!(mesh(&mut state), [("r/a".to_owned(), 1)]);
}

#[test]
fn a_snapshot_that_does_not_end_removes_nothing() {
    let mut state = state(&[("r", 0)]);
    snapshot(
        &mut state,
        "r",
        1,
        &[service("r", "a", &[1])],
        Evidence::Complete,
    );
    say(&mut state, "r", Event::SnapshotStart { epoch: 2 });
    say(
        &mut state,
        "r",
        Event::SnapshotEnd {
            epoch: 1,
            evidence: Evidence::Complete,
        },
    );
    assert_eq!(
        mesh(&mut state).len(),
        1,
        "the end of another connection's snapshot proves nothing"
    );
}

#[test]
fn partial_answers_hold_instances() {
    let mut state = state(&[("r", 0)]);
    upsert(
        &mut state,
        service("r", "a", &[1, 2, 3]),
        Evidence::Complete,
    );
    upsert(&mut state, service("r", "a", &[3, 4]), partial());
    assert_eq!(mesh(&mut state), [("r/a".to_owned(), 4)]);
    upsert(&mut state, service("r", "a", &[3, 4]), Evidence::Complete);
    assert_eq!(mesh(&mut state), [("r/a".to_owned(), 2)]);
}

#[test]
fn the_same_record_again_is_no_change() {
    let mut state = state(&[("r", 0)]);
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    let (before, _) = state.publish(NOW);
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    assert!(!state.is_dirty());
    let (after, _) = state.publish(NOW);
    assert!(Arc::ptr_eq(
        &before.services[&key("r", "a")],
        &after.services[&key("r", "a")]
    ));
}

#[test]
fn precedence_settles_who_gets_a_host() {
    let mut state = state(&[("low", 0), ("high", 10), ("also-low", 0)]);
    for registry in ["low", "also-low"] {
        upsert(
            &mut state,
            service(registry, "web", &[1]),
            Evidence::Complete,
        );
    }
    assert_eq!(
        mesh(&mut state),
        [("also-low/web".to_owned(), 1)],
        "of equal priorities the name decides"
    );
    upsert(&mut state, service("high", "web", &[2]), Evidence::Complete);
    assert_eq!(mesh(&mut state), [("high/web".to_owned(), 1)]);
    let (_, view) = state.publish(NOW);
    let lost = &view.services[&key("low", "web")];
    assert_eq!(lost.lost_to, Some(key("high", "web")));
    assert_eq!(view.registries["low"].refused[&Reason::HostTaken], 1);
    say(
        &mut state,
        "high",
        Event::Remove {
            key: key("high", "web"),
        },
    );
    assert_eq!(
        mesh(&mut state),
        [("also-low/web".to_owned(), 1)],
        "the next one moves up"
    );
}

#[test]
fn an_altered_name_never_takes_the_host_of_a_plain_one() {
    let mut state = state(&[("r", 0)]);
    upsert(&mut state, service("r", "A_b", &[1]), Evidence::Complete);
    assert_eq!(mesh(&mut state), [("r/A_b".to_owned(), 1)]);
    upsert(&mut state, service("r", "a-b", &[2]), Evidence::Complete);
    assert_eq!(mesh(&mut state), [("r/a-b".to_owned(), 1)]);
}

#[test]
fn a_registry_that_is_taken_out_leaves_and_may_be_swept() {
    let mut state = state(&[("r", 0), ("q", 0)]);
    snapshot(
        &mut state,
        "r",
        1,
        &[service("r", "a", &[1])],
        Evidence::Complete,
    );
    upsert(&mut state, service("q", "b", &[1]), Evidence::Complete);
    state.configure(&BTreeMap::new());
    let (desired, view) = state.publish(NOW);
    assert!(desired.services.is_empty() && view.registries.is_empty());
    assert_eq!(
        desired.registries.get("r"),
        Some(&RegistryState {
            complete: true,
            waits: false
        })
    );
    assert_eq!(
        desired.registries.get("q"),
        Some(&RegistryState {
            complete: true,
            waits: false
        }),
        "also one that never answered: the administrator wants it gone"
    );
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    assert!(mesh(&mut state).is_empty(), "late events of it are ignored");
}

#[test]
fn a_new_policy_plans_all_its_services_anew() {
    let mut state = state(&[("r", 0)]);
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    mesh(&mut state);
    let mut changed = Policy::clone(&policy("r", 0));
    changed.host = Template::parse("{service}.other").unwrap();
    state.configure(&[("r".into(), configured(Arc::new(changed), &Limits::NONE))].into());
    let (_, view) = state.publish(NOW);
    assert_eq!(
        view.services[&key("r", "a")].host.as_deref(),
        Some("a.other")
    );
}

#[test]
fn the_quota_of_services() {
    let mut state = State::default();
    let mut limited = Policy::clone(&policy("r", 0));
    limited.grant.max_services = Some(2);
    state.configure(&[("r".into(), configured(Arc::new(limited), &Limits::NONE))].into());
    for name in ["c", "a", "b"] {
        upsert(&mut state, service("r", name, &[1]), Evidence::Complete);
    }
    let carried: Vec<_> = mesh(&mut state).into_iter().map(|(key, _)| key).collect();
    assert_eq!(carried, ["r/a", "r/b"]);
}

#[derive(Clone, Debug)]
enum Op {
    Upsert(u8, u8, Vec<u8>),
    Remove(u8, u8),
    Snapshot(u8, Vec<(u8, Vec<u8>)>),
    Publish,
}

fn any_op() -> impl Strategy<Value = Op> {
    let hosts = || proptest::collection::vec(1u8..5, 0..4);
    prop_oneof![
        (0u8..2, 0u8..4, hosts()).prop_map(|(r, s, h)| Op::Upsert(r, s, h)),
        (0u8..2, 0u8..4).prop_map(|(r, s)| Op::Remove(r, s)),
        (0u8..2, proptest::collection::vec((0u8..4, hosts()), 0..4))
            .prop_map(|(r, list)| Op::Snapshot(r, list)),
        Just(Op::Publish),
    ]
}

proptest! {
    /// Whatever the order of events, the outcome is that of the registries' final state.
    #[test]
    fn the_outcome_depends_on_the_final_state_only(ops in proptest::collection::vec(any_op(), 0..30)) {
        let names = ["r0", "r1"];
        let mut walked = state(&[("r0", 0), ("r1", 0)]);
        let mut truth: BTreeMap<ServiceKey, Arc<Service>> = BTreeMap::new();
        for (epoch, op) in ops.into_iter().enumerate() {
            match op {
                Op::Upsert(r, s, hosts) => {
                    let service = service(names[r as usize], &format!("s{s}"), &hosts);
                    truth.insert(service.key.clone(), service.clone());
                    upsert(&mut walked, service, Evidence::Complete);
                }
                Op::Remove(r, s) => {
                    let key = key(names[r as usize], &format!("s{s}"));
                    truth.remove(&key);
                    say(&mut walked, names[r as usize], Event::Remove { key });
                }
                Op::Snapshot(r, list) => {
                    let name = names[r as usize];
                    let list: BTreeMap<_, _> = list.into_iter().map(|(s, hosts)| (s, service(name, &format!("s{s}"), &hosts))).collect();
                    truth.retain(|key, _| &*key.registry != name);
                    truth.extend(list.values().map(|s| (s.key.clone(), s.clone())));
                    let list: Vec<_> = list.into_values().collect();
                    snapshot(&mut walked, name, epoch as Epoch, &list, Evidence::Complete);
                }
                Op::Publish => { walked.publish(NOW); }
            }
        }
        let mut fresh = state(&[("r0", 0), ("r1", 0)]);
        for service in truth.into_values() {
            upsert(&mut fresh, service, Evidence::Complete);
        }
        let objects = |state: &mut State| {
            let (desired, _) = state.publish(NOW);
            desired.services.iter().map(|(key, planned)| (key.clone(), planned.objects().to_vec())).collect::<Vec<_>>()
        };
        prop_assert_eq!(objects(&mut walked), objects(&mut fresh));
    }
}
