//! A directory of YAML documents as a source of services.
