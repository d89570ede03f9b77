//! Documents of the cluster: custom resources as raw JSON, their status, and Secrets.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams},
    core::GroupVersionKind,
    runtime::watcher::Event,
};
use serde_json::{Value, json};

use crate::{CALL_DEADLINE, CallError, MetadataEvent, WatchError, deadline, metadata_watch};

/// The pause before documents are read again after an error.
const PAUSE: Duration = Duration::from_secs(1);

/// A cluster-scoped kind of custom resource.
#[derive(Clone, Debug)]
pub struct DocumentKind(ApiResource);

impl DocumentKind {
    /// For example `diolkos.io`, `v1alpha1`, `Registry`, `registries`.
    #[must_use]
    pub fn new(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        let kind = GroupVersionKind::gvk(group, version, kind);
        Self(ApiResource::from_gvk_with_plural(&kind, plural))
    }
}

/// Uid, generation and annotations: the generation grows with every change of the spec, and with no other.
type Version = (String, i64, BTreeMap<String, String>);

/// Follows all documents of a kind. Changes of their status alone are not seen.
pub struct Documents {
    client: Client,
    kind: DocumentKind,
    watch: BoxStream<'static, Result<MetadataEvent, WatchError>>,
    known: BTreeMap<String, Version>,
    /// What a list that is under way told so far.
    listed: BTreeMap<String, Version>,
    first: bool,
    /// A change was seen, and the documents were not read since.
    unread: bool,
}

impl Documents {
    /// Nothing is read before the first [`changed`](Self::changed).
    #[must_use]
    pub fn new(client: Client, kind: DocumentKind) -> Self {
        Self {
            watch: metadata_watch(client.clone(), kind.0.clone()).boxed(),
            client,
            kind,
            known: BTreeMap::new(),
            listed: BTreeMap::new(),
            first: true,
            unread: false,
        }
    }

    /// Waits for a change (the first call: for the first list) and gives all documents, as they
    /// are then. Errors are logged and tried again. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Vec<Value> {
        loop {
            while !self.unread {
                self.next().await;
            }
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &self.kind.0);
            let all = ListParams::default();
            match deadline(CALL_DEADLINE, api.list(&all)).await {
                Ok(list) => {
                    self.unread = false;
                    let documents = list.items.iter().map(serde_json::to_value);
                    return documents.filter_map(Result::ok).collect();
                }
                Err(error) => {
                    tracing::warn!(kind = %self.kind.0.kind, %error, "cannot read documents, the last ones stay in force");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes over what the watch tells next.
    async fn next(&mut self) {
        match self.watch.next().await {
            Some(Ok(event)) => self.unread |= self.take(event),
            Some(Err(error)) => {
                tracing::warn!(kind = %self.kind.0.kind, %error, "cannot watch documents, the last ones stay in force");
            }
            // The watch never ends; if it did, the documents would stay as they are.
            None => std::future::pending().await,
        }
    }

    /// Takes over an event; returns whether documents changed.
    fn take(&mut self, event: MetadataEvent) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                let (name, version) = version(&object);
                self.listed.insert(name, version);
                false
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let changed = std::mem::take(&mut self.first) || listed != self.known;
                self.known = listed;
                changed
            }
            Event::Apply(object) => {
                let (name, version) = version(&object);
                self.known.insert(name, version.clone()) != Some(version)
            }
            Event::Delete(object) => self.known.remove(&object.name_any()).is_some(),
        }
    }
}

fn version(object: &PartialObjectMeta<DynamicObject>) -> (String, Version) {
    let uid = object.uid().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let annotations = object.annotations().clone();
    (object.name_any(), (uid, generation, annotations))
}

/// One document as it is now.
///
/// # Errors
/// What the API server said.
pub async fn document(
    client: &Client,
    kind: &DocumentKind,
    name: &str,
) -> Result<Value, CallError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.0);
    let document = deadline(CALL_DEADLINE, api.get(name)).await?;
    Ok(serde_json::to_value(document).map_err(kube::Error::SerdeError)?)
}

/// Sets the status of a document by server-side apply.
///
/// # Errors
/// What the API server said.
pub async fn apply_status(
    client: &Client,
    kind: &DocumentKind,
    name: &str,
    status: &Value,
) -> Result<(), CallError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.0);
    let document = json!({
        "apiVersion": kind.0.api_version,
        "kind": kind.0.kind,
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply("diolkos").force();
    deadline(
        CALL_DEADLINE,
        api.patch_status(name, &params, &Patch::Apply(&document)),
    )
    .await?;
    Ok(())
}

/// The data of a Secret.
///
/// # Errors
/// What the API server said.
pub async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, Vec<u8>>, CallError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = deadline(CALL_DEADLINE, api.get(name)).await?;
    let data = secret.data.unwrap_or_default();
    Ok(data
        .into_iter()
        .map(|(key, value)| (key, value.0))
        .collect())
}
