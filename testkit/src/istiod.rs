//! istiod on a Kubernetes API, for proxies without certificates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::home::Home;
use crate::kubernetes::Kubernetes;
use crate::ports::{self, Port};
use crate::process::{Process, Spec, with_free_ports};
use crate::programs::program;

const START: Duration = Duration::from_secs(60);

/// The namespace that istiod lives in, and no mutual TLS: the upstream Envoy gets no certificates, and would wait
/// for them for ever.
const NAMESPACE: &str = r#"
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}
---
{"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
 "metadata": {"name": "default", "namespace": "istio-system"}, "spec": {"mtls": {"mode": "DISABLE"}}}
"#;

/// How an istiod is to be started.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    config_dir: Option<PathBuf>,
    mesh: serde_json::Map<String, Value>,
    env: Vec<(String, String)>,
}

impl Builder {
    /// Reads Istio's resources from the YAML files of a folder. The Kubernetes API stays its registry of Services,
    /// because istiod does not start without one.
    #[must_use]
    pub fn config_dir(mut self, folder: &Path) -> Self {
        self.config_dir = Some(folder.to_owned());
        self
    }

    /// Sets a field of the mesh configuration.
    #[must_use]
    pub fn mesh(mut self, field: &str, value: Value) -> Self {
        self.mesh.insert(field.to_owned(), value);
        self
    }

    /// Sets an environment variable: most of istiod's features are set that way.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Installs Istio's CRDs, starts istiod and waits until it is ready.
    ///
    /// # Errors
    /// When the program is missing or istiod does not get ready; the error ends with its log.
    pub async fn start(self, kubernetes: &Kubernetes) -> Result<Istiod> {
        kubernetes.install_istio_crds().await?;
        kubernetes.apply(NAMESPACE).await?;
        with_free_ports(async || Istiod::launch(&self, kubernetes).await).await
    }
}

/// A running istiod. Dropping it ends it; drop it before its Kubernetes.
#[derive(Debug)]
pub struct Istiod {
    // istiod ends before its folder goes.
    process: Process,
    client: Client,
    ports: Ports,
    _home: Home,
}

#[derive(Debug)]
struct Ports {
    xds: Port,
    http: Port,
    webhook: Port,
    secure_xds: Port,
    monitoring: Port,
    introspection: Port,
}

impl Istiod {
    /// Starts istiod with Istio's resources from this Kubernetes.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start(kubernetes: &Kubernetes) -> Result<Self> {
        Self::builder().start(kubernetes).await
    }

    /// Options other than those of [`start`](Self::start).
    pub fn builder() -> Builder {
        Builder::default()
    }

    async fn launch(options: &Builder, kubernetes: &Kubernetes) -> Result<Self> {
        let program = program("pilot-discovery")?;
        let home = Home::new("istiod")?;
        let [xds, http, webhook, secure_xds, monitoring, introspection] = ports::free()?;
        let ports = Ports {
            xds,
            http,
            webhook,
            secure_xds,
            monitoring,
            introspection,
        };
        let spec = command(
            options,
            &ports,
            &home,
            Spec::new("istiod", program, home.log("istiod")),
        )?
        .arg("--kubeconfig")
        .arg(kubernetes.kubeconfig());
        let process = Process::start(spec)?;
        let istiod = Self {
            process,
            client: crate::http_client([], None)?,
            ports,
            _home: home,
        };
        istiod.ready().await?;
        Ok(istiod)
    }

    async fn ready(&self) -> Result<()> {
        self.process
            .ready(START, async || self.get(&self.ports.http, "/ready").await)
            .await
            .map(drop)
    }

    async fn get(&self, port: &Port, path: &str) -> Result<String> {
        crate::body_of(
            self.client
                .get(format!("http://{}{path}", port.address()))
                .send()
                .await?,
        )
        .await
    }

    /// The port of plaintext xDS, on 127.0.0.1.
    pub fn xds_port(&self) -> u16 {
        self.ports.xds.number()
    }

    /// The answer of a debug page, such as `/debug/configz`.
    ///
    /// # Errors
    /// When istiod cannot be reached, answers with an error, or the page is not JSON.
    pub async fn debug(&self, path: &str) -> Result<Value> {
        let text = self.get(&self.ports.http, path).await?;
        serde_json::from_str(&text).with_context(|| format!("{path} of istiod is not JSON"))
    }

    /// The hosts of all services that istiod knows, sorted (`/debug/registryz`).
    ///
    /// # Errors
    /// As [`debug`](Self::debug).
    pub async fn hosts(&self) -> Result<Vec<String>> {
        let services = self.debug("/debug/registryz").await?;
        let services = services
            .as_array()
            .context("/debug/registryz is not a list")?;
        let mut hosts: Vec<String> = services
            .iter()
            .filter_map(|s| s["hostname"].as_str())
            .map(str::to_owned)
            .collect();
        ensure!(
            hosts.len() == services.len(),
            "a service of /debug/registryz has no hostname"
        );
        hosts.sort();
        Ok(hosts)
    }

    /// The endpoints that istiod has for a host, from all namespaces and registries, sorted by address and port
    /// (`/debug/endpointz`). A host without endpoints has an empty list.
    ///
    /// # Errors
    /// As [`debug`](Self::debug).
    pub async fn endpoints(&self, host: &str) -> Result<Vec<Endpoint>> {
        let mut page = self.debug("/debug/endpointz").await?;
        let namespaces: BTreeMap<String, Shards> = match page[host].take() {
            Value::Null => BTreeMap::new(),
            found => serde_json::from_value(found)
                .context("/debug/endpointz has another form than we know")?,
        };
        let mut endpoints: Vec<Endpoint> = namespaces
            .into_values()
            .flat_map(|n| n.shards.into_values())
            .flatten()
            .collect();
        endpoints.sort();
        Ok(endpoints)
    }

    /// The metrics in the Prometheus text format.
    ///
    /// # Errors
    /// When istiod cannot be reached or answers with an error.
    pub async fn metrics(&self) -> Result<String> {
        self.get(&self.ports.monitoring, "/metrics").await
    }

    /// The sum of all samples of a metric that have these labels, such as
    /// `("pilot_push_triggers", &[("type", "endpoint")])`; 0 when there is none, as for a counter that was never
    /// counted up.
    ///
    /// # Errors
    /// As [`metrics`](Self::metrics).
    pub async fn metric_sum(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(sum(&self.metrics().await?, name, labels))
    }

    /// istiod's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL: proxies keep what they have.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Kills istiod if it runs, starts it on the same ports and waits until it is ready.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }
}

