//! The model over whole registries.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod applications;
mod defects;
mod properties;
mod providers;
mod registrations;
mod rules;
mod samples;
mod scale;
mod support;
