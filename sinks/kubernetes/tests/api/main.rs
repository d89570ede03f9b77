//! The sink against a real API server.

mod faults;
mod foreign;
mod lifecycle;
mod others;
mod outages;
mod refused;
mod support;
