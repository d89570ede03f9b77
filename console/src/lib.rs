//! The HTTP API: health, metrics, registries, services, explain.
