//! The sink against a real API server.

mod foreign;
mod lifecycle;
mod others;
mod outages;
mod refused;
mod support;
