use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::wire::{self, List};

fn key() -> ServiceKey {
    ServiceKey {
        registry: "r".into(),
        namespace: "dc1".into(),
        group: "".into(),
        name: "web".into(),
    }
}

/// The instance of an entry, given by what differs from a plain one.
fn mapped(service: &Value, node: &Value, checks: &Value) -> Instance {
    let mut entry = json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1"},
        "Service": {"ID": "web-1", "Service": "web", "Port": 80},
        "Checks": checks,
    });
    for (part, changes) in [("Service", service), ("Node", node)] {
        for (field, value) in changes.as_object().unwrap() {
            entry[part][field] = value.clone();
        }
    }
    let entry: Entry = serde_json::from_value(entry).unwrap();
    instance(&entry, &mut Interner::new())
}

fn of_service(service: &Value) -> Instance {
    mapped(service, &json!({}), &json!([]))
}

#[test]
fn recorded_entries() {
    let body = include_bytes!("../../tests/data/entries.json");
    let list: List<Entry> = wire::decode_list(body).unwrap();
    assert_eq!(list.bad.len(), 1, "{:?}", list.bad);
    let service = service(key(), &list.good, &mut Interner::new());
    let [first, second] = &*service.instances else {
        panic!("{service:?}");
    };

    assert_eq!(&*first.id, "n1/web-1");
    assert_eq!(first.address.to_string(), "10.0.0.11");
    assert_eq!(first.ports.len(), 1);
    assert_eq!(first.ports[0].number, 8080);
    assert_eq!(first.ports[0].protocol.as_deref(), Some("http"));
    assert_eq!(first.health, Health::Healthy, "a warning is healthy");
    assert_eq!(first.weight, Some(Weight::whole(1)), "and weighs less");
    assert_eq!(&*first.locality.zone, "us-east-1a");
    assert_eq!(first.version.as_deref(), Some("1.0"));

    assert_eq!(&*second.id, "n2/web-2");
    assert_eq!(second.address.to_string(), "10.0.0.2", "the node's");
    let ports: Vec<_> = second
        .ports
        .iter()
        .map(|p| (&*p.name, p.number, p.protocol.as_deref()))
        .collect();
    assert_eq!(
        ports,
        [("grpc-api", 9090, Some("grpc")), ("admin", 9091, None)]
    );
    assert_eq!(second.weight, None);
    assert_eq!(&*second.locality.region, "dc1");
    assert!(second.labels.is_empty());
}

#[test]
fn labels_and_version() {
    let pairs = |instance: &Instance| -> Vec<(String, String)> {
        let labels = instance.labels.iter();
        labels
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    };
    for (service, labels, version) in [
        (json!({}), vec![], None),
        (
            json!({"Tags": ["a=1", "b|2|3", "plain", "other", "=odd"]}),
            vec![("a", "1"), ("b", "2|3"), ("tags", "plain,other,=odd")],
            None,
        ),
        (
            json!({"Tags": ["a=tag"], "Meta": {"a": "meta"}}),
            vec![("a", "meta")],
            None,
        ),
        (
            json!({"Tags": ["v1", "version=2"], "Meta": {"version": "3"}}),
            vec![("tags", "v1"), ("version", "3")],
            Some("3"),
        ),
        (
            json!({"Tags": ["v1", "version|2"], "Meta": {"version": ""}}),
            vec![("tags", "v1"), ("version", "")],
            Some("2"),
        ),
        (
            json!({"Tags": ["vip", "v", "v1.", "v2.3"]}),
            vec![("tags", "vip,v,v1.,v2.3")],
            Some("v2.3"),
        ),
    ] {
        let instance = of_service(&service);
        let expected: Vec<(String, String)> = labels
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        assert_eq!(pairs(&instance), expected, "{service}");
        assert_eq!(instance.version.as_deref(), version, "{service}");
    }
}

#[test]
fn ports_and_protocols() {
    type Seen = (&'static str, u32, Option<&'static str>);
    let cases: [(Value, Vec<Seen>); 9] = [
        (json!({}), vec![("", 80, None)]),
        (json!({"Port": 0}), vec![("", 0, None)]),
        (json!({"Port": -1}), vec![("", 0, None)]),
        (json!({"Port": 70000}), vec![("", 70000, None)]),
        (json!({"Port": 1_u64 << 40}), vec![("", u32::MAX, None)]),
        (
            json!({"Tags": ["protocol=GRPC"]}),
            vec![("", 80, Some("grpc"))],
        ),
        (
            json!({"Tags": ["protocol=grpc"], "Meta": {"protocol": "dubbo"}}),
            vec![("", 80, Some("dubbo"))],
        ),
        (
            json!({
                "Ports": [{"Name": "http2-a", "Port": 1}, {"Name": "httpx", "Port": 2}, {"Name": "c", "Port": 3}],
                "Meta": {"protocol-c": "redis"},
            }),
            vec![
                ("http2-a", 1, Some("http2")),
                ("httpx", 2, None),
                ("c", 3, Some("redis")),
            ],
        ),
        (
            json!({
                "Ports": [{"Name": "x", "Port": 1}, {"Name": "main", "Port": 2, "Default": true}],
                "Meta": {"protocol": "http"},
            }),
            vec![("main", 2, Some("http")), ("x", 1, None)],
        ),
    ];
    for (service, expected) in cases {
        let instance = of_service(&service);
        let ports = instance.ports.iter();
        let seen: Vec<_> = ports
            .map(|p| (&*p.name, p.number, p.protocol.as_deref()))
            .collect();
        assert_eq!(seen, expected, "{service}");
    }
}

