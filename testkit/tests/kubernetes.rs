//! The Kubernetes launcher against the real programs.

mod common;

use std::time::Duration;

use common::assert_gone;
use diolkos_testkit::{Kubernetes, eventually};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn two_clusters_run_at_once_and_are_gone_after_drop() -> anyhow::Result<()> {
    let (a, b) = tokio::try_join!(
        Kubernetes::start(),
        Kubernetes::builder().without_controller_manager().start()
    )?;
    let pids = [a.pid(), b.pid()];
    a.kubectl(&["create", "namespace", "only-a"]).await?;
    assert_eq!(
        a.get_json(&["get", "namespace", "only-a"]).await?["status"]["phase"],
        "Active"
    );
    b.get("/api/v1/namespaces/only-a")
        .await
        .expect_err("another cluster");
    let folder = a.kubeconfig().to_owned();
    drop((a, b));
    for pid in pids {
        assert_gone(pid).await;
    }
    assert!(!folder.exists(), "the folder must be gone");
    Ok(())
}

#[tokio::test]
async fn users_have_the_rights_that_rbac_gives() -> anyhow::Result<()> {
    let kubernetes = Kubernetes::builder()
        .without_controller_manager()
        .user("viewer", &["viewers"])
        .start()
        .await?;
    let config = kubernetes.kubeconfig_of("viewer");
    let can = async || {
        let config = config.to_str().unwrap();
        kubernetes
            .kubectl(&[
                "--kubeconfig",
                config,
                "auth",
                "can-i",
                "list",
                "pods",
                "-A",
            ])
            .await
    };
    assert!(can().await.is_err());
    kubernetes
        .kubectl(&[
            "create",
            "clusterrole",
            "lister",
            "--verb=list",
            "--resource=pods",
        ])
        .await?;
    let binding = [
        "create",
        "clusterrolebinding",
        "viewers",
        "--clusterrole=lister",
        "--group=viewers",
    ];
    kubernetes.kubectl(&binding).await?;
    eventually(SOON, "the viewer may list", can).await;
    Ok(())
}

#[tokio::test]
async fn requests_are_counted_over_kill_pause_and_restart() -> anyhow::Result<()> {
    let kubernetes = Kubernetes::builder()
        .without_controller_manager()
        .start()
        .await?;
    kubernetes.install_istio_crds().await?;
    let agent = "kubectl/";
    let before = kubernetes.count_writes(agent)?;
    kubernetes
        .apply(
            "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a, namespace: default},
              spec: {hosts: [a.example], ports: [{number: 80, name: http}], resolution: STATIC}}",
        )
        .await?;
    eventually(SOON, "one write more", async || {
        match kubernetes.count_writes(agent) {
            Ok(n) if n == before + 1 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let requests = kubernetes.requests()?;
    let write = requests
        .iter()
        .rfind(|r| r.is_write() && r.user_agent.starts_with(agent))
        .unwrap();
    let seen = (
        write.verb.as_str(),
        write.user.as_str(),
        write.resource.as_str(),
        write.name.as_str(),
        write.code,
    );
    assert_eq!(seen, ("patch", "admin", "serviceentries", "a", 201));

    kubernetes.stop_process()?;
    let hung = tokio::time::timeout(Duration::from_millis(300), kubernetes.get("/version")).await;
    assert!(hung.is_err(), "a paused server answered: {hung:?}");
    kubernetes.continue_process()?;
    kubernetes.get("/version").await?;
    kubernetes.kill()?;
    kubernetes.get("/version").await.expect_err("killed");
    kubernetes.restart().await?;
    kubernetes
        .get("/apis/networking.istio.io/v1/namespaces/default/serviceentries/a")
        .await?;
    Ok(())
}

#[tokio::test]
async fn pretended_nodes_run_pods() -> anyhow::Result<()> {
    let kubernetes = Kubernetes::builder().nodes(1).start().await?;
    kubernetes
        .kubectl(&["create", "deployment", "web", "--image=web", "--replicas=2"])
        .await?;
    kubernetes
        .kubectl(&[
            "wait",
            "--for=condition=Available",
            "deployment/web",
            "--timeout=60s",
        ])
        .await?;
    let pods = kubernetes.get("/api/v1/namespaces/default/pods").await?;
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(2));
    Ok(())
}
