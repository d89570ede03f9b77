//! The source against real ZooKeeper servers.

mod access;
#[path = "../dubbo/mod.rs"]
mod dubbo;
mod layouts;
mod outages;
mod scale;
mod support;
mod trouble;
