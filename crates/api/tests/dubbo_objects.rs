//! From a document to the objects that Dubbo's services become: what a user of dubbo2istio gets.
//!
//! The services are as the sources make them; `sources/dubbo` tests that part.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use diolkos_api::{check, raw::RegistrySpec};
use diolkos_istio::{Object, WorkloadEntry};
use diolkos_model::{Health, Instance, Interner, Locality, Port, Service, ServiceKey, Weight};
use diolkos_plan::{Plan, Policy, Reason, plan};
use serde_json::{Value, json};

const INTERFACE: &str = "org.apache.dubbo.demo.DemoService";

fn policy(export: &Value) -> Policy {
    let spec = json!({"zookeeper": {}, "export": export});
    let spec: RegistrySpec = serde_json::from_value(spec).unwrap();
    let checked = check("zk", &spec, Some(Path::new("/")));
    checked.unwrap_or_else(|faults| panic!("{faults:?}")).policy
}

fn service(meta: &[(&str, &str)], instances: Vec<Instance>) -> Service {
    let key = ServiceKey {
        registry: "zk".into(),
        namespace: "".into(),
        group: "".into(),
        name: INTERFACE.into(),
    };
    let host = [("dubboHost", "org.apache.dubbo.demo.demoservice")];
    let meta = meta.iter().copied().chain(host);
    Service::new(key, Interner::new().labels(meta), instances)
}

fn provider(address: &str, port: u32, labels: &[(&str, &str)]) -> Instance {
    Instance {
        id: format!("{address}:{port}").into(),
        address: address.parse().unwrap(),
        ports: [Port {
            name: "".into(),
            number: port,
            protocol: Some("dubbo".into()),
        }]
        .into(),
        health: Health::Healthy,
        weight: None,
        locality: Locality::default(),
        version: None,
        labels: Interner::new().labels(labels.iter().copied()),
    }
}

/// A provider that says nothing to Aeraki.
fn stock() -> Service {
    let labels = [("application", "demo-provider"), ("release", "3.3.5")];
    service(
        &[("interface", INTERFACE), ("dubboNamespace", "dubbo")],
        vec![provider("10.0.0.1", 20880, &labels)],
    )
}

/// Two providers that say all that Aeraki asks for.
fn with_aeraki() -> Service {
    let labels = [
        ("aeraki_meta_app_service_account", "orders"),
        ("aeraki_meta_locality", "bj/800002"),
        ("application", "orders"),
        ("version", "v2"),
    ];
    let mut first = provider("10.0.0.1", 20880, &labels);
    first.version = Some("v2".into());
    first.weight = Some(Weight::whole(200));
    first.locality = Locality {
        region: "bj".into(),
        zone: "800002".into(),
        sub_zone: "".into(),
    };
    let second = provider("10.0.0.2", 20881, &[("version", "v1")]);
    let meta = [
        ("dubboNamespace", "shop"),
        ("interface", INTERFACE),
        ("workloadSelector", "orders"),
    ];
    service(&meta, vec![first, second])
}

fn manifests(plan: &Plan) -> Value {
    plan.objects.iter().map(Object::manifest).collect()
}

fn endpoints(plan: &Plan) -> &[WorkloadEntry] {
    &plan.service_entry().unwrap().endpoints
}

fn golden(name: &str, plan: &Plan) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_json_snapshot!(name, manifests(plan)));
}

#[test]
fn a_stock_provider_by_default() {
    let plan = plan(&policy(&json!({})), &stock());
    assert!(!plan.altered, "the host is as the source has it");
    golden("dubbo_default", &plan);
}

#[test]
fn a_stock_provider_with_the_preset() {
    let plan = plan(&policy(&json!({"preset": "aeraki"})), &stock());
    assert!(!plan.altered);
    golden("dubbo_aeraki_stock", &plan);
}

#[test]
fn providers_of_aeraki_with_the_preset() {
    let plan = plan(&policy(&json!({"preset": "aeraki"})), &with_aeraki());
    golden("dubbo_aeraki", &plan);
}

