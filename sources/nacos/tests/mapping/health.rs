//! Health, and services under their protection threshold.

use diolkos_nacos::{Host, ServiceInfo};
use diolkos_source_nacos::mapping::Directory;

use crate::support::{directory, health, host, info, label, name, only};

const NOT_KNOWN: &str = "the protection threshold is reached: Nacos calls all instances healthy, and the health of this one is not known";

fn numbered(number: u8, healthy: bool) -> Host {
    Host {
        healthy,
        ..host(&format!("10.0.0.{number}"), 80, &[])
    }
}

fn protected(hosts: &[Host]) -> ServiceInfo {
    ServiceInfo {
        protected: true,
        ..info("web", hosts)
    }
}

/// By number: why it gets no traffic.
fn expect(directory: &mut Directory, expected: &[(u8, &str)]) {
    let service = only(directory);
    let found: Vec<(String, &str)> = health(&service)
        .into_iter()
        .map(|(id, why)| (id.to_owned(), why))
        .collect();
    let expected: Vec<(String, &str)> = expected
        .iter()
        .map(|(number, why)| (format!("10.0.0.{number}:80@DEFAULT"), *why))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn unhealthy_and_disabled() {
    let mut directory = directory();
    let off = Host {
        enabled: false,
        ..numbered(3, true)
    };
    directory.set(
        &info("web", &[numbered(1, true), numbered(2, false), off]),
        None,
    );
    expect(
        &mut directory,
        &[(1, ""), (2, "unhealthy"), (3, "disabled")],
    );
    assert_eq!(directory.protected(), 0);
}

#[test]
fn under_protection_the_truth_counts() {
    let mut directory = directory();
    let all = [
        numbered(1, true),
        numbered(2, true),
        numbered(3, true),
        numbered(4, true),
    ];
    let off = Host {
        enabled: false,
        ..numbered(3, true)
    };
    let truth = [numbered(1, true), numbered(2, false), off];
    directory.set(&protected(&all), Some(&truth));
    expect(
        &mut directory,
        &[(1, ""), (2, "unhealthy"), (3, "disabled"), (4, NOT_KNOWN)],
    );
    assert_eq!(directory.protected(), 1);
    let meta = only(&mut directory).meta;
    assert_eq!(label(&meta, "protectionThreshold"), Some("reached"));
    directory.set(
        &info("web", &[numbered(1, true), numbered(2, true)]),
        Some(&truth),
    );
    expect(&mut directory, &[(1, ""), (2, "")]);
    assert_eq!(directory.protected(), 0, "the truth was older");
    assert_eq!(
        label(&only(&mut directory).meta, "protectionThreshold"),
        None
    );
}

#[test]
fn without_the_truth_what_was_known_stays() {
    let mut directory = directory();
    directory.set(&info("web", &[numbered(1, true), numbered(2, false)]), None);
    let all = [numbered(1, true), numbered(2, true), numbered(3, true)];
    for _ in 0..2 {
        directory.set(&protected(&all), None);
        expect(&mut directory, &[(1, ""), (2, "unhealthy"), (3, NOT_KNOWN)]);
    }
    directory.set(
        &protected(&all),
        Some(&[numbered(1, false), numbered(2, true)]),
    );
    expect(&mut directory, &[(1, "unhealthy"), (2, ""), (3, NOT_KNOWN)]);
    directory.set(&protected(&all), None);
    expect(&mut directory, &[(1, "unhealthy"), (2, ""), (3, NOT_KNOWN)]);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut directory = directory();
    directory.set(&info("web", &[numbered(1, true)]), None);
    directory.set(&info("web", &[]), None);
    directory.set(&protected(&[numbered(1, true)]), None);
    expect(&mut directory, &[(1, NOT_KNOWN)]);
    directory.set(&info("web", &[numbered(1, true)]), None);
    directory.remove(&name("DEFAULT_GROUP", "web"));
    assert_eq!(directory.protected(), 0);
    directory.set(&protected(&[numbered(1, true)]), None);
    expect(&mut directory, &[(1, NOT_KNOWN)]);
}

#[test]
fn dubbo_under_protection() {
    let mut directory = directory();
    let mut info = protected(&[numbered(1, true), numbered(2, true)]);
    info.name = name("DEFAULT_GROUP", "providers:a.B::");
    directory.set(&info, Some(&[numbered(1, true)]));
    let service = only(&mut directory);
    let found: Vec<&str> = health(&service).into_values().collect();
    assert_eq!(found, ["", NOT_KNOWN]);
}
