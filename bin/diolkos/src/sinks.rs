//! Wiring of sinks.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use diolkos_api::CheckedRegistry;
use diolkos_istio::ObjectKey;
use diolkos_plan::Desired;
use diolkos_sink_api::{Differ, Driving, Ledger, Sink, drive};
use diolkos_sink_directory::DirectorySink;
use diolkos_sink_kubernetes::KubernetesSink;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::{Cluster, To};

/// What a sink would have to do to make `desired` true.
pub(crate) async fn preview(
    to: &To,
    cluster: &Cluster,
    desired: Arc<Desired>,
) -> anyhow::Result<Vec<(ObjectKey, &'static str)>> {
    match to {
        To::Kubernetes => {
            let client = diolkos_kube_ext::client(cluster.kubeconfig.as_deref()).await?;
            compare(KubernetesSink::new(client), desired).await
        }
        To::Directory(path) => compare(DirectorySink::new(path.to_owned()), desired).await,
        To::Stdout => {
            bail!("there is nothing to compare with on stdout; use kubernetes or directory:PATH")
        }
    }
}

async fn compare<S: Sink>(
    mut sink: S,
    desired: Arc<Desired>,
) -> anyhow::Result<Vec<(ObjectKey, &'static str)>> {
    let observed = sink.observe().await.context("reading what is there")?;
    let mut differ = Differ::default();
    differ.observed_all(observed);
    differ.desired(&desired);
    Ok(differ.preview())
}

/// Makes `desired` true in a directory, then ends.
pub(crate) async fn write_once(
    path: &Path,
    desired: Arc<Desired>,
    timeout: Duration,
) -> anyhow::Result<Ledger> {
    create(path)?;
    let ledger = Ledger::new();
    let cancel = CancellationToken::new();
    let (_publisher, receiver) = watch::channel(desired.clone());
    let writer = drive(
        DirectorySink::new(path.to_owned()),
        Driving::new(receiver, ledger.clone(), cancel.clone()),
    );
    let done = settled(&ledger, desired.generation);
    tokio::select! {
        () = writer => {}
        () = done => cancel.cancel(),
        () = tokio::time::sleep(timeout) => bail!("not written within {} s", timeout.as_secs_f64()),
    }
    Ok(ledger)
}

/// Makes the directory of a directory sink, if its parent is there.
pub(crate) fn create(path: &Path) -> anyhow::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make the directory {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Waits until the sink has dealt with `generation` once; what failed is in the ledger.
pub(crate) async fn settled(ledger: &Ledger, generation: u64) {
    while ledger.generation() < generation {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An error that names an object that could not be written, if there is one.
pub(crate) fn report_failures(
    ledger: &Ledger,
    registries: &[CheckedRegistry],
) -> anyhow::Result<()> {
    let failures: Vec<String> = registries
        .iter()
        .filter_map(|registry| ledger.totals(&registry.name).example)
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    bail!("not everything could be written: {}", failures.join("; "))
}
