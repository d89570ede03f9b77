//! Writes Istio objects through the Kubernetes API by server-side apply.
