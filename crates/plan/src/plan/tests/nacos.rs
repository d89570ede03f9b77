//! A registry with services of two kinds, and the names of Nacos.

use std::collections::{BTreeMap, BTreeSet};

use diolkos_istio::validate;
use diolkos_model::{Interner, ServiceKey};

use super::*;
use crate::{Annotation, Exception};

const HOST: &str = "{service}.{group|dns}.{namespace|dns}.nacos";

fn nacos(host: &str) -> Policy {
    let mut policy = Policy::new(
        "consul",
        Template::literal("diolkos"),
        Template::parse(host).unwrap(),
    );
    policy.ports.default_protocol = "http".into();
    policy
}

fn named(name: &str, group: &str, namespace: &str) -> Service {
    let mut service = with_instances(name, namespace, vec![instance("a", 80)]);
    service.key = ServiceKey {
        group: group.into(),
        ..service.key
    };
    service
}

fn host(policy: &Policy, (name, group, namespace): (&str, &str, &str)) -> (String, bool) {
    let plan = plan(policy, &named(name, group, namespace));
    (plan.host.unwrap(), plan.altered)
}

#[test]
fn one_registry_gives_services_of_dubbo_what_a_registry_of_dubbo_gives() {
    let zookeeper = {
        let mut policy = nacos("{meta.dubboHost}");
        policy.ports.naming = PortNaming::Protocol;
        policy.ports.default_protocol = "tcp".into();
        policy
    };
    let mut both = nacos(HOST);
    both.exception = Some(Exception {
        key: "dubboHost".into(),
        host: zookeeper.host.clone(),
        ports: zookeeper.ports.clone(),
    });
    let mut dubbo = named("com.foo.Bar", "", "public");
    dubbo.meta = Interner::new().labels([("dubboHost", "com.foo.bar")]);
    let mut provider = instance("a", 20880);
    provider.ports = [port("", 20880, Some("dubbo"))].into();
    dubbo.instances = [provider, instance("b", 20881)].into();
    assert_eq!(yaml(&plan(&both, &dubbo)), yaml(&plan(&zookeeper, &dubbo)));
    let ports = plan(&both, &dubbo);
    assert_eq!(ports.host.as_deref(), Some("com.foo.bar"));

    let orders = named("orders", "DEFAULT_GROUP", "public");
    let orders = plan(&both, &orders);
    assert_eq!(
        orders.host.as_deref(),
        Some("orders.default-group.public.nacos")
    );
    assert_eq!(dialled(&orders), [(80, "http-80", "HTTP")]);
}

#[test]
fn what_instances_say_makes_no_exception() {
    let mut policy = nacos(HOST);
    policy.exception = Some(Exception {
        key: "dubboHost".into(),
        host: Template::parse("{meta.dubboHost}").unwrap(),
        ports: policy.ports.clone(),
    });
    let mut service = named("orders", "g", "public");
    let forged = with_labels(instance("a", 80), &[("dubboHost", "payments.bank")]);
    service.instances = [forged].into();
    let plan = plan(&policy, &service);
    assert_eq!(plan.host.as_deref(), Some("orders.g.public.nacos"));
}

#[test]
fn hosts_of_nacos() {
    let policy = nacos(HOST);
    for (name, expected, altered) in [
        (
            ("orders", "DEFAULT_GROUP", "public"),
            "orders.default-group.public.nacos",
            false,
        ),
        (
            ("orders-v1", "g", "public"),
            "orders-v1.g.public.nacos",
            false,
        ),
        // The one that had to be altered gives way (`Claim`).
        (
            ("orders_v1", "g", "public"),
            "orders-v1.g.public.nacos",
            true,
        ),
        (("orders", "g", "public"), "orders.g.public.nacos", false),
        (("Orders", "g", "public"), "orders.g.public.nacos", true),
        // No group can pass for a part of a name.
        (("a.b", "c", "public"), "a.b.c.public.nacos", false),
        (("a", "b.c", "public"), "a.b-c.public.nacos", false),
        (("a", "c", "b.public"), "a.c.b-public.nacos", false),
    ] {
        assert_eq!(
            host(&policy, name),
            (expected.to_owned(), altered),
            "{name:?}"
        );
    }
}

