//! What becomes of odd names, foreign objects and hand edits, on a real Consul and a real API server.

mod common;

use anyhow::{Context, Result, ensure};
use common::{Diolkos, SOON};
use diolkos_testkit::{Consul, Kubernetes, eventually};
use serde_json::{Value, json};

struct Rig {
    consul: Consul,
    kubernetes: Kubernetes,
}

impl Rig {
    async fn start() -> Result<Self> {
        let (consul, kubernetes) = tokio::try_join!(Consul::start(), Kubernetes::start())?;
        kubernetes.install_istio_crds().await?;
        kubernetes
            .kubectl(&["create", "namespace", "diolkos"])
            .await?;
        Ok(Self { consul, kubernetes })
    }

    fn registry(&self, spec: &str) -> String {
        format!(
            "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: consul}}, spec: {{consul: {{addresses: ['{}']}}{spec}}}}}",
            self.consul.http_addr()
        )
    }

    async fn diolkos(&self, spec: &str) -> Result<Diolkos> {
        let kubeconfig = self.kubernetes.kubeconfig().display().to_string();
        Diolkos::run(&self.registry(spec), &["--kubeconfig", &kubeconfig]).await
    }

    async fn register(&self, name: &str, address: &str, port: u16) -> Result<()> {
        let entry = json!({
            "Node": "ext", "Address": "10.9.9.9", "SkipNodeUpdate": true,
            "Service": {"ID": format!("{name}-{address}-{port}"), "Service": name, "Address": address, "Port": port},
        });
        self.consul.catalog_register(&entry).await
    }

