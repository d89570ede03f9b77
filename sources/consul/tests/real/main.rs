//! The source against real Consul agents.

mod access;
mod changes;
mod support;
mod trouble;
