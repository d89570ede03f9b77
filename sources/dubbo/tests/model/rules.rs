//! Configurators of both kinds.

use bytes::Bytes;
use diolkos_model::{Health, Service, Weight};
use diolkos_source_dubbo::{Catalog, Change, Place};

use crate::support::{encode, only, options, providers};

const URLS: [&str; 3] = [
    "dubbo://10.0.0.1:20880/a.B?application=shop",
    "dubbo://10.0.0.2:20880/a.B?application=shop",
    "dubbo://10.0.0.3:20881/a.B?application=bank&group=g&version=1.0.0",
];

fn catalog() -> Catalog {
    providers(options(), &URLS)
}

fn set_overrides(catalog: &mut Catalog, urls: &[&str]) {
    let place = Place::Configurators {
        interface: "a.B".into(),
    };
    catalog.set_children(&place, urls.iter().map(|url| encode(url)).collect());
}

fn set_rule(catalog: &mut Catalog, key: &str, rule: Option<&str>) {
    let data = rule.map(|rule| Bytes::from(rule.to_owned()));
    catalog.set_data(&Place::Rule { key: key.into() }, data);
}

/// Weights of the three (100 where none is said); a minus in front of one that is switched off.
fn weights(service: &Service) -> Vec<i64> {
    let weight = |instance: &diolkos_model::Instance| {
        let weight = instance
            .weight
            .map_or(100, |Weight(weight)| i64::from(weight) / 1000);
        match &instance.health {
            Health::Healthy => weight,
            Health::Unhealthy(why) => {
                assert_eq!(&**why, "disabled=true");
                -weight
            }
        }
    };
    service.instances.iter().map(weight).collect()
}

#[test]
fn overrides_match_by_address_variant_and_application() {
    for (url, expected) in [
        (
            "override://0.0.0.0/a.B?category=configurators&weight=200",
            [200, 200, 100],
        ),
        (
            "override://0.0.0.0/a.B?group=*&version=*&weight=200",
            [200, 200, 200],
        ),
        (
            "override://0.0.0.0/a.B?group=g&version=1.0.0&weight=200",
            [100, 100, 200],
        ),
        ("override://10.0.0.2:20880/a.B?weight=7", [100, 7, 100]),
        ("override://10.0.0.2:1/a.B?weight=7", [100, 100, 100]),
        ("override://10.0.0.2/a.B?disabled=true", [100, -100, 100]),
        (
            "override://10.0.0.2/a.B?side=consumer&disabled=true",
            [100, 100, 100],
        ),
        (
            "override://0.0.0.0/a.B?side=consumer&disabled=true",
            [-100, -100, 100],
        ),
        (
            "override://0.0.0.0/a.B?application=bank&weight=7",
            [100, 100, 100],
        ),
        (
            "override://0.0.0.0/a.B?application=shop&weight=7",
            [7, 7, 100],
        ),
        ("override://0.0.0.0/a.B?application=*&weight=7", [7, 7, 100]),
        (
            "override://0.0.0.0/a.B?enabled=false&weight=7",
            [100, 100, 100],
        ),
        ("override://0.0.0.0/a.B?~env=prod&weight=7", [100, 100, 100]),
        ("override://0.0.0.0/a.B?timeout=7", [100, 100, 100]),
        ("absent://0.0.0.0/a.B?weight=7", [7, 7, 100]),
        ("empty://0.0.0.0/a.B?weight=7", [100, 100, 100]),
        ("rubbish", [100, 100, 100]),
    ] {
        let mut catalog = catalog();
        set_overrides(&mut catalog, &[url]);
        assert_eq!(weights(&only(&mut catalog)), expected, "{url}");
    }
}

#[test]
fn certain_addresses_win_and_then_priorities() {
    let all = "override://0.0.0.0/a.B?weight=1&priority=9";
    let some = "override://0.0.0.0/a.B?weight=2&priority=10";
    let one = "override://10.0.0.2:20880/a.B?weight=3";
    let fill = "absent://0.0.0.0/a.B?weight=4&priority=11";
    for urls in [[all, some, one, fill], [fill, one, some, all]] {
        let mut catalog = catalog();
        set_overrides(&mut catalog, &urls);
        assert_eq!(weights(&only(&mut catalog)), [2, 3, 100]);
    }
}

#[test]
fn a_rule_can_switch_on_again() {
    let mut catalog = providers(options(), &["dubbo://10.0.0.1:20880/a.B?disabled=true"]);
    assert_eq!(weights(&only(&mut catalog)), [-100]);
    set_overrides(
        &mut catalog,
        &["override://10.0.0.1:20880/a.B?disabled=false"],
    );
    assert_eq!(weights(&only(&mut catalog)), [100]);
    set_overrides(&mut catalog, &[]);
    assert!(
        matches!(catalog.take_changes().as_slice(), [Change::Upsert(s)] if weights(s) == [-100])
    );
}

/// A rule of one item.
fn rule(scope: &str, key: &str, item: &str) -> String {
    format!(
        "configVersion: v2.7\nscope: {scope}\nkey: {key}\nenabled: true\nruntime: true\nconfigs:\n- {}\n",
        item.replace('\n', "\n  ")
    )
}

