//! `export.podLabels`: what endpoints take from Pods and nodes, against a real API server.

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, Files, NAMESPACE, Versions, until_synced};
use common::{Diolkos, SOON, diolkos};
use diolkos_testkit::{Fault, On, Reply, eventually};
use serde_json::{Value, json};

const TLS_MODE: &str = "security.istio.io/tlsMode";

/// A mesh with Pods, and a registry of files that takes from them.
struct Bed {
    cluster: Cluster,
    files: Files,
}

impl Bed {
    /// With a node in `r1/z1/s1` and a service account in the namespace of the objects.
    async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let create = ["create", "serviceaccount", "-n", NAMESPACE, "web"];
        cluster.kubernetes.kubectl(&create).await?;
        let bed = Self {
            cluster,
            files: Files::new()?,
        };
        bed.node("z1").await?;
        Ok(bed)
    }

    async fn node(&self, zone: &str) -> Result<()> {
        let labels = json!({
            "topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": zone,
            "topology.istio.io/subzone": "s1",
        });
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}});
        self.cluster.kubernetes.apply(&node.to_string()).await
    }

    /// A running Pod with that address.
    async fn pod(&self, name: &str, ip: &str, host_network: bool) -> Result<()> {
        let labels = json!({
            "version": "v1", TLS_MODE: "istio", "service.istio.io/canonical-name": "web", "app": "web",
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": NAMESPACE, "name": name, "labels": labels},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "web", "hostNetwork": host_network,
                "containers": [{"name": "web", "image": "web"}],
            },
        });
        let kubernetes = &self.cluster.kubernetes;
        kubernetes.apply(&pod.to_string()).await?;
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        let patch = status.to_string();
        let mut arguments = vec!["patch", "pod", "-n", NAMESPACE, name, "-p", &patch];
        arguments.extend(["--subresource=status", "--type=merge"]);
        kubernetes.kubectl(&arguments).await.map(drop)
    }

    async fn label(&self, pod: &str, label: &str) -> Result<()> {
        let arguments = ["label", "pod", "-n", NAMESPACE, "--overwrite", pod, label];
        self.cluster.kubernetes.kubectl(&arguments).await.map(drop)
    }

    async fn delete(&self, pod: &str) -> Result<()> {
        let arguments = [
            "delete",
            "pod",
            "-n",
            NAMESPACE,
            pod,
            "--force",
            "--grace-period=0",
        ];
        self.cluster.kubernetes.kubectl(&arguments).await.map(drop)
    }

    /// A service with these instances, all of which say that they are version `registry`.
    fn register(&self, addresses: &[&str]) -> Result<()> {
        let instance =
            |address: &&str| json!({"address": address, "port": 80, "version": "registry"});
        let instances: Vec<Value> = addresses.iter().map(instance).collect();
        let web = json!({"name": "web", "instances": instances});
        self.files.put("web", &[web])
    }

    fn document(&self) -> String {
        let export = json!({"endpoints": "WorkloadEntry", "podLabels": {}});
        let document = self.files.registry("files", json!({"export": export}));
        document.to_string()
    }

    /// The endpoints by address.
    async fn endpoints(&self) -> Result<BTreeMap<String, Endpoint>> {
        let entries = self.cluster.objects("workloadentries").await?;
        let endpoint = |entry: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let spec = &entry["spec"];
            let label = |key: &str| text(&spec["labels"][key]);
            let endpoint = Endpoint {
                version: label("version"),
                tls_mode: label(TLS_MODE),
                canonical: label("service.istio.io/canonical-name"),
                app: label("app"),
                account: text(&spec["serviceAccount"]),
                locality: text(&spec["locality"]),
            };
            (text(&spec["address"]), endpoint)
        };
        Ok(entries.iter().map(endpoint).collect())
    }

    async fn until(&self, what: &str, address: &str, expected: &Endpoint) {
        eventually(SOON, what, async || {
            let endpoints = self.endpoints().await?;
            let endpoint = endpoints.get(address).context("no endpoint")?;
            ensure!(endpoint == expected, "{endpoint:?}");
            Ok(())
        })
        .await;
    }

    /// The object of the instance at this address.
    async fn object_at(&self, address: &str) -> Result<(String, String)> {
        let entries = self.cluster.objects("workloadentries").await?;
        let entry = entries.iter().find(|e| e["spec"]["address"] == address);
        let name = entry.and_then(|e| e["metadata"]["name"].as_str());
        let name = name.with_context(|| format!("nothing at {address}"))?;
        Ok(("workloadentries".to_owned(), name.to_owned()))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Endpoint {
    version: String,
    tls_mode: String,
    canonical: String,
    app: String,
    account: String,
    locality: String,
}

/// What the registry says alone.
fn plain() -> Endpoint {
    Endpoint {
        version: "registry".into(),
        ..Endpoint::default()
    }
}

/// What comes of a Pod of this version.
fn of_pod(version: &str) -> Endpoint {
    Endpoint {
        version: version.into(),
        tls_mode: "istio".into(),
        canonical: "web".into(),
        app: String::new(),
        account: "web".into(),
        locality: "r1/z1/s1".into(),
    }
}

/// The objects that are another version now, or came or went.
fn changed(before: &Versions, after: &Versions) -> Vec<(String, String)> {
    let keys = before.keys().chain(after.keys());
    let mut changed: Vec<_> = keys
        .filter(|key| before.get(*key) != after.get(*key))
        .cloned()
        .collect();
    changed.sort();
    changed.dedup();
    changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_take_from_pods_and_only_what_changed_is_written() -> Result<()> {
    let bed = Bed::start().await?;
    bed.pod("web-0", "10.1.0.1", false).await?;
    bed.pod("web-1", "10.1.0.2", false).await?;
    bed.pod("host-0", "10.1.0.3", true).await?;
    bed.register(&["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"])?;
    let cluster = &bed.cluster;
    let diolkos = cluster.run(&bed.document()).await?;
    until_synced(&diolkos, "files").await;
    let expected = [
        ("10.1.0.1", of_pod("v1")),
        ("10.1.0.2", of_pod("v1")),
        // On the network of its node: the address is not its own.
        ("10.1.0.3", plain()),
        ("10.1.0.4", plain()),
    ];
    let expected = expected.map(|(address, endpoint)| (address.to_owned(), endpoint));
    assert_eq!(bed.endpoints().await?, expected.into());
    assert_eq!(cluster.writes()?, 5, "each object once");
    let (status, reason, _) = diolkos.condition("files", "PodsFollowed").await?;
    assert_eq!((&*status, &*reason), ("True", "Followed"));
    let found = diolkos.get("/api/v1/explain?host=web.test").await?;
    let text = found.to_string();
    assert!(
        text.contains(&format!("from Pod {NAMESPACE}/web-0: ")),
        "{text}"
    );

    // A label that is taken, and one that is not.
    let before = cluster.versions().await?;
    bed.label("web-1", "app=other").await?;
    bed.label("web-0", "version=v2").await?;
    bed.until("the label is taken", "10.1.0.1", &of_pod("v2"))
        .await;
    let after = cluster.versions().await?;
    let object = bed.object_at("10.1.0.1").await?;
    assert_eq!(changed(&before, &after), [object]);

    // The Pod goes, and the registry does not notice yet.
    let before = after;
    bed.delete("web-1").await?;
    bed.until("the labels go", "10.1.0.2", &plain()).await;
    let after = cluster.versions().await?;
    let object = bed.object_at("10.1.0.2").await?;
    assert_eq!(changed(&before, &after), std::slice::from_ref(&object));

    // Another Pod gets the address.
    bed.pod("web-2", "10.1.0.2", false).await?;
    bed.until("there are labels again", "10.1.0.2", &of_pod("v1"))
        .await;
    let before = after;
    let after = cluster.versions().await?;
    assert_eq!(changed(&before, &after), [object]);

    // The node was given another zone.
    bed.node("z2").await?;
    let moved = Endpoint {
        locality: "r1/z2/s1".into(),
        ..of_pod("v2")
    };
    bed.until("the locality follows", "10.1.0.1", &moved).await;
    let moved = Endpoint {
        version: "v1".into(),
        ..moved
    };
    bed.until("here as well", "10.1.0.2", &moved).await;
    assert_eq!(cluster.writes()?, 10, "one for each change of an endpoint");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_before_the_pods_are_known() -> Result<()> {
    let bed = Bed::start().await?;
    bed.pod("web-0", "10.1.0.1", false).await?;
    bed.register(&["10.1.0.1"])?;
    let cluster = &bed.cluster;
    let proxy = cluster.kubernetes.fault_proxy().await?;
    let diolkos = cluster.run_through(&proxy, &bed.document()).await?;
    bed.until("it is written", "10.1.0.1", &of_pod("v1")).await;
    until_synced(&diolkos, "files").await;

    // A restart writes nothing.
    let (versions, writes) = (cluster.versions().await?, cluster.writes()?);
    diolkos.program().restart()?;
    until_synced(&diolkos, "files").await;
    assert_eq!(
        (cluster.versions().await?, cluster.writes()?),
        (versions, writes)
    );

    // Nor does one that may not read Pods, whatever the registry says meanwhile.
    for path in ["/api/v1/pods", "/api/v1/nodes"] {
        let forbidden = Reply::kubernetes(403, "Forbidden");
        let rule = proxy.rule(On::reads().path(path), Fault::Reply(forbidden));
        let versions = cluster.versions().await?;
        diolkos.program().restart()?;
        until_pods(&diolkos, "NotRead", path.trim_start_matches("/api/v1/")).await;
        bed.register(&["10.1.0.1", "10.1.0.9"])?;
        until_endpoints(&diolkos, 2).await;
        let (status, ..) = diolkos.condition("files", "Synced").await?;
        assert_eq!(status, "False");
        assert_eq!(cluster.versions().await?, versions);

        // Nothing is left to write when the Pods can be read.
        bed.register(&["10.1.0.1"])?;
        until_endpoints(&diolkos, 1).await;
        rule.end();
        eventually(3 * SOON, "Pods can be read", async || {
            diolkos.synced("files").await
        })
        .await;
        until_pods(&diolkos, "Followed", "").await;
        assert_eq!(cluster.versions().await?, versions);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_can_no_longer_be_read_stay_as_they_were() -> Result<()> {
    let bed = Bed::start().await?;
    bed.pod("web-0", "10.1.0.1", false).await?;
    bed.register(&["10.1.0.1"])?;
    let proxy = bed.cluster.kubernetes.fault_proxy().await?;
    let diolkos = bed.cluster.run_through(&proxy, &bed.document()).await?;
    bed.until("it is written", "10.1.0.1", &of_pod("v1")).await;
    let (object, versions) = (
        bed.object_at("10.1.0.1").await?,
        bed.cluster.versions().await?,
    );

    let forbidden = Reply::kubernetes(403, "Forbidden");
    let rule = proxy.rule(On::reads().path("/api/v1/pods"), Fault::Reply(forbidden));
    proxy.cut();
    until_pods(&diolkos, "Stale", "cannot watch pods: injected").await;
    // The registry is followed, with what is known of the Pods.
    bed.label("web-0", "version=v2").await?;
    bed.register(&["10.1.0.1", "10.1.0.9"])?;
    bed.until("an instance comes", "10.1.0.9", &plain()).await;
    let now = bed.cluster.versions().await?;
    assert_eq!(now[&object], versions[&object]);

    rule.end();
    let what = "Pods are followed again";
    eventually(3 * SOON, what, async || {
        let endpoints = bed.endpoints().await?;
        ensure!(endpoints["10.1.0.1"] == of_pod("v2"), "{endpoints:?}");
        Ok(())
    })
    .await;
    until_pods(&diolkos, "Followed", "").await;
    Ok(())
}

/// Waits until the condition says so, for a reason with this text.
/// Something else of the record shows that the registry has been read.
async fn until_endpoints(diolkos: &Diolkos, endpoints: u64) {
    eventually(SOON, "the registry was read", async || {
        let services = diolkos.get("/api/v1/services").await?;
        ensure!(services[0]["endpoints"] == endpoints, "{services}");
        Ok(())
    })
    .await;
}

async fn until_pods(diolkos: &Diolkos, reason: &str, text: &str) {
    eventually(SOON, reason, async || {
        let (_, why, message) = diolkos.condition("files", "PodsFollowed").await?;
        ensure!(why == reason && message.contains(text), "{why}: {message}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_from_pods_is_switched_on_and_off() -> Result<()> {
    let bed = Bed::start().await?;
    bed.pod("web-0", "10.1.0.1", false).await?;
    bed.register(&["10.1.0.1"])?;
    let with = bed.document();
    let without = with.replace(r#""podLabels":{}"#, r#""podLabels":null"#);
    assert_ne!(with, without);
    let diolkos = bed.cluster.run(&without).await?;
    bed.until("without Pods", "10.1.0.1", &plain()).await;
    until_synced(&diolkos, "files").await;
    let versions = bed.cluster.versions().await?;
    assert!(diolkos.condition("files", "PodsFollowed").await.is_err());
    for (document, expected) in [(&with, of_pod("v1")), (&without, plain())] {
        std::fs::write(diolkos.document(), document)?;
        bed.until("it is switched", "10.1.0.1", &expected).await;
    }
    let after = bed.cluster.versions().await?;
    let object = bed.object_at("10.1.0.1").await?;
    assert_eq!(changed(&versions, &after), [object], "nothing came or went");
    assert_eq!(bed.cluster.writes()?, 4);
    Ok(())
}

#[test]
fn without_a_cluster_it_is_a_fault_at_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = Files::new()?;
    let document = files.registry("files", json!({"export": {"podLabels": {}}}));
    let path = folder.path().join("registry.yaml");
    std::fs::write(&path, document.to_string())?;
    let (path, out) = (path.display().to_string(), folder.path().join("out"));
    let target = format!("directory:{}", out.display());
    let nowhere = folder.path().join("none").display().to_string();
    let (code, _, error) = diolkos(&[
        "run",
        "-f",
        &path,
        "--to",
        &target,
        "--listen",
        "127.0.0.1:0",
        "--kubeconfig",
        &nowhere,
    ]);
    assert_ne!(code, 0);
    let why = "registry files has export.podLabels, which needs a cluster";
    assert!(error.contains(why), "{error}");
    assert!(!out.exists());
    Ok(())
}
