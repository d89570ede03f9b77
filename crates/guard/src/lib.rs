//! What may vanish from the mesh.
//!
//! A registry that stumbles answers with less than there is. Additions and changes are always
//! believed; that something is *gone* only on complete [`Evidence`], and then only as much at once as the
//! [`Limits`] allow. What goes beyond is held back by the [`Guard`], and every hold has an end. Pure: state goes
//! in, a decision comes out, nothing here reads a clock or does I/O.

#![forbid(unsafe_code)]

use std::{collections::HashSet, sync::Arc};

use diolkos_model::{Instance, Service};

mod hold;
mod limits;

pub use hold::{Comparison, Guard, Hold, Loss, Moment, Why};
pub use limits::{Limits, Shrink};

/// How far an answer of a registry can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// All there is: what is not in it is gone.
    Complete,
    /// Perhaps less than there is, and this is why. What is in it is believed; nothing is taken as gone.
    Partial(Arc<str>),
    /// Perhaps of long ago, and this is why. Only what was not known at all is believed: an older record must
    /// not replace a newer one.
    Stale(Arc<str>),
}

impl Evidence {
    /// Whether something may be taken as gone.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }

    /// Why not everything in it can be believed.
    #[must_use]
    pub fn doubt(&self) -> Option<&Arc<str>> {
        match self {
            Self::Complete => None,
            Self::Partial(why) | Self::Stale(why) => Some(why),
        }
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

/// Joins a new record of one service with what is known of it: instances that are known and missing now stay as
/// they were last seen, and are named. On complete evidence it is up to the [`Guard`] whether they may go.
#[must_use]
pub fn admit(known: Option<&Service>, new: Service, evidence: &Evidence) -> Admitted {
    let (Some(known), Evidence::Complete | Evidence::Partial(_)) = (known, evidence) else {
        return Admitted {
            service: known.cloned().unwrap_or(new),
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

/// The service without the instances of these ids.
#[must_use]
pub fn without(service: &Service, ids: &[Arc<str>]) -> Service {
    let gone: HashSet<&str> = ids.iter().map(|id| &**id).collect();
    let left = service.instances.iter().filter(|i| !gone.contains(&*i.id));
    Service::new(
        service.key.clone(),
        service.meta.clone(),
        left.cloned().collect(),
    )
}

#[cfg(test)]
mod tests;
