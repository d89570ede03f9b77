//! The source against real Eureka servers.

mod access;
mod changes;
mod peers;
mod support;
mod trouble;
