//! The CRDs in a real API server: accepted, and as strict as `check`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use diolkos_api::{crds, raw::Registry};
use diolkos_testkit::{Kubernetes, eventually};
use serde_json::{Value, json};

/// A cluster that took the CRDs without a warning.
async fn with_crds() -> Kubernetes {
    let kubernetes = Kubernetes::builder()
        .without_controller_manager()
        .start()
        .await
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, crds()).unwrap();
    let path = file.path().to_str().unwrap();
    let apply = ["apply", "--server-side", "--warnings-as-errors", "-f", path];
    kubernetes.kubectl(&apply).await.unwrap();
    let get = ["get", "registries"];
    let served = async || kubernetes.kubectl(&get).await;
    eventually(Duration::from_secs(30), "the kind is served", served).await;
    kubernetes
}

fn registry(name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "diolkos.io/v1alpha1", "kind": "Registry",
        "metadata": {"name": name}, "spec": spec,
    })
    .to_string()
}

#[tokio::test]
async fn a_real_api_server_takes_what_check_takes() {
    let kubernetes = with_crds().await;
    kubernetes.apply(include_str!("full.yaml")).await.unwrap();
    let found = kubernetes
        .get_json(&["get", "reg", "consul-a"])
        .await
        .unwrap();
    let found: Registry = serde_json::from_value(found).unwrap();
    // Nothing was pruned, and no default was put in.
    let written = include_str!("full.yaml");
    let loaded: Value = serde_saphyr::from_str(written).unwrap();
    assert_eq!(json!(found.spec), loaded["spec"]);

    for documents in [include_str!("dubbo.yaml"), include_str!("nacos.yaml")] {
        kubernetes.apply(documents).await.unwrap();
        for document in documents.split("---\n") {
            let written: Value = serde_saphyr::from_str(document).unwrap();
            let name = written["metadata"]["name"].as_str().unwrap();
            let found = kubernetes.get_json(&["get", "reg", name]).await.unwrap();
            let found: Registry = serde_json::from_value(found).unwrap();
            assert_eq!(json!(found.spec), written["spec"]);
        }
    }

    for (name, spec, message) in [
        (
            "both",
            json!({"consul": {}, "file": {"path": "/s"}}),
            "exactly one of consul, etcd, eureka, file, nacos, zookeeper is needed",
        ),
        (
            "none",
            json!({}),
            "exactly one of consul, etcd, eureka, file, nacos, zookeeper is needed",
        ),
        (
            "import",
            json!({"consul": {}, "import": "Claimed"}),
            "only All works",
        ),
        (
            "resolution",
            json!({"consul": {}, "export": {"resolution": "DNS"}}),
            "only STATIC",
        ),
        (
            "unknown",
            json!({"consul": {}, "exprot": {}}),
            "not declared in schema",
        ),
        (
            "protocol",
            json!({"consul": {}, "export": {"ports": {"defaultProtocol": "quic"}}}),
            "quic",
        ),
        (
            "port",
            json!({"consul": {}, "export": {"ports": {"servicePort": 65536}}}),
            "65535",
        ),
        (
            "duration",
            json!({"consul": {}, "guard": {"emptyHold": "60"}}),
            "emptyHold",
        ),
        (
            "token",
            json!({"consul": {"token": {}}}),
            "exactly one of file, secretRef",
        ),
        (
            "tls",
            json!({"consul": {"tls": {"certFile": "/c"}}}),
            "certFile and keyFile go together",
        ),
        (
            "two-of-dubbo",
            json!({"etcd": {}, "zookeeper": {}}),
            "exactly one of consul, etcd, eureka, file, nacos, zookeeper is needed",
        ),
        (
            "discovery",
            json!({"zookeeper": {"discovery": "All"}}),
            "discovery",
        ),
        (
            "session",
            json!({"zookeeper": {"sessionTimeout": "30"}}),
            "sessionTimeout",
        ),
        (
            "frame",
            json!({"zookeeper": {"frameLimit": "16M"}}),
            "frameLimit",
        ),
        (
            "password",
            json!({"etcd": {"auth": {"username": "u", "password": {}}}}),
            "exactly one of file, secretRef",
        ),
        (
            "variants",
            json!({"etcd": {}, "export": {"dubbo": {"variants": "Labels"}}}),
            "variants",
        ),
        (
            "port-name",
            json!({"etcd": {}, "export": {"dubbo": {"portName": "dubbo"}}}),
            "portName",
        ),
        (
            "nacos-auth",
            json!({"nacos": {
                "auth": {"username": "u", "password": {"file": "/p"}},
                "keys": {"accessKey": "a", "secretKey": {"file": "/k"}},
            }}),
            "either auth or keys",
        ),
        (
            "nacos-transport",
            json!({"nacos": {"transport": "udp"}}),
            "transport",
        ),
        (
            "eureka-status",
            json!({"eureka": {"statuses": ["up"]}}),
            "statuses",
        ),
        (
            &"n".repeat(64),
            json!({"consul": {}}),
            "at most 63 characters",
        ),
    ] {
        let refused = kubernetes.apply(&registry(name, &spec)).await;
        let error = format!("{:#}", refused.expect_err(name));
        assert!(error.contains(message), "{name}: {error}");
    }
}

#[tokio::test]
async fn columns_of_a_listing() {
    let kubernetes = with_crds().await;
    let file = json!({"file": {"path": "/services"}});
    kubernetes.apply(&registry("files", &file)).await.unwrap();
    let status = json!({"status": {
        "registry": "file", "services": 7,
        "conditions": [
            {"type": "Connected", "status": "True", "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Synced", "status": "False", "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ],
    }})
    .to_string();
    let patch = [
        "patch",
        "reg",
        "files",
        "--subresource=status",
        "--type=merge",
        "--patch",
        &status,
    ];
    kubernetes.kubectl(&patch).await.unwrap();
    let table = kubernetes.kubectl(&["get", "diolkos"]).await.unwrap();
    let rows: Vec<Vec<_>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        ["NAME", "REGISTRY", "CONNECTED", "SYNCED", "SERVICES", "AGE"]
    );
    assert_eq!(rows[1][..5], ["files", "file", "True", "False", "7"]);
}
