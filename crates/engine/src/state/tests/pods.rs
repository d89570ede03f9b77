//! Registries that take from Pods.

use std::net::IpAddr;

use diolkos_model::{Interner, Workload, Workloads};
use diolkos_plan::PodPolicy;
use globset::{Glob, GlobSet};

use super::*;
use crate::{PodNews, explain};

/// `r` takes from Pods, `plain` does not.
fn pod_state() -> State {
    let mut state = State::default();
    state.configure(&policies(true));
    state
}

fn policies(takes: bool) -> Policies {
    let mut with = Policy::clone(&policy("r", 0));
    let version = GlobSet::builder()
        .add(Glob::new("version").unwrap())
        .build();
    with.pods = takes.then(|| PodPolicy {
        include: vec!["version".into()],
        labels: version.unwrap(),
        service_account: true,
        locality: true,
    });
    let both = [("r", Arc::new(with)), ("plain", policy("plain", 0))];
    both.map(|(name, policy)| (name.into(), configured(policy, &Limits::NONE)))
        .into()
}

fn ip(host: u8) -> IpAddr {
    [10, 0, 0, host].into()
}

fn pod(version: &str) -> Arc<Workload> {
    Arc::new(Workload {
        namespace: "shop".into(),
        name: "web-0".into(),
        labels: Interner::new().labels([("version", version)]),
        service_account: None,
        locality: Locality::default(),
    })
}

fn all(pods: &[(u8, &str)]) -> PodNews {
    let pods = pods.iter().map(|(host, version)| (ip(*host), pod(version)));
    PodNews::All(pods.collect::<Workloads>())
}

fn tell(state: &mut State, news: PodNews) {
    state.command(NOW, Command::Pods(news));
}

/// The versions of the endpoints of a service that is in the mesh.
fn versions(state: &mut State, registry: &str, name: &str) -> Option<Vec<String>> {
    let (desired, _) = state.publish(NOW);
    let planned = desired.services.get(&key(registry, name))?;
    let objects = planned.build();
    for (object, (key, hash)) in objects.iter().zip(planned.objects()) {
        assert_eq!((&object.key, object.content_hash()), (key, *hash));
    }
    let entries = objects.iter().flat_map(|object| match &object.spec {
        diolkos_istio::Spec::ServiceEntry(entry) => entry.endpoints.clone(),
        diolkos_istio::Spec::WorkloadEntry(entry) => vec![entry.clone()],
    });
    let version = |labels: BTreeMap<String, String>| labels.get("version").cloned();
    Some(
        entries
            .map(|entry| version(entry.labels).unwrap_or_default())
            .collect(),
    )
}

fn complete(state: &mut State, registry: &str) -> (bool, bool) {
    let (desired, view) = state.publish(NOW);
    let (desired, view) = (&desired.registries[registry], &view.registries[registry]);
    assert_eq!(desired.complete, view.complete);
    (view.complete, view.synced)
}

#[test]
fn nothing_is_written_before_the_pods_are_known() {
    let mut state = pod_state();
    for registry in ["r", "plain"] {
        let services = [service(registry, registry, &[1])];
        snapshot(&mut state, registry, 1, &services, Evidence::Complete);
    }
    assert_eq!(versions(&mut state, "r", "r"), None);
    assert_eq!(complete(&mut state, "r"), (false, false));
    assert_eq!(
        versions(&mut state, "plain", "plain"),
        Some(vec!["".into()])
    );
    assert_eq!(complete(&mut state, "plain"), (true, true));

    tell(&mut state, PodNews::Trouble(Some("forbidden".into())));
    assert!(state.is_dirty(), "the view tells it");
    let (_, view) = state.publish(NOW);
    let pods = view.registries["r"].pods.clone().unwrap();
    assert_eq!(
        (pods.known, pods.trouble.as_deref()),
        (false, Some("forbidden"))
    );
    assert_eq!(view.registries["plain"].pods, None);

    tell(&mut state, PodNews::Trouble(None));
    tell(&mut state, all(&[(1, "v1"), (9, "v9")]));
    assert_eq!(versions(&mut state, "r", "r"), Some(vec!["v1".into()]));
    assert_eq!(complete(&mut state, "r"), (true, true));
    assert_eq!(
        versions(&mut state, "plain", "plain"),
        Some(vec!["".into()])
    );
}

#[test]
fn a_service_that_waits_has_its_host() {
    let mut state = pod_state();
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    // `plain` sorts first, so it would have the host if the other one had no claim.
    let mut policies = policies(true);
    let r = policies.get_mut("r").unwrap();
    r.policy = Arc::new(Policy {
        priority: 1,
        ..Policy::clone(&r.policy)
    });
    state.configure(&policies);
    upsert(&mut state, service("plain", "a", &[2]), Evidence::Complete);
    assert_eq!(mesh(&mut state), []);
    tell(&mut state, all(&[]));
    assert_eq!(mesh(&mut state), [("r/a".to_owned(), 1)]);
}

