//! The client against real ZooKeeper servers.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests count as code outside of tests"
)]

mod access;
mod cuts;
mod ensemble;
mod reads;
mod sessions;
mod support;
mod watches;
