//! A cluster with Istio's CRDs, and the objects that the tests write.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use diolkos_istio::{
    Kind, Location, Object, ObjectKey, Resolution, ServiceEntry, ServicePort, Spec, WorkloadEntry,
    WorkloadSelector, label,
};
use diolkos_kube_ext::{Client, USER_AGENT};
use diolkos_sink_api::{Change, Observed, Outcome, Permit, Sink, State, WriteError, Writer as _};
use diolkos_sink_kubernetes::{KubernetesSink, Options};
use diolkos_testkit::{HttpFault, Kubernetes, eventually, kubernetes::Builder};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(15);
pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const REGISTRY: &str = "consul";

/// A running API server with Istio's CRDs and the namespace [`NAMESPACE`].
pub(crate) struct Bed {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) client: Client,
}

impl Bed {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(Kubernetes::builder()).await
    }

    pub(crate) async fn start_with(builder: Builder) -> Result<Self> {
        let kubernetes = builder.without_controller_manager().start().await?;
        kubernetes.install_istio_crds().await?;
        kubernetes
            .kubectl(&["create", "namespace", NAMESPACE])
            .await?;
        let client = diolkos_kube_ext::client(Some(kubernetes.kubeconfig())).await?;
        Ok(Self { kubernetes, client })
    }

    /// A sink that has read nothing yet.
    pub(crate) fn blind_sink(&self) -> KubernetesSink {
        KubernetesSink::new(self.client.clone())
    }

    pub(crate) async fn sink(&self) -> Result<KubernetesSink> {
        let mut sink = self.blind_sink();
        sink.observe().await?;
        Ok(sink)
    }

    pub(crate) async fn get(&self, key: &ObjectKey) -> Result<Value> {
        let (namespace, name) = (&key.namespace, &key.name);
        let path = format!(
            "/apis/{}/namespaces/{namespace}/{}/{name}",
            Kind::API_VERSION,
            key.kind.plural()
        );
        self.kubernetes.get(&path).await
    }

    pub(crate) async fn patch(&self, key: &ObjectKey, json: &str) -> Result<()> {
        let args = [
            "patch",
            key.kind.plural(),
            "-n",
            &key.namespace,
            &key.name,
            "--type=merge",
            "-p",
            json,
        ];
        self.kubernetes.kubectl(&args).await.map(drop)
    }

    pub(crate) async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.kubernetes
            .kubectl(&["delete", key.kind.plural(), "-n", &key.namespace, &key.name])
            .await
            .map(drop)
    }

    /// Runs `action` to its end while nothing else runs in the test: the sink's watches hear of it only after the
    /// next write has begun. Works in tests with one thread only.
    pub(crate) fn behind_its_back<T: Send>(
        &self,
        action: impl AsyncFnOnce(&Self) -> Result<T> + Send,
    ) -> Result<T> {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(action(self))
            });
            other.join().ok().context("the other thread panicked")?
        })
    }

    /// Waits until these, by verb, are the requests of ours after the first `before` ones; watches do not count.
    pub(crate) async fn cost(&self, before: usize, expected: &[(&str, usize)]) {
        let expected: BTreeMap<String, usize> = expected
            .iter()
            .map(|(verb, n)| ((*verb).to_owned(), *n))
            .collect();
        let what = format!("{expected:?} after {before} requests");
        eventually(SOON, &what, async || match self.verbs_after(before) {
            Ok(verbs) if verbs == expected => Ok(()),
            other => Err(other),
        })
        .await;
    }

    fn verbs_after(&self, before: usize) -> Result<BTreeMap<String, usize>> {
        let mut requests = self.kubernetes.requests()?;
        requests.retain(|r| r.user_agent == USER_AGENT && r.verb != "watch");
        let mut verbs = BTreeMap::new();
        for request in requests.into_iter().skip(before) {
            *verbs.entry(request.verb).or_default() += 1;
        }
        Ok(verbs)
    }
}

pub(crate) fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: NAMESPACE.into(),
        name: name.into(),
    }
}

fn object(kind: Kind, name: &str, spec: Spec) -> Object {
    let labels = [
        (label::MANAGED_BY, label::MANAGER),
        (label::REGISTRY, REGISTRY),
    ];
    Object {
        key: key(kind, name),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        annotations: [("diolkos.io/service".to_owned(), format!("consul/{name}"))].into(),
        spec,
    }
}

