//! Any services that a Nacos may have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ::arbitrary::Result;
use diolkos_model::Service;
use diolkos_nacos::{Host, Name, ServiceInfo};
use diolkos_net::TlsConfig;
use diolkos_source_dubbo::{Change, Discovery, Options, Variants};
use diolkos_source_nacos::{Config, Groups, Services, Transport, mapping::Directory};

use crate::{arbitrary::Reader, mapping};

const GROUPS: &[&str] = &["DEFAULT_GROUP", "G", "a/b", "@"];
const SERVICES: &[&str] = &[
    "web",
    "shop",
    "providers:a.B:1.0.0:",
    "providers:a.B::g",
    "providers:a.B___C",
    "consumers:a.B::",
];
const METADATA: &[&str] = &[
    "protocol",
    "secure",
    "version",
    "weight",
    "group",
    "timestamp",
    "disabled",
    "gRPC_port",
    "preserved.register.source",
    "dubbo.endpoints",
    "dubbo.metadata.revision",
    "dubbo.metadata.storage-type",
];
const VALUES: &[&str] = &[
    "",
    "1",
    "true",
    "dubbo",
    "tri",
    "consumer",
    "9090",
    "remote",
    r#"[{"port":1,"protocol":"tri"},{"port":2,"protocol":"dubbo"}]"#,
];
const IPS: &[&str] = &["10.0.0.1", "10.0.0.2", "fd00::1", "[fd00::1]", ""];

/// One thing that Nacos says of a service.
enum Step {
    Set(ServiceInfo, Option<Vec<Host>>),
    Remove(Name),
}

/// Whatever is said: the changes lead to the snapshot, and the same again is no change.
pub(crate) fn check(bytes: &[u8]) {
    for (variants, aeraki) in [(Variants::Labels, false), (Variants::Hosts, true)] {
        let mut directory = Directory::new(&config(variants, aeraki), "");
        let mut reader = Reader::new(bytes);
        let mut followed = BTreeMap::new();
        let mut steps = 0;
        while let (false, Ok(step)) = (reader.bytes.is_empty() || steps > 40, reader.step()) {
            steps += 1;
            tell(&mut directory, &step);
            follow(&mut followed, directory.take_changes());
            tell(&mut directory, &step);
            assert!(directory.take_changes().is_empty(), "the same again");
        }
        // A group and a name may be written so that they look like a group and a version of an
        // interface, if these are parts of the key.
        if variants == Variants::Labels {
            let snapshot = directory.snapshot();
            let told = snapshot.iter().map(|s| (s.key.to_string(), s.clone()));
            assert_eq!(followed, told.collect());
            assert_eq!(followed.len(), snapshot.len(), "two of one key");
        }
        followed.values().for_each(sound);
    }
}

fn config(variants: Variants, aeraki: bool) -> Config {
    let registry: Arc<str> = "registry".into();
    Config {
        registry: registry.clone(),
        client: diolkos_nacos::Config {
            addresses: Vec::new(),
            grpc_offset: 1000,
            auth: None,
            tls: TlsConfig::default(),
        },
        namespaces: Vec::new(),
        groups: Groups::All,
        clusters: Vec::new(),
        transport: Transport::Auto,
        services: Services::All,
        dubbo: Options {
            registry,
            variants,
            discovery: Discovery::Both,
            dubbo_protocol: "dubbo".into(),
            aeraki,
        },
        settle: std::time::Duration::ZERO,
        select: Arc::new(|_| true),
    }
}

fn tell(directory: &mut Directory, step: &Step) {
    match step {
        Step::Set(info, truth) => directory.set(info, truth.as_deref()),
        Step::Remove(name) => directory.remove(name),
    }
}

fn follow(followed: &mut BTreeMap<String, Service>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Upsert(service) => drop(followed.insert(service.key.to_string(), service)),
            Change::Remove(key) => drop(followed.remove(&key.to_string())),
        }
    }
}

fn sound(service: &Service) {
    let ids: BTreeSet<_> = service.instances.iter().map(|i| &i.id).collect();
    assert_eq!(ids.len(), service.instances.len(), "two of one id");
    mapping::check(service);
}

impl Reader<'_> {
    fn step(&mut self) -> Result<Step> {
        let name = Name {
            group: (*self.bytes.choose(GROUPS)?).into(),
            service: self.one_of(SERVICES)?,
        };
        if self.bytes.ratio(1u8, 8u8)? {
            return Ok(Step::Remove(name));
        }
        let info = ServiceInfo {
            name,
            hosts: self.hosts()?,
            last_ref_time: 0,
            checksum: String::new(),
            protected: self.bytes.ratio(1u8, 3u8)?,
        };
        let truth = match self.bytes.arbitrary()? {
            true => Some(self.hosts()?),
            false => None,
        };
        Ok(Step::Set(info, truth))
    }

    fn one_of(&mut self, known: &[&str]) -> Result<Arc<str>> {
        Ok(match self.bytes.ratio(1u8, 8u8)? {
            true => self.text()?,
            false => (*self.bytes.choose(known)?).into(),
        })
    }

    fn hosts(&mut self) -> Result<Vec<Host>> {
        let count = self.bytes.int_in_range(0u8..=4)?;
        (0..count).map(|_| self.host()).collect()
    }

    fn host(&mut self) -> Result<Host> {
        let mut metadata = BTreeMap::new();
        for _ in 0..self.bytes.int_in_range(0u8..=4)? {
            let name = self.one_of(METADATA)?.as_ref().to_owned();
            metadata.insert(name, self.one_of(VALUES)?.as_ref().to_owned());
        }
        Ok(Host {
            ip: self.one_of(IPS)?.as_ref().to_owned(),
            port: *self.bytes.choose(&[0, 80, 20880, 65535, 70000])?,
            weight: *self.bytes.choose(&[1.0, 0.0, 0.3, -1.0, 1e300, f64::NAN])?,
            healthy: self.bytes.arbitrary()?,
            enabled: self.bytes.arbitrary()?,
            ephemeral: true,
            cluster: (*self.bytes.choose(&["DEFAULT", "HZ", ""])?).to_owned(),
            metadata,
        })
    }
}
