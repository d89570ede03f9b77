//! What may vanish from the mesh.
//!
//! A registry that stumbles answers with less than there is. Additions and changes are always
//! believed; that something is *gone* only on complete [`Evidence`]. Pure functions: state goes in,
//! a decision comes out, nothing here reads a clock or does I/O.

#![forbid(unsafe_code)]

use std::{collections::HashSet, sync::Arc};

use diolkos_model::{Instance, Service, ServiceKey};

/// How far an answer of a registry can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// All there is: what is not in it is gone.
    Complete,
    /// Perhaps less than there is, and this is why. What is in it is believed; nothing is taken as gone.
    Partial(Arc<str>),
}

impl Evidence {
    /// Whether something may be taken as gone.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }
}

/// A service as it may go on into the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// The service, with instances kept that the answer lacked.
    pub service: Service,
    /// The ids of the instances that were kept although the answer lacked them.
    pub held: Vec<Arc<str>>,
}

/// Decides on a new record of one service. On partial evidence, instances that are known and
/// missing now stay as they were last seen.
#[must_use]
pub fn admit(known: Option<&Service>, new: Service, evidence: &Evidence) -> Admitted {
    let (Some(known), Evidence::Partial(_)) = (known, evidence) else {
        return Admitted {
            service: new,
            held: Vec::new(),
        };
    };
    let present: HashSet<&str> = new.instances.iter().map(|i| &*i.id).collect();
    let missing: Vec<Instance> = known
        .instances
        .iter()
        .filter(|i| !present.contains(&*i.id))
        .cloned()
        .collect();
    if missing.is_empty() {
        return Admitted {
            service: new,
            held: Vec::new(),
        };
    }
    let held = missing.iter().map(|i| i.id.clone()).collect();
    let instances = new.instances.iter().cloned().chain(missing).collect();
    Admitted {
        service: Service::new(new.key, new.meta, instances),
        held,
    }
}

/// Decides at the end of a snapshot which of the services that it lacked may be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// They are gone.
    pub remove: Vec<ServiceKey>,
    /// They stay until a complete snapshot says the same.
    pub hold: Vec<ServiceKey>,
}

/// See [`Sweep`]. `unseen` are the known services that the snapshot did not mention.
#[must_use]
pub fn sweep(unseen: Vec<ServiceKey>, evidence: &Evidence) -> Sweep {
    match evidence {
        Evidence::Complete => Sweep {
            remove: unseen,
            hold: Vec::new(),
        },
        Evidence::Partial(_) => Sweep {
            remove: Vec::new(),
            hold: unseen,
        },
    }
}

#[cfg(test)]
mod tests;
