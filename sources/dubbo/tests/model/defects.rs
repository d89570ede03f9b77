//! Defects of dubbo2istio that are decided here, one test each.

use diolkos_model::{Address, Health};
use diolkos_source_dubbo::{Change, Options, Variants};

use crate::support::{encode, ids, label, list, meta, only, options, providers};

fn hosts() -> Options {
    Options {
        variants: Variants::Hosts,
        ..options()
    }
}

fn aeraki() -> Options {
    Options {
        aeraki: true,
        ..options()
    }
}

#[test]
fn d1_providers_without_parameters_of_aeraki_count() {
    for options in [options(), aeraki()] {
        let service = only(&mut providers(
            options,
            &["dubbo://10.0.0.1:20880/a.B?version=1.0.0"],
        ));
        assert_eq!(ids(&service), ["10.0.0.1:20880/:1.0.0"]);
        assert_eq!(meta(&service, "dubboNamespace"), Some("dubbo"));
    }
}

#[test]
fn d2_the_last_provider_gone_is_a_removal() {
    let url = "dubbo://10.0.0.1:20880/a.B";
    let mut catalog = providers(options(), &[url]);
    assert!(matches!(
        catalog.take_changes().as_slice(),
        [Change::Upsert(_)]
    ));
    catalog.remove_child(&list("a.B"), &encode(url));
    let changes = catalog.take_changes();
    assert!(matches!(changes.as_slice(), [Change::Remove(key)] if *key.name == *"a.B"));
    assert!(catalog.take_changes().is_empty());
    assert!(catalog.snapshot().is_empty());
}

#[test]
fn d3_a_variant_gone_is_a_removal_while_another_stays() {
    let old = "dubbo://10.0.0.1:20880/a.B?version=1.0.0";
    let new = "dubbo://10.0.0.2:20880/a.B?version=2.0.0";
    let mut catalog = providers(hosts(), &[old, new]);
    assert_eq!(catalog.take_changes().len(), 2);
    catalog.remove_child(&list("a.B"), &encode(old));
    let changes = catalog.take_changes();
    assert!(matches!(changes.as_slice(), [Change::Remove(key)] if *key.name == *"a.B:1.0.0"));
}

#[test]
fn d4_providers_on_another_port_are_kept() {
    let urls = ["dubbo://10.0.0.1:20880/a.B", "dubbo://10.0.0.2:20881/a.B"];
    let service = only(&mut providers(options(), &urls));
    let seen: Vec<_> = service
        .instances
        .iter()
        .map(|i| i.ports[0].number)
        .collect();
    assert_eq!(seen, [20880, 20881]);
    // And so they are on one host.
    let urls = ["dubbo://10.0.0.1:20880/a.B", "dubbo://10.0.0.1:20881/a.B"];
    let service = only(&mut providers(options(), &urls));
    assert_eq!(ids(&service), ["10.0.0.1:20880", "10.0.0.1:20881"]);
}

#[test]
fn d5_all_protocols_count() {
    for (scheme, protocol) in [
        ("dubbo", "dubbo"),
        ("tri", "grpc"),
        ("grpc", "grpc"),
        ("rest", "http"),
        ("http", "http"),
        ("hessian", "http"),
        ("webservice", "http"),
        ("https", "https"),
        ("thrift", "thrift"),
    ] {
        let url = format!("{scheme}://10.0.0.1:20880/a.B");
        let service = only(&mut providers(options(), &[&url]));
        let port = &service.instances[0].ports[0];
        assert_eq!(port.protocol.as_deref(), Some(protocol), "{scheme}");
        assert_eq!(&*port.name, "", "one protocol needs no names: {scheme}");
    }
}

