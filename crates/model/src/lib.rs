//! The registry-neutral vocabulary of Diolkos.
//!
//! A source turns what its registry says into [`Service`]s; everything behind it (guard, plan,
//! sinks) knows only these types. No I/O, no async, no clock.
//!
//! Memory matters here: a mesh has a few labels and very many instances, so strings and whole
//! label sets are shared ([`Interner`]), and an [`Instance`] holds pointers to them.

#![forbid(unsafe_code)]

mod hash;
mod intern;
mod service;
mod workload;

pub use hash::{ContentHash, Hasher};
pub use intern::{Interner, Labels};
pub use service::{Address, Health, Instance, Locality, Port, Service, ServiceKey, Weight};
pub use workload::{Workload, Workloads};
