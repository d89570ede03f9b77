//! What is true in a registry, and what has ever ended there, counted by the test alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::sequence::{Place, SERVICES};

/// How often instances and services have ended in the registry. Counted before the registry is told, so that nobody
/// can see an end that is not counted.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// By address: the instance was there and healthy, and is not any more.
    pub(crate) instances: BTreeMap<String, u32>,
    /// By host: the service had healthy instances, and has none any more.
    pub(crate) services: BTreeMap<String, u32>,
}

/// Shared with who watches the mesh.
pub(crate) type SharedEnds = Arc<Mutex<Ends>>;

/// Locks, also after a panic of another holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The instances of one sequence.
#[derive(Debug)]
pub(crate) struct Truth {
    /// Tells sequences apart: part of all names.
    number: usize,
    /// Of each service, as the registry calls it.
    names: Vec<String>,
    /// Of each service, as the mesh calls it.
    hosts: Vec<String>,
    /// Whether each instance that there is is healthy.
    instances: BTreeMap<Place, bool>,
    pub(crate) ends: SharedEnds,
}

impl Truth {
    /// No instances yet; names and hosts of services from their letters.
    pub(crate) fn new(
        number: usize,
        name: impl Fn(char) -> String,
        host: impl Fn(char) -> String,
    ) -> Self {
        let letters = || (b'a'..b'a' + SERVICES).map(char::from);
        Self {
            number,
            names: letters().map(name).collect(),
            hosts: letters().map(host).collect(),
            instances: BTreeMap::new(),
            ends: SharedEnds::default(),
        }
    }

    /// The name of a service.
    pub(crate) fn name(&self, service: u8) -> &str {
        &self.names[usize::from(service)]
    }

    /// The address of an instance.
    pub(crate) fn address(&self, (service, instance): Place) -> String {
        let [_, _, high, low] = (self.number as u32).to_be_bytes();
        format!("10.{high}.{low}.{}", service * 16 + instance + 1)
    }

    /// How many instances a service has, healthy or not.
    pub(crate) fn count(&self, service: u8) -> usize {
        let of_service = |place: &&Place| place.0 == service;
        self.instances.keys().filter(of_service).count()
    }

    /// The addresses of all healthy instances.
    pub(crate) fn live(&self) -> BTreeSet<String> {
        let live = self.instances.iter().filter(|(_, live)| **live);
        live.map(|(place, _)| self.address(*place)).collect()
    }

    /// An instance goes, and another one with the same address is there before that.
    pub(crate) fn replace(&mut self, place: Place) {
        let address = self.address(place);
        *lock(&self.ends).instances.entry(address).or_default() += 1;
    }

    /// Takes over how an instance is from now on (`Some`: there, and whether it is healthy), and counts what ends by it.
    pub(crate) fn change(&mut self, place: Place, now: Option<bool>) {
        let live = |truth: &Self| {
            let of_service = |(p, live): &(&Place, &bool)| p.0 == place.0 && **live;
            let count = truth.instances.iter().filter(of_service).count();
            (truth.instances.get(&place) == Some(&true), count)
        };
        let before = live(self);
        match now {
            Some(now) => self.instances.insert(place, now),
            None => self.instances.remove(&place),
        };
        let after = live(self);
        let mut ends = lock(&self.ends);
        if before.0 && !after.0 {
            *ends.instances.entry(self.address(place)).or_default() += 1;
        }
        if before.1 > 0 && after.1 == 0 {
            let host = self.hosts[usize::from(place.0)].clone();
            *ends.services.entry(host).or_default() += 1;
        }
    }
}
