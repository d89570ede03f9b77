//! A door for fuzzers: every decoder over one body.

use diolkos_model::{Interner, Service, ServiceKey};

use crate::{
    checks::Failing,
    mapping,
    wire::{self, Check, Entry, List},
};

/// Reads `body` as everything that Consul may answer. Returns the service that it makes if it is a
/// list of instances.
#[must_use]
pub fn body(key: ServiceKey, body: &[u8]) -> Option<Service> {
    let checks: Option<List<Check>> = wire::decode_list(body).ok();
    if let Some(checks) = checks {
        let mut failing = Failing::default();
        failing.replace(Failing::of(&checks.good));
        let again = failing.replace(Failing::of(&checks.good));
        assert_eq!(again, Default::default(), "the same checks touch nothing");
    }
    // Whether they can be read is all there is to them.
    let others = [
        wire::decode_catalog(body).is_ok(),
        wire::decode_list::<wire::Node>(body).is_ok(),
        wire::decode::<wire::NodeServices>(body).is_ok(),
        wire::decode::<wire::Agent>(body).is_ok(),
        wire::decode::<wire::Token>(body).is_ok(),
        wire::decode::<Vec<String>>(body).is_ok(),
    ];
    let entries: Option<List<Entry>> = wire::decode_list(body).ok();
    let Some(entries) = entries else {
        assert!(!others[1], "a list is one, whatever it holds");
        return None;
    };
    Some(mapping::service(key, &entries.good, &mut Interner::new()))
}
