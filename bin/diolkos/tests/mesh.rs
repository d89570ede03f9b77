//! The main job on real servers: Consul → Diolkos → Kubernetes → istiod → Envoy.

mod common;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use common::{Diolkos, SOON};
use diolkos_testkit::{Consul, Envoy, EnvoyOptions, HttpUpstream, Istiod, Kubernetes, eventually};
use serde_json::{Value, json};

/// Times are measured here: one test at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The promise: a change in the registry is in the mesh within this time.
const FOLLOWS: Duration = Duration::from_secs(2);

/// A Consul, a Kubernetes with a namespace for the objects, and a Diolkos between them.
struct Mesh {
    consul: Consul,
    kubernetes: Kubernetes,
    istiod: Istiod,
}

impl Mesh {
    async fn start() -> Result<Self> {
        let (consul, kubernetes) = tokio::try_join!(Consul::start(), Kubernetes::start())?;
        let istiod = Istiod::start(&kubernetes).await?;
        kubernetes
            .kubectl(&["create", "namespace", "consul"])
            .await?;
        Ok(Self {
            consul,
            kubernetes,
            istiod,
        })
    }

    fn registry(&self) -> String {
        format!(
            "{{apiVersion: diolkos.io/v1alpha1, kind: Registry, metadata: {{name: consul}}, spec: {{\
              consul: {{addresses: ['{}']}}, export: {{namespace: consul}}, grant: {{cidrs: [127.0.0.0/8, 10.0.0.0/8]}}}}}}",
            self.consul.http_addr()
        )
    }

    async fn diolkos(&self) -> Result<Diolkos> {
        let kubeconfig = self.kubernetes.kubeconfig().display().to_string();
        Diolkos::run(&self.registry(), &["--kubeconfig", &kubeconfig]).await
    }

    /// A host's endpoints in istiod by `ADDRESS:PORT`, over all its ports, with their labels.
    async fn endpoints(&self, host: &str) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
        let found = self.istiod.endpoints(host).await?;
        let by_address = |e: diolkos_testkit::istiod::Endpoint| {
            (format!("{}:{}", e.addresses[0], e.endpoint_port), e.labels)
        };
        Ok(found.into_iter().map(by_address).collect())
    }

    /// Objects written (created, changed, deleted) by Diolkos so far.
    fn writes(&self) -> Result<usize> {
        let ours = |r: &&diolkos_testkit::AuditRecord| {
            r.is_write() && r.user_agent.starts_with("diolkos") && r.code < 300
        };
        Ok(self.kubernetes.requests()?.iter().filter(ours).count())
    }

    async fn pushes(&self, kind: &str) -> Result<f64> {
        self.istiod
            .metric_sum("pilot_push_triggers", &[("type", kind)])
            .await
    }
}

fn instance(id: &str, upstream: (&str, u16), version: &str) -> Value {
    json!({
        "ID": id, "Name": "web", "Address": upstream.0, "Port": upstream.1,
        "Meta": {"version": version, "protocol": "http"},
        "Checks": [{"CheckID": format!("{id}-ttl"), "TTL": "10m", "Status": "passing"}],
    })
}

