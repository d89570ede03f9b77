//! The suite that every sink passes, on a real API server.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use diolkos_istio::{Kind, ObjectKey};
use diolkos_kube_ext::Client;
use diolkos_sink_api::conformance::{FOREIGN_NAME, FOREIGN_VALUE, Fixture, Trouble};
use diolkos_sink_kubernetes::{KubernetesSink, Options};
use diolkos_testkit::{Fault, HttpFault, Kubernetes, On, Reply};
use serde_json::{Value, json};

struct Cluster {
    // Its connections end before the servers do.
    client: Client,
    /// The sinks reach the API server through it.
    proxy: HttpFault,
    kubernetes: Kubernetes,
}

async fn cluster() -> Result<Cluster> {
    let builder = Kubernetes::builder().without_controller_manager();
    let kubernetes = builder.start().await?;
    kubernetes.install_istio_crds().await?;
    let proxy = kubernetes.fault_proxy().await?;
    let kubeconfig = kubernetes.kubeconfig_through(&proxy)?;
    let client = diolkos_kube_ext::client(Some(&kubeconfig)).await?;
    let cluster = Cluster {
        client,
        proxy,
        kubernetes,
    };
    cluster.create_namespace(cluster.namespace()).await?;
    Ok(cluster)
}

impl Cluster {
    /// All objects of a kind, as they are stored.
    async fn list(&self, kind: Kind) -> Result<Vec<Value>> {
        let path = format!("/apis/{}/{}", Kind::API_VERSION, kind.plural());
        match self.kubernetes.get(&path).await?["items"].take() {
            Value::Array(items) => Ok(items),
            other => anyhow::bail!("{path} has no items but {other}"),
        }
    }

    async fn patch(&self, key: &ObjectKey, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let (kind, namespace) = (key.kind.plural(), &key.namespace);
        let args = ["patch", kind, "-n", namespace, &key.name, "--type=merge"];
        let args = [&args[..], &["-p", &patch]].concat();
        self.kubernetes.kubectl(&args).await.map(drop)
    }
}

fn spec(kind: Kind) -> Value {
    match kind {
        Kind::WorkloadEntry => json!({"address": "10.9.9.9"}),
        Kind::ServiceEntry => json!({
            "hosts": ["foreign.example"],
            "ports": [{"number": 7777, "name": "tcp-7777", "protocol": "TCP"}],
            "resolution": "STATIC",
        }),
    }
}

impl Fixture for Cluster {
    type Sink = KubernetesSink;

    fn sink(&self) -> KubernetesSink {
        let options = Options {
            deadline: Duration::from_secs(5),
            ..Options::default()
        };
        KubernetesSink::with_options(self.client.clone(), options)
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<Value>> {
        let (kind, namespace, name) = (key.kind.plural(), &key.namespace, &key.name);
        let path = format!(
            "/apis/{}/namespaces/{namespace}/{kind}/{name}",
            Kind::API_VERSION
        );
        match self.kubernetes.get(&path).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.to_string().contains(" answered 404") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn versions(&self) -> Result<BTreeMap<ObjectKey, String>> {
        let mut versions = BTreeMap::new();
        for kind in Kind::ALL {
            for object in self.list(kind).await? {
                let text = |field: &str| {
                    let text = object["metadata"][field].as_str();
                    text.with_context(|| format!("{object} has no {field}"))
                };
                let key = ObjectKey {
                    kind,
                    namespace: text("namespace")?.into(),
                    name: text("name")?.into(),
                };
                let version = format!("{} {}", text("uid")?, text("resourceVersion")?);
                versions.insert(key, version);
            }
        }
        Ok(versions)
    }

    async fn edit(&self, key: &ObjectKey) -> Result<()> {
        // Fields that we set. What others set besides (`exportTo`, a further port) is theirs: so it is with
        // server-side apply.
        let spec = match key.kind {
            Kind::WorkloadEntry => json!({"address": "10.9.9.9"}),
            Kind::ServiceEntry => json!({"hosts": ["edited.example"]}),
        };
        self.patch(key, &json!({"spec": spec})).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let (kind, namespace) = (key.kind.plural(), &key.namespace);
        // Without waiting: ours come back while kubectl still asks whether it is gone.
        let args = ["delete", kind, "-n", namespace, &key.name, "--wait=false"];
        self.kubernetes.kubectl(&args).await.map(drop)
    }

    async fn put_foreign(&self, key: &ObjectKey) -> Result<()> {
        let object = json!({
            "apiVersion": Kind::API_VERSION,
            "kind": key.kind.name(),
            "metadata": {"name": key.name, "namespace": key.namespace},
            "spec": spec(key.kind),
        });
        self.kubernetes.apply(&object.to_string()).await
    }

    async fn add_foreign_metadata(&self, key: &ObjectKey) -> Result<()> {
        let added = json!({FOREIGN_NAME: FOREIGN_VALUE});
        let metadata = json!({"metadata": {"labels": added, "annotations": added}});
        self.patch(key, &metadata).await
    }

    async fn create_namespace(&self, name: &str) -> Result<()> {
        let args = ["create", "namespace", name];
        self.kubernetes.kubectl(&args).await.map(drop)
    }

    async fn hang(&self, on: bool) -> Result<()> {
        if on {
            self.kubernetes.stop_process()
        } else {
            self.kubernetes.continue_process()
        }
    }

    async fn trouble(&self, part: &str, how: Trouble) -> Result<()> {
        let fault = match how {
            Trouble::Fails => Fault::Reply(Reply::kubernetes(503, "ServiceUnavailable")),
            Trouble::Hangs => Fault::Hang,
            Trouble::LosesAnswers => Fault::LoseReply,
            Trouble::Busy(seconds) => {
                let reply = Reply::status(429).body("Too many requests");
                Fault::Reply(reply.header("Retry-After", &seconds.to_string()))
            }
        };
        self.proxy.rule(On::writes().path(part), fault);
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        self.proxy.clear();
        Ok(())
    }
}

diolkos_sink_api::conformance_tests!(cluster, metadata, namespaces, hang, trouble);
