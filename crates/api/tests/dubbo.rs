//! What documents mean of the registries that Dubbo writes into.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, time::Duration};

use diolkos_api::{
    CheckedRegistry, Credential, Discovery, DubboSettings, EtcdSettings, Fault, Login,
    SourceSettings, TlsMaterial, TlsSettings, Variants, ZooKeeperSettings, check, load,
    raw::RegistrySpec,
};
use diolkos_plan::{Endpoints, PortNaming, ServiceAccount};
use serde_json::{Value, json};

fn result(spec: Value) -> Result<CheckedRegistry, Vec<Fault>> {
    let spec: RegistrySpec = serde_json::from_value(spec).unwrap();
    check("dubbo", &spec, Some(Path::new("/config")))
}

fn checked(spec: Value) -> CheckedRegistry {
    result(spec).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// The paths of all faults.
fn faults(spec: Value) -> Vec<String> {
    let faults = result(spec).expect_err("there are faults");
    faults.iter().map(|fault| fault.path.to_string()).collect()
}

fn dubbo(registry: &CheckedRegistry) -> &DubboSettings {
    match &registry.source {
        SourceSettings::Etcd(etcd) => &etcd.dubbo,
        SourceSettings::ZooKeeper(zookeeper) => &zookeeper.dubbo,
        other => panic!("no Dubbo: {other:?}"),
    }
}

/// What a document of either kind means of Dubbo where it says nothing.
fn plain() -> DubboSettings {
    DubboSettings {
        discovery: Discovery::Both,
        variants: Variants::Labels,
        protocol: "dubbo".into(),
        aeraki: false,
    }
}

#[test]
fn zookeeper_by_default() {
    let registry = checked(json!({"zookeeper": {}}));
    let expected = ZooKeeperSettings {
        addresses: vec!["127.0.0.1:2181".into()],
        chroot: String::new(),
        root: "/dubbo".into(),
        applications: "/services".into(),
        auth: None,
        tls: None,
        session_timeout: Duration::from_secs(30),
        frame_limit: 16 << 20,
        dubbo: plain(),
    };
    assert_eq!(registry.source.kind(), "zookeeper");
    assert!(!registry.source.needs_cluster());
    assert_eq!(
        registry.source,
        SourceSettings::ZooKeeper(Box::new(expected))
    );
}

#[test]
fn etcd_by_default() {
    let registry = checked(json!({"etcd": {}}));
    let expected = EtcdSettings {
        addresses: vec!["http://127.0.0.1:2379".into()],
        prefix: "/dubbo".into(),
        applications: "/services".into(),
        auth: None,
        tls: TlsSettings::default(),
        dubbo: plain(),
    };
    assert_eq!(registry.source.kind(), "etcd");
    assert_eq!(registry.source, SourceSettings::Etcd(Box::new(expected)));
}

#[test]
fn export_by_default() {
    for kind in ["zookeeper", "etcd"] {
        let policy = checked(json!({kind: {}})).policy;
        assert_eq!(policy.host.to_string(), "{meta.dubboHost}");
        assert_eq!(policy.namespace.to_string(), "diolkos");
        assert_eq!(policy.endpoints, Endpoints::WorkloadEntry);
        assert_eq!(policy.ports.naming, PortNaming::Protocol);
        assert_eq!(policy.service_account, ServiceAccount::None);
        assert!(policy.object_labels.is_empty() && policy.object_annotations.is_empty());
        assert!(!policy.labels.exclude.is_match("aeraki_meta_x"));
    }
}

#[test]
fn every_field() {
    let loaded = load(&["tests/dubbo.yaml".into()]);
    assert_eq!(loaded.faults, []);
    let [etcd, zookeeper] = &loaded.registries[..] else {
        panic!("{:?}", loaded.registries)
    };
    let expected = ZooKeeperSettings {
        addresses: vec!["zk-1.example:2281".into(), "[fd00::1]:2281".into()],
        chroot: "/shop".into(),
        root: "/dubbo-eu".into(),
        applications: "/apps".into(),
        auth: Some(Login {
            username: "reader".into(),
            password: Credential::Secret {
                namespace: "infra".into(),
                name: "zk".into(),
                key: "password".into(),
            },
        }),
        tls: Some(TlsSettings {
            material: TlsMaterial::Files {
                ca: Some("/etc/ca.pem".into()),
                identity: None,
            },
            server_name: None,
        }),
        session_timeout: Duration::from_secs(90),
        frame_limit: 4 << 20,
        dubbo: DubboSettings {
            discovery: Discovery::Interface,
            variants: Variants::Hosts,
            protocol: "metaprotocol-dubbo".into(),
            aeraki: false,
        },
    };
    assert_eq!(
        zookeeper.source,
        SourceSettings::ZooKeeper(Box::new(expected))
    );
    assert!(
        zookeeper.source.needs_cluster(),
        "the password is in a Secret"
    );
    let expected = EtcdSettings {
        addresses: vec![
            "https://etcd-1.example:2379".into(),
            "https://[fd00::1]:2379".into(),
        ],
        prefix: "/dubbo-eu".into(),
        applications: "/apps".into(),
        auth: Some(Login {
            username: "reader".into(),
            password: Credential::File("tests/password".into()),
        }),
        tls: TlsSettings {
            material: TlsMaterial::Secret {
                namespace: "diolkos".into(),
                name: "etcd-tls".into(),
            },
            server_name: None,
        },
        dubbo: DubboSettings {
            discovery: Discovery::Application,
            variants: Variants::Labels,
            protocol: "tcp".into(),
            aeraki: false,
        },
    };
    assert_eq!(etcd.source, SourceSettings::Etcd(Box::new(expected)));
    assert!(etcd.source.needs_cluster(), "the certificates are in one");
}

#[test]
fn the_root_as_chroot_is_none() {
    for chroot in ["", "/"] {
        let registry = checked(json!({"zookeeper": {"chroot": chroot}}));
        let SourceSettings::ZooKeeper(zookeeper) = &registry.source else {
            panic!("{:?}", registry.source)
        };
        assert_eq!(zookeeper.chroot, "");
    }
}

#[test]
fn preset_of_dubbo2istio() {
    for kind in ["zookeeper", "etcd"] {
        let registry = checked(json!({kind: {}, "export": {"preset": "aeraki"}}));
        let settings = DubboSettings {
            discovery: Discovery::Interface,
            variants: Variants::Hosts,
            aeraki: true,
            ..plain()
        };
        assert_eq!(*dubbo(&registry), settings);
        let policy = &registry.policy;
        assert_eq!(policy.namespace.to_string(), "{meta.dubboNamespace}");
        assert_eq!(policy.host.to_string(), "{meta.dubboHost}");
        assert_eq!(policy.endpoints, Endpoints::Inline);
        assert_eq!(policy.ports.naming, PortNaming::Protocol);
        assert_eq!(
            policy.service_account,
            ServiceAccount::FromLabel {
                key: "aeraki_meta_app_service_account".into(),
                default: "default".into(),
            }
        );
        assert_eq!(policy.object_labels["manager"], "aeraki");
        assert_eq!(policy.object_labels["registry"], "dubbo2istio");
        let keys: Vec<_> = policy.object_annotations.keys().collect();
        assert_eq!(keys, ["interface", "workloadSelector"]);
        assert!(policy.labels.exclude.is_match("aeraki_meta_locality"));
        assert!(!policy.labels.exclude.is_match("version"));
    }
}

#[test]
fn what_is_given_wins_over_the_preset() {
    let registry = checked(json!({"zookeeper": {"discovery": "Both"}, "export": {
        "preset": "aeraki", "namespace": "shop", "host": "{service|lower}.mesh",
        "endpoints": "WorkloadEntry", "ports": {"naming": "ProtocolNumber"},
        "serviceAccount": "shop", "labels": {"exclude": ["x"]},
        "dubbo": {"variants": "labels", "portName": "tcp-metaprotocol-dubbo"},
    }}));
    let policy = &registry.policy;
    assert_eq!(policy.namespace.to_string(), "shop");
    assert_eq!(policy.host.to_string(), "{service|lower}.mesh");
    assert_eq!(policy.endpoints, Endpoints::WorkloadEntry);
    assert_eq!(policy.ports.naming, PortNaming::ProtocolNumber);
    assert_eq!(policy.service_account, ServiceAccount::Fixed("shop".into()));
    assert!(policy.labels.exclude.is_match("x"));
    assert!(!policy.labels.exclude.is_match("aeraki_meta_x"));
    assert_eq!(policy.object_labels["registry"], "dubbo2istio");
    let settings = DubboSettings {
        protocol: "metaprotocol-dubbo".into(),
        aeraki: true,
        ..plain()
    };
    assert_eq!(*dubbo(&registry), settings);
}

#[test]
fn all_faults_are_found_at_once() {
    let zookeeper = json!({"zookeeper": {
        "addresses": ["zk:2181", "zk", "http://zk:2181", "zk:2181/dubbo"],
        "chroot": "shop",
        "root": "/dubbo/",
        "applications": "/a//b",
        "auth": {"username": "a:b", "password": {}},
        "tls": {"certFile": "c"},
        "sessionTimeout": "1s",
        "frameLimit": "1Ki",
    }, "export": {"dubbo": {"portName": "tcp-http"}}});
    assert_eq!(
        faults(zookeeper),
        [
            "spec.zookeeper.addresses[1]",
            "spec.zookeeper.addresses[2]",
            "spec.zookeeper.addresses[3]",
            "spec.zookeeper.chroot",
            "spec.zookeeper.root",
            "spec.zookeeper.applications",
            "spec.zookeeper.auth.password",
            "spec.zookeeper.auth.username",
            "spec.zookeeper.tls.certFile",
            "spec.zookeeper.sessionTimeout",
            "spec.zookeeper.frameLimit",
            "spec.export.dubbo.portName",
        ]
    );
    let etcd = json!({"etcd": {
        "addresses": ["etcd:2379", "http://u:p@etcd:2379", "http://etcd/x"],
        "prefix": "/a",
        "applications": "/a",
        "auth": {"username": "", "password": {"file": ""}},
    }});
    assert_eq!(
        faults(etcd),
        [
            "spec.etcd.addresses[0]",
            "spec.etcd.addresses[1]",
            "spec.etcd.addresses[2]",
            "spec.etcd.applications",
            "spec.etcd.auth.username",
            "spec.etcd.auth.password.file",
        ]
    );
}

#[test]
fn what_does_not_go_together() {
    for (spec, paths) in [
        (
            json!({"etcd": {"tls": {"caFile": "/ca"}}}),
            vec!["spec.etcd.tls"],
        ),
        (
            json!({"zookeeper": {"addresses": ["a:1", "a:1"]}}),
            vec!["spec.zookeeper.addresses[1]"],
        ),
        (
            json!({"consul": {}, "export": {"dubbo": {}}}),
            vec!["spec.export.dubbo"],
        ),
        (
            json!({"file": {"path": "s"}, "export": {"dubbo": {"variants": "hosts"}, "preset": "aeraki"}}),
            vec!["spec.export.preset", "spec.export.dubbo"],
        ),
        (json!({"etcd": {}, "zookeeper": {}}), vec!["spec.zookeeper"]),
    ] {
        assert_eq!(faults(spec.clone()), paths, "{spec}");
    }
}

#[test]
fn passwords_are_not_repeated_in_faults() {
    for spec in [
        json!({"zookeeper": {"addresses": ["me:hunter2@zk:2181", "me:hunter2@zk:2181"]}}),
        json!({"etcd": {"addresses": ["http://me:hunter2@etcd:2379"]}}),
    ] {
        for fault in result(spec).unwrap_err() {
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        }
    }
}