const HOST: &str = "web.service.consul";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_in_consul_is_called_by_name_and_split_by_version() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mesh = Mesh::start().await?;
    let envoy = Envoy::start(&mesh.istiod, EnvoyOptions::sidecar("client")).await?;
    let (v1, v2) = tokio::try_join!(HttpUpstream::start("v1"), HttpUpstream::start("v2"))?;
    let (p1, p2) = (v1.address().port(), v2.address().port());
    let (a1, a2) = (v1.address().ip().to_string(), v2.address().ip().to_string());
    mesh.consul
        .register(&instance("web-1", (&a1, p1), "v1"))
        .await?;
    mesh.consul
        .register(&instance("web-2", (&a2, p2), "v2"))
        .await?;
    let _diolkos = mesh.diolkos().await?;

    eventually(SOON, "istiod knows the host", async || {
        mesh.istiod
            .hosts()
            .await
            .map(|hosts| hosts.contains(&HOST.to_owned()).then_some(()))
            .and_then(|found| found.context("the host is not there"))
    })
    .await;
    let endpoints = eventually(SOON, "istiod knows both endpoints", async || {
        let found = mesh.endpoints(HOST).await?;
        ensure!(found.len() == 2, "{found:?}");
        Ok(found)
    })
    .await;
    assert_eq!(endpoints[&format!("{a1}:{p1}")]["version"], "v1");
    assert_eq!(endpoints[&format!("{a2}:{p2}")]["version"], "v2");

    let rules = json!([
        {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "web", "namespace": "default"},
         "spec": {"host": HOST, "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "web", "namespace": "default"},
         "spec": {"hosts": [HOST], "http": [{"route": [
            {"destination": {"host": HOST, "subset": "v1", "port": {"number": p1}}, "weight": 80},
            {"destination": {"host": HOST, "subset": "v2", "port": {"number": p1}}, "weight": 20}]}]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "client", "namespace": "default"},
         "spec": {"workloadSelector": {"labels": {"app": "client"}}, "egress": [
            {"port": {"number": p1, "protocol": "HTTP", "name": "http"}, "bind": envoy.ip().to_string(), "captureMode": "NONE", "hosts": ["*/*"]}]}},
    ]);
    let documents: Vec<String> = rules
        .as_array()
        .into_iter()
        .flatten()
        .map(Value::to_string)
        .collect();
    mesh.kubernetes.apply(&documents.join("\n---\n")).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let call = async || -> Result<String> {
        let request = client
            .get(format!("http://{}:{p1}/", envoy.ip()))
            .header("Host", format!("{HOST}:{p1}"));
        Ok(request.send().await?.error_for_status()?.text().await?)
    };
    eventually(SOON, "both versions answer through Envoy", async || {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            seen.insert(call().await?);
        }
        ensure!(seen.len() == 2, "only {seen:?}");
        Ok(())
    })
    .await;
    let mut second = 0;
    for _ in 0..500 {
        second += u32::from(call().await?.contains("v2"));
    }
    // 20 % of 500 with five standard deviations (8.9 each) on both sides.
    assert!(
        (55..=145).contains(&second),
        "{second} of 500 requests reached v2"
    );
    Ok(())
}

