//! What documents mean: defaults, presets, and what is read from files.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, time::Duration};

use diolkos_api::{
    CheckedRegistry, Consistency, ConsulSettings, Credential, Limits, Shrink, SourceSettings,
    TlsMaterial, TlsSettings, check, load, raw::RegistrySpec,
};
use diolkos_istio::Location;
use diolkos_plan::{Endpoints, PortNaming, ServiceAccount};
use serde_json::{Value, json};

fn checked(spec: Value) -> CheckedRegistry {
    let spec: RegistrySpec = serde_json::from_value(spec).unwrap();
    check("web", &spec, Some(Path::new("/config"))).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn consul(registry: &CheckedRegistry) -> &ConsulSettings {
    match &registry.source {
        SourceSettings::Consul(consul) => consul,
        other => panic!("not Consul: {other:?}"),
    }
}

#[test]
fn consul_by_default() {
    let registry = checked(json!({"consul": {}}));
    assert_eq!(
        *consul(&registry),
        ConsulSettings {
            addresses: vec!["http://127.0.0.1:8500".into()],
            datacenters: vec![],
            namespace: None,
            partition: None,
            consistency: Consistency::Stale,
            token: None,
            tls: TlsSettings::default(),
        }
    );
    assert_eq!(registry.source.kind(), "consul");
    let policy = &registry.policy;
    assert_eq!(&*registry.name, "web");
    assert_eq!((&*policy.registry, policy.priority), ("web", 0));
    assert_eq!(policy.host.to_string(), "{service}.service.consul");
    assert_eq!(policy.namespace.to_string(), "diolkos");
    assert_eq!(policy.endpoints, Endpoints::WorkloadEntry);
    assert_eq!(policy.location, Location::MeshInternal);
    assert_eq!(policy.export_to, Vec::<String>::new());
    assert_eq!(policy.ports.naming, PortNaming::ProtocolNumber);
    assert_eq!(&*policy.ports.default_protocol, "tcp");
    assert_eq!(policy.grant.cluster_domain, "cluster.local");
    assert!(policy.object_labels.is_empty());
    assert!(policy.select.healthy_only && policy.select.include.is_none());
    assert_eq!(registry.guard, Limits::default());
}

#[test]
fn files_by_default() {
    let registry = checked(json!({"file": {"path": "services"}}));
    let SourceSettings::File(file) = &registry.source else {
        panic!("not files")
    };
    assert_eq!(file.path, Path::new("/config/services"));
    assert_eq!(registry.policy.host.to_string(), "{service}");
    assert!(registry.policy.select.exclude.is_empty());
}

#[test]
fn the_host_tells_several_datacenters_apart() {
    for (datacenters, host) in [
        (json!(["dc1"]), "{service}.service.consul"),
        (
            json!(["dc1", "dc2"]),
            "{service}.service.{datacenter}.consul",
        ),
    ] {
        let registry = checked(json!({"consul": {"datacenters": datacenters}}));
        assert_eq!(registry.policy.host.to_string(), host);
    }
}

#[test]
fn the_service_consul_is_left_out_unless_it_is_named() {
    let excludes = |select: Value| {
        let registry = checked(json!({"consul": {}, "select": select}));
        let excludes = |service: &str| {
            registry.policy.select.exclude.iter().any(|matcher| {
                !matcher.selects_instances()
                    && matcher
                        .services
                        .as_ref()
                        .is_some_and(|globs| globs.is_match(service))
            })
        };
        (excludes("consul"), excludes("old"))
    };
    for (select, expected) in [
        (json!({}), (true, false)),
        (json!({"include": {"services": ["*"]}}), (true, false)),
        (
            json!({"include": {"services": ["web", "consul"]}}),
            (false, false),
        ),
        (json!({"exclude": {"services": ["old"]}}), (true, true)),
        // The user's exclusion must neither widen nor narrow that of Consul.
        (json!({"exclude": {"tags": ["canary"]}}), (true, false)),
    ] {
        assert_eq!(excludes(select.clone()), expected, "{select}");
    }
}

#[test]
fn preset_of_consul2istio() {
    let registry = checked(json!({
        "consul": {"datacenters": ["dc1", "dc2"]},
        "export": {"preset": "aeraki"},
    }));
    let policy = &registry.policy;
    assert_eq!(policy.namespace.to_string(), "istio-system");
    assert_eq!(policy.host.to_string(), "{service}.service.consul");
    assert_eq!(policy.endpoints, Endpoints::Inline);
    assert_eq!(policy.ports.naming, PortNaming::Protocol);
    let labels: Vec<_> = policy
        .object_labels
        .iter()
        .map(|(k, v)| (&**k, &**v))
        .collect();
    assert_eq!(labels, [("manager", "Aeraki"), ("registry", "consul")]);
}

#[test]
fn what_is_given_wins_over_the_preset() {
    let registry = checked(json!({"consul": {}, "export": {
        "preset": "aeraki", "namespace": "shop", "host": "{service}.mesh",
        "endpoints": "WorkloadEntry", "ports": {"naming": "ProtocolNumber"},
    }}));
    let policy = &registry.policy;
    assert_eq!(policy.namespace.to_string(), "shop");
    assert_eq!(policy.host.to_string(), "{service}.mesh");
    assert_eq!(policy.endpoints, Endpoints::WorkloadEntry);
    assert_eq!(policy.ports.naming, PortNaming::ProtocolNumber);
    assert_eq!(policy.object_labels["manager"], "Aeraki");
}

#[test]
fn export_to_and_its_ceiling() {
    for (export, ceiling, expected) in [
        (json!([]), json!([]), vec![]),
        (json!(["shop"]), json!([]), vec!["shop"]),
        // Without a word, the ceiling: all namespaces would be more.
        (json!([]), json!(["shop", "ops"]), vec!["shop", "ops"]),
        (json!(["ops"]), json!(["shop", "ops"]), vec!["ops"]),
        (json!(["~"]), json!(["shop"]), vec!["~"]),
        (json!(["x"]), json!(["*"]), vec!["x"]),
        // The objects lie in diolkos.
        (json!(["."]), json!(["diolkos"]), vec!["."]),
    ] {
        let registry = checked(json!({
            "consul": {}, "export": {"exportTo": export}, "grant": {"exportTo": ceiling},
        }));
        assert_eq!(registry.policy.export_to, expected);
    }
}

#[test]
fn credentials_are_references() {
    let registry = checked(json!({"consul": {
        "addresses": ["https://consul:8501"],
        "token": {"secretRef": {"name": "consul", "key": "token"}},
        "tls": {"secretRef": {"namespace": "infra", "name": "consul-tls"}, "serverName": "consul.dc1"},
    }}));
    let settings = consul(&registry);
    let token = Credential::Secret {
        namespace: "diolkos".into(),
        name: "consul".into(),
        key: "token".into(),
    };
    assert_eq!(settings.token, Some(token));
    let material = TlsMaterial::Secret {
        namespace: "infra".into(),
        name: "consul-tls".into(),
    };
    assert_eq!(settings.tls.material, material);
    assert_eq!(settings.tls.server_name.as_deref(), Some("consul.dc1"));
}

#[test]
fn every_field() {
    let loaded = load(&["tests/full.yaml".into()]);
    assert_eq!(loaded.faults, []);
    let [registry] = &loaded.registries[..] else {
        panic!("{:?}", loaded.registries)
    };
    assert_eq!(
        *consul(registry),
        ConsulSettings {
            addresses: vec![
                "https://consul-1.example:8501".into(),
                "https://consul-2.example/prefix".into(),
            ],
            datacenters: vec!["dc1".into(), "dc2".into()],
            namespace: Some("shop".into()),
            partition: Some("eu".into()),
            consistency: Consistency::Consistent,
            token: Some(Credential::File("tests/token".into())),
            tls: TlsSettings {
                material: TlsMaterial::Files {
                    ca: Some("/etc/ca.pem".into()),
                    identity: Some(("tests/cert.pem".into(), "tests/key.pem".into())),
                },
                server_name: Some("consul.example".into()),
            },
        }
    );
    assert_eq!(
        registry.guard,
        Limits {
            empty_hold: Duration::from_secs(90),
            max_service_shrink: Shrink::Percent(10),
            max_instance_shrink: Shrink::Count(7),
            confirm_after: 5,
            empty_grace: Duration::from_secs(5_400),
        }
    );
    let policy = &registry.policy;
    assert_eq!(policy.priority, -3);
    assert!(!policy.select.healthy_only);
    let include = policy.select.include.as_ref().unwrap();
    assert!(include.metadata["env"].is_match("production"));
    assert!(include.services.as_ref().unwrap().is_match("web-1"));
    assert_eq!(policy.aliases[0].to_string(), "{service}.shop");
    assert_eq!(policy.location, Location::MeshExternal);
    assert_eq!(policy.ports.service_port, Some(80));
    let protocols: Vec<_> = policy
        .ports
        .protocols
        .iter()
        .map(|rule| &*rule.protocol)
        .collect();
    assert_eq!(protocols, ["grpc-web", "http"]);
    assert!(policy.labels.include.as_ref().unwrap().is_match("team-a"));
    assert!(policy.labels.exclude.is_match("team-secret"));
    assert_eq!(policy.labels.rename["ver"], "version");
    assert_eq!(
        policy.locality.as_ref().unwrap().to_string(),
        "{region}/{meta.rack}"
    );
    assert_eq!(policy.network.as_deref(), Some("n1"));
    assert_eq!(
        policy.service_account,
        ServiceAccount::Fixed("payments".into())
    );
    assert_eq!(policy.tls_mode.as_deref(), Some("istio"));
    assert_eq!(policy.grant.cidrs.len(), 2);
    assert_eq!(
        (policy.grant.max_services, policy.grant.max_endpoints),
        (Some(100), Some(50))
    );
}

#[test]
fn the_documents_of_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let document = |name: &str| {
        format!(
            "apiVersion: diolkos.io/v1alpha1\nkind: Registry\nmetadata: {{name: {name}}}\nspec: {{file: {{path: s}}}}\n"
        )
    };
    write(
        "b.yaml",
        &format!("---\n{}---\n{}...\n", document("b2"), document("b1")),
    );
    write("a.yml", &document("z"));
    // As `kubectl get -o json` prints it, with tabs.
    write(
        "c.json",
        "{\n\t\"apiVersion\": \"diolkos.io/v1alpha1\",\n\t\"kind\": \"Registry\",\n\t\"metadata\": {\"name\": \"c\", \"uid\": \"1\", \"resourceVersion\": \"2\", \"generation\": 3, \"creationTimestamp\": \"2026-01-01T00:00:00Z\"},\n\t\"spec\": {\"file\": {\"path\": \"s\"}},\n\t\"status\": {\"services\": 1}\n}\n",
    );
    write("broken.yaml", "kind: [\n");
    write(".hidden.yaml", "kind: [\n");
    write("notes.txt", "kind: [\n");
    fs::create_dir(folder.path().join("deeper.yaml")).unwrap();
    let loaded = load(&[folder.path().to_owned()]);
    let names: Vec<_> = loaded.registries.iter().map(|r| &*r.name).collect();
    assert_eq!(names, ["b1", "b2", "c", "z"]);
    let files: Vec<_> = loaded
        .faults
        .iter()
        .map(|f| f.file.as_ref().unwrap())
        .collect();
    assert_eq!(files, [&folder.path().join("broken.yaml")]);
}

