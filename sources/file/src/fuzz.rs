//! A door for fuzzers.

use std::sync::Arc;

use diolkos_model::{Interner, Service};

use crate::document;

/// Reads a file's content.
///
/// # Errors
/// What is wrong with it, with the place in the file.
pub fn decode(registry: &Arc<str>, content: &[u8]) -> Result<Vec<Service>, String> {
    document::decode(registry, content, &mut Interner::new())
        .map_err(|fault| fault.in_file("x.yaml"))
}
