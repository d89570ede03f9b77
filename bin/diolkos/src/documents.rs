//! Documents from disk, and what the commands say about them.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use diolkos_api::{CheckedRegistry, Fault};
use diolkos_engine::{Configured, Policies};
use serde::Serialize;

use crate::workloads::takes_from_pods;

/// Loads and checks the documents under all paths.
pub(crate) fn load(paths: &[PathBuf]) -> (Vec<CheckedRegistry>, Vec<Fault>) {
    let loaded = diolkos_api::load(paths);
    (loaded.registries, loaded.faults)
}

/// As [`load`]; faults are reported, and then there are no documents.
pub(crate) fn load_or_report(paths: &[PathBuf]) -> anyhow::Result<Option<Vec<CheckedRegistry>>> {
    let (registries, faults) = load(paths);
    if faults.is_empty() {
        return Ok(Some(registries));
    }
    report(&faults)?;
    Ok(None)
}

/// Writes faults to standard error, a line each.
fn report(faults: &[Fault]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stderr().lock();
    for fault in faults {
        writeln!(out, "{fault}")?;
    }
    Ok(())
}

/// Follows the documents on disk.
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    /// What was last read, good or not.
    content: Vec<(PathBuf, Vec<u8>)>,
}

impl Files {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let content = content(&paths);
        Self { paths, content }
    }

    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Waits until the files say something else that is free of faults. A faulty edit is reported
    /// once, and the documents before it stay in force.
    pub(crate) async fn changed(&mut self) -> Vec<CheckedRegistry> {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = content(&self.paths);
            if now == self.content {
                continue;
            }
            self.content = now;
            let (registries, faults) = load(&self.paths);
            if faults.is_empty() {
                return registries;
            }
            for fault in faults {
                tracing::warn!(%fault, "a document is faulty, the last good ones stay in force");
            }
        }
    }
}

/// How often documents on disk are looked at.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// The content of all files under the paths; what cannot be read is left out.
fn content(paths: &[PathBuf]) -> Vec<(PathBuf, Vec<u8>)> {
    let listed = |path: &PathBuf| match std::fs::read_dir(path) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .collect(),
        Err(_) => vec![path.clone()],
    };
    let mut files: Vec<PathBuf> = paths.iter().flat_map(listed).collect();
    files.sort();
    files
        .into_iter()
        .filter_map(|file| std::fs::read(&file).ok().map(|bytes| (file, bytes)))
        .collect()
}

/// The engine's form of the configuration.
pub(crate) fn policies(registries: &[CheckedRegistry]) -> Policies {
    registries
        .iter()
        .map(|registry| {
            (
                registry.policy.registry.clone(),
                Configured {
                    policy: Arc::new(registry.policy.clone()),
                    limits: registry.guard.clone(),
                },
            )
        })
        .collect()
}

/// What `check` says.
#[derive(Serialize)]
pub(crate) struct Checked {
    registries: Vec<String>,
    faults: Vec<String>,
}

impl Checked {
    pub(crate) fn new(registries: &[CheckedRegistry], faults: &[Fault]) -> Self {
        Self {
            registries: registries.iter().map(|r| r.name.to_string()).collect(),
            faults: faults.iter().map(ToString::to_string).collect(),
        }
    }

    pub(crate) fn table(&self) -> String {
        let mut lines = self.faults.clone();
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        lines.push(if self.faults.is_empty() {
            format!(
                "{}: no fault",
                count(self.registries.len(), "registry document")
            )
        } else {
            count(self.faults.len(), "fault")
        });
        lines.join("\n")
    }
}

/// A client for the cluster, if a registry keeps credentials in a Secret or takes from Pods.
///
/// # Errors
/// If one is needed and there is none.
pub(crate) async fn client(
    registries: &[CheckedRegistry],
    kubeconfig: Option<&std::path::Path>,
) -> anyhow::Result<Option<diolkos_kube_ext::Client>> {
    let needs = registries.iter().find_map(|registry| {
        let what = if registry.source.needs_cluster() {
            "names a Secret"
        } else if takes_from_pods(registry) {
            "has export.podLabels"
        } else {
            return None;
        };
        Some((&registry.name, what))
    });
    let Some((name, what)) = needs else {
        return Ok(None);
    };
    let client = diolkos_kube_ext::client(kubeconfig).await.map(Some);
    client.with_context(|| format!("registry {name} {what}, which needs a cluster"))
}
