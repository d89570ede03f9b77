use diolkos_istio::{Location, Resolution, ServicePort, WorkloadSelector};
use proptest::prelude::*;

use super::*;

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        (label::MANAGED_BY.to_owned(), label::MANAGER.to_owned()),
        (label::REGISTRY.to_owned(), "consul".to_owned()),
    ])
}

fn service_entry() -> Object {
    Object {
        key: ObjectKey {
            kind: Kind::ServiceEntry,
            namespace: "prod".into(),
            name: "orders".into(),
        },
        labels: labels(),
        annotations: BTreeMap::from([(
            annotation::SERVICE.to_owned(),
            "consul/dc1/orders".to_owned(),
        )]),
        spec: Spec::ServiceEntry(ServiceEntry {
            hosts: vec!["orders.service.consul".into()],
            ports: vec![ServicePort {
                number: 8080,
                protocol: "HTTP".into(),
                name: "http".into(),
                target_port: 0,
            }],
            location: Location::MeshInternal.into(),
            resolution: Resolution::Static.into(),
            endpoints: vec![WorkloadEntry {
                address: "10.0.0.1".into(),
                ports: BTreeMap::from([("http".to_owned(), 8080)]),
                labels: BTreeMap::from([("version".to_owned(), "1.10".to_owned())]),
                locality: "eu-west-1/eu-west-1a".into(),
                weight: 100,
                ..WorkloadEntry::default()
            }],
            workload_selector: Some(WorkloadSelector::default()),
            ..ServiceEntry::default()
        }),
    }
}

fn workload_entry(value: &str) -> Object {
    Object {
        key: ObjectKey {
            kind: Kind::WorkloadEntry,
            namespace: "prod".into(),
            name: "orders-1".into(),
        },
        labels: labels(),
        annotations: BTreeMap::from([("note".to_owned(), value.to_owned())]),
        spec: Spec::WorkloadEntry(WorkloadEntry {
            address: "10.0.0.1".into(),
            labels: BTreeMap::from([("tag".to_owned(), value.to_owned())]),
            locality: value.to_owned(),
            ..WorkloadEntry::default()
        }),
    }
}

fn yaml(object: &Object) -> String {
    to_yaml(object, Some(object.content_hash())).unwrap()
}

fn hash_of(yaml: &str) -> Option<ContentHash> {
    match from_yaml(yaml.as_bytes()).unwrap().state {
        State::Ours { registry, hash } => {
            assert_eq!(&*registry, "consul");
            hash
        }
        state => panic!("{state:?} from {yaml}"),
    }
}

#[test]
fn the_file() {
    insta::assert_snapshot!(yaml(&service_entry()));
}

#[test]
fn comes_back_with_its_hash() {
    for object in [service_entry(), workload_entry("x")] {
        let yaml = yaml(&object);
        assert_eq!(from_yaml(yaml.as_bytes()).unwrap().key, object.key);
        assert_eq!(hash_of(&yaml), Some(object.content_hash()), "{yaml}");
    }
}

/// Text that YAML 1.1 or 1.2 takes for something else, if it is not quoted.
#[test]
fn text_stays_text() {
    for text in [
        "1",
        "007",
        "1.10",
        "1e3",
        "0x1f",
        "0o17",
        "1_000",
        "-1",
        "+1",
        ".5",
        "12:30",
        "1:2:3",
        ".inf",
        "-.inf",
        ".nan",
        "true",
        "True",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "null",
        "~",
        "",
        " ",
        "=",
        "<<",
        "2001-12-14",
        "- a",
        "a: b",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "{a}",
        "[a]",
        "a,b",
        "'a'",
        "\"a\"",
        "a\\b",
        "a\nb",
        "a\n",
        "a\tb",
        "12345678901234567890123456789012.0",
        "616e8234.0",
        "---",
        "...",
        "a:",
        "?",
        "ä",
        "\u{85}",
        "\u{2028}",
        "\u{feff}a",
        "a ",
        "\u{7f}",
    ] {
        let object = workload_entry(text);
        let yaml = yaml(&object);
        assert_eq!(
            hash_of(&yaml),
            Some(object.content_hash()),
            "{text:?} in\n{yaml}"
        );
        // One line for each value, whatever is in it.
        let lines = 16 - usize::from(text.is_empty());
        assert_eq!(yaml.lines().count(), lines, "{text:?} in\n{yaml}");
    }
}

#[test]
fn changes_by_hand_are_seen() {
    let good = yaml(&service_entry());
    for (old, new) in [
        ("number: 8080", "number: 8081"),
        ("weight: 100", "weight: 100\n    network: other"),
        ("weight: 100", "weight: 100\n    unknown: field"),
        ("  location: MESH_INTERNAL\n", ""),
        ("spec:", "status: {}\nspec:"),
        ("name: orders\n", "name: orders\n  resourceVersion: '1'\n"),
        (
            "diolkos.io/service: consul/dc1/orders",
            "diolkos.io/service: other",
        ),
        ("diolkos.io/hash: ", "diolkos.io/hash: 0"),
        ("networking.istio.io/v1", "networking.istio.io/v1beta1"),
    ] {
        let edited = good.replacen(old, new, 1);
        assert_ne!(edited, good, "{old} is not in\n{good}");
        assert_eq!(hash_of(&edited), None, "{new}");
    }
    let comments = format!(
        "# a comment\n{}",
        good.replace("number: 8080", "number:   8080")
    );
    assert_eq!(hash_of(&comments), Some(service_entry().content_hash()));
}

#[test]
fn without_our_label_it_is_foreign() {
    let good = yaml(&service_entry());
    for manager in ["somebody", "Diolkos", ""] {
        let theirs = good.replace("managed-by: diolkos", &format!("managed-by: {manager:?}"));
        assert_ne!(theirs, good);
        assert_eq!(from_yaml(theirs.as_bytes()).unwrap().state, State::Foreign);
    }
}

#[test]
fn other_documents_are_none() {
    let good = yaml(&service_entry());
    let several = format!("{good}---\n{good}");
    let gateway = good.replace("kind: ServiceEntry", "kind: Gateway");
    for other in [
        "",
        "a",
        "- a\n",
        "kind: ServiceEntry\n",
        "a: [",
        &several,
        &gateway,
    ] {
        assert!(from_yaml(other.as_bytes()).is_none(), "{other}");
    }
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "\\PC{0,80}|.{0,80}") {
        let object = workload_entry(&text);
        prop_assert_eq!(hash_of(&yaml(&object)), Some(object.content_hash()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Some(content) = from_yaml(&bytes) {
            prop_assert!(!content.key.kind.name().is_empty());
        }
    }

    /// A good file, cut and damaged: it may come back unchanged or not, but never with a hash that
    /// its content does not have.
    #[test]
    fn damage_is_seen(cut in 1..900usize, place in 0..900usize, byte in any::<u8>()) {
        let object = service_entry();
        let good = yaml(&object).into_bytes();
        let mut bytes = good.clone();
        bytes.truncate(cut);
        if let Some(old) = bytes.get_mut(place) {
            *old = byte;
        }
        if let Some(Content { state: State::Ours { hash: Some(hash), .. }, key, .. }) = from_yaml(&bytes)
            && key == object.key
        {
            prop_assert_eq!(hash, object.content_hash());
        }
    }
}