#[test]
fn d6_names_that_look_alike_stay_apart() {
    let url = |group| encode(&format!("dubbo://10.0.0.1:20880/x?group={group}"));
    let mut catalog = diolkos_source_dubbo::Catalog::new(hosts());
    for (interface, group) in [
        ("com.foo.Bar", "baz"),
        ("com.foo.bar.Baz", ""),
        ("com.foo.UserAPI", ""),
        ("com.foo.UserApi", ""),
        ("com.foo.Outer%24Inner", ""),
        ("com.foo.Outer_Inner", ""),
    ] {
        catalog.add_child(&list(interface), &url(group));
    }
    let services = catalog.snapshot();
    let keys: Vec<String> = services.iter().map(|s| s.key.to_string()).collect();
    assert_eq!(
        keys,
        [
            "zk/baz/com.foo.Bar",
            "zk/com.foo.Outer$Inner",
            "zk/com.foo.Outer_Inner",
            "zk/com.foo.UserAPI",
            "zk/com.foo.UserApi",
            "zk/com.foo.bar.Baz",
        ]
    );
}

#[test]
fn d12_a_restart_changes_nothing() {
    let url = |pid: u32| {
        format!(
            "dubbo://10.0.0.1:20880/a.B?application=x&pid={pid}&timestamp=17952521{pid}&env=prod"
        )
    };
    for options in [options(), aeraki()] {
        let mut catalog = providers(options, &[&url(10)]);
        let service = only(&mut catalog);
        assert_eq!(label(&service.instances[0], "env"), Some("prod"));
        for name in ["pid", "timestamp"] {
            assert_eq!(label(&service.instances[0], name), None);
        }
        // The new node is there before the old session ends.
        catalog.add_child(&list("a.B"), &encode(&url(11)));
        catalog.remove_child(&list("a.B"), &encode(&url(10)));
        assert!(catalog.take_changes().is_empty());
    }
}

#[test]
fn d14_values_are_decoded_and_every_kind_of_host_is_read() {
    let urls = [
        "dubbo://[fd00::1]:20880/a.B?team=a%2Cb&note=&owner=x%3Dy",
        "dubbo://web.example.org:20880/a.B",
        "dubbo://10.0.0.3/a.B",
    ];
    let service = only(&mut providers(options(), &urls));
    let [three, v6, name] = &*service.instances else {
        panic!("{service:?}")
    };
    assert_eq!((&*three.id, three.ports[0].number), ("10.0.0.3:0", 0));
    assert_eq!(v6.address, Address::Ip("fd00::1".parse().unwrap()));
    assert_eq!(&*v6.id, "[fd00::1]:20880");
    assert_eq!(label(v6, "team"), Some("a,b"));
    assert_eq!(label(v6, "owner"), Some("x=y"));
    assert_eq!(label(v6, "note"), None);
    assert_eq!(name.address, Address::Name("web.example.org".into()));
    assert!(
        service
            .instances
            .iter()
            .all(|i| i.health == Health::Healthy)
    );
}

#[test]
fn d15_two_namespaces_never_take_turns() {
    let url = |host: u8, namespace: &str| {
        format!("dubbo://10.0.0.{host}:20880/a.B?aeraki_meta_app_namespace={namespace}")
    };
    let (one, two) = (url(1, "shop"), url(2, "bank"));
    for order in [[&one, &two], [&two, &one]] {
        let service = only(&mut providers(aeraki(), &order.map(String::as_str)));
        assert_eq!(meta(&service, "dubboNamespace"), Some("bank"));
        assert_eq!(service.instances.len(), 2);
    }
}

#[test]
fn d16_the_workload_selector_is_there_for_use() {
    let selector = "app=dubbo-provider,version=v1";
    let url = format!(
        "dubbo://10.0.0.1:20880/a.B?aeraki_meta_workload_selector={}",
        encode(selector)
    );
    let service = only(&mut providers(aeraki(), &[&url]));
    assert_eq!(meta(&service, "workloadSelector"), Some(selector));
    assert_eq!(
        label(&service.instances[0], "aeraki_meta_workload_selector"),
        None
    );
}
