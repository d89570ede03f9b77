//! What has to hold whatever comes in.
//!
//! Each function takes any bytes and panics if something is wrong. `make fuzz` runs them with
//! libFuzzer (`fuzz/`), and a test runs them over its corpus, so that they live without it.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a check says that it found something"
)]

mod arbitrary;
mod dubbo;
mod mapping;
mod nacos;
mod policies;

use std::{fs, path::Path, sync::Arc};

use diolkos_model::{Interner, Locality, Service, ServiceKey};
use diolkos_net::{TlsConfig, TokenFile};
use diolkos_plan::Template;

pub use mapping::planned;

/// A check, by the name of its target and of its corpus.
pub type Check = (&'static str, fn(&[u8]));

/// All checks.
pub const CHECKS: &[Check] = &[
    ("consul", consul),
    ("credentials", credentials),
    ("document", document),
    ("dubbo", dubbo),
    ("eureka", eureka),
    ("file", file),
    ("manifest", manifest),
    ("mapping", mapping),
    ("metadata", metadata),
    ("nacos", nacos),
    ("registry", registry),
    ("snapshot", snapshot),
    ("template", template),
    ("zk", zk),
];

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        registry: "registry".into(),
        namespace: "dc1".into(),
        group: "".into(),
        name: name.into(),
    }
}

/// Bodies of Consul's answers, and what is made of the services in them.
pub fn consul(body: &[u8]) {
    if let Some(service) = diolkos_source_consul::fuzz::body(key("web"), body) {
        mapping::check(&service);
    }
}

/// What a ZooKeeper server sends.
pub fn zk(bytes: &[u8]) {
    diolkos_zk::fuzz::stream(bytes);
}

/// The files of the file source, and what is made of the services in them.
pub fn file(content: &[u8]) {
    let registry: Arc<str> = "registry".into();
    match diolkos_source_file::fuzz::decode(&registry, content) {
        Ok(services) => services.iter().for_each(mapping::check),
        Err(fault) => assert!(fault.starts_with("x.yaml:"), "{fault}"),
    }
}

/// Nodes of a registry in Dubbo's layout (lines of paths, the data of each on the next line after a
/// tab), and what is made of the services in them.
pub fn dubbo(nodes: &[u8]) {
    dubbo::check(nodes);
}

/// Bodies of Eureka's answers, and what is made of the applications in them.
pub fn eureka(body: &[u8]) {
    let services = diolkos_source_eureka::decode_for_fuzz(body);
    services.iter().for_each(mapping::check);
}

/// What a Nacos server sends, and what is made of any services that it may have.
pub fn nacos(bytes: &[u8]) {
    diolkos_nacos::decode_for_fuzz(bytes);
    nacos::check(bytes);
}

/// `Registry` documents: nothing is passed over in silence, and what is accepted can be used.
pub fn registry(text: &[u8]) {
    let path = Path::new("x.yaml");
    let loaded = diolkos_api::load_bytes(path, text.to_vec());
    assert!(!loaded.registries.is_empty() || !loaded.faults.is_empty());
    for fault in &loaded.faults {
        assert!(fault.path.is_root() || fault.place.is_some(), "{fault}");
        assert!(!fault.to_string().is_empty());
    }
    for registry in &loaded.registries {
        assert_eq!(registry.name, registry.policy.registry);
        let service = samples(&registry.name);
        mapping::check_with(&registry.policy, &service);
    }
}

/// A service with what policies look at.
fn samples(registry: &Arc<str>) -> Service {
    let key = ServiceKey {
        registry: registry.clone(),
        ..key("Web_1")
    };
    let instance = diolkos_model::Instance {
        id: "node/web".into(),
        address: "10.0.0.1".parse().unwrap(),
        ports: [diolkos_model::Port {
            name: "".into(),
            number: 8080,
            protocol: Some("http".into()),
        }]
        .into(),
        health: diolkos_model::Health::Healthy,
        weight: None,
        locality: Locality {
            region: "r".into(),
            ..Locality::default()
        },
        version: Some("v1".into()),
        labels: Interner::new().labels([("team", "shop"), ("tags", "a,b")]),
    };
    Service::new(key, [].into(), vec![instance])
}

/// Templates of hosts, namespaces, aliases and localities, filled in with odd values.
pub fn template(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    match Template::parse(text) {
        Ok(template) => {
            assert_eq!(template.to_string(), text);
            let service = samples(&"registry".into());
            if let Ok(rendered) = template.render(&service, service.instances.first()) {
                assert_eq!(Ok(rendered), template.render(&service, None));
            }
            let mut policy = policies::plain();
            policy.host = template.clone();
            policy.namespace = template.clone();
            policy.aliases = vec![template.clone()];
            policy.locality = Some(template);
            mapping::check_with(&policy, &service);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The metadata of objects in Kubernetes, of which anybody may write annotations and labels.
pub fn metadata(json: &[u8]) {
    diolkos_sink_kubernetes::fuzz::metadata(json);
}

/// Files in the directory of the directory sink.
pub fn manifest(yaml: &[u8]) {
    diolkos_sink_directory::fuzz::file(yaml);
}

/// Snapshot files, and what would be behind a checksum that fits.
pub fn snapshot(bytes: &[u8]) {
    diolkos_snapshot::fuzz::file(bytes);
    diolkos_snapshot::fuzz::payload(bytes);
}

/// Files with tokens, certificates and keys: they are read or refused by name.
pub fn credentials(content: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    let path = file.path().to_owned();
    match TokenFile::new(&path).read() {
        Ok(token) => assert!(!token.is_empty() && !token.contains(char::is_control)),
        Err(error) => assert!(error.to_string().contains(&*path.to_string_lossy())),
    }
    let ca_file = Some(path.clone());
    for pair in [None, Some(path.clone())] {
        let tls = TlsConfig {
            ca_file: ca_file.clone(),
            cert_file: pair.clone(),
            key_file: pair,
            ..TlsConfig::default()
        };
        if let Err(error) = tls.client_config(&[]) {
            assert!(error.to_string().contains(&*path.to_string_lossy()));
        }
    }
}

/// Any service under all policies of the crate.
pub fn mapping(bytes: &[u8]) {
    mapping::check(&arbitrary::service(bytes));
}

/// The objects that any service gives, written as documents and read again.
pub fn document(bytes: &[u8]) {
    let service = arbitrary::service(bytes);
    for policy in policies::ALL.iter() {
        for object in diolkos_plan::plan(policy, &service).objects {
            diolkos_sink_directory::fuzz::object(&object);
        }
    }
}
