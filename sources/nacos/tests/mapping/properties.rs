//! What holds of all that a Nacos may say.

use std::collections::{BTreeMap, BTreeSet};

use diolkos_nacos::{Host, ServiceInfo};
use diolkos_source_dubbo::Change;
use diolkos_source_nacos::mapping::Directory;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::support::{directory, info_in, only};

fn any_host() -> impl Strategy<Value = Host> {
    let metadata = (
        select(vec![
            "protocol",
            "version",
            "weight",
            "timestamp",
            "dubbo.endpoints",
            "dubbo.metadata.revision",
            "gRPC_port",
            "region",
            "group",
            "path",
            "disabled",
        ]),
        select(vec![
            "", "dubbo", "tri", "1", "[]", "true", "2.0", "consumer",
        ]),
    );
    (
        select(vec![
            "10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "a.b", "",
        ]),
        0..3_u32,
        select(vec![0.0, 0.3, 1.0, f64::NAN, -1.0, f64::INFINITY]),
        any::<(bool, bool)>(),
        select(vec!["DEFAULT", "HZ"]),
        vec(metadata, 0..3),
    )
        .prop_map(
            |(ip, port, weight, (healthy, enabled), cluster, metadata)| {
                let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
                Host {
                    ip: ip.into(),
                    port,
                    weight,
                    healthy,
                    enabled,
                    ephemeral: true,
                    cluster: cluster.into(),
                    metadata: metadata.into_iter().map(own).collect(),
                }
            },
        )
}

fn any_info() -> impl Strategy<Value = ServiceInfo> {
    (
        select(vec!["DEFAULT_GROUP", "G"]),
        select(vec![
            "web",
            "shop",
            "providers:a.B::",
            "providers:a.B:1.0:g",
            "consumers:a.B::",
        ]),
        vec(any_host(), 0..5),
        any::<bool>(),
    )
        .prop_map(|(group, service, hosts, protected)| ServiceInfo {
            protected,
            ..info_in(group, service, &hosts)
        })
}

/// One thing that Nacos says: a service with the truth, or that it is gone.
type Step = (ServiceInfo, Option<Vec<Host>>, bool);

fn any_step() -> impl Strategy<Value = Step> {
    (
        any_info(),
        proptest::option::of(vec(any_host(), 0..5)),
        prop::bool::weighted(0.2),
    )
}

fn tell(directory: &mut Directory, (info, truth, gone): &Step) {
    if *gone {
        directory.remove(&info.name);
    } else {
        directory.set(info, truth.as_deref());
    }
}

/// Places of a service by address and port, all clusters in one, with what is known for sure.
fn place(host: &Host) -> (String, u32) {
    (host.ip.clone(), host.port)
}

proptest! {
    #[test]
    fn changes_lead_to_the_snapshot(steps in vec(any_step(), 0..12)) {
        let mut directory = directory();
        let mut followed = BTreeMap::new();
        for step in &steps {
            tell(&mut directory, step);
            for change in directory.take_changes() {
                match change {
                    Change::Upsert(service) => {
                        let known = followed.insert(service.key.clone(), service.clone());
                        prop_assert_ne!(known, Some(service), "told twice");
                    }
                    Change::Remove(key) => prop_assert!(followed.remove(&key).is_some()),
                }
            }
            tell(&mut directory, step);
            prop_assert!(directory.take_changes().is_empty(), "the same again");
        }
        let snapshot = directory.snapshot();
        for service in &snapshot {
            let ids: BTreeSet<_> = service.instances.iter().map(|i| &i.id).collect();
            prop_assert_eq!(ids.len(), service.instances.len());
        }
        let snapshot: BTreeMap<_, _> = snapshot.into_iter().map(|s| (s.key.clone(), s)).collect();
        prop_assert_eq!(snapshot, followed);
        prop_assert!(directory.take_changes().is_empty());
    }

    #[test]
    fn what_was_said_before_protection_does_not_matter_without_it(
        steps in vec(any_step(), 0..8),
        infos in vec(any_info(), 0..8),
    ) {
        let (mut old, mut new) = (directory(), directory());
        steps.iter().for_each(|step| tell(&mut old, step));
        for (info, _, _) in &steps {
            old.remove(&info.name);
        }
        for info in infos {
            let info = ServiceInfo { protected: false, ..info };
            old.set(&info, None);
            new.set(&info, None);
        }
        let ordered = |directory: &mut Directory| {
            let mut services = directory.snapshot();
            services.sort_by(|a, b| a.key.cmp(&b.key));
            services
        };
        prop_assert_eq!(ordered(&mut old), ordered(&mut new));
    }

    #[test]
    fn never_healthier_than_known(
        steps in vec((vec(any_host(), 0..5), any::<bool>(), proptest::option::of(vec(any_host(), 0..5))), 1..8),
        dubbo: bool,
    ) {
        let mut directory = directory();
        // What was last said for sure, by place.
        let mut known: BTreeMap<(String, u32), bool> = BTreeMap::new();
        for (mut hosts, protected, mut truth) in steps {
            for host in hosts.iter_mut().chain(truth.iter_mut().flatten()) {
                // One record of a place, so that it is clear what is known of it.
                host.cluster = "DEFAULT".into();
                host.metadata.clear();
            }
            let mut seen = BTreeSet::new();
            hosts.retain(|host| seen.insert(place(host)));
            let service = if dubbo { "providers:a.B::" } else { "web" };
            let info = ServiceInfo { protected, ..info_in("DEFAULT_GROUP", service, &hosts) };
            directory.set(&info, truth.as_deref());
            known.retain(|place, _| seen.contains(place));
            for host in &hosts {
                let told = truth.iter().flatten().filter(|t| place(t) == place(host));
                let told: Vec<bool> = told.map(|t| t.healthy && t.enabled).collect();
                if !protected {
                    known.insert(place(host), host.healthy);
                } else if !told.is_empty() {
                    known.insert(place(host), told.iter().all(|up| *up));
                }
            }
            if hosts.is_empty() {
                continue;
            }
            for instance in only(&mut directory).instances.iter() {
                let address = instance.address.to_string();
                let port = instance.ports.first().map_or(0, |port| port.number);
                if instance.health.is_healthy() {
                    prop_assert_eq!(known.get(&(address, port)), Some(&true));
                }
            }
        }
    }
}
