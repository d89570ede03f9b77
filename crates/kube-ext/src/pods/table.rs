//! What is kept of Pods and nodes. No I/O: a function of what a watch tells.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use diolkos_model::{Interner, Locality, Workload};
use kube::{
    api::{Object, ObjectMeta},
    runtime::watcher::Event,
};
use serde::Deserialize;

use super::{PodChange, PodSettings};
use crate::MetadataEvent;

/// A Pod, of which only this is read.
pub(super) type PodObject = Object<PodSpec, PodStatus>;

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    #[serde(default)]
    host_network: bool,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    phase: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Deserialize, Clone, Debug)]
pub(super) struct PodIp {
    #[serde(default)]
    ip: String,
}

/// Texts that nobody uses any more are forgotten after at least this many Pods went.
const SWEEP: usize = 1_000;

/// `namespace/name`.
type PodName = Arc<str>;

/// What is kept of a Pod that has an address of its own.
struct Kept {
    ips: Box<[IpAddr]>,
    node: Arc<str>,
    rank: Rank,
    workload: Arc<Workload>,
}

/// Of several Pods with one address the greatest has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    deleted: Reverse<bool>,
    running: bool,
    /// Seconds since 1970.
    created: i64,
}

/// All Pods and nodes, and what changed since it was last asked.
pub(super) struct Table {
    settings: PodSettings,
    interner: Interner,
    pods: HashMap<PodName, Kept>,
    /// Almost always one.
    owners: HashMap<IpAddr, Vec<PodName>>,
    nodes: HashMap<Arc<str>, Locality>,
    /// What was told last.
    told: HashMap<IpAddr, Arc<Workload>>,
    touched: HashSet<IpAddr>,
    /// Pods that went since the interner was swept.
    removed: usize,
    pod_list: List<PodName>,
    node_list: List<Arc<str>>,
}

/// Whether a list was complete once, and what the one under way has named so far.
struct List<N> {
    done: bool,
    named: Option<HashSet<N>>,
}

impl<N> Default for List<N> {
    fn default() -> Self {
        Self {
            done: false,
            named: None,
        }
    }
}

impl Table {
    pub(super) fn new(settings: PodSettings) -> Self {
        Self {
            settings,
            interner: Interner::new(),
            pods: HashMap::new(),
            owners: HashMap::new(),
            nodes: HashMap::new(),
            told: HashMap::new(),
            touched: HashSet::new(),
            removed: 0,
            pod_list: List::default(),
            node_list: List::default(),
        }
    }

