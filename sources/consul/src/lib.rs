//! Consul as a source of services.
