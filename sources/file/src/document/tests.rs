use proptest::prelude::*;

use super::*;

fn read(content: &[u8]) -> Result<Vec<Service>, Fault> {
    decode(&"file".into(), content, &mut Interner::new())
}

/// The message for a bad file.
fn fault(content: &str) -> String {
    match read(content.as_bytes()) {
        Ok(services) => panic!("{content:?} was read as {services:?}"),
        Err(fault) => fault.in_file("orders.yaml"),
    }
}

/// The one instance of a document that has these lines in its only instance.
fn instance(lines: &str) -> Instance {
    let content = format!("name: a\ninstances:\n- {lines}\n");
    let services = read(content.as_bytes()).unwrap();
    services[0].instances[0].clone()
}

const FULL: &str = r#"
name: orders
namespace: prod
group: shop
metadata: {owner: shop}
instances:
- id: orders-1
  address: 10.0.0.1
  port: 8080
  protocol: HTTP
  version: 1.10
  weight: 0.5
  unhealthy: draining
  locality: eu-west-1/eu-west-1a/rack1
  labels: {zone: a, tier: 1}
- address: "fd00::1"
  ports:
  - {name: grpc, port: 9090, protocol: grpc}
  - {port: 70000}
---
# A document of comments only is none.
---
{"name": "users", "instances": [{"address": "users.example.org"}]}
"#;

#[test]
fn everything_that_may_be_written() {
    insta::assert_debug_snapshot!(read(FULL.as_bytes()).unwrap());
}

#[test]
fn defaults() {
    let plain = instance("{address: 10.0.0.1, port: 80}");
    assert_eq!(&*plain.id, "10.0.0.1:80");
    assert_eq!(plain.health, Health::Healthy);
    assert_eq!(plain.weight, None);
    assert_eq!(plain.locality, Locality::default());
    assert_eq!(&*instance("{address: 10.0.0.1}").id, "10.0.0.1");
    assert_eq!(&*instance("{address: '::1', port: 80}").id, "[::1]:80");
    assert_eq!(
        &*instance("{address: a.example, port: 80}").id,
        "a.example:80"
    );
}

#[test]
fn health_and_weight() {
    let unhealthy = instance("{address: a, healthy: false}");
    assert_eq!(unhealthy.health, Health::Unhealthy("unhealthy".into()));
    let why = instance("{address: a, healthy: false, unhealthy: draining}");
    assert_eq!(why.health, Health::Unhealthy("draining".into()));
    assert_eq!(instance("{address: a, weight: 0}").weight, Some(Weight(0)));
    assert_eq!(
        instance("{address: a, weight: 1}").weight,
        Some(Weight::whole(1))
    );
    assert_eq!(
        instance("{address: a, weight: 0.25}").weight,
        Some(Weight(250))
    );
}

#[test]
fn text_is_kept_as_written() {
    let odd = instance("{address: a, version: 1.10, labels: {a: 007, b: yes, c: 1e3, d: ''}}");
    assert_eq!(odd.version.as_deref(), Some("1.10"));
    let labels: Vec<_> = odd.labels.iter().map(|(_, value)| &**value).collect();
    assert_eq!(labels, ["007", "yes", "1e3", ""]);
}

#[test]
fn a_file_may_hold_many_services() {
    let content: String = (0..5000).map(|i| format!("name: s{i}\n---\n")).collect();
    assert_eq!(read(content.as_bytes()).unwrap().len(), 5000);
}

#[test]
fn nothing_is_no_service() {
    for content in ["", "\n\n", "# nothing yet\n", "---\n---\n", "null\n"] {
        assert_eq!(read(content.as_bytes()), Ok(vec![]), "{content:?}");
    }
}

/// Golden messages: what an operator reads for each kind of mistake.
#[test]
fn bad_documents() {
    let table = [
        ("a list", "- name: a\n"),
        ("a word", "orders\n"),
        ("no name", "namespace: prod\n"),
        ("an empty name", "name: ''\n"),
        ("a misspelt field", "name: a\ninstance: []\n"),
        (
            "a misspelt field of an instance",
            "name: a\ninstances:\n- adress: 10.0.0.1\n  port: 80\n",
        ),
        ("no address", "name: a\ninstances:\n- port: 80\n"),
        ("an empty address", "name: a\ninstances:\n- address: ''\n"),
        (
            "a port that is no number",
            "name: a\ninstances:\n- address: b\n  port: http\n",
        ),
        (
            "a negative port",
            "name: a\ninstances:\n- address: b\n  port: -1\n",
        ),
        (
            "port and ports",
            "name: a\ninstances:\n- address: b\n  port: 1\n  ports: [{port: 2}]\n",
        ),
        (
            "protocol beside ports",
            "name: a\ninstances:\n- address: b\n  protocol: http\n  ports: [{port: 2}]\n",
        ),
        (
            "protocol without port",
            "name: a\ninstances:\n- address: b\n  protocol: http\n",
        ),
        (
            "a negative weight",
            "name: a\ninstances:\n- address: b\n  weight: -1\n",
        ),
        (
            "a weight that is none",
            "name: a\ninstances:\n- address: b\n  weight: .nan\n",
        ),
        (
            "healthy and unhealthy",
            "name: a\ninstances:\n- address: b\n  healthy: true\n  unhealthy: no\n",
        ),
        (
            "a long locality",
            "name: a\ninstances:\n- address: b\n  locality: a/b/c/d\n",
        ),
        (
            "an instance twice",
            "name: a\ninstances:\n- address: b\n- address: c\n- address: b\n",
        ),
        ("a service twice", "name: a\n---\nname: b\n---\nname: a\n"),
        ("a field twice", "name: a\nname: b\n"),
        ("cut in a string", "name: a\ninstances:\n- address: \"10.0"),
        (
            "cut in a mapping",
            "name: a\ninstances:\n- {address: b, por",
        ),
        (
            "cut in JSON",
            "{\"name\": \"a\", \"instances\": [{\"address\": \"10",
        ),
        (
            "an error in a later document",
            "name: a\n---\nname: b\n---\nnome: c\n",
        ),
        ("tabs", "name: a\ninstances:\n\t- address: b\n"),
        ("an unknown anchor", "name: *a\n"),
        ("a null label", "name: a\nmetadata: {a: ~}\n"),
    ];
    let messages: Vec<String> = table
        .iter()
        .map(|(what, content)| format!("{what}\n    {}", fault(content)))
        .collect();
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn bytes_that_are_no_text() {
    let fault = read(b"name: \xff\xfe\n").unwrap_err();
    assert!(fault.in_file("a.yaml").contains("UTF-8"), "{fault}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Err(fault) = read(&bytes) {
            prop_assert!(!fault.to_string().is_empty());
        }
    }

    /// Nearer to real files than random bytes: a good one, cut and with a few bytes changed.
    #[test]
    fn damaged_files_never_panic(
        cut in 0..FULL.len(),
        damage in proptest::collection::vec((0..FULL.len(), any::<u8>()), 0..4),
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (place, byte) in damage {
            bytes[place] = byte;
        }
        if let Err(fault) = read(&bytes[..cut]) {
            prop_assert!(!fault.to_string().is_empty());
        }
    }
}
