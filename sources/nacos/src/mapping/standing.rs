//! What is known of hosts, also while Nacos calls all of them healthy.
//!
//! Once the share of a service's healthy instances is down to its protection threshold, Nacos says
//! of every one that it is healthy, so that the few that are left are not overrun. The mesh has
//! outlier detection and panic thresholds of its own for that, so what counts is the truth.

use std::sync::Arc;

use diolkos_model::Health;
use diolkos_nacos::{Host, ServiceInfo};

/// Whether a host may get traffic, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Healthy,
    Unhealthy,
    Disabled,
    /// Nacos says nothing that could be believed.
    Unknown,
}

impl Standing {
    /// Why it gets no traffic.
    pub(super) fn why(self) -> Option<&'static str> {
        match self {
            Self::Healthy => None,
            Self::Unhealthy => Some("unhealthy"),
            Self::Disabled => Some("disabled"),
            Self::Unknown => Some(
                "the protection threshold is reached: Nacos calls all instances healthy, and the health of this one is not known",
            ),
        }
    }

    pub(super) fn health(self) -> Health {
        match self.why() {
            None => Health::Healthy,
            Some(why) => Health::Unhealthy(why.into()),
        }
    }
}

/// The health of hosts as it was last known for sure, sorted by id.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<(Arc<str>, bool)>);

impl Known {
    fn get(&self, id: &str) -> Option<bool> {
        let index = self.0.binary_search_by(|(known, _)| (**known).cmp(id));
        Some(self.0[index.ok()?].1)
    }
}

/// A host of a service, with its id and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Seen<'a> {
    pub(super) id: Arc<str>,
    pub(super) host: &'a Host,
    pub(super) standing: Standing,
}

/// `IP:PORT@CLUSTER`: two clusters may have the same place.
pub(super) fn id(host: &Host) -> Arc<str> {
    let Host {
        ip, port, cluster, ..
    } = host;
    if ip.contains(':') && !ip.starts_with('[') {
        format!("[{ip}]:{port}@{cluster}").into()
    } else {
        format!("{ip}:{port}@{cluster}").into()
    }
}

/// The hosts of a service, each id once, sorted by it, and what is known of them from now on.
///
/// `truth` is what an operator sees of hosts, of which it is certain; it counts only while the
/// service is protected, since it may be older than `info`.
pub(super) fn seen<'a>(
    info: &'a ServiceInfo,
    truth: Option<&[Host]>,
    before: &Known,
) -> (Vec<Seen<'a>>, Known) {
    let truth = truth.filter(|_| info.protected).map(told);
    let mut now = Vec::new();
    let mut seen: Vec<Seen<'a>> = Vec::with_capacity(info.hosts.len());
    for host in &info.hosts {
        let id = id(host);
        let own = (host.healthy, host.enabled);
        let (healthy, enabled) = if info.protected {
            match truth.as_ref().and_then(|truth| get(truth, &id)) {
                Some((healthy, enabled)) => (Some(own.0 && healthy), own.1 && enabled),
                None if !own.0 => (Some(false), own.1),
                None => (before.get(&id), own.1),
            }
        } else {
            (Some(own.0), own.1)
        };
        now.extend(healthy.map(|healthy| (id.clone(), healthy)));
        let standing = match healthy {
            _ if !enabled => Standing::Disabled,
            Some(true) => Standing::Healthy,
            Some(false) => Standing::Unhealthy,
            None => Standing::Unknown,
        };
        seen.push(Seen { id, host, standing });
    }
    once(&mut seen);
    // Of an id that is there twice, the better one, as above.
    now.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    now.dedup_by(|later, earlier| later.0 == earlier.0);
    now.shrink_to_fit();
    (seen, Known(now))
}

/// Healthy and enabled, by id.
type Truth = Vec<(Arc<str>, (bool, bool))>;

fn told(hosts: &[Host]) -> Truth {
    let mut told: Truth = hosts
        .iter()
        .map(|host| (id(host), (host.healthy, host.enabled)))
        .collect();
    told.sort();
    // Of an id that is there twice, the worse one.
    told.dedup_by(|later, earlier| later.0 == earlier.0);
    told
}

fn get(truth: &Truth, id: &str) -> Option<(bool, bool)> {
    let index = truth.binary_search_by(|(known, _)| (**known).cmp(id));
    Some(truth[index.ok()?].1)
}

/// Two clients may have registered the same place, in any order: of these the best counts, since
/// somebody vouches for it, and then any fixed one.
fn once(seen: &mut Vec<Seen<'_>>) {
    seen.sort_by(|a, b| {
        let host = |seen: &Seen<'_>| seen.host.weight;
        a.id.cmp(&b.id)
            .then(a.standing.cmp(&b.standing))
            .then(host(b).total_cmp(&host(a)))
            .then_with(|| a.host.metadata.cmp(&b.host.metadata))
    });
    seen.dedup_by(|later, earlier| later.id == earlier.id);
}