    async fn objects(&self, kind: &str, namespace: &str) -> Result<Vec<Value>> {
        let list = self
            .kubernetes
            .get_json(&["get", kind, "-n", namespace])
            .await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    async fn hosts(&self, namespace: &str) -> Result<Vec<String>> {
        let entries = self.objects("serviceentries", namespace).await?;
        let mut hosts: Vec<_> = entries
            .iter()
            .filter_map(|e| e["spec"]["hosts"][0].as_str())
            .map(str::to_owned)
            .collect();
        hosts.sort();
        Ok(hosts)
    }
}

/// The example of the document that this product grew from: what consul2istio writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preset_aeraki_writes_what_consul2istio_writes() -> Result<()> {
    let rig = Rig::start().await?;
    rig.kubernetes
        .kubectl(&["create", "namespace", "istio-system"])
        .await?;
    rig.register("student-service", "10.244.6.42", 9098).await?;
    let _diolkos = rig.diolkos(", export: {preset: aeraki}").await?;
    let entry = eventually(SOON, "the service entry is there", async || {
        rig.objects("serviceentries", "istio-system")
            .await?
            .pop()
            .context("no service entry")
    })
    .await;
    assert_eq!(entry["metadata"]["name"], "student-service.service.consul");
    assert_eq!(entry["metadata"]["labels"]["manager"], "Aeraki");
    assert_eq!(entry["metadata"]["labels"]["registry"], "consul");
    assert_eq!(
        entry["spec"],
        json!({
            "hosts": ["student-service.service.consul"], "location": "MESH_INTERNAL", "resolution": "STATIC",
            "ports": [{"name": "tcp", "number": 9098, "protocol": "TCP"}],
            "endpoints": [{"address": "10.244.6.42", "locality": "dc1", "ports": {"tcp": 9098}}],
        })
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_and_instances_cost_themselves_only() -> Result<()> {
    let rig = Rig::start().await?;
    let long = "x".repeat(70);
    for (name, address, port) in [
        ("plain", "10.0.0.1", 80),
        ("My_Service", "10.0.0.2", 80),
        (&*long, "10.0.0.3", 80),
        ("port-zero", "10.0.0.4", 0),
        ("named", "backend.example.org", 80),
        ("six", "fd00::6", 80),
        // Two names that become one host.
        ("a_b", "10.0.0.5", 80),
        ("a-b", "10.0.0.6", 80),
        // One bad instance next to a good one.
        ("mixed", "10.0.0.7", 80),
        ("mixed", "169.254.169.254", 80),
    ] {
        rig.register(name, address, port).await?;
    }
    let diolkos = rig.diolkos("").await?;
    let hosts = eventually(SOON, "all that can be carried over is", async || {
        diolkos.synced("consul").await?;
        let hosts = rig.hosts("diolkos").await?;
        ensure!(hosts.len() == 7, "{hosts:?}");
        Ok(hosts)
    })
    .await;
    let shortened = hosts
        .iter()
        .find(|h| h.starts_with("xxx"))
        .context("the long name")?
        .clone();
    assert!(
        shortened.split('.').all(|label| label.len() <= 63),
        "{shortened}"
    );
    let expected = ["a-b", "mixed", "my-service", "named", "plain", "six"]
        .map(|n| format!("{n}.service.consul"));
    let others: Vec<_> = hosts.iter().filter(|h| **h != shortened).cloned().collect();
    assert_eq!(others, expected);

    let owner = rig
        .kubernetes
        .get_json(&["get", "serviceentry", "a-b.service.consul", "-n", "diolkos"])
        .await?;
    assert_eq!(
        owner["metadata"]["annotations"]["diolkos.io/service"], "consul/dc1/a-b",
        "the plain name has the host"
    );
    let entries = rig.objects("workloadentries", "diolkos").await?;
    let mut addresses: Vec<_> = entries
        .iter()
        .filter_map(|e| e["spec"]["address"].as_str())
        .collect();
    addresses.sort_unstable();
    assert_eq!(
        addresses,
        [
            "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.6", "10.0.0.7", "fd00::6"
        ]
    );

    for (query, reason) in [
        ("My_Service", "NameAltered"),
        (&*long, "NameAltered"),
        ("port-zero", "NoPorts"),
        ("named", "AddressNotIp"),
        ("mixed", "AddressDenied"),
    ] {
        let reasons = diolkos.reasons(query).await?;
        assert!(reasons.iter().any(|r| r == reason), "{query}: {reasons:?}");
    }
    let lost = diolkos.get("/api/v1/explain?host=a_b").await?;
    assert!(
        lost[0]["refusal"]
            .as_str()
            .is_some_and(|r| r.contains("HostTaken") && r.contains("a-b")),
        "{lost}"
    );
    let (status, _, message) = diolkos.condition("consul", "ServicesRefused").await?;
    assert_eq!(status, "True");
    assert!(
        message.contains("1 NoPorts") && message.contains("1 HostTaken"),
        "{message}"
    );
    let (_, metrics) = diolkos.page("/metrics").await?;
    for line in [
        r#"diolkos_refused_services{registry="consul",reason="NoPorts"} 1"#,
        r#"diolkos_dropped_instances{registry="consul",reason="AddressDenied"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_objects_stay_and_ours_are_repaired() -> Result<()> {
    let rig = Rig::start().await?;
    let foreign = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": "web.service.consul", "namespace": "diolkos", "labels": {"owner": "somebody"}},
        "spec": {"hosts": ["mine.example"], "ports": [{"number": 1, "name": "tcp", "protocol": "TCP"}], "resolution": "DNS"},
    });
    rig.kubernetes.apply(&foreign.to_string()).await?;
    let read = async |name: &str| {
        rig.kubernetes
            .get_json(&["get", "serviceentry", name, "-n", "diolkos"])
            .await
    };
    let before = read("web.service.consul").await?;
    rig.register("web", "10.0.0.1", 80).await?;
    rig.register("other", "10.0.0.2", 80).await?;
    let diolkos = rig.diolkos(", export: {endpoints: Inline}").await?;
    eventually(SOON, "the conflict is reported", async || {
        let (status, reason, message) = diolkos.condition("consul", "Synced").await?;
        ensure!(
            status == "False"
                && reason == "ForeignObject"
                && message.contains("web.service.consul"),
            "{reason}: {message}"
        );
        Ok(())
    })
    .await;
    let ours = read("other.service.consul")
        .await
        .context("the other service is carried over all the same")?;
    assert_eq!(
        read("web.service.consul").await?,
        before,
        "not a byte of the foreign object changed"
    );

    // A hand edit of ours is repaired, and what others may set on it stays.
    let edit =
        r#"{"metadata":{"labels":{"team":"a"}},"spec":{"endpoints":[{"address":"10.6.6.6"}]}}"#;
    let name = "other.service.consul";
    rig.kubernetes
        .kubectl(&[
            "patch",
            "serviceentry",
            name,
            "-n",
            "diolkos",
            "--type=merge",
            "-p",
            edit,
        ])
        .await?;
    rig.kubernetes
        .kubectl(&[
            "patch",
            "serviceentry",
            name,
            "-n",
            "diolkos",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"addresses":[{"value":"240.240.0.9"}]}}"#,
        ])
        .await?;
    let repaired = eventually(SOON, "the hand edit is repaired", async || {
        let now = read(name).await?;
        ensure!(now["spec"] == ours["spec"], "{}", now["spec"]);
        Ok(now)
    })
    .await;
    assert_eq!(
        repaired["metadata"]["uid"], ours["metadata"]["uid"],
        "patched, not replaced"
    );
    assert_eq!(repaired["metadata"]["labels"]["team"], "a");
    assert_eq!(repaired["status"]["addresses"][0]["value"], "240.240.0.9");

    rig.kubernetes
        .kubectl(&["delete", "serviceentry", name, "-n", "diolkos"])
        .await?;
    eventually(SOON, "a deleted object comes back", async || {
        let now = read(name).await?;
        ensure!(now["spec"] == ours["spec"], "{}", now["spec"]);
        Ok(())
    })
    .await;

    // The foreign object goes: the name is free.
    rig.kubernetes
        .kubectl(&[
            "delete",
            "serviceentry",
            "web.service.consul",
            "-n",
            "diolkos",
        ])
        .await?;
    eventually(SOON, "ours takes the place", async || {
        let now = read("web.service.consul").await?;
        ensure!(now["spec"]["hosts"][0] == "web.service.consul", "{now}");
        diolkos.synced("consul").await
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_namespace_is_a_clear_condition() -> Result<()> {
    let rig = Rig::start().await?;
    rig.register("web", "10.0.0.1", 80).await?;
    let diolkos = rig.diolkos(", export: {namespace: nowhere}").await?;
    eventually(SOON, "the condition says so", async || {
        let (status, reason, message) = diolkos.condition("consul", "Synced").await?;
        ensure!(
            status == "False"
                && reason == "NamespaceMissing"
                && message.contains("namespace nowhere does not exist"),
            "{reason}: {message}"
        );
        Ok(())
    })
    .await;
    rig.kubernetes
        .kubectl(&["create", "namespace", "nowhere"])
        .await?;
    eventually(SOON, "it goes on once the namespace is there", async || {
        diolkos.synced("consul").await
    })
    .await;
    assert_eq!(rig.hosts("nowhere").await?, ["web.service.consul"]);
    Ok(())
}

/// Documents in the cluster, and their status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registry_resources_in_the_cluster() -> Result<()> {
    let rig = Rig::start().await?;
    let (code, crds, error) = common::diolkos(&["crds"]);
    assert_eq!(code, 0, "{error}");
    rig.kubernetes.apply(&crds).await?;
    rig.kubernetes
        .kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=30s",
        ])
        .await?;
    rig.register("web", "10.0.0.1", 80).await?;
    let kubeconfig = rig.kubernetes.kubeconfig().display().to_string();
    let diolkos = Diolkos::run_in_cluster(&["--kubeconfig", &kubeconfig]).await?;
    rig.kubernetes.apply(&rig.registry("")).await?;
    let status = eventually(
        SOON,
        "the status says that it is synchronised",
        async || {
            let resource = rig
                .kubernetes
                .get_json(&["get", "registries.diolkos.io", "consul"])
                .await?;
            let conditions = resource["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let holds = |kind: &str| {
                conditions
                    .iter()
                    .any(|c| c["type"] == kind && c["status"] == "True")
            };
            ensure!(
                holds("Connected") && holds("Synced") && holds("Accepted"),
                "{resource}"
            );
            Ok(resource["status"].clone())
        },
    )
    .await;
    assert_eq!(status["services"], 1, "{status}");
    assert_eq!(rig.hosts("diolkos").await?, ["web.service.consul"]);

    // A document that cannot work says why, and the one before stays in force.
    let bad = rig.registry(", export: {host: '{servce}.x'}");
    rig.kubernetes.apply(&bad).await?;
    eventually(SOON, "the status says what is wrong", async || {
        let resource = rig
            .kubernetes
            .get_json(&["get", "registries.diolkos.io", "consul"])
            .await?;
        let conditions = resource["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let accepted = conditions
            .iter()
            .find(|c| c["type"] == "Accepted")
            .cloned()
            .unwrap_or_default();
        ensure!(
            accepted["status"] == "False"
                && accepted["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("servce")),
            "{resource}"
        );
        Ok(())
    })
    .await;
    assert_eq!(rig.hosts("diolkos").await?, ["web.service.consul"]);

    rig.kubernetes
        .kubectl(&["delete", "registries.diolkos.io", "consul"])
        .await?;
    eventually(SOON, "its objects go with it", async || {
        let hosts = rig.hosts("diolkos").await?;
        ensure!(hosts.is_empty(), "{hosts:?}");
        Ok(())
    })
    .await;
    assert_eq!(diolkos.get("/api/v1/registries").await?, json!([]));
    Ok(())
}

/// A token in a Secret, rotated while Diolkos runs, and a registry whose answers are filtered before it has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_a_secret() -> Result<()> {
    let (consul, kubernetes) =
        tokio::try_join!(Consul::builder().acl().start(), Kubernetes::start())?;
    let rig = Rig { consul, kubernetes };
    rig.kubernetes.install_istio_crds().await?;
    rig.kubernetes
        .kubectl(&["create", "namespace", "diolkos"])
        .await?;
    rig.register("web", "10.0.0.1", 80).await?;
    let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let token = rig.consul.create_token("reader", rules).await?;
    let secret = |token: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "consul", "namespace": "diolkos"},
            "stringData": {"token": token},
        })
        .to_string()
    };
    rig.kubernetes
        .apply(&secret("a-token-that-consul-does-not-know"))
        .await?;
    let address = rig.consul.http_addr();
    let document = format!(
        "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: consul}}, spec: {{consul: {{\
          addresses: ['{address}'], token: {{secretRef: {{namespace: diolkos, name: consul, key: token}}}}}}}}}}"
    );
    let kubeconfig = rig.kubernetes.kubeconfig().display().to_string();
    let diolkos = Diolkos::run(&document, &["--kubeconfig", &kubeconfig]).await?;
    eventually(SOON, "the refusal is visible", async || {
        let (status, reason, _) = diolkos.condition("consul", "Connected").await?;
        ensure!(status == "False" && reason == "Denied", "{status} {reason}");
        Ok(())
    })
    .await;
    rig.kubernetes.apply(&secret(&token)).await?;
    // The Secret is looked at every 10 s, and a refusal is retried slowly.
    eventually(3 * SOON, "the new token is used", async || {
        diolkos.synced("consul").await
    })
    .await;
    assert_eq!(rig.hosts("diolkos").await?, ["web.service.consul"]);
    assert!(!diolkos.log().contains(&token), "no secret in the log");
    Ok(())
}