/// D4: dubbo2istio drops the providers that listen on another port than the first one.
#[test]
fn d4_providers_on_several_ports_all_answer() {
    let plan = plan(&policy(&json!({"preset": "aeraki"})), &with_aeraki());
    let ports: Vec<_> = plan.ports().iter().map(|p| (p.number, &*p.name)).collect();
    assert_eq!(
        ports,
        [(20880, "tcp-dubbo-20880"), (20881, "tcp-dubbo-20881")]
    );
    let found: Vec<_> = endpoints(&plan)
        .iter()
        .map(|e| {
            (
                e.address.as_str(),
                e.ports.values().copied().collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("10.0.0.1", vec![20880, 20880]),
            ("10.0.0.2", vec![20881, 20881])
        ],
        "each on its own port, whichever is dialled"
    );
}

/// D6: `$` and `_` make names that Kubernetes refuses.
#[test]
fn d6_inner_classes_have_a_valid_host() {
    let mut service = stock();
    let meta = [
        ("dubboHost", "com.foo.outer$in_ner"),
        ("dubboNamespace", "dubbo"),
    ];
    service.meta = Interner::new().labels(meta);
    let plan = plan(&policy(&json!({"preset": "aeraki"})), &service);
    assert_eq!(plan.host.as_deref(), Some("com.foo.outer-in-ner"));
    assert!(
        plan.altered,
        "another service may have it, and goes first then"
    );
    assert_eq!(plan.refusal(), None);
}

#[test]
fn the_name_of_the_ports_can_be_chosen() {
    // The source gives the ports the protocol that `export.dubbo.portName` makes.
    for (protocol, name) in [
        ("dubbo", "tcp-dubbo"),
        ("metaprotocol-dubbo", "tcp-metaprotocol-dubbo"),
        ("tcp", "tcp"),
    ] {
        let mut provider = provider("10.0.0.1", 20880, &[]);
        provider.ports = [Port {
            protocol: Some(protocol.into()),
            ..provider.ports[0].clone()
        }]
        .into();
        let plan = plan(&policy(&json!({})), &service(&[], vec![provider]));
        let [port] = plan.ports() else {
            panic!("{:?}", plan.ports())
        };
        assert_eq!((&*port.name, &*port.protocol), (name, "TCP"));
    }
}

#[test]
fn a_bad_service_account_costs_its_own_endpoint() {
    let key = "aeraki_meta_app_service_account";
    let service = service(
        &[("dubboNamespace", "dubbo")],
        vec![
            provider("10.0.0.1", 20880, &[(key, "../../sa/admin")]),
            provider("10.0.0.2", 20880, &[(key, "orders")]),
            provider("10.0.0.3", 20880, &[(key, "")]),
        ],
    );
    let accounts = |plan: &Plan| -> Vec<_> {
        let of = |e: &WorkloadEntry| (e.address.clone(), e.service_account.clone());
        endpoints(plan).iter().map(of).collect()
    };
    let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());

    let preset = plan(&policy(&json!({"preset": "aeraki"})), &service);
    assert_eq!(
        accounts(&preset),
        [text("10.0.0.2", "orders"), text("10.0.0.3", "default")]
    );
    let dropped: Vec<_> = preset.dropped_instances().collect();
    assert_eq!(dropped, [("10.0.0.1:20880", Reason::EndpointInvalid)]);

    // The document's own word: nobody is asked.
    let own = json!({"preset": "aeraki", "serviceAccount": "shop"});
    let own = accounts(&plan(&policy(&own), &service));
    assert!(own.len() == 3 && own.iter().all(|(_, account)| account == "shop"));
}

#[test]
fn without_the_preset_registrants_choose_no_identity() {
    let export = json!({"namespace": "shop", "endpoints": "Inline"});
    let plan = plan(&policy(&export), &with_aeraki());
    assert_eq!(endpoints(&plan).len(), 2);
    assert!(
        endpoints(&plan)
            .iter()
            .all(|e| e.service_account.is_empty())
    );
}

#[test]
fn annotations_are_part_of_the_hash_and_absent_where_there_is_no_value() {
    let policy = policy(&json!({"preset": "aeraki"}));
    let hash_and_annotations = |selector: &str| {
        let mut service = stock();
        let meta = [
            ("dubboHost", "a.b"),
            ("dubboNamespace", "dubbo"),
            ("workloadSelector", selector),
        ];
        service.meta = Interner::new().labels(meta);
        let object = plan(&policy, &service).objects.remove(0);
        let annotations: Vec<_> = object.annotations.keys().cloned().collect();
        (object.content_hash(), annotations)
    };
    let (orders, annotations) = hash_and_annotations("orders");
    assert!(annotations.contains(&"workloadSelector".to_owned()));
    assert!(!annotations.contains(&"interface".to_owned()));
    let (_, annotations) = hash_and_annotations("");
    assert!(!annotations.contains(&"workloadSelector".to_owned()));
    assert_ne!(orders, hash_and_annotations("carts").0);
}
