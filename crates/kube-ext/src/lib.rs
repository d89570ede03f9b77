//! What every part of Diolkos that talks to Kubernetes needs: a client with our settings, a deadline for each
//! call, metadata watches, the `Registry` documents of the cluster, Leases and Events.
//!
//! # Rules for calls to the API
//! - Every call goes through [`deadline`]: the client itself waits for an answer without end.
//! - The client does not retry. kube's default policy waits up to 1,000 s between 15 tries without a word; who
//!   calls knows better when to come again and what to write by then.
//! - A watch is a [`metadata_watch`] per kind with a back-off of its own, never a `Controller` over several kinds,
//!   whose watches share one back-off.

#![forbid(unsafe_code)]

mod client;
mod documents;
mod error;
mod events;
mod lease;
mod pods;
mod services;
mod watch;

pub use client::{ClientError, USER_AGENT, client};
pub use documents::{DocumentKind, Documents, apply_status, document, secret};
pub use error::{CALL_DEADLINE, CallError, deadline, reason};
pub use events::{About, EVENT_PAUSE, EventKind, EventRecorder, Notice};
pub use kube::Client;
pub use lease::{
    Holder, LEASE_DURATION, LeaseSettings, LeaseTerms, LeaseView, Leases, replica_identity,
    start_leases,
};
pub use pods::{PodChange, PodNews, PodSettings, watch_pods};
pub use services::{ServiceName, ServiceNames, watch_services};
pub use watch::{MetadataEvent, WatchError, metadata_watch};
