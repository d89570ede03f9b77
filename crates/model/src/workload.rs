//! What the platform says of whoever answers at an address.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{Labels, Locality};

/// The Pod behind an address. Not part of what a registry says: nobody but the platform writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The Pod's namespace.
    pub namespace: Arc<str>,
    /// The Pod's name.
    pub name: Arc<str>,
    /// Those of its labels that somebody asked for.
    pub labels: Labels,
    /// The service account that it runs under; `None` if it is not known.
    pub service_account: Option<Arc<str>>,
    /// Where its node is.
    pub locality: Locality,
}

/// Workloads by address, in canonical form (an IPv4 address mapped into IPv6 is IPv4).
pub type Workloads = BTreeMap<IpAddr, Arc<Workload>>;
