//! istiod and Envoy: a real request through the mesh.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::assert_gone;
use diolkos_testkit::envoy::Kind;
use diolkos_testkit::{
    Envoy, EnvoyOptions, HttpUpstream, Istiod, Kubernetes, eventually, install_crypto,
};

const SOON: Duration = Duration::from_secs(30);
const HOST: &str = "orders.registry.local";

fn service_entry() -> String {
    format!(
        r#"{{"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
             "metadata": {{"name": "orders", "namespace": "default"}},
             "spec": {{"hosts": ["{HOST}"], "location": "MESH_INTERNAL", "resolution": "STATIC",
                       "ports": [{{"number": 8080, "name": "http", "protocol": "HTTP"}}],
                       "workloadSelector": {{"labels": {{"svc": "orders"}}}}}}}}"#
    )
}

fn workload_entry(name: &str, upstream: &HttpUpstream) -> String {
    let address = upstream.address();
    format!(
        r#"{{"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
             "metadata": {{"name": "{name}", "namespace": "default"}},
             "spec": {{"address": "{}", "ports": {{"http": {}}}, "labels": {{"svc": "orders"}}}}}}"#,
        address.ip(),
        address.port()
    )
}

fn sidecar(envoy: &Envoy) -> String {
    format!(
        r#"{{"apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
             "metadata": {{"name": "client", "namespace": "default"}},
             "spec": {{"workloadSelector": {{"labels": {{"app": "client"}}}},
                       "egress": [{{"port": {{"number": 8080, "protocol": "HTTP", "name": "http"}},
                                    "bind": "{}", "captureMode": "NONE", "hosts": ["*/*"]}}]}}}}"#,
        envoy.ip()
    )
}

async fn call(envoy: &Envoy) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client
        .get(format!("http://{}:8080/", envoy.ip()))
        .header("Host", format!("{HOST}:8080"));
    Ok(request.send().await?.error_for_status()?.text().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_reaches_both_workloads_of_a_service_entry() -> anyhow::Result<()> {
    install_crypto();
    let kubernetes = Kubernetes::start().await?;
    let istiod = Istiod::start(&kubernetes).await?;
    let envoy = start_on_a_thread_that_ends(&istiod)?;
    let (one, two) = tokio::try_join!(HttpUpstream::start("one"), HttpUpstream::start("two"))?;
    let documents = [
        service_entry(),
        workload_entry("o1", &one),
        workload_entry("o2", &two),
        sidecar(&envoy),
    ];
    kubernetes.apply(&documents.join("\n---\n")).await?;

    let mut seen = BTreeSet::new();
    eventually(SOON, "both workloads answer", async || {
        seen.insert(call(&envoy).await.map_err(|e| format!("{e:#}"))?);
        if seen.len() == 2 {
            Ok(())
        } else {
            Err(format!("only {seen:?}"))
        }
    })
    .await;
    assert_eq!(seen, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    assert!(one.requests() > 0 && two.requests() > 0);

    assert!(istiod.hosts().await?.contains(&HOST.to_owned()));
    let endpoints = istiod.endpoints(HOST).await?;
    let ports: BTreeSet<u16> = endpoints.iter().map(|e| e.endpoint_port).collect();
    assert_eq!(
        ports,
        BTreeSet::from([one.address().port(), two.address().port()])
    );
    assert_eq!(istiod.endpoints("nobody.example").await?, []);
    assert!(
        istiod
            .metric_sum("pilot_xds_pushes", &[("type", "eds")])
            .await?
            > 0.0
    );
    assert!(envoy.admin("/clusters").await?.contains(HOST));

    let pids = [envoy.pid(), istiod.pid()];
    drop((envoy, istiod));
    for pid in pids {
        assert_gone(pid).await;
    }
    Ok(())
}

/// Envoy asks to be ended with the thread that started it; the test kit must keep it alive all the same.
fn start_on_a_thread_that_ends(istiod: &Istiod) -> anyhow::Result<Envoy> {
    std::thread::scope(|scope| {
        let options = EnvoyOptions::sidecar("client");
        let start = || tokio::runtime::Runtime::new()?.block_on(Envoy::start(istiod, options));
        scope
            .spawn(start)
            .join()
            .expect("the thread ends by itself")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_istiods_and_two_envoys_run_at_once() -> anyhow::Result<()> {
    let kubernetes = Kubernetes::builder()
        .without_controller_manager()
        .start()
        .await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("orders.yaml"), service_entry())?;
    let file_mode = Istiod::builder()
        .config_dir(folder.path())
        .start(&kubernetes);
    let (a, b) = tokio::try_join!(Istiod::start(&kubernetes), file_mode)?;
    assert!(!a.hosts().await?.contains(&HOST.to_owned()));
    let host = async || {
        b.hosts()
            .await
            .is_ok_and(|hosts| hosts.contains(&HOST.to_owned()))
    };
    eventually(SOON, "the file's host", host).await;

    let router = EnvoyOptions {
        kind: Kind::Router,
        ..EnvoyOptions::sidecar("gateway")
    };
    let (one, two) = tokio::try_join!(
        Envoy::start(&a, EnvoyOptions::sidecar("client")),
        Envoy::start(&b, router)
    )?;
    assert_ne!(one.ip(), two.ip());
    assert!(!one.admin("/clusters").await?.contains(HOST));
    assert!(two.admin("/clusters").await?.contains(HOST));

    let pid = a.pid();
    a.kill()?;
    assert_gone(pid).await;
    a.restart().await?;
    assert!(a.metrics().await?.contains("pilot_info"));
    Ok(())
}