    /// Whether everything was listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.pod_list.done && (self.node_list.done || !self.settings.localities)
    }

    /// Whether there may be something to tell.
    pub(super) fn has_changes(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What changed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<PodChange> {
        let touched = std::mem::take(&mut self.touched);
        let mut changes = Vec::new();
        for ip in touched {
            let now = self.owner(ip);
            let before = match &now {
                Some(now) => self.told.insert(ip, now.clone()),
                None => self.told.remove(&ip),
            };
            if now != before {
                changes.push((ip, now));
            }
        }
        changes
    }

    /// The Pod that has the address.
    fn owner(&self, ip: IpAddr) -> Option<Arc<Workload>> {
        let names = self.owners.get(&ip)?.iter();
        let pods = names.filter_map(|name| Some((name, self.pods.get(name)?)));
        let (_, pod) = pods.max_by_key(|(name, pod)| (pod.rank, (*name).clone()))?;
        Some(pod.workload.clone())
    }

    /// Takes over an event of the Pods.
    pub(super) fn pod(&mut self, event: Event<PodObject>) {
        match event {
            Event::Init => self.pod_list.named = Some(HashSet::new()),
            Event::InitApply(pod) => {
                let name = self.put(&pod);
                if let Some(named) = &mut self.pod_list.named {
                    named.insert(name);
                }
            }
            Event::InitDone => {
                let named = self.pod_list.named.take().unwrap_or_default();
                let gone = self.pods.keys().filter(|name| !named.contains(*name));
                for name in gone.cloned().collect::<Vec<_>>() {
                    self.remove(&name);
                }
                self.pod_list.done = true;
            }
            Event::Apply(pod) => drop(self.put(&pod)),
            Event::Delete(pod) => self.remove(&pod_name(&pod.metadata)),
        }
    }

    fn put(&mut self, pod: &PodObject) -> PodName {
        let name = pod_name(&pod.metadata);
        let ips = own_addresses(pod);
        if ips.is_empty() {
            self.remove(&name);
            return name;
        }
        let kept = self.kept(pod, ips);
        let before = self.pods.get(&name);
        if before.is_some_and(|b| b.ips == kept.ips && b.rank == kept.rank)
            && before.is_some_and(|b| b.node == kept.node && b.workload == kept.workload)
        {
            return name;
        }
        self.remove(&name);
        for ip in &kept.ips {
            self.touched.insert(*ip);
            self.owners.entry(*ip).or_default().push(name.clone());
        }
        self.pods.insert(name.clone(), kept);
        name
    }

    fn kept(&mut self, pod: &PodObject, ips: Vec<IpAddr>) -> Kept {
        let (metadata, spec) = (&pod.metadata, &pod.spec);
        let labels = metadata.labels.iter().flatten();
        let labels = labels.filter(|(key, _)| (self.settings.labels)(key));
        let labels = labels.map(|(key, value)| (&**key, &**value));
        let labels = self.interner.labels(labels);
        let mut string = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            self.interner.string(text)
        };
        let node = string(&spec.node_name);
        let account = string(&spec.service_account_name);
        let workload = Workload {
            namespace: string(&metadata.namespace),
            name: metadata.name.as_deref().unwrap_or_default().into(),
            labels,
            service_account: (!account.is_empty()).then_some(account),
            locality: self.nodes.get(&node).cloned().unwrap_or_default(),
        };
        let created = metadata.creation_timestamp.as_ref();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        Kept {
            ips: ips.into(),
            node,
            rank: Rank {
                deleted: Reverse(metadata.deletion_timestamp.is_some()),
                running: phase == Some("Running"),
                created: created.map_or(0, |time| time.0.as_second()),
            },
            workload: Arc::new(workload),
        }
    }

    fn remove(&mut self, name: &PodName) {
        let Some(kept) = self.pods.remove(name) else {
            return;
        };
        for ip in &kept.ips {
            self.touched.insert(*ip);
            if let Some(owners) = self.owners.get_mut(ip) {
                owners.retain(|owner| owner != name);
                if owners.is_empty() {
                    self.owners.remove(ip);
                }
            }
        }
        self.removed += 1;
        if self.removed > self.pods.len().max(SWEEP) {
            self.removed = 0;
            self.interner.sweep();
        }
    }

    /// Takes over an event of the nodes.
    pub(super) fn node(&mut self, event: MetadataEvent) {
        match event {
            Event::Init => self.node_list.named = Some(HashSet::new()),
            Event::InitApply(node) => {
                let name = self.put_node(&node.metadata);
                if let Some(named) = &mut self.node_list.named {
                    named.insert(name);
                }
            }
            Event::InitDone => {
                let named = self.node_list.named.take().unwrap_or_default();
                self.nodes.retain(|name, _| named.contains(name));
                self.node_list.done = true;
            }
            Event::Apply(node) => drop(self.put_node(&node.metadata)),
            // Its Pods go by themselves; until then they are where they were.
            Event::Delete(node) => {
                let name = node.metadata.name.unwrap_or_default();
                self.nodes.remove(&*name);
            }
        }
    }

    fn put_node(&mut self, node: &ObjectMeta) -> Arc<str> {
        let name = self
            .interner
            .string(node.name.as_deref().unwrap_or_default());
        let mut label = |key: &str| {
            let value = node.labels.as_ref().and_then(|labels| labels.get(key));
            self.interner.string(value.map_or("", |value| value))
        };
        let locality = Locality {
            region: label("topology.kubernetes.io/region"),
            zone: label("topology.kubernetes.io/zone"),
            sub_zone: label("topology.istio.io/subzone"),
        };
        self.move_node(&name, locality);
        name
    }

    /// A node is somewhere else: rare, so its Pods are looked for.
    fn move_node(&mut self, node: &Arc<str>, locality: Locality) {
        if self.nodes.get(node) == Some(&locality) {
            return;
        }
        for pod in self.pods.values_mut().filter(|pod| pod.node == *node) {
            if pod.workload.locality != locality {
                let mut workload = Workload::clone(&pod.workload);
                workload.locality = locality.clone();
                pod.workload = Arc::new(workload);
                self.touched.extend(&pod.ips);
            }
        }
        self.nodes.insert(node.clone(), locality);
    }
}

fn pod_name(pod: &ObjectMeta) -> PodName {
    let namespace = pod.namespace.as_deref().unwrap_or_default();
    let name = pod.name.as_deref().unwrap_or_default();
    format!("{namespace}/{name}").into()
}

/// The addresses that are the Pod's alone.
fn own_addresses(pod: &PodObject) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if pod.spec.host_network || finished {
        return Vec::new();
    }
    let ips = status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok());
    ips.map(|ip: IpAddr| ip.to_canonical()).collect()
}

#[cfg(test)]
mod tests;