pub(crate) fn service_entry(name: &str, port: u32) -> Object {
    let spec = ServiceEntry {
        hosts: vec![format!("{name}.service.consul")],
        ports: vec![ServicePort {
            number: port,
            protocol: "HTTP".into(),
            name: "http".into(),
            target_port: 0,
        }],
        location: Location::MeshInternal.into(),
        resolution: Resolution::Static.into(),
        workload_selector: Some(WorkloadSelector {
            labels: [(label::SERVICE.to_owned(), name.to_owned())].into(),
        }),
        ..Default::default()
    };
    object(Kind::ServiceEntry, name, Spec::ServiceEntry(spec))
}

pub(crate) fn workload_entry(name: &str, address: &str) -> Object {
    let spec = WorkloadEntry {
        address: address.to_owned(),
        ports: [("http".to_owned(), 8080)].into(),
        labels: [(label::SERVICE.to_owned(), name.to_owned())].into(),
        ..Default::default()
    };
    object(Kind::WorkloadEntry, name, Spec::WorkloadEntry(spec))
}

pub(crate) fn put(object: &Object) -> Change {
    Change::Put {
        hash: object.content_hash(),
        object: object.clone(),
    }
}

pub(crate) fn delete(object: &Object) -> Change {
    Change::Delete(object.key.clone())
}

/// Makes one change.
pub(crate) async fn one(sink: &mut KubernetesSink, change: Change) -> Result<Outcome, WriteError> {
    sink.writer().apply(change, &Permit::always()).await
}

/// What came of changes, by object.
pub(crate) type Results = BTreeMap<ObjectKey, Result<Outcome, WriteError>>;

/// Makes changes at once.
pub(crate) async fn all_at_once(
    sink: &KubernetesSink,
    changes: impl IntoIterator<Item = Change>,
) -> Results {
    let writes = changes.into_iter().map(|change| {
        let writer = sink.writer();
        async move {
            let key = change.key().clone();
            (key, writer.apply(change, &Permit::always()).await)
        }
    });
    futures::future::join_all(writes)
        .await
        .into_iter()
        .collect()
}

pub(crate) fn ours(object: &Object) -> State {
    State::Ours {
        registry: REGISTRY.into(),
        hash: Some(object.content_hash()),
    }
}

pub(crate) fn changed() -> State {
    State::Ours {
        registry: REGISTRY.into(),
        hash: None,
    }
}

pub(crate) fn observed(key: &ObjectKey, state: State) -> Observed {
    Observed {
        key: key.clone(),
        state,
    }
}

/// Waits until drift has told these, and nothing else.
pub(crate) async fn drifts(sink: &mut KubernetesSink, mut expected: Vec<Observed>) -> Result<()> {
    while !expected.is_empty() {
        let drift = tokio::time::timeout(SOON, sink.drift()).await;
        for observed in drift.with_context(|| format!("no drift told of {expected:?}"))?? {
            let place = expected.iter().position(|e| *e == observed);
            let place = place.with_context(|| format!("{observed:?} is none of {expected:?}"))?;
            expected.swap_remove(place);
        }
    }
    Ok(())
}

/// Makes sure that nothing but the end of `marker` is told: the watch has passed all that happened before then.
/// `marker` is an object of ours of the kind in question.
pub(crate) async fn nothing_but(
    bed: &Bed,
    sink: &mut KubernetesSink,
    marker: &ObjectKey,
) -> Result<()> {
    bed.delete(marker).await?;
    drifts(sink, vec![observed(marker, State::Gone)]).await
}

/// What is there, sorted.
pub(crate) async fn all(sink: &mut KubernetesSink) -> Result<Vec<Observed>> {
    let mut all = sink.observe().await?;
    all.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(all)
}

pub(crate) fn foreign_reason(result: Result<Outcome, WriteError>) -> Result<String> {
    match result {
        Err(WriteError::Foreign(reason)) => Ok(reason),
        other => anyhow::bail!("not refused as foreign: {other:?}"),
    }
}

/// Without what every write moves.
pub(crate) fn content(mut object: Value) -> Result<Value> {
    let metadata = object["metadata"].as_object_mut().context("no metadata")?;
    ensure!(metadata.contains_key("uid"), "no object: {metadata:?}");
    for moved in ["managedFields", "resourceVersion", "generation"] {
        metadata.remove(moved);
    }
    Ok(object)
}

/// A sink that reaches the API server through a proxy.
pub(crate) async fn through_a_proxy(
    bed: &Bed,
    deadline: Duration,
) -> Result<(HttpFault, KubernetesSink)> {
    let proxy = bed.kubernetes.fault_proxy().await?;
    let kubeconfig = bed.kubernetes.kubeconfig_through(&proxy)?;
    let options = Options {
        deadline,
        ..Options::default()
    };
    let client = diolkos_kube_ext::client(Some(&kubeconfig)).await?;
    let mut sink = KubernetesSink::with_options(client, options);
    sink.observe().await?;
    Ok((proxy, sink))
}
