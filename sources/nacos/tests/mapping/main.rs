//! What services of Nacos become.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod defects;
mod dubbo;
mod health;
mod plain;
mod properties;
mod scale;
mod support;
