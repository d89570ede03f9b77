//! Envoy as a mesh proxy of an istiod, without an agent and without iptables.
//!
//! The proxy has no traffic redirected to it: give it a `Sidecar` (or `Gateway`) that matches its labels and has a
//! `bind` address, and send requests there with the `Host` header of the service.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Client;
use serde_json::{Value, json};

use crate::home::Home;
use crate::istiod::Istiod;
use crate::ports::{self, Address, Port};
use crate::process::{Process, Spec, with_free_ports};
use crate::programs::program;

const START: Duration = Duration::from_secs(60);

/// What a proxy is in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A workload's proxy.
    Sidecar,
    /// A gateway.
    Router,
}

/// How an Envoy is to be started.
#[derive(Debug, Clone)]
pub struct EnvoyOptions {
    /// The workload's name.
    pub name: String,
    /// The workload's namespace.
    pub namespace: String,
    /// Sidecar or gateway.
    pub kind: Kind,
    /// The workload's labels, which `Sidecar` and `Gateway` selectors match.
    pub labels: BTreeMap<String, String>,
    /// The proxy's own address, by default one that no other test has. It must differ from every WorkloadEntry's
    /// and Pod's: istiod takes a proxy's labels from the workload with its address.
    pub ip: Option<Ipv4Addr>,
}

impl EnvoyOptions {
    /// A sidecar in namespace `default` with the label `app: NAME`.
    pub fn sidecar(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            kind: Kind::Sidecar,
            labels: [("app".to_owned(), name.to_owned())].into(),
            ip: None,
        }
    }
}

/// A running Envoy. Dropping it ends it.
#[derive(Debug)]
pub struct Envoy {
    // Envoy ends before its folder goes.
    process: Process,
    client: Client,
    admin: Port,
    ip: Ipv4Addr,
    _address: Option<Address>,
    _home: Home,
}

impl Envoy {
    /// Starts Envoy and waits until istiod has given it clusters and listeners.
    ///
    /// # Errors
    /// When the program is missing or Envoy does not get ready; the error ends with its log.
    pub async fn start(istiod: &Istiod, options: EnvoyOptions) -> Result<Self> {
        with_free_ports(async || {
            let envoy = Self::launch(istiod, &options)?;
            envoy.wait_ready().await?;
            Ok(envoy)
        })
        .await
    }

    fn launch(istiod: &Istiod, options: &EnvoyOptions) -> Result<Self> {
        let program = program("envoy")?;
        let home = Home::new("envoy")?;
        let admin = ports::port()?;
        let own = if options.ip.is_none() {
            Some(ports::address()?)
        } else {
            None
        };
        let ip = options
            .ip
            .or(own.as_ref().map(Address::ip))
            .context("no address for Envoy")?;
        let config = bootstrap(options, ip, &admin, istiod.xds_port());
        let spec = Spec::new("envoy", program, home.log("envoy"))
            .arg("--config-path")
            .arg(home.write("bootstrap.json", config.to_string())?)
            .args([
                "--use-dynamic-base-id",
                "--concurrency",
                "1",
                "--log-level",
                "warning",
            ]);
        let process = Process::start(spec)?;
        Ok(Self {
            process,
            client: crate::http_client([], None)?,
            admin,
            ip,
            _address: own,
            _home: home,
        })
    }

    /// The proxy's own address: the one to `bind` its Sidecar's listeners to.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// GET of a path of the administration interface, such as `/clusters?format=json`.
    ///
    /// # Errors
    /// When Envoy cannot be reached or answers with an error.
    pub async fn admin(&self, path: &str) -> Result<String> {
        crate::body_of(
            self.client
                .get(format!("http://{}{path}", self.admin.address()))
                .send()
                .await?,
        )
        .await
    }

    /// Waits until Envoy is live, which is when it has its first clusters and listeners.
    ///
    /// # Errors
    /// When that takes more than 60 s.
    pub async fn wait_ready(&self) -> Result<()> {
        self.process
            .ready(START, async || self.admin("/ready").await)
            .await
            .map(drop)
    }

    /// Envoy's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn bootstrap(options: &EnvoyOptions, ip: Ipv4Addr, admin: &Port, xds_port: u16) -> Value {
    let EnvoyOptions {
        name,
        namespace,
        labels,
        ..
    } = options;
    let kind = match options.kind {
        Kind::Sidecar => "sidecar",
        Kind::Router => "router",
    };
    let from_istiod =
        json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    json!({
        "node": {
            "id": format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{name}.{namespace}"),
            "metadata": {
                "NAMESPACE": namespace, "NAME": name, "LABELS": labels, "INSTANCE_IPS": ip, "ISTIO_VERSION": "1.31.0",
                "CLUSTER_ID": "Kubernetes", "MESH_ID": "cluster.local", "INTERCEPTION_MODE": "NONE", "PROXY_CONFIG": {},
            },
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin.number()}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "cds_config": from_istiod,
            "lds_config": from_istiod,
        },
        "static_resources": {"clusters": [xds_cluster(xds_port)]},
    })
}

fn xds_cluster(port: u16) -> Value {
    let istiod = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "load_assignment": {
            "cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": istiod}}]}],
        },
    })
}
