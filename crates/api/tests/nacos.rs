//! What documents mean of Nacos and Eureka.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, time::Duration};

use diolkos_api::{
    CheckedRegistry, Credential, Discovery, DubboSettings, EurekaSettings, Fault, Login, NacosAuth,
    NacosServices, NacosSettings, NacosTransport, SourceSettings, TlsMaterial, TlsSettings,
    Variants, check, load, raw::RegistrySpec,
};
use diolkos_model::{Health, Instance, Interner, Locality, Port, Service, ServiceKey, Weight};
use diolkos_plan::{Annotation, Endpoints, Policy, PortNaming, plan};
use serde_json::{Value, json};

fn result(spec: Value) -> Result<CheckedRegistry, Vec<Fault>> {
    let spec: RegistrySpec = serde_json::from_value(spec).unwrap();
    check("shop", &spec, Some(Path::new("/config")))
}

fn checked(spec: Value) -> CheckedRegistry {
    result(spec).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// The paths of all faults.
fn faults(spec: Value) -> Vec<String> {
    let faults = result(spec).expect_err("there are faults");
    faults.iter().map(|fault| fault.path.to_string()).collect()
}

fn nacos(registry: CheckedRegistry) -> NacosSettings {
    match registry.source {
        SourceSettings::Nacos(nacos) => *nacos,
        other => panic!("no Nacos: {other:?}"),
    }
}

fn eureka(registry: CheckedRegistry) -> EurekaSettings {
    match registry.source {
        SourceSettings::Eureka(eureka) => *eureka,
        other => panic!("no Eureka: {other:?}"),
    }
}

#[test]
fn nacos_by_default() {
    let registry = checked(json!({"nacos": {}}));
    assert_eq!(registry.source.kind(), "nacos");
    assert!(!registry.source.needs_cluster());
    let expected = NacosSettings {
        addresses: vec!["http://127.0.0.1:8848/nacos".into()],
        namespaces: vec!["public".into()],
        groups: Some(vec!["DEFAULT_GROUP".into()]),
        clusters: vec![],
        transport: NacosTransport::Auto,
        grpc_port_offset: 1000,
        services: NacosServices::All,
        auth: None,
        tls: TlsSettings::default(),
        settle_time: Duration::from_secs(30),
        dubbo: DubboSettings {
            discovery: Discovery::Both,
            variants: Variants::Labels,
            protocol: "dubbo".into(),
            aeraki: false,
        },
    };
    assert_eq!(nacos(registry), expected);
}

#[test]
fn eureka_by_default() {
    let registry = checked(json!({"eureka": {}}));
    assert_eq!(registry.source.kind(), "eureka");
    assert!(!registry.source.needs_cluster());
    let expected = EurekaSettings {
        addresses: vec!["http://127.0.0.1:8761/eureka".into()],
        region: "".into(),
        statuses: ["UP".to_owned()].into(),
        auth: None,
        tls: TlsSettings::default(),
        poll_interval: Duration::from_secs(5),
        settle_time: Duration::from_secs(90),
    };
    assert_eq!(eureka(registry), expected);
}

#[test]
fn every_field() {
    let loaded = load(&["tests/nacos.yaml".into()]);
    assert_eq!(loaded.faults, []);
    let [eureka_a, nacos_a, keys] = &loaded.registries[..] else {
        panic!("{:?}", loaded.registries)
    };
    for registry in [eureka_a, nacos_a] {
        assert!(registry.source.needs_cluster(), "{}", registry.name);
    }
    let expected = NacosSettings {
        addresses: vec![
            "https://nacos-1.example:8848/nacos".into(),
            "https://[fd00::1]:8848/registry".into(),
        ],
        namespaces: vec!["public".into(), "0f2a6a4e-shop".into()],
        groups: Some(vec!["DEFAULT_GROUP".into(), "gray".into()]),
        clusters: vec!["hz".into(), "sh".into()],
        transport: NacosTransport::Grpc,
        grpc_port_offset: 2000,
        services: NacosServices::All,
        auth: Some(NacosAuth::Login(Login {
            username: "reader".into(),
            password: Credential::Secret {
                namespace: "infra".into(),
                name: "nacos".into(),
                key: "password".into(),
            },
        })),
        tls: TlsSettings {
            material: TlsMaterial::Files {
                ca: Some("/etc/ca.pem".into()),
                identity: None,
            },
            server_name: None,
        },
        settle_time: Duration::from_secs(90),
        dubbo: DubboSettings {
            discovery: Discovery::Interface,
            variants: Variants::Hosts,
            protocol: "metaprotocol-dubbo".into(),
            aeraki: false,
        },
    };
    assert_eq!(nacos(nacos_a.clone()), expected);
    let policy = &nacos_a.policy;
    assert_eq!(policy.host.to_string(), "{service}.{group}.nacos");
    let dubbo = policy.exception.as_ref().unwrap();
    assert_eq!(dubbo.host.to_string(), "{meta.dubboHost}.dubbo");

    let settings = nacos(keys.clone());
    assert_eq!(settings.groups, None);
    assert_eq!(
        (settings.transport, settings.services),
        (NacosTransport::Http, NacosServices::Other)
    );
    let keys = NacosAuth::Keys {
        access_key: "AK".into(),
        secret_key: Credential::File("tests/secret-key".into()),
    };
    assert_eq!(settings.auth, Some(keys));

    let expected = EurekaSettings {
        addresses: vec![
            "https://eureka-1.example:8761/eureka".into(),
            "https://eureka-2.example/eureka/v2".into(),
        ],
        region: "eu-west-1".into(),
        statuses: ["OUT_OF_SERVICE", "UP"].map(str::to_owned).into(),
        auth: Some(Login {
            username: "reader".into(),
            password: Credential::File("tests/password".into()),
        }),
        tls: TlsSettings {
            material: TlsMaterial::Secret {
                namespace: "diolkos".into(),
                name: "eureka-tls".into(),
            },
            server_name: None,
        },
        poll_interval: Duration::from_millis(500),
        settle_time: Duration::ZERO,
    };
    assert_eq!(eureka(eureka_a.clone()), expected);
}

#[test]
fn services_of_dubbo_are_as_from_zookeeper() {
    for export in [
        json!({}),
        json!({"ports": {"naming": "ProtocolNumber", "defaultProtocol": "grpc", "servicePort": 80}}),
    ] {
        let zookeeper = checked(json!({"zookeeper": {}, "export": export})).policy;
        let nacos = checked(json!({"nacos": {}, "export": export})).policy;
        let dubbo = nacos.exception.unwrap();
        assert_eq!(dubbo.key, "dubboHost");
        assert_eq!(dubbo.host, zookeeper.host);
        let text = |ports| format!("{ports:?}");
        assert_eq!(text(&dubbo.ports), text(&zookeeper.ports));
    }
    let others = checked(json!({"nacos": {"services": "Other"}})).policy;
    assert!(others.exception.is_none());
}

#[test]
fn export_by_default() {
    let policy = checked(json!({"nacos": {}})).policy;
    assert_eq!(
        policy.host.to_string(),
        "{service}.{group|dns}.{namespace|dns}.nacos"
    );
    assert_eq!(&*policy.ports.default_protocol, "http");
    assert_eq!(policy.ports.naming, PortNaming::ProtocolNumber);
    assert!(policy.aliases.is_empty());

    let policy = checked(json!({"eureka": {}})).policy;
    assert_eq!(policy.host.to_string(), "{service}.eureka");
    assert_eq!(aliases(&policy), ["{meta.vipAddress}.eureka"]);
    assert_eq!(&*policy.ports.default_protocol, "http");
    assert!(policy.exception.is_none());
    // Aliases that are given stand for the default one.
    let given = json!({"eureka": {}, "export": {"aliases": ["{service}.shop"]}});
    assert_eq!(aliases(&checked(given).policy), ["{service}.shop"]);
}

fn aliases(policy: &Policy) -> Vec<String> {
    policy.aliases.iter().map(ToString::to_string).collect()
}

#[test]
fn preset_of_dubbo2istio() {
    let registry = checked(json!({"nacos": {}, "export": {"preset": "aeraki"}}));
    let zookeeper = checked(json!({"zookeeper": {}, "export": {"preset": "aeraki"}})).policy;
    let policy = registry.policy.clone();
    assert_eq!(policy.namespace, zookeeper.namespace);
    assert_eq!(policy.object_labels, zookeeper.object_labels);
    assert_eq!(policy.object_annotations, zookeeper.object_annotations);
    assert_eq!(policy.service_account, zookeeper.service_account);
    assert_eq!(policy.exception.unwrap().host, zookeeper.host);
    let settings = nacos(registry);
    assert_eq!(settings.services, NacosServices::Dubbo);
    assert_eq!(settings.dubbo.discovery, Discovery::Interface);
    assert!(settings.dubbo.aeraki);
}

#[test]
fn preset_of_nacos_own_server() {
    let registry = checked(json!({"nacos": {}, "export": {"preset": "nacos"}}));
    let policy = &registry.policy;
    assert_eq!(
        policy.host.to_string(),
        "{service}.{group}.{namespace}.nacos"
    );
    assert_eq!(policy.namespace.to_string(), "{namespace}");
    assert_eq!(policy.endpoints, Endpoints::Inline);
    assert_eq!(policy.ports.naming, PortNaming::Protocol);
    assert_eq!(&*policy.ports.default_protocol, "http");
    assert_eq!(policy.object_labels["registryType"], "nacos");
    let fixed = Annotation::Fixed("1".into());
    assert_eq!(policy.object_annotations["virtual"], fixed);
    assert_eq!(nacos(registry).services, NacosServices::Other);
}

#[test]
fn preset_of_higress() {
    for (kind, host) in [
        ("consul", "{service}.{datacenter}.consul"),
        ("eureka", "{service}.eureka"),
        ("nacos", "{service}.{group}.{namespace}.nacos"),
    ] {
        let policy = checked(json!({kind: {}, "export": {"preset": "higress"}})).policy;
        assert_eq!(policy.host.to_string(), host);
        assert_eq!(policy.namespace.to_string(), "mcp");
        assert_eq!(policy.endpoints, Endpoints::Inline);
        assert_eq!(policy.ports.naming, PortNaming::Protocol);
        assert_eq!(&*policy.ports.default_protocol, "http");
        assert!(policy.aliases.is_empty() && policy.object_labels.is_empty());
        assert_eq!(policy.exception.is_some(), kind == "nacos");
    }
}

/// A service as the sources of Nacos (or of Consul and Eureka, without a group) make it.
fn orders(namespace: &str, group: &str) -> Service {
    let key = ServiceKey {
        registry: "shop".into(),
        namespace: namespace.into(),
        group: group.into(),
        name: "Order_Service".into(),
    };
    let instance = Instance {
        id: "10.0.0.1:8080".into(),
        address: "10.0.0.1".parse().unwrap(),
        ports: [Port {
            name: "".into(),
            number: 8080,
            protocol: None,
        }]
        .into(),
        health: Health::Healthy,
        weight: Some(Weight::fraction(0.5)),
        locality: Locality::default(),
        version: Some("v1".into()),
        labels: Interner::new().labels([("cluster", "DEFAULT"), ("version", "v1")]),
    };
    Service::new(key, [].into(), vec![instance])
}

#[test]
fn objects_of_the_presets() {
    for (kind, preset, (namespace, group), place, hosts, labels) in [
        (
            "nacos",
            "nacos",
            ("public", "DEFAULT_GROUP"),
            "public",
            "order-service.default-group.public.nacos",
            json!("nacos"),
        ),
        (
            "nacos",
            "higress",
            ("public", "My_Group"),
            "mcp",
            "order-service.my-group.public.nacos",
            Value::Null,
        ),
        (
            "consul",
            "higress",
            ("dc1", ""),
            "mcp",
            "order-service.dc1.consul",
            Value::Null,
        ),
        (
            "eureka",
            "higress",
            ("", ""),
            "mcp",
            "order-service.eureka",
            Value::Null,
        ),
    ] {
        let spec = json!({kind: {}, "export": {"preset": preset}});
        let plan = plan(&checked(spec).policy, &orders(namespace, group));
        let [object] = &plan.objects[..] else {
            panic!("{:?}", plan.decisions)
        };
        let object = object.manifest();
        assert_eq!(object["metadata"]["namespace"], place);
        assert_eq!(object["metadata"]["name"], hosts);
        assert_eq!(object["metadata"]["labels"]["registryType"], labels);
        let spec = &object["spec"];
        assert_eq!(spec["hosts"], json!([hosts]));
        assert_eq!(spec["location"], "MESH_INTERNAL");
        assert_eq!(spec["resolution"], "STATIC");
        let port = json!({"number": 8080, "protocol": "HTTP", "name": "http"});
        assert_eq!(spec["ports"], json!([port]));
        let endpoint = &spec["endpoints"][0];
        assert_eq!(endpoint["ports"], json!({"http": 8080}));
        assert_eq!(endpoint["labels"]["cluster"], "DEFAULT");
        assert_eq!(endpoint["weight"], 50);
    }
}

#[test]
fn what_is_refused() {
    let nacos = |spec: Value| json!({"nacos": spec});
    let eureka = |spec: Value| json!({"eureka": spec});
    let preset = |kind: &str, preset: &str| json!({kind: {}, "export": {"preset": preset}});
    let user = json!({"username": "u", "password": {"file": "p"}});
    let keys = json!({"accessKey": "a", "secretKey": {"file": "k"}});
    for (spec, expected) in [
        (
            nacos(json!({"addresses": ["http://u:p@nacos:8848"]})),
            "spec.nacos.addresses[0]",
        ),
        (
            nacos(json!({"addresses": ["nacos:8848"]})),
            "spec.nacos.addresses[0]",
        ),
        // The same place, once with the path that it has anyway.
        (
            nacos(json!({"addresses": ["http://nacos:8848", "http://nacos:8848/nacos"]})),
            "spec.nacos.addresses[1]",
        ),
        (
            nacos(json!({"addresses": ["http://nacos:65000"]})),
            "spec.nacos.grpcPortOffset",
        ),
        (
            nacos(json!({"namespaces": [""]})),
            "spec.nacos.namespaces[0]",
        ),
        (
            nacos(json!({"namespaces": ["a", "a"]})),
            "spec.nacos.namespaces[1]",
        ),
        (nacos(json!({"groups": ["*", "a"]})), "spec.nacos.groups[0]"),
        (nacos(json!({"groups": ["gray-*"]})), "spec.nacos.groups[0]"),
        (
            nacos(json!({"clusters": ["a,b"]})),
            "spec.nacos.clusters[0]",
        ),
        (
            nacos(json!({"auth": user, "keys": keys})),
            "spec.nacos.keys",
        ),
        (
            nacos(json!({"keys": {"accessKey": "", "secretKey": {"file": "k"}}})),
            "spec.nacos.keys.accessKey",
        ),
        (nacos(json!({"tls": {}})), "spec.nacos.tls"),
        (nacos(json!({"settleTime": "2h"})), "spec.nacos.settleTime"),
        (
            nacos(json!({"services": "Other", "discovery": "Both"})),
            "spec.nacos.discovery",
        ),
        (
            json!({"nacos": {"services": "Other"}, "export": {"dubbo": {}}}),
            "spec.export.dubbo",
        ),
        (
            json!({"nacos": {"services": "Dubbo"}, "export": {"host": "{service}.x"}}),
            "spec.export.host",
        ),
        (
            json!({"nacos": {"services": "All"}, "export": {"preset": "aeraki"}}),
            "spec.nacos.services",
        ),
        (
            json!({"nacos": {"services": "All"}, "export": {"preset": "nacos"}}),
            "spec.nacos.services",
        ),
        (
            json!({"zookeeper": {}, "export": {"dubbo": {"host": "x"}}}),
            "spec.export.dubbo.host",
        ),
        (
            eureka(json!({"addresses": ["http://u:p@eureka:8761/eureka"]})),
            "spec.eureka.addresses[0]",
        ),
        (eureka(json!({"region": ""})), "spec.eureka.region"),
        (
            eureka(json!({"statuses": ["UP", "UP"]})),
            "spec.eureka.statuses[1]",
        ),
        (
            eureka(json!({"pollInterval": "100ms"})),
            "spec.eureka.pollInterval",
        ),
        (eureka(json!({"tls": {}})), "spec.eureka.tls"),
        (preset("eureka", "aeraki"), "spec.export.preset"),
        (preset("eureka", "nacos"), "spec.export.preset"),
        (preset("consul", "nacos"), "spec.export.preset"),
        (preset("zookeeper", "higress"), "spec.export.preset"),
        (preset("etcd", "higress"), "spec.export.preset"),
    ] {
        assert_eq!(faults(spec.clone()), [expected], "{spec}");
    }
}
