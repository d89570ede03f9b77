//! Who writes which registry, where several replicas run.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::bail;
use diolkos_api::CheckedRegistry;
use diolkos_console::{Holder, Holders};
use diolkos_kube_ext::{
    Client, LeaseSettings, LeaseTerms, LeaseView, Leases, replica_identity, start_leases,
};
use diolkos_sink_api::{Authority, Ledger};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::cli::{Run, To, When};

/// Our part of the work.
pub(crate) struct Replica {
    leases: Leases,
    terms: watch::Receiver<Arc<LeaseTerms>>,
    serves: watch::Sender<BTreeSet<Arc<str>>>,
    /// The registries of the documents.
    configured: BTreeSet<Arc<str>>,
    /// Registries without a document, until their objects are gone. The generation is the last one that had them.
    retired: Vec<(Arc<str>, u64)>,
    /// Tells the HTTP API.
    teller: JoinHandle<()>,
}

impl Replica {
    /// `None` where this process is to be the only one.
    ///
    /// # Errors
    /// If Leases are asked for where they are of no use.
    pub(crate) fn start(
        options: &Run,
        client: Option<&Client>,
        registries: &[CheckedRegistry],
        holders: &Holders,
    ) -> anyhow::Result<Option<Self>> {
        if !wanted(options)? {
            return Ok(None);
        }
        let Some(client) = client else {
            bail!("--leases needs a cluster");
        };
        let replicas = &options.replicas;
        let namespace = match &replicas.lease_namespace {
            Some(namespace) => namespace.clone(),
            None => client.default_namespace().to_owned(),
        };
        let host = replicas.replica.clone().unwrap_or_else(host);
        let identity: Arc<str> = replica_identity(&host).into();
        tracing::info!(%namespace, replica = %identity, "registries are shared out by Leases");
        let settings = LeaseSettings::new(namespace, identity.clone(), replicas.lease_duration);
        let configured = names(registries);
        let (serves, wanted) = watch::channel(configured.clone());
        let leases = start_leases(client.clone(), settings, wanted);
        Ok(Some(Self {
            terms: leases.terms(),
            teller: tokio::spawn(tell(leases.view(), holders.clone(), identity)),
            leases,
            serves,
            configured,
            retired: Vec::new(),
        }))
    }

    /// What the writer may write.
    pub(crate) fn authority(&self) -> Authority {
        Authority::until(self.terms.clone())
    }

    /// Whether the registry's status is ours to write.
    pub(crate) fn tells(&self, registry: &str) -> bool {
        let end = self.terms.borrow().get(registry).copied();
        // A faulty document has no Lease: all tell the same of it.
        !self.configured.contains(registry) || end.is_some_and(|end| Instant::now() < end)
    }

    /// Serves these registries. `generation` is the one of the desired state before they changed.
    pub(crate) fn configure(&mut self, registries: &[CheckedRegistry], generation: u64) {
        let configured = names(registries);
        let gone = self.configured.difference(&configured);
        self.retired
            .extend(gone.map(|registry| (registry.clone(), generation)));
        self.retired
            .retain(|(registry, _)| !configured.contains(registry));
        self.configured = configured;
        self.serve();
    }

    /// Gives up the registries without a document whose objects are gone.
    pub(crate) fn tidy(&mut self, ledger: &Ledger) {
        if self.retired.is_empty() || ledger.pending() > 0 {
            return;
        }
        let written = ledger.generation();
        self.retired
            .retain(|(_, generation)| written <= *generation);
        self.serve();
    }

    fn serve(&self) {
        let retired = self.retired.iter().map(|(registry, _)| registry);
        let all = self.configured.iter().chain(retired).cloned().collect();
        self.serves.send_if_modified(|serves| {
            let changed = *serves != all;
            *serves = all;
            changed
        });
    }

    /// Gives all Leases back. The writer must have ended.
    pub(crate) async fn release(self) {
        self.leases.release().await;
        self.teller.abort();
    }
}

/// Whether Leases are to be used.
fn wanted(options: &Run) -> anyhow::Result<bool> {
    let useful = options.to == To::Kubernetes && !options.once;
    match options.replicas.leases {
        When::Never => Ok(false),
        When::Auto => Ok(useful && options.files.is_empty()),
        When::Always if useful => Ok(true),
        When::Always => bail!("--leases always is for `run --to kubernetes` without --once"),
    }
}

fn names(registries: &[CheckedRegistry]) -> BTreeSet<Arc<str>> {
    let names = registries.iter().map(|r| r.policy.registry.clone());
    names.collect()
}

/// The name of this host; that is the pod's name in a pod.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// Copies what is known about the Leases to where the HTTP API looks.
async fn tell(mut view: watch::Receiver<Arc<LeaseView>>, holders: Holders, me: Arc<str>) {
    loop {
        let now = view.borrow_and_update().clone();
        let registries = now.registries.iter().map(|(registry, holder)| {
            let holder = Holder {
                ours: holder.identity.as_ref() == Some(&me),
                identity: holder.identity.as_deref().map(ToOwned::to_owned),
                since: holder.since.map(diolkos_console::time),
                transitions: holder.transitions,
            };
            (registry.clone(), holder)
        });
        holders.set(registries.collect(), now.error.clone());
        if view.changed().await.is_err() {
            return;
        }
    }
}
