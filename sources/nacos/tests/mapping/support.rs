//! Settings, hosts, and what becomes of them.

use std::{collections::BTreeMap, sync::Arc};

use diolkos_model::{Instance, Service};
use diolkos_nacos::{Host, Name, ServiceInfo};
use diolkos_source_dubbo::{Change, Discovery, Options, Variants};
use diolkos_source_nacos::{Config, Groups, Services, Transport, mapping::Directory};

pub(crate) fn config() -> Config {
    Config {
        registry: "nacos".into(),
        client: diolkos_nacos::Config {
            addresses: vec!["http://127.0.0.1:8848/nacos".into()],
            grpc_offset: 1000,
            auth: None,
            tls: diolkos_net::TlsConfig::default(),
        },
        namespaces: vec!["public".into()],
        groups: Groups::All,
        clusters: Vec::new(),
        transport: Transport::Auto,
        services: Services::All,
        dubbo: Options {
            registry: "nacos".into(),
            variants: Variants::Labels,
            discovery: Discovery::Both,
            dubbo_protocol: "dubbo".into(),
            aeraki: false,
        },
        settle: std::time::Duration::ZERO,
        select: Arc::new(|_| true),
    }
}

pub(crate) fn directory() -> Directory {
    Directory::new(&config(), "")
}

pub(crate) fn name(group: &str, service: &str) -> Name {
    Name {
        group: group.into(),
        service: service.into(),
    }
}

/// A healthy host.
pub(crate) fn host(ip: &str, port: u32, metadata: &[(&str, &str)]) -> Host {
    Host {
        ip: ip.into(),
        port,
        weight: 1.0,
        healthy: true,
        enabled: true,
        ephemeral: true,
        cluster: "DEFAULT".into(),
        metadata: pairs(metadata),
    }
}

pub(crate) fn pairs(metadata: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    metadata.iter().map(owned).collect()
}

/// A service of the default group.
pub(crate) fn info(service: &str, hosts: &[Host]) -> ServiceInfo {
    info_in("DEFAULT_GROUP", service, hosts)
}

pub(crate) fn info_in(group: &str, service: &str, hosts: &[Host]) -> ServiceInfo {
    ServiceInfo {
        name: name(group, service),
        hosts: hosts.to_vec(),
        last_ref_time: 1,
        checksum: String::new(),
        protected: false,
    }
}

/// What one host of a service becomes.
pub(crate) fn instance(host: Host) -> Instance {
    let service = service(&[host]);
    assert_eq!(service.instances.len(), 1);
    service.instances[0].clone()
}

/// What the service `web` with these hosts becomes.
pub(crate) fn service(hosts: &[Host]) -> Service {
    let mut directory = directory();
    directory.set(&info("web", hosts), None);
    only(&mut directory)
}

pub(crate) fn only(directory: &mut Directory) -> Service {
    let mut services = directory.snapshot();
    assert_eq!(services.len(), 1, "{services:#?}");
    services.remove(0)
}

pub(crate) fn keys(services: &[Service]) -> Vec<String> {
    services.iter().map(|s| s.key.to_string()).collect()
}

/// Changes as text: `+` and `-` and the key.
pub(crate) fn changes(directory: &mut Directory) -> Vec<String> {
    let text = |change: &Change| match change {
        Change::Upsert(service) => format!("+{}", service.key),
        Change::Remove(key) => format!("-{key}"),
    };
    directory.take_changes().iter().map(text).collect()
}

/// Why each instance gets no traffic; empty if it gets some.
pub(crate) fn health(service: &Service) -> BTreeMap<&str, &str> {
    let why = |instance: &'_ Instance| match &instance.health {
        diolkos_model::Health::Healthy => String::new(),
        diolkos_model::Health::Unhealthy(why) => why.to_string(),
    };
    let instances = service.instances.iter();
    instances.map(|i| (&*i.id, &*why(i).leak())).collect()
}

pub(crate) fn label<'a>(labels: &'a [(Arc<str>, Arc<str>)], name: &str) -> Option<&'a str> {
    let (_, value) = labels.iter().find(|(key, _)| **key == *name)?;
    Some(value)
}
