//! Real servers for tests: Consul, ZooKeeper, Dubbo, the Kubernetes API, istiod, Envoy; and proxies that break the wire.
//!
//! Each server runs on loopback ports of its own with its state in a temporary folder, so any number of them
//! can run at once. A server ends when its value is dropped, also when the test panics; and when the whole test
//! process is killed, the kernel ends it (see [`process`]). The programs come from `testbed/setup`; a program that
//! is missing is an error, never a skipped test.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! let consul = diolkos_testkit::Consul::start().await?;
//! consul.register(&serde_json::json!({"Name": "orders", "Address": "127.0.0.1", "Port": 8080})).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod consul;
mod disk;
pub mod dubbo;
pub mod envoy;
pub mod etcd;
pub mod eureka;
pub mod eventually;
pub mod fault;
pub mod fill;
mod home;
pub mod istiod;
mod java;
pub mod kubernetes;
pub mod nacos;
pub mod nacos_stub;
pub mod netns;
pub mod pki;
pub mod ports;
pub mod process;
pub mod program;
mod programs;
pub mod proxy;
pub mod upstream;
mod usage;
pub mod zookeeper;

pub use consul::Consul;
pub use disk::SmallDisk;
pub use dubbo::Dubbo;
pub use envoy::{Envoy, EnvoyOptions};
pub use etcd::Etcd;
pub use eureka::{Eureka, EurekaClient};
pub use eventually::eventually;
pub use fault::{Fault, HttpFault, Moment, On, Reply};
pub use istiod::Istiod;
pub use kubernetes::{AuditRecord, Kubernetes};
pub use nacos::{Nacos, NacosClient, NacosDoor, NacosInstance};
pub use nacos_stub::NacosStub;
pub use program::Program;
pub use proxy::TcpProxy;
pub use upstream::HttpUpstream;
pub use zookeeper::ZooKeeper;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Makes aws-lc-rs the TLS provider of the process, if none is set yet. Tests that build clients of their own
/// (reqwest, kube) call this first.
pub fn install_crypto() {
    // An error here means that a provider is installed already, which is all that we want.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
}

/// An HTTP client that trusts only the given roots, ignores proxies from the environment and keeps no idle
/// connection, so that a server's connection count shows the program under test alone.
pub(crate) fn http_client(
    roots: impl IntoIterator<Item = reqwest::Certificate>,
    identity: Option<reqwest::Identity>,
) -> anyhow::Result<reqwest::Client> {
    install_crypto();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(std::time::Duration::from_secs(20))
        .user_agent("diolkos-testkit")
        .tls_certs_only(roots);
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    Ok(builder.build()?)
}

/// Returns the body of a successful answer, or an error that names the request and shows what the server said.
pub(crate) async fn body_of(response: reqwest::Response) -> anyhow::Result<String> {
    let (status, url) = (response.status(), response.url().clone());
    let body = response.text().await?;
    anyhow::ensure!(
        status.is_success(),
        "{url} answered {status}: {}",
        body.trim()
    );
    Ok(body)
}

/// Locks, also after a panic of another holder: a failed test must still be able to end its servers.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
