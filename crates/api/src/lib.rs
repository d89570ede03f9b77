//! The documents a user writes: defaults, checks, CRDs, JSON schema.
//!
//! ```text
//! file ──► load ─┐
//!                ├─► raw (as written) ─► check ─► settings (checked) | faults (all of them)
//! cluster ───────┘
//! ```
//!
//! [`raw`] is what a document says, [`CheckedRegistry`] what it means: two types, so that nothing
//! unchecked gets past this crate. One set of raw types is the CRD ([`crds`]), the file form
//! ([`load`]) and the schema for editors ([`json_schema`]).

#![forbid(unsafe_code)]

mod check;
mod crd;
mod document;
mod fault;
mod load;
pub mod raw;
mod settings;
mod value;
mod yaml;

pub use check::{DEFAULT_NAMESPACE, check};
pub use crd::{crds, json_schema};
pub use fault::{Fault, FieldPath, Place, Problem, Segment};
#[doc(hidden)]
pub use load::load_bytes;
pub use load::{Loaded, load};
pub use settings::{
    CheckedRegistry, Consistency, ConsulSettings, Credential, Discovery, DubboSettings,
    EtcdSettings, EurekaSettings, FileSettings, Limits, Login, NacosAuth, NacosServices,
    NacosSettings, NacosTransport, Shrink, SourceSettings, TlsMaterial, TlsSettings, Variants,
    ZooKeeperSettings,
};
