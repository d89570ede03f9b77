//! An API server with Istio's types, registries of files, and what `diolkos` made of them.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use diolkos_testkit::{AuditRecord, HttpFault, Kubernetes, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Diolkos, SOON, diolkos};

/// Where the objects go.
pub const NAMESPACE: &str = "diolkos";

/// The kinds of objects in the mesh.
pub const KINDS: [&str; 2] = ["serviceentries", "workloadentries"];

/// An API server.
pub struct Cluster {
    pub kubernetes: Kubernetes,
}

/// Objects by kind and name: uid and resource version. Two that are equal mean that nobody wrote anything.
pub type Versions = BTreeMap<(String, String), (String, String)>;

impl Cluster {
    /// With Istio's types and the namespace of the objects.
    pub async fn start() -> Result<Self> {
        let kubernetes = Kubernetes::builder()
            .without_controller_manager()
            .start()
            .await?;
        kubernetes.install_istio_crds().await?;
        let cluster = Self { kubernetes };
        cluster.namespace(NAMESPACE).await?;
        Ok(cluster)
    }

    /// With our own types, too.
    pub async fn with_registries() -> Result<Self> {
        let cluster = Self::start().await?;
        let (code, crds, error) = diolkos(&["crds"]);
        ensure!(code == 0, "{error}");
        cluster.kubernetes.apply(&crds).await?;
        let wait = "wait --for=condition=Established crd --all --timeout=30s";
        let wait: Vec<&str> = wait.split(' ').collect();
        cluster.kubernetes.kubectl(&wait).await?;
        Ok(cluster)
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let create = ["create", "namespace", name];
        self.kubernetes.kubectl(&create).await.map(drop)
    }

    /// A `diolkos` with these documents.
    pub async fn run(&self, documents: &str) -> Result<Diolkos> {
        let kubeconfig = self.kubernetes.kubeconfig().display().to_string();
        Diolkos::run(documents, &["--kubeconfig", &kubeconfig]).await
    }

    /// A `diolkos` with these documents, that reaches the API server through the proxy.
    pub async fn run_through(&self, proxy: &HttpFault, documents: &str) -> Result<Diolkos> {
        let kubeconfig = self.kubernetes.kubeconfig_through(proxy)?;
        let kubeconfig = kubeconfig.display().to_string();
        Diolkos::run(documents, &["--kubeconfig", &kubeconfig]).await
    }

    /// The objects of a kind in a namespace.
    pub async fn objects_in(&self, namespace: &str, kind: &str) -> Result<Vec<Value>> {
        let path = format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}");
        let list = self.kubernetes.get(&path).await?;
        list["items"].as_array().cloned().context("no list")
    }

    /// The objects of a kind.
    pub async fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        self.objects_in(NAMESPACE, kind).await
    }

    /// One object.
    pub async fn object(&self, kind: &str, name: &str) -> Result<Value> {
        let path = format!("/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/{kind}/{name}");
        self.kubernetes.get(&path).await
    }

    /// The hosts of the service entries.
    pub async fn hosts(&self) -> Result<BTreeSet<String>> {
        let entries = self.objects("serviceentries").await?;
        let hosts = entries.iter().flat_map(|e| strings(&e["spec"]["hosts"]));
        Ok(hosts.collect())
    }

    /// The addresses of all endpoints, of workload entries and inside of service entries.
    pub async fn addresses(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for entry in self.objects("workloadentries").await? {
            found.extend(entry["spec"]["address"].as_str().map(str::to_owned));
        }
        for entry in self.objects("serviceentries").await? {
            let endpoints = entry["spec"]["endpoints"].as_array().into_iter().flatten();
            found.extend(endpoints.filter_map(|e| e["address"].as_str().map(str::to_owned)));
        }
        Ok(found)
    }

    /// All objects, as they are to be compared with later.
    pub async fn versions(&self) -> Result<Versions> {
        let mut versions = Versions::new();
        for kind in KINDS {
            for object in self.objects(kind).await? {
                let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
                let version = (text("uid").to_owned(), text("resourceVersion").to_owned());
                versions.insert((kind.to_owned(), text("name").to_owned()), version);
            }
        }
        Ok(versions)
    }

    /// The specs of all objects by kind and name.
    pub async fn specs(&self) -> Result<BTreeMap<(String, String), Value>> {
        let mut specs = BTreeMap::new();
        for kind in KINDS {
            for mut object in self.objects(kind).await? {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let key = (kind.to_owned(), name.to_owned());
                specs.insert(key, object["spec"].take());
            }
        }
        Ok(specs)
    }

    /// The writes of `diolkos` to objects in the mesh that this is true of, whatever came of them.
    pub fn requests(&self, of: impl Fn(&AuditRecord) -> bool) -> Result<usize> {
        let requests = self.kubernetes.requests()?;
        let ours = requests.iter().filter(|r| {
            r.is_write() && KINDS.contains(&&*r.resource) && r.user_agent.starts_with("diolkos")
        });
        Ok(ours.filter(|r| of(r)).count())
    }

    /// Objects in the mesh that `diolkos` created, changed or deleted.
    pub fn writes(&self) -> Result<usize> {
        self.requests(|r| r.code < 300)
    }

    /// The reasons of the Events on a `Registry`.
    pub async fn events(&self, registry: &str) -> Result<BTreeSet<String>> {
        let list = self.kubernetes.get("/api/v1/events").await?;
        let events = list["items"].as_array().into_iter().flatten();
        let of = events.filter(|e| {
            let about = &e["involvedObject"];
            about["kind"] == "Registry" && about["name"] == registry
        });
        Ok(of
            .filter_map(|e| e["reason"].as_str().map(str::to_owned))
            .collect())
    }
}

