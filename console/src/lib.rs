//! The HTTP API: health, metrics, registries, services, explain.
//!
//! | path | what |
//! |---|---|
//! | `/healthz` | the process runs |
//! | `/readyz` | the sink was read, and every registry was synchronised or is known to be away |
//! | `/metrics` | OpenMetrics |
//! | `/api/v1/registries` | [`RegistryStatus`] of each |
//! | `POST /api/v1/registries/NAME/release` | lets the removals pass that are held back of a registry |
//! | `/api/v1/services` | [`ServiceStatus`] of each, `?registry=` and `?host=` filter |
//! | `/api/v1/explain?host=` | [`Explained`]: from the registry's record to the objects, every decision; takes a host, a service, an object, an instance id or an address |

#![forbid(unsafe_code)]

mod http;
mod state;
mod status;

pub use http::{Encode, Released, serve};
pub use state::{Holder, Holders, Observer, Sources};
pub use status::{Condition, Explained, RegistryStatus, ServiceStatus, Written, time};
