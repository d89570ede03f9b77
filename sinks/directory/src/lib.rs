//! Writes Istio objects as files, one an object, or as a stream of YAML documents.
