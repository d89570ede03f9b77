//! The one task that owns all mutable state.
//!
//! ```text
//!  sources ── Envelope ──►┐                        ┌─► watch<Arc<Desired>>  (sinks make it true)
//!  configuration ────────►│ State: store ► guard   │
//!  operator commands ────►│ ► dirty ► plan ► claims├─► watch<Arc<View>>     (explain, console, metrics)
//!                         └────────────────────────┘
//! ```
//!
//! A whole service is planned anew whenever anything of it changed: that costs microseconds, and
//! there is no incremental mapping that could drift. Nothing is locked; others see snapshots.

#![forbid(unsafe_code)]

mod claims;
mod clock;
mod command;
mod explain;
mod run;
mod state;
mod view;

pub use clock::{Clock, Now, SystemClock};
pub use command::{Command, Configured, PodNews, Policies, Reserved};
pub use diolkos_guard::Why;
pub use explain::{Explanation, RecordView, explain};
pub use run::{Engine, Observe, Options, Window, spawn};
pub use view::{HoldView, Known, PodsView, RegistryView, RememberedView, View};
