//! A door for fuzzers.

use diolkos_istio::Object;
use diolkos_sink_api::State;

use crate::{manifest, name};

/// Reads a file that somebody made.
pub fn file(bytes: &[u8]) {
    if let Some(content) = manifest::from_yaml(bytes) {
        let name = name::file_name(&content.key);
        assert!(name.len() <= 255 && !name.contains('/'), "{name}");
    }
}

/// Writes an object and reads it again: it has to be recognised as unchanged.
pub fn object(object: &Object) {
    let hash = object.content_hash();
    let yaml = manifest::to_yaml(object, Some(hash)).unwrap_or_default();
    let read = manifest::from_yaml(yaml.as_bytes()).map(|content| (content.key, content.state));
    let Some((key, State::Ours { hash: found, .. })) = read else {
        panic!("not recognised: {read:?}\n{yaml}");
    };
    assert_eq!((&key, found), (&object.key, Some(hash)), "{yaml}");
}
