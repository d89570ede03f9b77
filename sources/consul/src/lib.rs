//! Consul as a source of services.
//!
//! One source follows all configured datacenters; a service's namespace is its datacenter's name.
//! How changes are found is described in `session`.
//!
//! # What is believed
//!
//! - Contents always come from the leader, by plain reads. The waiting queries, which any server
//!   may answer, only tell that something changed.
//! - An answer that says that it is filtered by ACLs and an anonymous client of a Consul that denies
//!   by default make [`Evidence::Partial`].
//! - An answer of a server that knows no leader, or heard of it more than 5 s ago, is
//!   [`Evidence::Stale`], and what it says is asked for again.
//! - A service is gone when its name left the catalogue *and* the leader has no instance of it.
//! - A token that may read only some services makes snapshots partial for ever. Services that it
//!   may read still come and go, since each is asked for by name.
//!
//! # What is read of an instance
//!
//! | of the instance | comes from |
//! |---|---|
//! | id | `NODE/SERVICE-ID` |
//! | address | the service's, else the node's |
//! | ports | `Ports`, the default one first; else `Port` |
//! | protocol | for a named port the metadata or tag `protocol-NAME`, else the start of its name if Istio knows it; for the default port the metadata or tag `protocol` |
//! | health | any critical check, maintenance first; a warning is healthy |
//! | weight | `Weights.Passing`, or `Weights.Warning` while a check warns |
//! | locality | the service's, else the node's, else the datacenter as the region |
//! | version | metadata `version`, else tag `version=…`, else a tag like `v1` or `v2.3` |
//! | labels | metadata, tags `key=value` and `key\|value`; all other tags, joined by commas, as `tags` |
//!
//! Proxies and gateways of Consul's own mesh are left out.

#![forbid(unsafe_code)]

mod api;
mod checks;
mod config;
mod datacenter;
#[doc(hidden)]
pub mod fuzz;
mod index;
mod mapping;
mod queue;
mod session;
mod wire;

use std::sync::{Mutex, atomic::AtomicBool};

use diolkos_model::Interner;
use diolkos_net::{HttpClient, HttpConfig, TokenFile};
#[cfg(doc)]
use diolkos_source_api::Evidence;
use diolkos_source_api::{Epoch, Source, SourceCx, SourceError};

pub use config::{Config, Consistency, Select};
pub use diolkos_net::TlsConfig;

use crate::{api::Api, datacenter::Datacenter, session::Session};

/// Consul as a [`Source`].
#[derive(Debug)]
pub struct Consul {
    config: Config,
    token: Option<TokenFile>,
    /// Made by the first connection that finds its files.
    http: Option<HttpClient>,
    /// Empty until the agent told its own, if none is configured.
    datacenters: Vec<Datacenter>,
    interner: Mutex<Interner>,
}

impl Consul {
    /// A source with these settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let token = config.token_file.as_ref().map(TokenFile::new);
        let datacenters = config.datacenters.iter();
        Self {
            datacenters: datacenters.map(|name| Datacenter::new(name)).collect(),
            token,
            http: None,
            interner: Mutex::new(Interner::new()),
            config,
        }
    }

    async fn connection(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let Self {
            config,
            token,
            http,
            datacenters,
            interner,
        } = self;
        let http = match http {
            Some(http) => http,
            None => http.insert(client(config)?),
        };
        let api = Api {
            http,
            config,
            token: token.as_ref(),
            health: cx.health.clone(),
            anonymous: AtomicBool::new(false),
        };
        if datacenters.is_empty() {
            datacenters.push(Datacenter::new(&api.own_datacenter().await?));
        }
        let session = Session {
            api,
            datacenters,
            interner,
            events: cx.events.clone(),
        };
        loop {
            // All requests so far are served by one snapshot.
            while cx.resync.try_recv().is_ok() {}
            session.snapshot(epoch).await?;
            tokio::select! {
                ended = session.follow() => ended?,
                Some(()) = cx.resync.recv() => {}
            }
        }
    }
}

impl Source for Consul {
    async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let cancel = cx.cancel.clone();
        tokio::select! {
            ended = self.connection(epoch, cx) => ended,
            () = cancel.cancelled() => Err(SourceError::Stopped),
        }
    }
}

fn client(config: &Config) -> Result<HttpClient, SourceError> {
    let mut http = HttpConfig::new(config.addresses.clone(), config.tls.clone());
    http.max_idle = config.max_concurrent_reads.max(2);
    HttpClient::new(http).map_err(|error| SourceError::Config(error.to_string()))
}
