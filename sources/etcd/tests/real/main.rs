//! The source against real etcd clusters.

mod access;
mod changes;
mod support;
mod trouble;
