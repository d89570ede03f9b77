//! What is known of the cluster's Pods, and which services have addresses that may be theirs.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use diolkos_model::{Address, Service, ServiceKey, Workload, Workloads};

use super::State;
use crate::{command::PodNews, view::PodsView};

/// The Pods, for the registries that take from them.
#[derive(Default)]
pub(super) struct Pods {
    /// `None` before it was told.
    known: Option<HashMap<IpAddr, Arc<Workload>>>,
    /// Why they cannot be followed.
    trouble: Option<Arc<str>>,
    /// The services that have an address, of the registries that take from Pods.
    places: HashMap<IpAddr, BTreeSet<ServiceKey>>,
}

impl Pods {
    /// Whether services can be planned as they ought to be.
    pub(super) fn are_known(&self) -> bool {
        self.known.is_some()
    }

    pub(super) fn view(&self) -> PodsView {
        PodsView {
            known: self.are_known(),
            trouble: self.trouble.clone(),
        }
    }

    /// The Pods behind the addresses of a service.
    pub(super) fn of(&self, service: &Service) -> Workloads {
        let Some(known) = &self.known else {
            return Workloads::new();
        };
        let found = addresses(service).filter_map(|ip| Some((ip, known.get(&ip)?.clone())));
        found.collect()
    }

    /// A service is there from now on.
    pub(super) fn place(&mut self, service: &Service) {
        for ip in addresses(service) {
            let services = self.places.entry(ip).or_default();
            services.insert(service.key.clone());
        }
    }

    /// A service is not there any more, or not as it was.
    pub(super) fn displace(&mut self, service: &Service) {
        for ip in addresses(service) {
            if let Some(services) = self.places.get_mut(&ip) {
                services.remove(&service.key);
                if services.is_empty() {
                    self.places.remove(&ip);
                }
            }
        }
    }

    /// Forgets the Pods: nobody follows them any more.
    pub(super) fn forget(&mut self) {
        (self.known, self.trouble) = (None, None);
    }

    /// Takes over what is new; gives the addresses that have another Pod now, or one that changed.
    fn take(&mut self, news: PodNews) -> Vec<IpAddr> {
        let known = self.known.take();
        match news {
            PodNews::Trouble(trouble) => {
                (self.known, self.trouble) = (known, trouble);
                Vec::new()
            }
            PodNews::Unknown => Vec::new(),
            PodNews::All(all) => {
                let now: HashMap<_, _> = all.into_iter().collect();
                let before = known.unwrap_or_default();
                let gone = before.keys().filter(|ip| !now.contains_key(*ip));
                let changed = now.iter().filter(|(ip, pod)| before.get(*ip) != Some(*pod));
                let changed = gone.chain(changed.map(|(ip, _)| ip)).copied().collect();
                self.known = Some(now);
                changed
            }
            PodNews::Changed(changes) => {
                let Some(mut known) = known else {
                    return Vec::new();
                };
                let mut changed = Vec::new();
                for (ip, pod) in changes {
                    let before = match pod.clone() {
                        Some(pod) => known.insert(ip, pod),
                        None => known.remove(&ip),
                    };
                    if before != pod {
                        changed.push(ip);
                    }
                }
                self.known = Some(known);
                changed
            }
        }
    }
}

/// The addresses of a service, in the form in which Pods have them.
fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let instances = service.instances.iter();
    instances.filter_map(|instance| match &instance.address {
        Address::Ip(ip) => Some(ip.to_canonical()),
        Address::Name(_) => None,
    })
}

impl State {
    /// Takes over what is new of the Pods. Services at addresses that changed are planned anew.
    pub(super) fn pods(&mut self, news: PodNews) {
        let (were_known, trouble) = (self.pods.are_known(), self.pods.trouble.clone());
        for ip in self.pods.take(news) {
            self.dirty
                .extend(self.pods.places.get(&ip).into_iter().flatten().cloned());
        }
        // Otherwise only what is dirty is of interest.
        self.changed |= were_known != self.pods.are_known() || trouble != self.pods.trouble;
    }

    /// Whether a registry waits until the Pods are known.
    pub(super) fn awaits_pods(&self, registry: &str) -> bool {
        let registry = self.registries.get(registry);
        registry.is_some_and(|r| r.policy.pods.is_some()) && !self.pods.are_known()
    }

    /// Brings the places in line with a registry whose policy was changed. `before` says whether it took from Pods.
    pub(super) fn replace_pods_of(&mut self, name: &Arc<str>, before: bool) {
        let registry = self.registries.get(name);
        let now = registry.is_some_and(|r| r.policy.pods.is_some());
        if before == now {
            return;
        }
        for (_, known) in self
            .services
            .iter()
            .filter(|(key, _)| key.registry == *name)
        {
            if now {
                self.pods.place(&known.service);
            } else {
                self.pods.displace(&known.service);
            }
        }
    }
}
