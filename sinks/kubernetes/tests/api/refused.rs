//! What the API server refuses, and how we say so.

use std::time::Duration;

use anyhow::{Context as _, Result};
use diolkos_istio::Spec;
use diolkos_kube_ext::client;
use diolkos_sink_api::{Outcome, Sink, WriteError};
use diolkos_sink_kubernetes::KubernetesSink;
use diolkos_testkit::{Kubernetes, eventually};

use crate::support::{Bed, SOON, all_at_once, one, put, service_entry, workload_entry};

#[tokio::test]
async fn one_bad_object_holds_nobody_back() -> Result<()> {
    let bed = Bed::start().await?;
    let mut sink = bed.sink().await?;
    let mut bad = service_entry("bad", 80);
    if let Spec::ServiceEntry(spec) = &mut bad.spec {
        // Both a selector and endpoints: against a CEL rule of the CRD.
        spec.endpoints.push(Default::default());
    }
    let mut nowhere = service_entry("orders", 80);
    nowhere.key.namespace = "nowhere".into();
    let good = [
        service_entry("good", 80),
        workload_entry("good", "10.0.0.1"),
    ];
    let all = [&bad, &nowhere, &good[0], &good[1]];
    let mut results = all_at_once(&sink, all.into_iter().map(put)).await;
    for object in &good {
        assert_eq!(results.remove(&object.key), Some(Ok(Outcome::Created)));
    }
    assert_eq!(
        results.remove(&nowhere.key),
        Some(Err(WriteError::NamespaceMissing("nowhere".into())))
    );
    match results.remove(&bad.key).context("no result")? {
        Err(WriteError::Invalid(reason)) => {
            assert!(
                reason.contains("only one of WorkloadSelector or Endpoints can be set"),
                "{reason}"
            );
            assert!(!reason.contains('\n'), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(results.is_empty());

    // Namespaces that are on their way out take nothing new; nobody here finishes their removal.
    bed.kubernetes
        .kubectl(&["delete", "namespace", "shop", "--wait=false"])
        .await?;
    let error = one(&mut sink, put(&service_entry("late", 80)))
        .await
        .expect_err("terminating");
    assert_eq!(error.to_string(), "namespace shop is being deleted");
    assert_eq!(error.category(), "WriteFailed");
    Ok(())
}

#[tokio::test]
async fn missing_rights_are_named() -> Result<()> {
    let bed = Bed::start_with(Kubernetes::builder().user("reader", &["readers"])).await?;
    let kubernetes = &bed.kubernetes;
    let mut sink = KubernetesSink::new(client(Some(&kubernetes.kubeconfig_of("reader"))).await?);
    let error = sink.observe().await.expect_err("no rights at all");
    assert!(
        error
            .0
            .contains("cannot list the workloadentries of the cluster"),
        "{error}"
    );
    assert!(error.0.contains(r#"User "reader" cannot list"#), "{error}");

    let resources =
        "--resource=serviceentries.networking.istio.io,workloadentries.networking.istio.io";
    kubernetes
        .kubectl(&[
            "create",
            "clusterrole",
            "reader",
            "--verb=list,watch",
            resources,
        ])
        .await?;
    kubernetes
        .kubectl(&[
            "create",
            "clusterrolebinding",
            "reader",
            "--clusterrole=reader",
            "--group=readers",
        ])
        .await?;
    // A new call is a new try: it does not wait for a pause of the watch.
    eventually(SOON, "the rights are in force", async || {
        sink.observe().await
    })
    .await;
    match one(&mut sink, put(&service_entry("orders", 80))).await {
        Err(WriteError::Denied(reason)) => assert!(
            reason.contains(r#"cannot patch resource "serviceentries""#),
            "{reason}"
        ),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_without_istio_is_told_what_to_install() -> Result<()> {
    let kubernetes = Kubernetes::builder()
        .without_controller_manager()
        .start()
        .await?;
    let mut sink = KubernetesSink::new(client(Some(kubernetes.kubeconfig())).await?);
    let error = sink.observe().await.expect_err("no CRDs");
    let expected = "the Istio CRD workloadentries.networking.istio.io is not installed: install Istio's base chart";
    assert_eq!(error.0, expected);
    kubernetes.install_istio_crds().await?;
    let seen = tokio::time::timeout(Duration::from_secs(5), sink.observe()).await??;
    assert_eq!(seen, []);
    Ok(())
}
