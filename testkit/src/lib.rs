//! Real servers for tests: Consul, the Kubernetes API, istiod, Envoy; and proxies that break the wire.
