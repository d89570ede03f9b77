//! The cluster's Pods for the engine: followed while some registry takes from them.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context;
use diolkos_api::CheckedRegistry;
use diolkos_engine::{Command, PodNews};
use diolkos_kube_ext::{Client, PodSettings, watch_pods};
use tokio::{sync::mpsc, task::JoinHandle};

/// Whether a registry takes from Pods.
pub(crate) fn takes_from_pods(registry: &CheckedRegistry) -> bool {
    registry.policy.pods.is_some()
}

/// Starts and stops the watch as the configuration says.
pub(crate) struct Workloads {
    client: Option<Client>,
    commands: mpsc::Sender<Command>,
    running: Option<(Wanted, JoinHandle<()>)>,
}

/// What all registries together want to know. One watch serves them all.
#[derive(PartialEq)]
struct Wanted {
    /// Globs on the keys of labels.
    labels: BTreeSet<String>,
    localities: bool,
}

impl Wanted {
    /// `None` if no registry takes from Pods.
    fn of(registries: &[CheckedRegistry]) -> Option<Self> {
        let policies = || registries.iter().filter_map(|r| r.policy.pods.as_ref());
        policies().next()?;
        Some(Self {
            labels: policies().flat_map(|pods| pods.include.clone()).collect(),
            localities: policies().any(|pods| pods.locality),
        })
    }
}

impl Workloads {
    pub(crate) fn new(client: Option<Client>, commands: mpsc::Sender<Command>) -> Self {
        Self {
            client,
            commands,
            running: None,
        }
    }

    /// Follows what these registries take. To be called before the engine is told of them: with other labels to take, what
    /// is known of Pods is too little, and the engine must not act on it.
    ///
    /// # Errors
    /// If the engine has stopped.
    pub(crate) async fn configure(&mut self, registries: &[CheckedRegistry]) -> anyhow::Result<()> {
        let wanted = Wanted::of(registries);
        if self.running.as_ref().map(|(wanted, _)| wanted) == wanted.as_ref() {
            return Ok(());
        }
        if let Some((_, task)) = self.running.take() {
            task.abort();
            // What it still says must not come after what is said below. It was told to end, so how it ended does not matter.
            task.await.ok();
        }
        let Some(wanted) = wanted else {
            return Ok(());
        };
        self.tell(PodNews::Unknown).await?;
        let Some(client) = self.client.clone() else {
            let why = "there is no connection to a cluster; start diolkos again to have one";
            tracing::error!("export.podLabels: {why}");
            return self.tell(PodNews::Trouble(Some(why.into()))).await;
        };
        let policies = registries.iter().filter_map(|r| r.policy.pods.clone());
        let policies: Vec<_> = policies.collect();
        let settings = PodSettings {
            labels: Arc::new(move |key| policies.iter().any(|pods| pods.labels.is_match(key))),
            localities: wanted.localities,
        };
        let task = tokio::spawn(forward(client, settings, self.commands.clone()));
        self.running = Some((wanted, task));
        Ok(())
    }

    async fn tell(&self, news: PodNews) -> anyhow::Result<()> {
        let sent = self.commands.send(Command::Pods(news)).await;
        sent.context("the engine stopped")
    }
}

impl Drop for Workloads {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.running {
            task.abort();
        }
    }
}

/// Passes news on until the engine stops.
async fn forward(client: Client, settings: PodSettings, commands: mpsc::Sender<Command>) {
    let (mut news, _task) = watch_pods(client, settings);
    while let Some(news) = news.recv().await {
        let news = match news {
            diolkos_kube_ext::PodNews::All(all) => {
                tracing::info!(pods = all.len(), "read the cluster's Pods");
                PodNews::All(all)
            }
            diolkos_kube_ext::PodNews::Changed(changed) => PodNews::Changed(changed),
            diolkos_kube_ext::PodNews::Trouble(trouble) => PodNews::Trouble(trouble),
        };
        if commands.send(Command::Pods(news)).await.is_err() {
            return;
        }
    }
}