#[test]
fn rules_of_interfaces() {
    let provider = "side: provider\nparameters: {weight: 7, timeout: 1000}";
    for (key, own, item, expected) in [
        ("a.B", "a.B", provider, [7, 7, 100]),
        ("a.B::", "a.B", provider, [7, 7, 100]),
        ("a.B:1.0.0:g", "g/a.B:1.0.0", provider, [100, 100, 7]),
        ("a.B:1.0.0:g", "a.B", provider, [100, 100, 100]),
        ("a.C", "a.C", provider, [100, 100, 100]),
        (
            "a.B",
            "a.B",
            "side: provider\naddresses: ['10.0.0.2:20880']\nparameters: {weight: '8'}",
            [100, 8, 100],
        ),
        (
            "a.B",
            "a.B",
            "side: provider\naddresses: [10.0.0.2]\nparameters: {disabled: true}",
            [100, -100, 100],
        ),
        (
            "a.B",
            "a.B",
            "side: provider\naddresses: ['0.0.0.0:*']\napplications: [bank]\nparameters: {weight: 9}",
            [100, 100, 100],
        ),
        (
            "a.B",
            "a.B",
            "side: consumer\naddresses: [0.0.0.0]\nproviderAddresses: ['10.0.0.1:20880']\nparameters: {weight: 9}",
            [9, 100, 100],
        ),
        (
            "a.B",
            "a.B",
            "side: consumer\naddresses: [10.9.9.9]\nparameters: {weight: 9}",
            [100, 100, 100],
        ),
        (
            "a.B",
            "a.B",
            "side: consumer\napplications: [web]\nparameters: {weight: 9}",
            [100, 100, 100],
        ),
        ("a.B", "a.B", "parameters: {weight: 9}", [100, 100, 100]),
        (
            "a.B",
            "a.B",
            "side: provider\nenabled: false\nparameters: {weight: 9}",
            [100, 100, 100],
        ),
        (
            "a.B",
            "a.B",
            "side: provider\nmatch: {app: {oneof: [{exact: web}]}}\nparameters: {weight: 9}",
            [100, 100, 100],
        ),
    ] {
        let mut catalog = catalog();
        set_rule(&mut catalog, key, Some(&rule("service", own, item)));
        assert_eq!(
            weights(&only(&mut catalog)),
            expected,
            "{key}, {own}: {item}"
        );
    }
}

#[test]
fn rules_of_applications() {
    for (item, expected) in [
        ("side: provider\nparameters: {weight: 7}", [7, 7, 100]),
        (
            "side: provider\nservices: ['*']\nparameters: {weight: 7}",
            [7, 7, 100],
        ),
        (
            "side: provider\nservices: [a.B]\nparameters: {weight: 7}",
            [7, 7, 100],
        ),
        (
            "side: provider\nservices: [a.C]\nparameters: {weight: 7}",
            [100, 100, 100],
        ),
        ("side: consumer\nparameters: {weight: 7}", [100, 100, 100]),
        (
            "side: provider\naddresses: [10.0.0.1]\nparameters: {weight: 7}",
            [7, 100, 100],
        ),
    ] {
        let mut catalog = catalog();
        catalog.take_changes();
        set_rule(
            &mut catalog,
            "shop",
            Some(&rule("application", "shop", item)),
        );
        let changed = catalog.take_changes().len();
        let service = only(&mut catalog);
        assert_eq!(weights(&service), expected, "{item}");
        assert_eq!(changed, usize::from(expected != [100; 3]), "{item}");
    }
}

#[test]
fn urls_then_applications_then_interfaces() {
    let weight = |weight| format!("side: provider\nparameters: {{weight: {weight}}}");
    let mut catalog = catalog();
    set_rule(
        &mut catalog,
        "a.B",
        Some(&rule("service", "a.B", &weight(3))),
    );
    assert_eq!(weights(&only(&mut catalog)), [3, 3, 100]);
    set_rule(
        &mut catalog,
        "shop",
        Some(&rule("application", "shop", &weight(2))),
    );
    set_overrides(
        &mut catalog,
        &["override://10.0.0.1:20880/a.B?weight=1&disabled=true"],
    );
    assert_eq!(weights(&only(&mut catalog)), [-3, 3, 100]);
    set_rule(&mut catalog, "a.B", None);
    assert_eq!(weights(&only(&mut catalog)), [-2, 2, 100]);
    set_rule(&mut catalog, "shop", Some(""));
    assert_eq!(weights(&only(&mut catalog)), [-1, 100, 100]);
}

#[test]
fn a_rule_that_cannot_be_read_or_is_off_has_no_effect() {
    let good = rule("service", "a.B", "side: provider\nparameters: {weight: 7}");
    let off = good.replace("enabled: true", "enabled: false");
    for text in ["{", "- a", "configs: 5", "\u{0}", &off] {
        let mut catalog = catalog();
        set_rule(&mut catalog, "a.B", Some(&good));
        set_rule(&mut catalog, "a.B", Some(text));
        assert_eq!(weights(&only(&mut catalog)), [100, 100, 100], "{text}");
    }
}
