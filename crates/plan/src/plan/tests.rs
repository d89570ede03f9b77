use std::collections::BTreeMap;

use diolkos_istio::{Kind, WorkloadEntry};
use diolkos_model::{Health, Weight};
use globset::{Glob, GlobSet, GlobSetBuilder};
use proptest::prelude::*;

use super::*;
use crate::{
    Endpoints, Matcher, PortNaming, ProtocolRule, Template,
    testing::{instance, policy, port, with_instances, with_labels},
};

fn globs(patterns: &[&str]) -> GlobSet {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(Glob::new(pattern).unwrap());
    }
    builder.build().unwrap()
}

fn entries(plan: &Plan) -> Vec<&WorkloadEntry> {
    let mut all: Vec<_> = plan
        .objects
        .iter()
        .flat_map(|object| match &object.spec {
            Spec::ServiceEntry(entry) => entry.endpoints.iter().collect::<Vec<_>>(),
            Spec::WorkloadEntry(entry) => vec![entry],
        })
        .collect();
    all.sort_by_key(|entry| entry.address.parse::<std::net::IpAddr>().unwrap());
    all
}

fn reasons(plan: &Plan, of: Verdict) -> Vec<Reason> {
    let mut reasons: Vec<_> = plan
        .decisions
        .iter()
        .map(|d| d.reason)
        .filter(|r| r.verdict() >= of)
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons
}

fn yaml(plan: &Plan) -> serde_json::Value {
    plan.objects.iter().map(Object::manifest).collect()
}

fn dialled(plan: &Plan) -> Vec<(u32, &str, &str)> {
    plan.ports()
        .iter()
        .map(|p| (p.number, p.name.as_str(), p.protocol.as_str()))
        .collect()
}

