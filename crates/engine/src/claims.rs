//! Who gets a host that several services claim.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use diolkos_model::ServiceKey;

/// A claim on a host. The smallest one has it: one with instances before one that only keeps the host
/// for a while, then higher priority, then the registry's name, then a service's own host before an
/// alias, then a host that did not have to be altered, then the service's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) empty: bool,
    pub(crate) priority: Reverse<i32>,
    pub(crate) registry: std::sync::Arc<str>,
    pub(crate) alias: bool,
    pub(crate) altered: bool,
    pub(crate) service: ServiceKey,
}

/// All claims.
#[derive(Debug, Default)]
pub(crate) struct Claims(HashMap<String, BTreeSet<Claim>>);

impl Claims {
    /// Adds a claim.
    pub(crate) fn add(&mut self, host: &str, claim: Claim) {
        self.0.entry(host.to_owned()).or_default().insert(claim);
    }

    /// Takes a claim back.
    pub(crate) fn remove(&mut self, host: &str, claim: &Claim) {
        if let Some(claims) = self.0.get_mut(host) {
            claims.remove(claim);
            if claims.is_empty() {
                self.0.remove(host);
            }
        }
    }

    /// Who has the host.
    pub(crate) fn winner(&self, host: &str) -> Option<&ServiceKey> {
        self.0.get(host)?.first().map(|claim| &claim.service)
    }
}
