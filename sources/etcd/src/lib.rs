//! etcd with Dubbo's layout as a source of services.
//!
//! What keys and values mean is `diolkos_source_dubbo`'s. How they are read and followed is
//! described in `session`.
//!
//! # What is believed
//!
//! - Reads are linearizable: a member that has no quorum gives no answer, rather than an old one.
//! - A snapshot is of one revision, and the watch begins with the next one: there is no gap. Where
//!   the watch broke or its revision was compacted, everything is read anew; nothing is resumed.
//! - A key is gone when etcd says so: deleted, or its lease ended. A broken watch says nothing.
//! - Prefixes that the user may not read make [`Evidence::Partial`]; without the one that the rest
//!   depends on, the user is [denied](SourceError::Denied).

#![forbid(unsafe_code)]

mod client;
mod connect;
mod proto;
mod scope;
mod session;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use diolkos_net::TlsConfig;
#[cfg(doc)]
use diolkos_source_api::Evidence;
use diolkos_source_api::{Epoch, Source, SourceCx, SourceError};
use diolkos_source_dubbo::Options;

use crate::{
    client::{Client, Failure, Meter},
    connect::Member,
    proto::Header,
    scope::Range,
    session::{Reading, Session},
};

/// How often the watch and the right to read are tried. Also keeps the token: etcd forgets one that
/// is not used for 5 minutes.
const PULSE: Duration = Duration::from_secs(10);
/// How long a member may take for the first answer before the next one is tried.
const ANSWER: Duration = Duration::from_secs(5);

/// How an etcd is read.
#[derive(Clone)]
pub struct Config {
    /// Base URLs of the members; the next one is tried when one fails. At least one.
    pub endpoints: Vec<String>,
    /// A user of etcd.
    pub user: Option<User>,
    /// For `https` endpoints.
    pub tls: TlsConfig,
    /// Where Dubbo's interfaces are, usually `/dubbo`.
    pub prefix: String,
    /// Where Dubbo's applications are, usually `/services`.
    pub applications: String,
    /// How services are made.
    pub dubbo: Options,
    /// Whether a service (interface or application) of this name is wanted at all.
    pub select: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// A user of etcd.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The file that holds the password; read anew for each connection.
    pub password_file: PathBuf,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// etcd as a [`Source`].
#[derive(Debug)]
pub struct Etcd {
    config: Config,
    pulse: Duration,
    /// The member that answered last, by its place in the configuration.
    member: usize,
    /// The cluster that was read last, and its revision then.
    last: Option<Header>,
    /// Requests since the start.
    requests: Arc<AtomicU64>,
}

impl Etcd {
    /// A source with these settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            pulse: PULSE,
            member: 0,
            last: None,
            requests: Arc::default(),
        }
    }

    /// Looks for signs of life so often. For tests: each one costs etcd an answer.
    #[doc(hidden)]
    #[must_use]
    pub fn pulse(mut self, pulse: Duration) -> Self {
        self.pulse = pulse;
        self
    }

    async fn connection(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let Self {
            config,
            pulse,
            member,
            last,
            requests,
        } = self;
        let ranges = scope::ranges(config);
        let meter = || Meter::new(cx.health.clone(), requests.clone());
        let client = connect(config, &ranges, member, meter).await?;
        let session = Session {
            config,
            client: &client,
            ranges: &ranges,
            pulse: *pulse,
            epoch,
            events: cx.events.clone(),
            health: cx.health.clone(),
        };
        cx.health.syncing(format!("reading {}", client.member()));
        loop {
            // All requests so far are served by one snapshot.
            while cx.resync.try_recv().is_ok() {}
            let Reading {
                mut catalog,
                extent,
            } = session.read().await?;
            remember(last, &extent.header, client.member());
            // Before the services are told: a slow listener is not to make the watch come too late.
            let watch = session.watch(&extent).await?;
            session.tell(&mut catalog, &extent).await?;
            tokio::select! {
                ended = session.follow(watch, &mut catalog, &extent) => ended?,
                ended = session.probe(&extent) => ended?,
                Some(()) = cx.resync.recv() => {}
            }
        }
    }
}

impl Source for Etcd {
    async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
        let cancel = cx.cancel.clone();
        tokio::select! {
            ended = self.connection(epoch, cx) => ended,
            () = cancel.cancelled() => Err(SourceError::Stopped),
        }
    }
}

/// Connects to the first member that answers, beginning with the one that answered last.
async fn connect(
    config: &Config,
    ranges: &[Range],
    last: &mut usize,
    meter: impl Fn() -> Meter,
) -> Result<Client, SourceError> {
    let members = config.endpoints.iter().map(|text| Member::parse(text));
    let members: Vec<Member> = members.collect::<Result<_, _>>()?;
    let mut faults = Vec::new();
    for offset in 0..members.len() {
        let at = (*last + offset) % members.len();
        match greet(config, ranges, &members[at], meter()).await {
            Ok(client) => {
                *last = at;
                return Ok(client);
            }
            // Another member would say the same.
            Err(error @ (SourceError::Config(_) | SourceError::Denied(_))) => return Err(error),
            Err(error) => faults.push(error.to_string()),
        }
    }
    Err(SourceError::Transport(faults.join("; ")))
}

/// Connects to a member and sees whether it has a quorum: one without is not to be read from.
async fn greet(
    config: &Config,
    ranges: &[Range],
    member: &Member,
    meter: Meter,
) -> Result<Client, SourceError> {
    let user = config.user.as_ref();
    let client = Client::connect(member, &config.tls, user, meter, ANSWER).await?;
    for range in ranges.iter().filter(|range| range.required) {
        match client.probe(range, ANSWER).await {
            Ok(_) => {}
            Err(Failure::Forbidden) => return Err(config.denied(range)),
            Err(failure) => return Err(client.lost_by(failure)),
        }
    }
    Ok(client)
}

/// Tells people when this is not the etcd that was read before, or not its newest state. It makes
/// no difference to what is done: everything is read anew, and what is gone is held by the guard.
fn remember(last: &mut Option<Header>, now: &Header, member: &str) {
    if let Some(last) = last {
        if last.cluster_id != now.cluster_id {
            tracing::warn!(
                member,
                before = format!("{:x}", last.cluster_id),
                now = format!("{:x}", now.cluster_id),
                "this is another etcd cluster than before"
            );
        } else if now.revision < last.revision {
            tracing::warn!(
                member,
                before = last.revision,
                now = now.revision,
                "the revision of etcd went back, was a backup restored?"
            );
        }
    }
    *last = Some(now.clone());
}