#[test]
fn the_same_name_in_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["a.yaml", "b.yaml"] {
        fs::copy("tests/full.yaml", path(name)).unwrap();
    }
    let loaded = load(&[path("b.yaml"), path("a.yaml")]);
    assert_eq!(loaded.registries.len(), 1);
    let text: Vec<_> = loaded.faults.iter().map(ToString::to_string).collect();
    let [text] = &text[..] else {
        panic!("{text:?}")
    };
    assert!(text.starts_with(&format!(
        "{}:5:9: metadata.name: ",
        path("a.yaml").display()
    )));
    assert!(
        text.ends_with(&format!("{}:5", path("b.yaml").display())),
        "{text}"
    );
}

#[test]
fn an_empty_directory_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let loaded = load(&[folder.path().to_owned()]);
    assert_eq!(loaded.faults.len(), 1);
    assert_eq!(loaded.faults[0].problem.code(), "no-document");
}

#[test]
fn the_examples_are_free_of_faults() {
    let loaded = load(&["../../examples/quickstart".into()]);
    assert_eq!(loaded.faults, []);
    assert_eq!(loaded.registries.len(), 1);
    // Some are alternatives of one name, so each is read on its own.
    for entry in fs::read_dir("../../examples").unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            assert_eq!(
                load(std::slice::from_ref(&path)).faults,
                [],
                "{}",
                path.display()
            );
        }
    }
}
