//! The source against real ZooKeeper servers.

#[path = "../dubbo/mod.rs"]
mod dubbo;
mod access;
mod layouts;
mod outages;
mod scale;
mod support;
mod trouble;
