//! Services of Dubbo that come to one host: nothing is merged, and the loser is told.

use std::collections::BTreeSet;

use diolkos_model::Interner;
use diolkos_plan::Planned;

use super::*;
use crate::explain;

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

/// A registry with these templates of hosts and aliases.
fn with_hosts(host: &str, aliases: &[&str]) -> State {
    let mut state = State::default();
    configure_hosts(&mut state, host, aliases);
    state
}

fn configure_hosts(state: &mut State, host: &str, aliases: &[&str]) {
    let host = Template::parse(host).unwrap();
    let mut policy = Policy::new("zk", Template::literal("diolkos"), host);
    let aliases = aliases.iter().map(|alias| Template::parse(alias).unwrap());
    policy.aliases = aliases.collect();
    policy.ports.default_protocol = "http".into();
    let configured = configured(Arc::new(policy), &Limits::NONE);
    state.configure(&[("zk".into(), configured)].into());
}

/// As for Eureka.
fn eureka() -> State {
    with_hosts("{service}.eureka", &["{meta.vipAddress}.eureka"])
}

fn with_vip(name: &str, vip: &str, instance: u8) -> Arc<Service> {
    let mut service = Service::clone(&service("zk", name, &[instance]));
    service.meta = Interner::new().labels([("vipAddress", vip)]);
    Arc::new(service)
}

/// The hosts of every service that has objects, as sinks build them.
fn hosts(state: &mut State) -> Vec<Vec<String>> {
    let (desired, _) = state.publish(NOW);
    let hosts = |planned: &Arc<Planned>| {
        let objects = planned.build();
        let entries = objects.iter().filter_map(|object| match &object.spec {
            diolkos_istio::Spec::ServiceEntry(entry) => Some(entry.hosts.clone()),
            diolkos_istio::Spec::WorkloadEntry(_) => None,
        });
        entries.flatten().collect::<Vec<_>>()
    };
    desired.services.values().map(hosts).collect()
}

#[test]
fn an_alias_that_is_anothers_costs_the_alias_only() {
    let mut state = eureka();
    // The key sorts before the one that has the name itself.
    upsert(&mut state, with_vip("blue", "shop", 1), Evidence::Complete);
    assert_eq!(hosts(&mut state), [["blue.eureka", "shop.eureka"]]);
    upsert(&mut state, with_vip("green", "shop", 2), Evidence::Complete);
    let two = [vec!["blue.eureka", "shop.eureka"], vec!["green.eureka"]];
    assert_eq!(hosts(&mut state), two);
    let (_, view) = state.publish(NOW);
    let green = &explain(&view, "green")[0];
    assert!(green.carried && green.refusal.is_none());
    let last = green.decisions.last().unwrap();
    assert_eq!(last.reason, Reason::AliasRefused);
    assert_eq!(last.detail, "'shop.eureka' belongs to zk/blue");
    // A service's own name goes before an alias.
    upsert(&mut state, with_vip("shop", "shop", 3), Evidence::Complete);
    let own = [
        vec!["blue.eureka"],
        vec!["green.eureka"],
        vec!["shop.eureka"],
    ];
    assert_eq!(hosts(&mut state), own);
}

#[test]
fn an_alias_comes_back_when_its_owner_goes() {
    let mut state = eureka();
    for (n, name) in (1..).zip(["blue", "green"]) {
        upsert(&mut state, with_vip(name, "shop", n), Evidence::Complete);
    }
    upsert(&mut state, with_vip("blue", "blue", 1), Evidence::Complete);
    let both = [vec!["blue.eureka"], vec!["green.eureka", "shop.eureka"]];
    assert_eq!(hosts(&mut state), both);
}

#[test]
fn what_a_document_does_not_say_any_more_is_taken_back() {
    let mut state = eureka();
    upsert(&mut state, with_vip("blue", "shop", 1), Evidence::Complete);
    assert_eq!(hosts(&mut state), [["blue.eureka", "shop.eureka"]]);
    configure_hosts(&mut state, "{service}.eureka", &[]);
    assert_eq!(hosts(&mut state), [["blue.eureka"]]);
}

