//! Watches and documents against a real API server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use diolkos_kube_ext::{
    Client, DocumentKind, Documents, MetadataEvent, apply_status, client, metadata_watch, secret,
};
use diolkos_testkit::Kubernetes;
use futures::{Stream, StreamExt as _};
use kube::{ResourceExt as _, api::ApiResource, core::GroupVersionKind, runtime::watcher::Event};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

async fn start() -> Result<(Kubernetes, Client)> {
    let kubernetes = Kubernetes::builder()
        .without_controller_manager()
        .start()
        .await?;
    let client = client(Some(kubernetes.kubeconfig())).await?;
    Ok((kubernetes, client))
}

/// The next event that is about `test` objects, or marks a list: its name and what happened.
async fn next<E>(
    watch: &mut (impl Stream<Item = Result<MetadataEvent, E>> + Unpin),
) -> Result<(&'static str, String)> {
    loop {
        let event = tokio::time::timeout(SOON, watch.next()).await?;
        match event.context("a watch never ends")? {
            Ok(Event::Init) => return Ok(("init", String::new())),
            Ok(Event::InitDone) => return Ok(("done", String::new())),
            Ok(Event::InitApply(o)) if o.name_any().starts_with("test") => {
                return Ok(("listed", o.name_any()));
            }
            Ok(Event::Apply(o)) if o.name_any().starts_with("test") => {
                return Ok(("is", o.name_any()));
            }
            Ok(Event::Delete(o)) if o.name_any().starts_with("test") => {
                return Ok(("gone", o.name_any()));
            }
            // An error, or an object of the cluster's own.
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_watch_lists_follows_and_survives_a_restart_of_the_server() -> Result<()> {
    let (kubernetes, client) = start().await?;
    let create = async |name| {
        kubernetes
            .kubectl(&["create", "configmap", "-n", "default", name])
            .await
    };
    create("test-a").await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
    let mut watch = Box::pin(metadata_watch(client, kind));
    let event = |what, name: &str| (what, name.to_owned());
    assert_eq!(next(&mut watch).await?, event("init", ""));
    assert_eq!(next(&mut watch).await?, event("listed", "test-a"));
    assert_eq!(next(&mut watch).await?, event("done", ""));
    create("test-b").await?;
    assert_eq!(next(&mut watch).await?, event("is", "test-b"));

    kubernetes.kill()?;
    kubernetes.restart().await?;
    kubernetes
        .kubectl(&["delete", "configmap", "-n", "default", "test-a"])
        .await?;
    assert_eq!(next(&mut watch).await?, event("gone", "test-a"));
    Ok(())
}

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.test.diolkos.io}
spec:
  group: test.diolkos.io
  scope: Cluster
  names: {kind: Thing, plural: things}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

fn thing(name: &str, size: u32) -> String {
    json!({
        "apiVersion": "test.diolkos.io/v1", "kind": "Thing",
        "metadata": {"name": name}, "spec": {"size": size},
    })
    .to_string()
}

/// The names and sizes of the documents after the next change.
async fn changed(documents: &mut Documents) -> Result<Vec<(String, u64)>> {
    let all = tokio::time::timeout(SOON, documents.changed()).await?;
    let read = |document: &Value| {
        let name = document["metadata"]["name"].as_str()?;
        Some((name.to_owned(), document["spec"]["size"].as_u64()?))
    };
    all.iter()
        .map(|document| read(document).with_context(|| document.to_string()))
        .collect()
}

#[tokio::test]
async fn documents_are_told_as_a_whole_and_their_status_is_written() -> Result<()> {
    let (kubernetes, client) = start().await?;
    kubernetes.apply(CRD).await?;
    kubernetes
        .kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/things.test.diolkos.io",
        ])
        .await?;
    let kind = DocumentKind::new("test.diolkos.io", "v1", "Thing", "things");
    let mut documents = Documents::new(client.clone(), kind.clone());
    assert_eq!(changed(&mut documents).await?, []);
    kubernetes.apply(&thing("a", 1)).await?;
    assert_eq!(changed(&mut documents).await?, [("a".to_owned(), 1)]);

    // A status is no change; what comes after it is.
    let status = json!({"conditions": [{"type": "Synced", "status": "True"}]});
    apply_status(&client, &kind, "a", &status).await?;
    let path = "/apis/test.diolkos.io/v1/things/a";
    assert_eq!(kubernetes.get(path).await?["status"], status);
    kubernetes.apply(&thing("b", 2)).await?;
    let both = [("a".to_owned(), 1), ("b".to_owned(), 2)];
    assert_eq!(changed(&mut documents).await?, both);

    // A future that is dropped at any point loses nothing.
    kubernetes.apply(&thing("a", 3)).await?;
    let mut wait = Duration::from_micros(50);
    let seen = loop {
        match tokio::time::timeout(wait, changed(&mut documents)).await {
            Ok(seen) => break seen?,
            Err(_) => wait *= 2,
        }
        anyhow::ensure!(wait < SOON, "the change was lost");
    };
    assert_eq!(seen, [("a".to_owned(), 3), ("b".to_owned(), 2)]);

    kubernetes.kubectl(&["delete", "things", "a"]).await?;
    assert_eq!(changed(&mut documents).await?, [("b".to_owned(), 2)]);
    Ok(())
}

#[tokio::test]
async fn a_secret_is_read_and_a_missing_one_is_named() -> Result<()> {
    let (kubernetes, client) = start().await?;
    let create = [
        "create",
        "secret",
        "generic",
        "-n",
        "default",
        "token",
        "--from-literal=token=x",
    ];
    kubernetes.kubectl(&create).await?;
    let data = secret(&client, "default", "token").await?;
    assert_eq!(data, [("token".to_owned(), b"x".to_vec())].into());
    let error = secret(&client, "default", "other")
        .await
        .expect_err("not there");
    assert_eq!(error.to_string(), r#"secrets "other" not found"#);
    Ok(())
}
