//! Logs and metrics.
//!
//! No global state but the log subscriber: [`Metrics`] is made once and handed on. Its methods take
//! counts and times; label names live here only, and label values are either the names of
//! registries (bounded by the configuration) or `&'static str` (bounded by the code), so that no
//! registry can blow up the number of series with what it says.

#![forbid(unsafe_code)]

mod levels;
mod logs;
mod metrics;
mod process;

pub use levels::{RegistryLevels, SinkLevels, SourceHealth};
pub use logs::{LogError, LogFormat, init_logs};
pub use metrics::{CONTENT_TYPE, Metrics, SourceEvent};