/// The example of the document that this product grew from: what consul2istio writes.
#[test]
fn aeraki_example() {
    let mut student = instance("student-1", 9098);
    student.address = "10.244.6.42".parse().unwrap();
    let mut policy = policy();
    policy.namespace = Template::literal("istio-system");
    policy.endpoints = Endpoints::Inline;
    policy.ports.naming = PortNaming::Protocol;
    policy.object_labels = [("manager", "Aeraki"), ("registry", "consul")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let plan = plan(
        &policy,
        &with_instances("student-service", "dc1", vec![student]),
    );
    insta::assert_json_snapshot!(yaml(&plan));
}

#[test]
fn two_versions_on_two_ports() {
    let mut v1 = with_labels(instance("a", 8080), &[("zone", "z1")]);
    v1.version = Some("v1".into());
    v1.weight = Some(Weight::whole(10));
    let mut v2 = instance("b", 8081);
    v2.version = Some("v2".into());
    let plan = plan(&policy(), &with_instances("web", "dc1", vec![v1, v2]));
    insta::assert_json_snapshot!(yaml(&plan));
}

#[test]
fn every_endpoint_answers_every_port_on_its_own() {
    let plan = plan(
        &policy(),
        &with_instances("web", "dc1", vec![instance("a", 8080), instance("b", 8081)]),
    );
    assert_eq!(
        dialled(&plan),
        [(8080, "tcp-8080", "TCP"), (8081, "tcp-8081", "TCP")]
    );
    let ports: Vec<_> = entries(&plan)
        .into_iter()
        .map(|e| e.ports.clone())
        .collect();
    let both = |number| {
        BTreeMap::from([
            ("tcp-8080".to_owned(), number),
            ("tcp-8081".to_owned(), number),
        ])
    };
    assert_eq!(ports, [both(8080), both(8081)]);
}

#[test]
fn named_ports_are_ports_of_their_own() {
    let mut a = instance("a", 1);
    a.ports = [port("http", 8080, None), port("grpc", 9090, None)].into();
    let mut b = instance("b", 1);
    b.ports = [port("http", 8081, None), port("grpc", 9090, None)].into();
    let mut c = instance("c", 1);
    c.ports = [port("http", 8080, None)].into();
    let plan = plan(&policy(), &with_instances("web", "dc1", vec![a, b, c]));
    assert_eq!(
        dialled(&plan),
        [
            (8080, "http-8080", "HTTP"),
            (8081, "http-8081", "HTTP"),
            (9090, "grpc-9090", "GRPC")
        ]
    );
    let of = |index: usize| {
        entries(&plan)[index]
            .ports
            .values()
            .copied()
            .collect::<Vec<_>>()
    };
    assert_eq!(of(0), [9090, 8080, 8080], "grpc, http, http of a");
    assert_eq!(of(1), [9090, 8081, 8081], "b answers http on its own port");
    assert_eq!(of(2), [8080, 8080, 8080], "c has no grpc port");
    assert_eq!(reasons(&plan, Verdict::Advice), [Reason::PortFallback]);
}

#[test]
fn dynamic_ports_collapse_to_one() {
    for (protocol, expected) in [
        (Some("http"), (80, "http-80", "HTTP")),
        (None, (20001, "tcp-20001", "TCP")),
        (Some("dubbo"), (20001, "tcp-dubbo-20001", "TCP")),
    ] {
        let instances = (1..=9u32)
            .map(|n| {
                let mut instance = instance(&format!("i{n}"), 0);
                instance.ports = [port("", 20_000 + n, protocol)].into();
                instance
            })
            .collect();
        let plan = plan(&policy(), &with_instances("web", "dc1", instances));
        assert_eq!(dialled(&plan), [expected]);
        assert_eq!(reasons(&plan, Verdict::Advice), [Reason::DynamicPorts]);
        let own: Vec<u32> = entries(&plan).iter().map(|e| e.ports[expected.1]).collect();
        assert_eq!(own, (20_001..=20_009).collect::<Vec<_>>());
    }
}

#[test]
fn who_names_no_protocol_has_no_vote() {
    let with = |id: &str, protocol: Option<&str>| {
        let mut i = instance(id, 80);
        i.ports = [port("", 80, protocol)].into();
        i
    };
    for (protocols, expected, advice) in [
        (&[None, None][..], "TCP", &[][..]),
        (&[None, None, Some("http")], "HTTP", &[]),
        (
            &[Some("grpc"), Some("http"), Some("http")],
            "HTTP",
            &[Reason::ProtocolMixed],
        ),
        (
            &[Some("http"), Some("grpc")],
            "GRPC",
            &[Reason::ProtocolMixed],
        ),
    ] {
        let instances = protocols
            .iter()
            .enumerate()
            .map(|(n, p)| with(&format!("i{n}"), *p));
        let plan = plan(
            &policy(),
            &with_instances("web", "dc1", instances.collect()),
        );
        assert_eq!(plan.ports()[0].protocol, expected, "{protocols:?}");
        assert_eq!(reasons(&plan, Verdict::Advice), advice, "{protocols:?}");
    }
}

#[test]
fn a_service_port_hides_the_registered_ones() {
    let mut policy = policy();
    policy.ports.service_port = Some(80);
    policy.ports.protocols = vec![ProtocolRule {
        services: Some(globs(&["w*"])),
        port: None,
        protocol: "http".into(),
    }];
    let plan = plan(
        &policy,
        &with_instances("web", "dc1", vec![instance("a", 8080), instance("b", 8081)]),
    );
    assert_eq!(dialled(&plan), [(80, "http-80", "HTTP")]);
    let own: Vec<u32> = entries(&plan).iter().map(|e| e.ports["http-80"]).collect();
    assert_eq!(own, [8080, 8081]);
}

#[test]
fn a_bad_instance_costs_itself_only() {
    let good = instance("good", 80);
    let bad: Vec<(Instance, Reason)> = vec![
        (instance("port", 0), Reason::NoPort),
        (instance("port-high", 70_000), Reason::NoPort),
        (
            {
                let mut i = instance("name", 80);
                i.address = "web.example.org".parse().unwrap();
                i
            },
            Reason::AddressNotIp,
        ),
        (
            {
                let mut i = instance("metadata", 80);
                i.address = "169.254.169.254".parse().unwrap();
                i
            },
            Reason::AddressDenied,
        ),
        (
            {
                let mut i = instance("sick", 80);
                i.health = Health::Unhealthy("critical: check ttl".into());
                i
            },
            Reason::Unhealthy,
        ),
        (
            {
                let mut i = instance("drained", 80);
                i.weight = Some(Weight(0));
                i
            },
            Reason::WeightZero,
        ),
        (
            {
                let mut i = instance("zz-same", 80);
                i.address = good.address.clone();
                i
            },
            Reason::Duplicate,
        ),
    ];
    let expected: Vec<_> = bad
        .iter()
        .map(|(i, reason)| (i.id.to_string(), *reason))
        .collect();
    let all = bad.into_iter().map(|(i, _)| i).chain([good]).collect();
    let plan = plan(&policy(), &with_instances("web", "dc1", all));
    assert_eq!(plan.endpoints, 1);
    let mut seen: Vec<_> = plan
        .dropped_instances()
        .map(|(id, r)| (id.to_owned(), r))
        .collect();
    seen.sort();
    let mut expected = expected;
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn a_service_without_healthy_instances_keeps_its_shape() {
    let mut sick = instance("a", 8080);
    sick.health = Health::Unhealthy("maintenance".into());
    let plan = plan(&policy(), &with_instances("web", "dc1", vec![sick]));
    assert_eq!(dialled(&plan), [(8080, "tcp-8080", "TCP")]);
    assert_eq!((plan.endpoints, plan.objects.len()), (0, 1));
}

#[test]
fn names() {
    for (name, host, altered) in [
        ("web", Some("web.service.consul"), false),
        ("My_Service", Some("my-service.service.consul"), true),
        ("com.foo.Bar", Some("com.foo.bar.service.consul"), true),
        ("a/b:c@d", Some("a-b-c-d.service.consul"), true),
    ] {
        let plan = plan(
            &policy(),
            &with_instances(name, "dc1", vec![instance("a", 80)]),
        );
        assert_eq!(
            (plan.host.as_deref(), plan.altered),
            (host, altered),
            "{name}"
        );
    }
    let long = "x".repeat(70);
    let plan = plan(
        &policy(),
        &with_instances(&long, "dc1", vec![instance("a", 80)]),
    );
    let label = plan
        .host
        .as_deref()
        .unwrap()
        .split('.')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(label.len(), 63);
    assert!(reasons(&plan, Verdict::Noted).contains(&Reason::NameAltered));
}

#[test]
fn refusals() {
    let excluded = {
        let mut p = policy();
        p.select.exclude = vec![Matcher {
            services: Some(globs(&["w?b"])),
            ..Matcher::default()
        }];
        p
    };
    let cluster = {
        let mut p = policy();
        p.host = Template::parse("{service}.default.svc.cluster.local").unwrap();
        p
    };
    let unresolved = {
        let mut p = policy();
        p.host = Template::parse("{service}.{group}").unwrap();
        p
    };
    let not_granted = {
        let mut p = policy();
        p.grant.hosts = vec!["*.other.example".into()];
        p
    };
    let namespace = {
        let mut p = policy();
        p.grant.namespaces = vec!["elsewhere".into()];
        p
    };
    let numeric = {
        let mut p = policy();
        p.host = Template::parse("{service}.1").unwrap();
        p
    };
    for (policy, ports, expected) in [
        (numeric, 80, Reason::HostDenied),
        (excluded, 80, Reason::ServiceExcluded),
        (cluster, 80, Reason::HostDenied),
        (unresolved, 80, Reason::TemplateUnresolved),
        (not_granted, 80, Reason::HostDenied),
        (namespace, 80, Reason::NamespaceDenied),
        (policy(), 0, Reason::NoPorts),
    ] {
        let plan = plan(
            &policy,
            &with_instances("web", "dc1", vec![instance("a", ports)]),
        );
        assert_eq!(plan.refusal().map(|d| d.reason), Some(expected));
        assert!(plan.objects.is_empty());
    }
}

#[test]
fn tags_and_metadata_select_instances() {
    let mut policy = policy();
    policy.select.include = Some(Matcher {
        tags: Some(globs(&["prod*"])),
        metadata: [("team".to_owned(), globs(&["a"]))].into(),
        ..Matcher::default()
    });
    let instances = vec![
        with_labels(instance("a", 80), &[("tags", "x,prod-1"), ("team", "a")]),
        with_labels(instance("b", 80), &[("tags", "x"), ("team", "a")]),
        with_labels(instance("c", 80), &[("tags", "prod")]),
    ];
    let plan = plan(&policy, &with_instances("web", "dc1", instances));
    let left_out: Vec<_> = plan.dropped_instances().collect();
    assert_eq!(
        left_out,
        [
            ("b", Reason::InstanceExcluded),
            ("c", Reason::InstanceExcluded)
        ]
    );
}

#[test]
fn aliases_need_a_protocol_that_carries_the_host() {
    let mut policy = policy();
    policy.aliases = vec![Template::parse("{service}.internal").unwrap()];
    let tcp = plan(
        &policy,
        &with_instances("web", "dc1", vec![instance("a", 80)]),
    );
    assert_eq!(tcp.service_entry().unwrap().hosts, ["web.service.consul"]);
    assert_eq!(reasons(&tcp, Verdict::Dropped), [Reason::AliasRefused]);
    policy.ports.default_protocol = "http".into();
    let http = plan(
        &policy,
        &with_instances("web", "dc1", vec![instance("a", 80)]),
    );
    assert_eq!(
        http.service_entry().unwrap().hosts,
        ["web.service.consul", "web.internal"]
    );
}

#[test]
fn weights() {
    for (weights, expected) in [
        (&[None, None][..], &[0, 0][..]),
        (&[Some(1.0), Some(1.0)], &[0, 0]),
        (&[Some(1.0), Some(10.0)], &[0, 10]),
        (&[Some(0.5), Some(2.0)], &[50, 200]),
        (&[Some(0.001), None], &[1, 100]),
    ] {
        let instances = weights
            .iter()
            .enumerate()
            .map(|(n, weight)| {
                let mut i = instance(&format!("i{n}"), 80);
                i.weight = weight.map(Weight::fraction);
                i
            })
            .collect();
        let plan = plan(&policy(), &with_instances("web", "dc1", instances));
        let made: Vec<u32> = entries(&plan).iter().map(|e| e.weight).collect();
        assert_eq!(made, expected, "{weights:?}");
    }
}

#[test]
fn large_services_are_sharded_inline() {
    let mut policy = policy();
    policy.endpoints = Endpoints::Inline;
    let instances = |count: u32| {
        (0..count)
            .map(|n| {
                let mut i = instance(&format!("i{n}"), 80);
                i.address = std::net::IpAddr::from((0x0a00_0000 + n).to_be_bytes())
                    .to_string()
                    .parse()
                    .unwrap();
                i
            })
            .collect::<Vec<_>>()
    };
    let hashes = |count| {
        plan(&policy, &with_instances("web", "dc1", instances(count)))
            .objects
            .iter()
            .map(|o| (o.key.name.to_string(), o.content_hash()))
            .collect::<BTreeMap<_, _>>()
    };
    let (before, after) = (hashes(4_500), hashes(4_501));
    assert_eq!(before.len(), 5);
    let changed = before
        .iter()
        .filter(|(name, hash)| after[*name] != **hash)
        .count();
    assert_eq!(changed, 1, "one more instance rewrites one shard");
}

fn any_instance() -> impl Strategy<Value = Instance> {
    let text = || prop_oneof!["[a-z0-9.-]{0,8}", ".{0,80}"];
    (
        text(),
        prop_oneof!["10\\.0\\.[0-3]\\.[0-9]", text()],
        proptest::collection::vec(
            (
                text(),
                prop_oneof![Just(80u32), any::<u32>()],
                proptest::option::of(text()),
            ),
            0..4,
        ),
        proptest::collection::btree_map(text(), text(), 0..4),
        proptest::option::of(any::<u32>()),
        any::<bool>(),
    )
        .prop_map(|(id, address, ports, labels, weight, healthy)| {
            let mut i = instance("x", 80);
            i.id = id.as_str().into();
            i.address = address.parse().unwrap();
            i.ports = ports
                .iter()
                .map(|(name, number, protocol)| port(name, *number, protocol.as_deref()))
                .collect();
            i = with_labels(
                i,
                &labels
                    .iter()
                    .map(|(k, v)| (k.as_str(), v.as_str()))
                    .collect::<Vec<_>>(),
            );
            i.weight = weight.map(Weight);
            if !healthy {
                i.health = Health::Unhealthy("sick".into());
            }
            i
        })
}

proptest! {
    /// Whatever a registry says, what is written is valid, and every instance is accounted for.
    #[test]
    fn whatever_the_registry_says(name in ".{0,80}", instances in proptest::collection::vec(any_instance(), 0..6), inline: bool) {
        let mut policy = policy();
        if inline {
            policy.endpoints = Endpoints::Inline;
        }
        let service = with_instances(&name, "dc1", instances);
        let made = plan(&policy, &service);
        for object in &made.objects {
            prop_assert!(validate::object(object).is_empty());
        }
        prop_assert_eq!(made.objects.is_empty(), made.refusal().is_some());
        if made.refusal().is_none() {
            prop_assert_eq!(made.endpoints + made.dropped_instances().count(), service.instances.len());
            let names: Vec<_> = made.ports().iter().map(|p| p.name.clone()).collect();
            for entry in entries(&made) {
                prop_assert!(entry.ports.keys().eq(names.iter().collect::<std::collections::BTreeSet<_>>()), "every port on every endpoint");
            }
            let keys: std::collections::BTreeSet<_> = made.objects.iter().map(|o| &o.key).collect();
            prop_assert_eq!(keys.len(), made.objects.len(), "names are unique");
        }
        prop_assert_eq!(plan(&policy, &service), made, "the same input gives the same plan");
    }
}

#[test]
fn workload_entry_names_do_not_depend_on_siblings() {
    let one = plan(
        &policy(),
        &with_instances("web", "dc1", vec![instance("b", 80)]),
    );
    let two = plan(
        &policy(),
        &with_instances("web", "dc1", vec![instance("a", 80), instance("b", 80)]),
    );
    let named = |plan: &Plan| -> Vec<String> {
        plan.objects
            .iter()
            .filter(|o| o.key.kind == Kind::WorkloadEntry)
            .map(|o| o.key.name.to_string())
            .collect()
    };
    assert!(named(&two).contains(&named(&one)[0]));
}

mod nacos;
