//! Services of Dubbo that come to one host: nothing is merged, and the loser is told.

use diolkos_model::Interner;

use super::*;

/// A registry whose hosts are what its source says.
fn dubbo() -> State {
    let host = Template::parse("{meta.dubboHost}").unwrap();
    let policy = Policy::new("zk", Template::literal("diolkos"), host);
    let configured = configured(Arc::new(policy), &Limits::NONE);
    let mut state = State::default();
    state.configure(&[("zk".into(), configured)].into());
    state
}

/// An interface, or a variant of one, with the host that the source gives it.
fn interface(name: &str, group: &str, host: &str, instance: u8) -> Arc<Service> {
    let mut service = Service::clone(&service("zk", name, &[instance]));
    service.key.group = group.into();
    service.meta = Interner::new().labels([("dubboHost", host)]);
    Arc::new(service)
}

/// The names and endpoints of services that have objects, and of services whose host is taken.
fn outcome(services: &[Arc<Service>]) -> (Vec<String>, Vec<String>) {
    let mut state = dubbo();
    for service in services {
        upsert(&mut state, service.clone(), Evidence::Complete);
    }
    let (desired, view) = state.publish(NOW);
    assert!(view.services.values().all(|known| known.endpoints == 1));
    let written = desired.services.keys().map(ToString::to_string).collect();
    let is_taken = |known: &Known| {
        let refusal = known.refusal.as_ref();
        refusal.is_some_and(|(reason, _)| *reason == Reason::HostTaken)
    };
    let taken = view.services.iter().filter(|(_, known)| is_taken(known));
    (written, taken.map(|(key, _)| key.to_string()).collect())
}

#[test]
fn a_group_is_not_taken_for_a_package() {
    let (written, taken) = outcome(&[
        interface("com.foo.Bar", "baz", "com.foo.bar-baz", 1),
        interface("com.foo.bar.Baz", "", "com.foo.bar.baz", 2),
    ]);
    assert_eq!(written, ["zk/com.foo.bar.Baz", "zk/baz/com.foo.Bar"]);
    assert!(taken.is_empty(), "both have a host of their own: {taken:?}");
}

#[test]
fn of_two_names_that_differ_in_case_the_first_has_the_host() {
    // The hosts are valid as they are, so the key decides: capitals sort first.
    let services = [
        interface("com.foo.UserApi", "", "com.foo.userapi", 1),
        interface("com.foo.UserAPI", "", "com.foo.userapi", 2),
    ];
    let (written, taken) = outcome(&services);
    assert_eq!(written, ["zk/com.foo.UserAPI"]);
    assert_eq!(taken, ["zk/com.foo.UserApi"]);
    let [first, second] = services;
    assert_eq!(outcome(&[second, first]), (written, taken), "in any order");
}

#[test]
fn an_inner_class_has_a_host_and_never_that_of_another() {
    let inner = interface("com.Foo$Bar", "", "com.foo$bar", 1);
    assert_eq!(
        outcome(std::slice::from_ref(&inner)).0,
        ["zk/com.Foo$Bar"],
        "its host is made valid"
    );
    // A variant whose host is valid as it is, although its key sorts last.
    let variant = interface("com.Foo", "bar", "com.foo-bar", 2);
    let (written, taken) = outcome(&[inner, variant]);
    assert_eq!(written, ["zk/bar/com.Foo"]);
    assert_eq!(taken, ["zk/com.Foo$Bar"]);
}

#[test]
fn variants_whose_parts_join_to_one_host_are_not_merged() {
    let (written, taken) = outcome(&[
        interface("com.Foo", "a-b", "com.foo-a-b", 1),
        interface("com.Foo", "a", "com.foo-a-b", 2),
    ]);
    assert_eq!(written, ["zk/a/com.Foo"]);
    assert_eq!(taken, ["zk/a-b/com.Foo"]);
}