/// What a step costs: objects written, and how the mesh looks afterwards.
struct Step<'a> {
    what: &'a str,
    endpoints: &'a [&'a str],
    writes: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_followed_with_one_write_an_object_and_no_full_push() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mesh = Mesh::start().await?;
    // istiod pushes, and counts why, only while a proxy is connected.
    let _envoy = Envoy::start(&mesh.istiod, EnvoyOptions::sidecar("client")).await?;
    let consul = &mesh.consul;
    consul
        .register(&instance("web-1", ("10.0.0.1", 8080), "v1"))
        .await?;
    let diolkos = mesh.diolkos().await?;
    eventually(SOON, "the first instance is in the mesh", async || {
        diolkos.synced("consul").await?;
        let found = mesh.endpoints(HOST).await?;
        ensure!(found.contains_key("10.0.0.1:8080"), "{found:?}");
        Ok(())
    })
    .await;
    eventually(SOON, "istiod has given the host its address", async || {
        let entry = mesh
            .kubernetes
            .get_json(&["get", "serviceentry", HOST, "-n", "consul"])
            .await?;
        ensure!(entry["status"]["addresses"].is_array(), "{entry}");
        Ok(())
    })
    .await;
    eventually(SOON, "the audit log has both objects", async || {
        mesh.writes().map(|n| n == 2).unwrap_or(false)
    })
    .await;

    let edited = |version: &str, port: u16| {
        let mut edited = instance("web-1", ("10.0.0.1", port), version);
        edited["Tags"] = json!(["stage=canary"]);
        edited
    };
    let one = &["10.0.0.1:8080"][..];
    let both = &["10.0.0.1:8080", "10.0.0.2:8080"][..];
    let pushed_before = mesh.pushes("endpoint").await?;
    follow(
        &mesh,
        Step {
            what: "register",
            endpoints: both,
            writes: 1,
        },
        async || {
            consul
                .register(&instance("web-2", ("10.0.0.2", 8080), "v2"))
                .await
        },
    )
    .await?;
    // Once this change is pushed, so is all that came before: the new host and its address, which
    // do need full pushes. From here on there may be none.
    eventually(SOON, "the endpoint is pushed", async || {
        let pushed = mesh.pushes("endpoint").await?;
        ensure!(pushed > pushed_before, "{pushed}");
        Ok(())
    })
    .await;
    let (full, config) = (mesh.pushes("service").await?, mesh.pushes("config").await?);
    follow(
        &mesh,
        Step {
            what: "fail a check",
            endpoints: one,
            writes: 1,
        },
        async || consul.fail("web-2-ttl").await,
    )
    .await?;
    follow(
        &mesh,
        Step {
            what: "pass it",
            endpoints: both,
            writes: 1,
        },
        async || consul.pass("web-2-ttl").await,
    )
    .await?;
    follow(
        &mesh,
        Step {
            what: "maintenance",
            endpoints: one,
            writes: 1,
        },
        async || consul.maintenance("web-2", true).await,
    )
    .await?;
    follow(
        &mesh,
        Step {
            what: "end of maintenance",
            endpoints: both,
            writes: 1,
        },
        async || consul.maintenance("web-2", false).await,
    )
    .await?;
    follow(
        &mesh,
        Step {
            what: "deregister",
            endpoints: one,
            writes: 1,
        },
        async || consul.deregister("web-2").await,
    )
    .await?;
    follow(
        &mesh,
        Step {
            what: "change tags and version",
            endpoints: one,
            writes: 1,
        },
        async || consul.register(&edited("v3", 8080)).await,
    )
    .await?;
    eventually(FOLLOWS, "istiod has the new labels", async || {
        let found = mesh.endpoints(HOST).await?;
        let labels = &found["10.0.0.1:8080"];
        ensure!(
            labels["version"] == "v3" && labels["stage"] == "canary",
            "{labels:?}"
        );
        Ok(())
    })
    .await;
    assert_eq!(
        (mesh.pushes("service").await?, mesh.pushes("config").await?),
        (full, config),
        "endpoint changes must cause no full push; triggers: {}",
        triggers(&mesh).await?
    );
    // Another port is another shape of the service: its ServiceEntry and its WorkloadEntry.
    follow(
        &mesh,
        Step {
            what: "change the port",
            endpoints: &["10.0.0.1:8081"],
            writes: 2,
        },
        async || consul.register(&edited("v3", 8081)).await,
    )
    .await?;

    let before = mesh.writes()?;
    drop(diolkos);
    let again = mesh.diolkos().await?;
    eventually(SOON, "synchronised after a restart", async || {
        again.synced("consul").await
    })
    .await;
    // A change after it is the proof that whatever else was to be written has been.
    follow(
        &mesh,
        Step {
            what: "register after a restart",
            endpoints: &["10.0.0.1:8081", "10.0.0.3:8081"],
            writes: 1,
        },
        async || {
            consul
                .register(&instance("web-3", ("10.0.0.3", 8081), "v1"))
                .await
        },
    )
    .await?;
    assert_eq!(
        mesh.writes()?,
        before + 1,
        "a restart with nothing changed writes nothing"
    );
    Ok(())
}

async fn triggers(mesh: &Mesh) -> Result<String> {
    let metrics = mesh.istiod.metrics().await?;
    Ok(metrics
        .lines()
        .filter(|line| line.starts_with("pilot_push_triggers"))
        .collect::<Vec<_>>()
        .join(", "))
}

/// Makes a change and sees it arrive in istiod in time, at its price.
async fn follow(mesh: &Mesh, step: Step<'_>, change: impl AsyncFn() -> Result<()>) -> Result<()> {
    let before = mesh.writes()?;
    change().await.context(step.what.to_owned())?;
    let start = Instant::now();
    eventually(FOLLOWS, step.what, async || {
        let found = mesh.endpoints(HOST).await?;
        ensure!(
            found.keys().eq(step.endpoints.iter().copied()),
            "{:?}",
            found.keys()
        );
        Ok(())
    })
    .await;
    let took = start.elapsed();
    eventually(SOON, step.what, async || {
        let written = mesh.writes()? - before;
        ensure!(
            written == step.writes,
            "{} objects written, not {}",
            written,
            step.writes
        );
        Ok(())
    })
    .await;
    ensure!(took < FOLLOWS, "{} took {took:?}", step.what);
    Ok(())
}
