//! The client.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// How we name ourselves to the API server: audit logs and flow control see it.
pub const USER_AGENT: &str = concat!("diolkos/", env!("CARGO_PKG_VERSION"));

const CONNECT: Duration = Duration::from_secs(5);

/// The longest silence on a connection. Above the 65 s after which a watch is given up (see `watch`): it is for
/// what has no deadline of its own, the start of a watch.
const READ: Duration = Duration::from_secs(75);

/// No client could be made.
#[derive(thiserror::Error, Debug)]
pub enum ClientError {
    /// The kubeconfig that was named, or that was found, is of no use.
    #[error("kubeconfig {path}: {reason}; check the file, or name another one with --kubeconfig")]
    Kubeconfig {
        /// Which.
        path: String,
        /// Why.
        reason: KubeconfigError,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error(
        "no Kubernetes cluster: {kubeconfig} does not exist, and this is no pod with a service account ({in_cluster}); \
         name a kubeconfig with --kubeconfig or KUBECONFIG, or run in a pod"
    )]
    Nowhere {
        /// Where a kubeconfig was looked for.
        kubeconfig: String,
        /// What is missing of a service account.
        in_cluster: Box<InClusterError>,
    },
    /// The settings are readable, but no client can be made of them.
    #[error("cannot set up the Kubernetes client for {server}: {reason}")]
    Setup {
        /// The API server.
        server: String,
        /// Why.
        reason: String,
    },
}

/// A client for the cluster of `kubeconfig`; without one for that of `KUBECONFIG` or `~/.kube/config`, or, where
/// these do not exist, for the cluster that this pod runs in. Opens no connection yet.
///
/// The process needs a rustls provider before.
///
/// # Errors
/// What was tried and what to do.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = config(kubeconfig).await?;
    let server = config.cluster_url.to_string();
    let setup = |reason: String| ClientError::Setup {
        server: server.clone(),
        reason,
    };
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    // Else the time that a pooled connection was idle counts as silence.
    config.reset_reader_on_write = true;
    if is_loopback(&config) {
        // kubectl does the same; kube would send these through HTTPS_PROXY.
        config.proxy_url = None;
    }
    let name = "user-agent".parse();
    let value = USER_AGENT.parse();
    if let (Ok(name), Ok(value)) = (name, value) {
        config.headers.push((name, value));
    }
    Client::try_from(config).map_err(|error| setup(crate::reason(&error)))
}

async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClientError> {
    let named = kubeconfig.map(Path::to_owned);
    let place = named
        .as_ref()
        .map_or_else(default_place, |path| path.display().to_string());
    let read = match &named {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let failed = |reason| ClientError::Kubeconfig {
        path: place.clone(),
        reason,
    };
    match read {
        Ok(found) => Config::from_custom_kubeconfig(found, &KubeConfigOptions::default())
            .await
            .map_err(failed),
        Err(error) if named.is_none() && is_absent(&error) => {
            Config::incluster().map_err(|error| ClientError::Nowhere {
                kubeconfig: place.clone(),
                in_cluster: Box::new(error),
            })
        }
        Err(error) => Err(failed(error)),
    }
}

fn default_place() -> String {
    match std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
        Some(value) => PathBuf::from(value).display().to_string(),
        None => "~/.kube/config".to_owned(),
    }
}

fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn is_loopback(config: &Config) -> bool {
    let host = config.cluster_url.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
