//! The names of the cluster's Services.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt as _;
use kube::{Client, api::ApiResource, core::GroupVersionKind, runtime::watcher::Event};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{MetadataEvent, metadata_watch};

/// Namespace and name.
pub type ServiceName = (Arc<str>, Arc<str>);

/// The names of all Services; `None` before the first list is complete.
pub type ServiceNames = Option<Arc<BTreeSet<ServiceName>>>;

/// How long changes are gathered: Services come in bunches.
const GATHER: Duration = Duration::from_millis(200);

/// Follows the Services of all namespaces. The task runs until the receiver is dropped.
#[must_use]
pub fn watch_services(client: Client) -> (watch::Receiver<ServiceNames>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(None);
    (receiver, tokio::spawn(follow(client, sender)))
}

async fn follow(client: Client, sender: watch::Sender<ServiceNames>) {
    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Service"), "services");
    let mut events = std::pin::pin!(metadata_watch(client, kind));
    let mut names = Names::default();
    let mut told = true;
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(Ok(event)) => told &= !names.take(event),
                Some(Err(error)) => tracing::warn!(%error, "cannot watch Services: hosts that they get from now on can be claimed until this works; `diolkos` needs list and watch of services"),
            },
            () = sleep(GATHER), if !told && names.listed.is_none() => {
                told = true;
                sender.send_replace(Some(Arc::new(names.now.clone())));
            }
            () = sender.closed() => return,
        }
    }
}

#[derive(Default)]
struct Names {
    now: BTreeSet<ServiceName>,
    /// What a list under way has named so far.
    listed: Option<BTreeSet<ServiceName>>,
}

impl Names {
    /// Returns whether there may be something new to tell.
    fn take(&mut self, event: MetadataEvent) -> bool {
        let name = |meta: &kube::api::ObjectMeta| -> Option<ServiceName> {
            let (namespace, name) = (meta.namespace.as_deref()?, meta.name.as_deref()?);
            Some((namespace.into(), name.into()))
        };
        match event {
            Event::Init => {
                self.listed = Some(BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                if let Some(listed) = &mut self.listed {
                    listed.extend(name(&object.metadata));
                }
                false
            }
            Event::InitDone => {
                self.now = self.listed.take().unwrap_or_default();
                true
            }
            Event::Apply(object) => {
                let before = self.now.len();
                self.now.extend(name(&object.metadata));
                self.now.len() > before
            }
            Event::Delete(object) => {
                name(&object.metadata).is_some_and(|name| self.now.remove(&name))
            }
        }
    }
}
