//! Nacos as a source of services.

#![forbid(unsafe_code)]

mod config;
#[doc(hidden)]
pub mod mapping;

pub use config::{Config, Groups, Select, Services, Transport};
use diolkos_source_api::{Epoch, Source, SourceCx, SourceError};

/// Nacos as a [`Source`].
#[derive(Debug)]
pub struct Nacos {
    config: Config,
}

impl Nacos {
    /// A source with these settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Source for Nacos {
    async fn run(&mut self, _epoch: Epoch, _cx: &mut SourceCx) -> Result<(), SourceError> {
        Err(SourceError::Config(format!("{:?}", self.config)))
    }
}