#[test]
fn with_the_names_of_nacos_own_server_a_group_can_pass_for_a_part_of_a_name() {
    // Both have the same host then; the engine refuses one of them (`HostTaken`).
    let policy = nacos("{service}.{group}.{namespace}.nacos");
    let hosts = [("a.b", "c", "public"), ("a", "b.c", "public")].map(|name| host(&policy, name));
    assert_eq!(
        hosts,
        ["a.b.c.public.nacos"; 2].map(|host| (host.to_owned(), false))
    );
}

#[test]
fn annotations_have_a_value_of_the_service_or_a_fixed_one() {
    let mut policy = policy();
    policy.object_annotations = [
        ("virtual", Annotation::Fixed("1".into())),
        ("interface", Annotation::Meta("interface".into())),
        ("missing", Annotation::Meta("missing".into())),
    ]
    .map(|(key, annotation)| (key.to_owned(), annotation))
    .into();
    let mut service = named("orders", "", "dc1");
    service.meta = Interner::new().labels([("interface", "a.B")]);
    let plan = plan(&policy, &service);
    let entry = plan
        .objects
        .iter()
        .find(|object| object.key.kind == Kind::ServiceEntry);
    let annotations = &entry.unwrap().annotations;
    assert_eq!(annotations["virtual"], "1");
    assert_eq!(annotations["interface"], "a.B");
    assert!(!annotations.contains_key("missing"));
}

#[test]
fn an_alias_without_a_value_is_no_news() {
    let mut policy = nacos("{service}.eureka");
    policy.aliases = vec![Template::parse("{meta.vipAddress}.eureka").unwrap()];
    for (vip, expected) in [
        (None, &["shop.eureka"][..]),
        (Some("shop"), &["shop.eureka"]),
        (Some("store"), &["shop.eureka", "store.eureka"]),
    ] {
        let mut service = named("shop", "", "");
        service.meta = Interner::new().labels(vip.map(|vip| ("vipAddress", vip)));
        let plan = plan(&policy, &service);
        assert_eq!(plan.service_entry().unwrap().hosts, expected);
        assert_eq!(reasons(&plan, Verdict::Advice), []);
    }
}

/// Texts that Nacos takes as names of services, groups and namespaces, and some that it does not.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-cA-C_.-]{1,4}",
        "[a-z0-9_.:@-]{1,12}",
        "[a-zA-Z_]{60,70}",
        ".{1,6}"
    ]
}

proptest! {
    /// Every host is one that Istio takes, and names that need no change share none. Who has one that
    /// others claim too, the engine decides.
    #[test]
    fn hosts_of_nacos_are_valid(
        names in prop::collection::btree_set((name(), name(), name()), 1..20),
    ) {
        let policy = nacos(HOST);
        let mut unaltered: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (service, group, namespace) in &names {
            let plan = plan(&policy, &named(service, group, namespace));
            let Some(host) = plan.host else {
                prop_assert!(plan.refusal().is_some() && plan.objects.is_empty());
                continue;
            };
            prop_assert!(validate::host(&host).is_ok(), "{host}");
            prop_assert!(host.ends_with(".nacos"), "{host}");
            for object in &plan.objects {
                prop_assert_eq!(validate::object(object), vec![]);
                if let Spec::ServiceEntry(entry) = &object.spec {
                    prop_assert_eq!(&*object.key.name, &*host, "its object is called after it");
                    prop_assert_eq!(&entry.hosts[..], std::slice::from_ref(&host));
                }
            }
            if !plan.altered {
                unaltered.entry(host).or_default().insert(service);
            }
        }
        for (host, services) in unaltered {
            prop_assert_eq!(services.len(), 1, "{}", host);
        }
    }
}