/// One endpoint as istiod has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    /// The addresses; the first is the main one.
    pub addresses: Vec<String>,
    /// The port at that address.
    pub endpoint_port: u16,
    /// The name of the service's port that it stands behind.
    pub service_port_name: String,
    /// The labels, with those that istiod adds (`topology.istio.io/...`).
    pub labels: BTreeMap<String, String>,
    /// The load-balancing weight; 0 when none was given.
    pub lb_weight: u32,
    /// The network.
    pub network: String,
    /// The name of the WorkloadEntry, empty for an endpoint inside of a ServiceEntry.
    pub workload_name: String,
}

/// The endpoints of one host and namespace, by registry and cluster.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shards {
    shards: BTreeMap<String, Vec<Endpoint>>,
}

fn command(options: &Builder, ports: &Ports, home: &Home, spec: Spec) -> Result<Spec> {
    let mut mesh = json!({
        "trustDomain": "cluster.local",
        "enableAutoMtls": false,
        "defaultConfig": {"discoveryAddress": ports.secure_xds.address().to_string()},
    });
    for (field, value) in &options.mesh {
        mesh[field] = value.clone();
    }
    let mut spec = spec
        .arg("discovery")
        .arg("--meshConfig")
        .arg(home.write("mesh.json", mesh.to_string())?)
        .arg("--networksConfig")
        .arg(home.data().join("no-networks"))
        .arg(format!("--grpcAddr={}", ports.xds.address()))
        .arg(format!("--httpAddr={}", ports.http.address()))
        .arg(format!("--httpsAddr={}", ports.webhook.address()))
        .arg(format!("--secureGRPCAddr={}", ports.secure_xds.address()))
        .arg(format!("--monitoringAddr={}", ports.monitoring.address()))
        .arg(format!("--ctrlz_port={}", ports.introspection))
        .args([
            "--shutdownDuration=1s",
            "--clusterID=Kubernetes",
            "--registries=Kubernetes",
        ])
        .env("POD_NAME", "istiod-test")
        .env("POD_NAMESPACE", "istio-system")
        .env("INSTANCE_IP", "127.0.0.1")
        // Puts the name into its certificate.
        .env("ISTIOD_CUSTOM_HOST", "localhost")
        // Filters that only Istio's build of Envoy has; the upstream one refuses each listener that names them.
        .env("PILOT_ENABLE_METADATA_EXCHANGE", "false")
        .env("PILOT_DISABLE_MX_ALPN", "true")
        .env("PILOT_ENABLE_ALPN_FILTER", "false");
    if let Some(folder) = &options.config_dir {
        spec = spec.arg("--configDir").arg(folder);
    }
    for (name, value) in &options.env {
        spec = spec.env(name, value.as_str());
    }
    Ok(spec)
}

/// Adds up samples of the Prometheus text format. Label values with escapes do not occur in what tests ask for.
fn sum(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let has = |pair: &String| found.split(',').any(|p| p == pair);
        wanted.iter().all(has).then(|| value.parse::<f64>().ok())?
    };
    metrics.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn sums_only_the_samples_with_the_labels() {
        let text = "# HELP a_b x\na_b 1\na_b{type=\"cds\",v=\"1\"} 2\na_b{type=\"eds\"} 4\na_b_c{type=\"cds\"} 8\n";
        let type_of = |kind| [("type", kind)];
        for (want, got) in [
            (7.0, sum(text, "a_b", &[])),
            (2.0, sum(text, "a_b", &type_of("cds"))),
            (8.0, sum(text, "a_b_c", &[])),
            (0.0, sum(text, "none", &[])),
        ] {
            assert!((got - want).abs() < f64::EPSILON, "{got} is not {want}");
        }
    }
}
