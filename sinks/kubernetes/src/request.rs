//! Single requests that change an object.

use std::time::Duration;

use diolkos_istio::{ObjectKey, label};
use diolkos_kube_ext::{CallError, Client, deadline};
use kube::{
    Api,
    api::{
        DeleteParams, DynamicObject, ObjectMeta, PartialObjectMeta, Patch, PatchParams,
        Preconditions,
    },
    client::Body,
    core::{Request, Status, response::StatusDetails},
};
use serde_json::Value;

use crate::{entry::Entry, resource};

/// What is asked of the API server.
pub(crate) enum Ask<'a> {
    /// A server-side apply.
    Apply { body: &'a Value, force: bool },
    /// A JSON merge patch.
    Merge(&'a Value),
    /// A removal of the object as it was known.
    Delete(&'a Entry),
}

/// Sends a request. The answer is the object's metadata as it is now; `None` if it is gone.
///
/// kube's own calls do not tell the header `Retry-After`, in which API servers say when to come again.
pub(crate) async fn send(
    client: &Client,
    limit: Duration,
    key: &ObjectKey,
    ask: &Ask<'_>,
) -> Result<Option<ObjectMeta>, CallError> {
    deadline(limit, exchange(client, key, ask)).await
}

async fn exchange(
    client: &Client,
    key: &ObjectKey,
    ask: &Ask<'_>,
) -> kube::Result<Option<ObjectMeta>> {
    let request = Request::new(api(client, key).resource_url());
    let params = PatchParams::apply(label::MANAGER);
    let request = match ask {
        Ask::Apply { body, force } => {
            let params = PatchParams {
                force: *force,
                ..params
            };
            request.patch(&key.name, &params, &Patch::Apply(body))
        }
        Ask::Merge(body) => request.patch(&key.name, &params, &Patch::Merge(body)),
        Ask::Delete(known) => {
            let preconditions = Preconditions {
                resource_version: Some(known.version.to_string()),
                uid: Some(known.uid.to_string()),
            };
            let params = DeleteParams::default().preconditions(preconditions);
            request.delete(&key.name, &params)
        }
    };
    let request = request.map_err(kube::Error::BuildRequest)?;
    let response = client.send(request.map(Body::from)).await?;
    let code = response.status();
    let asked = response.headers().get("retry-after");
    let asked = asked.and_then(|after| after.to_str().ok()?.parse().ok());
    let bytes = response.into_body().collect_bytes().await?;
    if code.is_success() {
        let answer: PartialObjectMeta<DynamicObject> =
            serde_json::from_slice(&bytes).map_err(kube::Error::SerdeError)?;
        // A removal is answered with a status, unless a finalizer delays it.
        let is_object = answer.metadata.uid.is_some();
        return Ok(is_object.then_some(answer.metadata));
    }
    let mut status: Status = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&bytes);
        Status::failure(text.trim(), "")
    });
    status.code = code.as_u16();
    if let Some(seconds) = asked {
        let details = status.details.get_or_insert_with(|| StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        });
        details.retry_after_seconds = seconds;
    }
    Err(kube::Error::Api(status.boxed()))
}

/// Reads the object's metadata; `None` if it is not there.
pub(crate) async fn look(
    client: &Client,
    limit: Duration,
    key: &ObjectKey,
) -> Result<Option<ObjectMeta>, CallError> {
    let api = api(client, key);
    let object = deadline(limit, api.get_metadata_opt(&key.name)).await?;
    Ok(object.map(|object| object.metadata))
}

fn api(client: &Client, key: &ObjectKey) -> Api<PartialObjectMeta<DynamicObject>> {
    Api::namespaced_with(client.clone(), &key.namespace, &resource(key.kind))
}