/// A directory that is a registry.
pub struct Files {
    folder: TempDir,
}

impl Files {
    pub fn new() -> Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The document of this registry; `spec` has what is not said by default: the host `SERVICE.test`.
    pub fn registry(&self, name: &str, spec: Value) -> Value {
        let mut all = json!({
            "file": {"path": self.folder.path()},
            "export": {"host": "{service}.test", "endpoints": "Inline"},
            "guard": {"emptyHold": "1s", "confirmAfter": 2, "emptyGrace": "0s"},
        });
        merge(&mut all, spec);
        json!({
            "apiVersion": "diolkos.io/v1alpha1", "kind": "Registry", "metadata": {"name": name}, "spec": all,
        })
    }

    /// Writes a file with these services, at once.
    pub fn put(&self, file: &str, services: &[Value]) -> Result<()> {
        let path = self.folder.path().join(format!("{file}.yaml"));
        let new = path.with_extension("new");
        let documents: Vec<String> = services.iter().map(Value::to_string).collect();
        std::fs::write(&new, documents.join("\n---\n"))?;
        std::fs::rename(new, path)?;
        Ok(())
    }

    /// Removes a file, and with it its services.
    pub fn remove(&self, file: &str) -> Result<()> {
        let path = self.folder.path().join(format!("{file}.yaml"));
        std::fs::remove_file(path).context("cannot remove the services")
    }
}

/// Puts the second object's fields over those of the first, at any depth.
fn merge(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (key, value) in over {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over,
    }
}

/// A service of a file.
pub fn service(name: &str, addresses: &[&str]) -> Value {
    let instance = |address: &&str| json!({"address": address, "port": 80});
    let instances: Vec<Value> = addresses.iter().map(instance).collect();
    json!({"name": name, "instances": instances})
}

/// Waits until everything of the registry is written.
pub async fn until_synced(diolkos: &Diolkos, registry: &str) {
    let what = format!("{registry} is synchronised");
    eventually(3 * SOON, &what, async || diolkos.synced(registry).await).await;
}

/// The value of a series of a metric, as it stands in the page.
pub async fn metric(diolkos: &Diolkos, series: &str) -> Result<f64> {
    let (_, page) = diolkos.page("/metrics").await?;
    let of = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    page.lines()
        .find_map(of)
        .with_context(|| format!("no {series} in\n{page}"))
}

fn strings(array: &Value) -> Vec<String> {
    let all = array.as_array().into_iter().flatten();
    all.filter_map(|v| v.as_str().map(str::to_owned)).collect()
}
