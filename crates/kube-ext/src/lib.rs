//! Kubernetes client set-up, metadata watches, the server-side-apply writer, Registry documents from the cluster.
