//! Eureka as a source of services.
//!
//! An application is a service, by its name in lower case. All that there is is read once, and then the
//! changes, in an interval. How that is done is described in `session`.
//!
//! # What is believed
//!
//! - What is known comes from one peer. Peers may disagree, so answers of two are never mixed: after a
//!   fail-over everything is read anew, and for some time nothing counts as gone ([`Config::settle`]).
//!   So it is too when deltas are numbered anew and much is lacking: no request may fail when a peer is
//!   restarted.
//! - Each answer tells how many instances the registry has, by status. Changes that do not lead to that
//!   are not taken over; everything is read then. A full answer that does not hold what it says is read
//!   again, and [`Evidence::Partial`] if that stays so.
//! - The counts show nothing but statuses, so everything is read every 5 minutes in any case.
//! - An application is gone when the changes say so of its last instance, and the counts agree. A full
//!   answer that lacks one is told as a snapshot; so are changes that take away much at once, since that
//!   is what a network that broke looks like.
//!
//! # How late changes are seen
//!
//! Eureka answers from a cache that it renews every 30 s
//! (`eureka.server.response-cache-update-interval-ms`), so a change is seen after at most that and
//! [`Config::poll`].
//!
//! # What is read of an instance
//!
//! | of the instance | comes from |
//! |---|---|
//! | id | `instanceId`, else `hostName:app:port` |
//! | address | `ipAddr`, else `hostName` |
//! | ports | `port`, `securePort` (as `secure`), if enabled; the metadata `gRPC_port` (as `grpc`) |
//! | protocol | the metadata `protocol` for the plain port, else `http`; `https`; `grpc` |
//! | health | `status`, if it is one of [`Config::statuses`] |
//! | weight | the metadata `weight` |
//! | locality | region: [`Config::region`], else the metadata `region`, else that of an availability zone of Amazon's; zone: the metadata `zone`, else the availability zone |
//! | version | the metadata `version` |
//! | labels | the metadata, without secrets |
//!
//! `vipAddress` and `secureVipAddress` are metadata of the service, if all instances have the same one
//! and it can be a host's name.

#![forbid(unsafe_code)]

mod api;
mod config;
mod mapping;
mod registry;
mod session;
mod told;
mod wire;
mod xml;

use std::{sync::Arc, time::Duration};

use diolkos_model::Interner;
use diolkos_net::{HttpClient, HttpConfig, TokenFile};
#[cfg(doc)]
use diolkos_source_api::Evidence;
use diolkos_source_api::{Epoch, Source, SourceCx, SourceError};

pub use config::{Config, Select, User};
pub use diolkos_net::TlsConfig;

use crate::{
    api::{Api, decode},
    mapping::Mapper,
    registry::Registry,
    session::Session,
    wire::Format,
};

/// Eureka as a [`Source`].
#[derive(Debug)]
pub struct Eureka {
    config: Arc<Config>,
    password: Option<TokenFile>,
    /// Made by the first connection that finds its files. Stays with the peer that answered last.
    http: Option<HttpClient>,
    interner: Interner,
    /// Whether a connection of this process has said all that there is.
    was_live: bool,
}

impl Eureka {
    /// A source with these settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let user = config.user.as_ref();
        Self {
            password: user.map(|user| TokenFile::new(&user.password_file)),
            http: None,
            interner: Interner::new(),
            was_live: false,
            config: Arc::new(config),
        }
    }

    async fn connection(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let http = match &mut self.http {
            Some(http) => http,
            None => self.http.insert(client(&self.config)?),
        };
        let api = Api {
            http,
            config: &self.config,
            password: self.password.as_ref(),
            interner: &mut self.interner,
            health: cx.health.clone(),
            peer: None,
        };
        let mut session = Session::new(api, cx.events.clone(), epoch);
        // A first connection has nothing to lose; what was there before the process is the guard's.
        let settle = if self.was_live {
            self.config.settle
        } else {
            Duration::ZERO
        };
        session.begin(settle).await?;
        self.was_live = true;
        session.follow(&mut cx.resync).await
    }
}

impl Source for Eureka {
    async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let cancel = cx.cancel.clone();
        tokio::select! {
            ended = self.connection(epoch, cx) => ended,
            () = cancel.cancelled() => Err(SourceError::Stopped),
        }
    }
}

fn client(config: &Config) -> Result<HttpClient, SourceError> {
    let http = HttpConfig::new(config.addresses.clone(), config.tls.clone());
    HttpClient::new(http).map_err(|error| SourceError::Config(error.to_string()))
}

/// A door for fuzzers: reads any bytes as each form of an answer and takes them over, as everything and
/// as changes.
#[doc(hidden)]
pub fn decode_for_fuzz(body: &[u8]) -> Vec<diolkos_model::Service> {
    let config = Config {
        registry: "fuzz".into(),
        addresses: Vec::new(),
        region: "".into(),
        statuses: ["UP".to_owned()].into(),
        user: None,
        tls: TlsConfig::default(),
        poll: Duration::ZERO,
        settle: Duration::ZERO,
        select: Arc::new(|_| true),
    };
    let mut interner = Interner::new();
    let mut mapper = Mapper {
        config: &config,
        interner: &mut interner,
    };
    let mut services = Vec::new();
    for format in [Format::Json, Format::Xml] {
        let Ok(answer) = decode(body, format, &mut mapper) else {
            continue;
        };
        let mut registry = Registry::default();
        let followed = registry.follow(&answer).is_some();
        assert!(
            followed || registry.names().next().is_none(),
            "taken over in part"
        );
        registry.replace(answer);
        let names: Vec<_> = registry.names().cloned().collect();
        let applications = names
            .iter()
            .filter_map(|name| Some((name, registry.get(name)?)));
        services.extend(applications.map(|(name, app)| mapper.service(name, app.values())));
    }
    services
}