#[test]
fn only_services_at_that_address_are_planned_anew() {
    let mut state = pod_state();
    for name in ["a", "b"] {
        let host = if name == "a" { 1 } else { 2 };
        upsert(&mut state, service("r", name, &[host]), Evidence::Complete);
    }
    upsert(&mut state, service("plain", "c", &[1]), Evidence::Complete);
    tell(&mut state, all(&[(1, "v1"), (2, "v1"), (3, "v1")]));
    let (before, _) = state.publish(NOW);
    let changed =
        |host, version: Option<&str>| PodNews::Changed(vec![(ip(host), version.map(pod))]);

    tell(&mut state, changed(3, Some("v2")));
    tell(&mut state, changed(1, Some("v1")));
    assert!(!state.is_dirty(), "of interest to nobody, or no change");

    tell(&mut state, changed(1, Some("v2")));
    let (after, _) = state.publish(NOW);
    let same = |registry, name| {
        let key = key(registry, name);
        Arc::ptr_eq(&before.services[&key], &after.services[&key])
    };
    assert_eq!(
        (same("r", "a"), same("r", "b"), same("plain", "c")),
        (false, true, true)
    );
    assert_eq!(versions(&mut state, "r", "a"), Some(vec!["v2".into()]));
    tell(&mut state, changed(1, None));
    assert_eq!(versions(&mut state, "r", "a"), Some(vec!["".into()]));
}

#[test]
fn an_instance_that_comes_to_a_pod_and_one_that_goes() {
    let mut state = pod_state();
    tell(&mut state, all(&[(1, "v1"), (2, "v2")]));
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    upsert(&mut state, service("r", "a", &[2, 3]), Evidence::Complete);
    let expected = Some(vec!["v2".to_owned(), String::new()]);
    assert_eq!(versions(&mut state, "r", "a"), expected);
    tell(&mut state, PodNews::Changed(vec![(ip(1), None)]));
    assert!(!state.is_dirty(), "nobody is there any more");
    say(&mut state, "r", Event::Remove { key: key("r", "a") });
    mesh(&mut state);
    tell(&mut state, PodNews::Changed(vec![(ip(2), None)]));
    assert!(!state.is_dirty());
}

#[test]
fn a_list_says_what_is_gone_meanwhile() {
    let mut state = pod_state();
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    upsert(&mut state, service("r", "b", &[2]), Evidence::Complete);
    tell(&mut state, all(&[(1, "v1"), (2, "v1")]));
    mesh(&mut state);
    tell(&mut state, PodNews::Unknown);
    assert_eq!(mesh(&mut state), [], "it waits again");
    assert!(!complete(&mut state, "r").0);
    tell(&mut state, PodNews::Changed(vec![(ip(1), Some(pod("v3")))]));
    assert_eq!(mesh(&mut state), [], "that is not all");
    tell(&mut state, all(&[(2, "v2")]));
    assert_eq!(versions(&mut state, "r", "a"), Some(vec!["".into()]));
    assert_eq!(versions(&mut state, "r", "b"), Some(vec!["v2".into()]));
}

#[test]
fn taking_from_pods_is_switched_on_and_off() {
    let mut state = State::default();
    state.configure(&policies(false));
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    assert_eq!(versions(&mut state, "r", "a"), Some(vec!["".into()]));
    state.configure(&policies(true));
    assert_eq!(versions(&mut state, "r", "a"), None, "it waits");
    tell(&mut state, all(&[(1, "v1")]));
    assert_eq!(versions(&mut state, "r", "a"), Some(vec!["v1".into()]));
    state.configure(&policies(false));
    assert_eq!(versions(&mut state, "r", "a"), Some(vec!["".into()]));
    tell(&mut state, PodNews::Changed(vec![(ip(1), None)]));
    assert!(
        !state.is_dirty(),
        "registries that take nothing pay nothing"
    );
    state.configure(&policies(true));
    assert_eq!(
        versions(&mut state, "r", "a"),
        None,
        "what was known is too old"
    );
}

#[test]
fn explain_names_the_pod() {
    let mut state = pod_state();
    upsert(&mut state, service("r", "a", &[1]), Evidence::Complete);
    tell(&mut state, all(&[(1, "v1")]));
    let (_, view) = state.publish(NOW);
    let found = explain(&view, "r/a");
    let decision = found[0]
        .decisions
        .iter()
        .find(|d| d.reason == Reason::Workload);
    let detail = &decision.unwrap().detail;
    assert_eq!(detail, "from Pod shop/web-0: version=v1");
    assert_eq!(
        found[0].objects[0]["spec"]["endpoints"][0]["labels"]["version"],
        "v1"
    );
}
