//! From a service and a policy to the Istio objects to have. Pure: no I/O, no clock; the same input
//! gives the same bytes on every replica.
//!
//! ```text
//! Service ─► select ─► host, namespace ─► ports ─► endpoints ─► objects ─► Istio's rules ─► Plan
//!                 └────────┴───────┴──────────┴──────────┴─────────┴──► decisions (why, each one)
//! ```
//!
//! A bad instance costs itself only, and every step that drops, changes or refuses something says
//! so in a [`Decision`]: `diolkos explain` prints them, metrics and conditions count them.

#![forbid(unsafe_code)]

mod address;
mod decision;
mod desired;
mod endpoints;
mod host;
mod labels;
pub mod names;
mod objects;
mod plan;
mod policy;
mod ports;
mod select;
mod template;
#[cfg(test)]
mod testing;
mod workloads;

pub use decision::{Decision, Reason, Subject, Verdict};
pub use desired::{Desired, Planned, RegistryState, Remembered};
pub use plan::{Plan, plan, plan_empty, plan_with};
pub use policy::{
    Annotation, Endpoints, Exception, Grant, LabelPolicy, Matcher, PodPolicy, Policy, PortNaming,
    PortPolicy, ProtocolRule, Select, ServiceAccount,
};
pub use template::{MissingValue, Template, TemplateError};