#[test]
fn an_alias_that_is_the_name_of_a_service_of_the_cluster_is_left_out() {
    let mut state = eureka();
    let reserved = [("shop.eureka".to_owned(), "Service shop/shop".into())];
    state.command(NOW, Command::Reserve(Arc::new(reserved.into())));
    upsert(&mut state, with_vip("blue", "shop", 1), Evidence::Complete);
    assert_eq!(hosts(&mut state), [["blue.eureka"]]);
}

fn of_nacos(name: &str, group: &str, namespace: &str) -> Arc<Service> {
    let mut service = Service::clone(&service("zk", name, &[1]));
    service.key.group = group.into();
    service.key.namespace = namespace.into();
    Arc::new(service)
}

#[test]
fn of_two_services_of_nacos_with_one_host_one_is_refused() {
    let both = [
        "{service}.{group}.{namespace}.nacos",
        "{service}.{group|dns}.{namespace|dns}.nacos",
    ];
    for (template, names, written, taken) in [
        (
            both[1],
            [("orders_v1", "g"), ("orders-v1", "g")],
            "zk/p/g/orders-v1",
            Some("zk/p/g/orders_v1"),
        ),
        (
            both[1],
            [("Orders", "g"), ("orders", "g")],
            "zk/p/g/orders",
            Some("zk/p/g/Orders"),
        ),
        (
            both[1],
            [("a", "x_y"), ("a", "x-y")],
            "zk/p/x-y/a",
            Some("zk/p/x_y/a"),
        ),
        // With the names of Nacos' own server; with ours no group can pass for a part of a name.
        (
            both[0],
            [("a.b", "c"), ("a", "b.c")],
            "zk/p/b.c/a",
            Some("zk/p/c/a.b"),
        ),
        (both[1], [("a.b", "c"), ("a", "b.c")], "zk/p/b.c/a", None),
    ] {
        let mut state = with_hosts(template, &[]);
        for (name, group) in names {
            upsert(&mut state, of_nacos(name, group, "p"), Evidence::Complete);
        }
        let (desired, view) = state.publish(NOW);
        let lost = view
            .services
            .values()
            .filter(|known| known.lost_to.is_some());
        let lost: Vec<_> = lost.map(|known| known.service.key.to_string()).collect();
        assert_eq!(lost, taken.into_iter().collect::<Vec<_>>(), "{names:?}");
        assert_eq!(
            desired
                .services
                .keys()
                .next()
                .map(ToString::to_string)
                .as_deref(),
            Some(written)
        );
    }
}

/// What Nacos takes as a name, and some that it does not.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[aAbB_.-]{1,3}", "[a-c.]{1,5}", "[a-zA-Z0-9_.:@-]{1,8}"]
}

proptest! {
    /// No two services ever have one host: who has it not is told so.
    #[test]
    fn no_host_is_shared(
        names in prop::collection::btree_set((name(), name(), name()), 1..30),
        dotted in any::<bool>(),
    ) {
        let template = if dotted {
            "{service}.{group}.{namespace}.nacos"
        } else {
            "{service}.{group|dns}.{namespace|dns}.nacos"
        };
        let mut state = with_hosts(template, &["{service|dns}.nacos"]);
        for (name, group, namespace) in &names {
            upsert(&mut state, of_nacos(name, group, namespace), Evidence::Complete);
        }
        let all: Vec<_> = hosts(&mut state).into_iter().flatten().collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        prop_assert_eq!(distinct.len(), all.len(), "{:?}", all);
        let (desired, view) = state.publish(NOW);
        for (key, known) in &view.services {
            prop_assert_eq!(known.refusal.is_none(), desired.services.contains_key(key), "{}", key);
        }
    }
}
