use diolkos_model::{Health, Instance, Interner, Locality, ServiceKey};

use super::*;

fn service(name: &str, instances: usize) -> Service {
    let key = ServiceKey {
        registry: "eureka".into(),
        namespace: "".into(),
        group: "".into(),
        name: name.into(),
    };
    let instance = |number| Instance {
        id: format!("{number}").into(),
        address: "10.0.0.1".parse().unwrap(),
        ports: [].into(),
        health: Health::Healthy,
        weight: None,
        locality: Locality::default(),
        version: None,
        labels: Interner::new().labels([]),
    };
    Service::new(key, [].into(), (0..instances).map(instance).collect())
}

fn told(services: usize, instances: usize) -> Told {
    let mut told = Told::default();
    for number in 0..services {
        told.say(&service(&format!("s{number}"), instances), true);
    }
    told
}

/// The difference if of so many services each has so many instances now; none: the service is gone.
fn difference(told: &Told, services: usize, instances: usize) -> Difference {
    let names = (0..services).map(|n| format!("s{n}").into()).collect();
    told.compare(&names, true, |name| {
        (instances > 0).then(|| service(name, instances))
    })
}

#[test]
fn what_was_said_is_not_said_again() {
    let mut told = told(3, 2);
    assert!(difference(&told, 3, 2).changed.is_empty());
    assert_eq!(difference(&told, 4, 2).changed.len(), 1);
    assert_eq!(difference(&told, 3, 3).changed.len(), 3);
    told.say(&service("s0", 2), false);
    assert_eq!(
        difference(&told, 3, 2).changed.len(),
        1,
        "it is certain now"
    );
    let names = ["s0".into(), "s1".into()].into();
    let uncertain = told.compare(&names, false, |name| Some(service(name, 2)));
    assert!(uncertain.changed.is_empty());
}

#[test]
fn what_is_gone_is_named_until_it_is_told() {
    let mut told = told(3, 2);
    assert_eq!(difference(&told, 2, 0).gone.len(), 2);
    told.forget("s0");
    assert_eq!(*difference(&told, 2, 0).gone, ["s1".into()]);
    told.keep(&["s2".into()].into());
    assert!(difference(&told, 2, 0).gone.is_empty());
}

#[test]
fn few_may_leave_one_by_one() {
    for (services, instances, lose, left, much) in [
        // All that a small registry has, but few.
        (5, 1, 5, 0, false),
        (6, 1, 6, 0, true),
        // One each of many services.
        (10, 10, 10, 9, false),
        (10, 10, 11, 9, false),
        (40, 10, 40, 9, false),
        (40, 10, 41, 9, false),
        (40, 10, 21, 8, true),
        (100, 2, 20, 1, false),
        (100, 2, 21, 1, true),
        // More than before is no loss.
        (10, 1, 10, 9, false),
    ] {
        let told = told(services, instances);
        let difference = difference(&told, lose, left);
        assert_eq!(
            difference.is_much(),
            much,
            "{services} {instances} {lose} {left}"
        );
    }
    // A deployment replaces.
    let told = told(10, 2);
    let names = (0..10).map(|n| format!("s{n}").into()).collect();
    let difference = told.compare(&names, true, |name| match name {
        "s0" => Some(service(name, 20)),
        _ => None,
    });
    assert!(!difference.is_much());
    assert_eq!(difference.gone.len(), 9);
}
