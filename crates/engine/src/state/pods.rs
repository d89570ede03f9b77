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
    /// By address. What is planned was planned with these, also while they are not all.
    known: HashMap<IpAddr, Arc<Workload>>,
    /// Whether these are all.
    are_all: bool,
    /// Why they cannot be followed.
    trouble: Option<Arc<str>>,
    /// The services that have an address, of the registries that take from Pods.
    places: HashMap<IpAddr, BTreeSet<ServiceKey>>,
}

impl Pods {
    /// Whether services can be planned as they ought to be.
    pub(super) fn are_known(&self) -> bool {
        self.are_all
    }

    pub(super) fn view(&self) -> PodsView {
        PodsView {
            known: self.are_known(),
            trouble: self.trouble.clone(),
        }
    }

    /// The Pods behind the addresses of a service.
    pub(super) fn of(&self, service: &Service) -> Workloads {
        let pod = |ip| Some((ip, self.known.get(&ip)?.clone()));
        addresses(service).filter_map(pod).collect()
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
        (self.are_all, self.trouble) = (false, None);
        self.known = HashMap::new();
    }

    /// Takes over what is new; gives the addresses that have another Pod now, or one that changed.
    fn take(&mut self, news: PodNews) -> Vec<IpAddr> {
        match news {
            PodNews::Trouble(trouble) => {
                self.trouble = trouble;
                Vec::new()
            }
            PodNews::Unknown => {
                self.are_all = false;
                Vec::new()
            }
            PodNews::All(all) => {
                self.are_all = true;
                let now: HashMap<_, _> = all.into_iter().collect();
                let before = std::mem::replace(&mut self.known, now);
                let gone = before.keys().filter(|ip| !self.known.contains_key(*ip));
                let known = self.known.iter();
                let changed = known.filter(|(ip, pod)| before.get(*ip) != Some(*pod));
                gone.chain(changed.map(|(ip, _)| ip)).copied().collect()
            }
            PodNews::Changed(changes) => changes
                .into_iter()
                .filter_map(|(ip, pod)| self.change(ip, pod).then_some(ip))
                .collect(),
        }
    }

    /// Returns whether that is another Pod than before.
    fn change(&mut self, ip: IpAddr, pod: Option<Arc<Workload>>) -> bool {
        if self.known.get(&ip) == pod.as_ref() {
            return false;
        }
        match pod {
            Some(pod) => self.known.insert(ip, pod),
            None => self.known.remove(&ip),
        };
        true
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
