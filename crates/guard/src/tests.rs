use super::*;
use diolkos_model::{Health, Locality, Port};
use proptest::prelude::*;

fn service(ids: impl IntoIterator<Item = u8>, port: u32) -> Service {
    let key = ServiceKey {
        registry: "r".into(),
        namespace: "".into(),
        group: "".into(),
        name: "web".into(),
    };
    let instance = |id: u8| Instance {
        id: id.to_string().into(),
        address: "10.0.0.1".parse().unwrap(),
        ports: [Port {
            name: "".into(),
            number: port,
            protocol: None,
        }]
        .into(),
        health: Health::Healthy,
        weight: None,
        locality: Locality::default(),
        version: None,
        labels: [].into(),
    };
    Service::new(key, [].into(), ids.into_iter().map(instance).collect())
}

fn partial() -> Evidence {
    Evidence::Partial("no leader".into())
}

proptest! {
    #[test]
    fn complete_evidence_is_taken_as_it_is(known: Vec<u8>, new: Vec<u8>) {
        let admitted = admit(Some(&service(known, 1)), service(new.clone(), 2), &Evidence::Complete);
        prop_assert_eq!(admitted.service, service(new, 2));
        prop_assert!(admitted.held.is_empty());
    }

    #[test]
    fn partial_evidence_adds_and_updates_and_never_removes(known: Vec<u8>, new: Vec<u8>) {
        let before = service(known, 1);
        let admitted = admit(Some(&before), service(new.clone(), 2), &partial());
        for instance in before.instances.iter() {
            prop_assert!(admitted.service.instances.iter().any(|i| i.id == instance.id));
        }
        for instance in service(new, 2).instances.iter() {
            prop_assert!(admitted.service.instances.contains(instance), "updates pass");
        }
        for id in &admitted.held {
            prop_assert!(admitted.service.instances.iter().any(|i| i.id == *id && i.ports[0].number == 1));
        }
    }
}

#[test]
fn only_a_complete_snapshot_removes_services() {
    let key = service([], 1).key;
    assert_eq!(
        sweep(vec![key.clone()], &Evidence::Complete).remove,
        std::slice::from_ref(&key)
    );
    let held = sweep(vec![key.clone()], &partial());
    assert_eq!((held.remove, held.hold), (vec![], vec![key]));
}
