use super::*;
use diolkos_model::{Health, Locality, Port, ServiceKey};
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
fn stale_evidence_tells_only_of_what_was_not_known() {
    let stale = Evidence::Stale("the servers have no leader".into());
    let admitted = admit(Some(&service([1, 2], 1)), service([2, 3], 2), &stale);
    assert_eq!(admitted.service, service([1, 2], 1));
    let admitted = admit(None, service([2, 3], 2), &stale);
    assert_eq!(admitted.service, service([2, 3], 2));
}

#[test]
fn instances_are_taken_out_by_id() {
    let left = without(
        &service([1, 2, 3], 1),
        &["1".into(), "3".into(), "9".into()],
    );
    assert_eq!(left, service([2], 1));
}