#[test]
fn health_from_checks() {
    let check = |id: &str, status: &str, notes: &str| json!({"CheckID": id, "Name": id, "Status": status, "Notes": notes});
    let maintenance = "_service_maintenance:web-1";
    for (checks, expected) in [
        (json!([]), None),
        (json!([check("a", "passing", "")]), None),
        (json!([check("a", "warning", "")]), None),
        (
            json!([check("b", "critical", ""), check("a", "critical", "")]),
            Some("critical: a"),
        ),
        (
            json!([
                check("a", "critical", ""),
                check(maintenance, "critical", "an upgrade")
            ]),
            Some("maintenance: an upgrade"),
        ),
        (
            json!([check("_node_maintenance", "critical", "")]),
            Some("maintenance: no reason given"),
        ),
        (json!([check("a", "passing", "")]), None),
        (json!([check(maintenance, "passing", "")]), None),
        (json!([check("a", "", "")]), Some("critical: a")),
    ] {
        let instance = mapped(&json!({}), &json!({}), &checks);
        let why = match &instance.health {
            Health::Healthy => None,
            Health::Unhealthy(why) => Some(&**why),
        };
        assert_eq!(why, expected, "{checks}");
    }
}

#[test]
fn weights() {
    let warning = json!([{"CheckID": "a", "Status": "warning"}]);
    for (weights, checks, expected) in [
        (json!(null), json!([]), None),
        (json!({}), json!([]), Some(1000)),
        (json!({"Passing": 5, "Warning": 2}), json!([]), Some(5000)),
        (
            json!({"Passing": 5, "Warning": 2}),
            warning.clone(),
            Some(2000),
        ),
        (json!({"Passing": 5, "Warning": 0}), warning, Some(0)),
        (json!({"Passing": -5}), json!([]), Some(0)),
    ] {
        let instance = mapped(&json!({"Weights": weights}), &json!({}), &checks);
        assert_eq!(instance.weight.map(|w| w.0), expected, "{weights}");
    }
}

#[test]
fn address_and_locality_fall_back_to_the_node() {
    let node = json!({"Locality": {"Region": "r", "Zone": "z"}});
    let from_node = mapped(&json!({}), &node, &json!([]));
    assert_eq!(from_node.address.to_string(), "10.0.0.1");
    assert_eq!(
        (&*from_node.locality.region, &*from_node.locality.zone),
        ("r", "z")
    );
    let own = json!({"Address": "web.example.org", "Locality": {"Region": "own"}});
    let own = mapped(&own, &node, &json!([]));
    assert_eq!(own.address, Address::Name("web.example.org".into()));
    assert_eq!((&*own.locality.region, &*own.locality.zone), ("own", ""));
}

#[test]
fn an_instance_without_an_id_goes_by_its_service() {
    assert_eq!(&*of_service(&json!({"ID": null})).id, "n1/web");
}

/// JSON that looks like Consul's, with anything in any place.
fn near_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("critical")),
    ];
    let field = prop::sample::select(vec![
        "Node", "Service", "Checks", "Tags", "Meta", "Ports", "Port", "Weights", "ID", "Address",
        "Locality", "Status", "CheckID", "Kind", "Passing", "Name", "Default", "Services",
    ]);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(field.clone(), inner, 0..6)
                .prop_map(|map| { map.into_iter().collect::<Value>() }),
        ]
    })
}

fn decode_everything(body: &[u8]) {
    if let Ok(list) = wire::decode_list::<Entry>(body) {
        let instances = service(key(), &list.good, &mut Interner::new()).instances;
        assert!(instances.len() <= list.good.len());
    }
    drop(wire::decode_catalog(body));
    drop(wire::decode_list::<Check>(body));
    drop(wire::decode::<wire::NodeServices>(body));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(body: Vec<u8>) {
        decode_everything(&body);
    }

    #[test]
    fn any_json_is_decoded_or_refused(value in near_json()) {
        decode_everything(value.to_string().as_bytes());
        decode_everything(json!([value]).to_string().as_bytes());
    }

    #[test]
    fn a_broken_entry_costs_itself_only(value in near_json()) {
        let good = json!({"Node": {"Node": "n"}, "Service": {"ID": "s", "Service": "web"}});
        let list: List<Entry> = wire::decode_list(json!([value, good]).to_string().as_bytes()).unwrap();
        prop_assert!(list.good.iter().any(|entry| entry.service.id == "s"));
    }
}
