//! A door for fuzzers.

use diolkos_istio::Kind;
use kube::api::ObjectMeta;

use crate::entry::{self, Shares};

/// Reads the metadata (JSON) of an object that somebody made.
pub fn metadata(json: &[u8]) {
    let Ok(meta) = serde_json::from_slice::<ObjectMeta>(json) else {
        return;
    };
    for kind in Kind::ALL {
        let mut shares = Shares::default();
        let Some((key, entry)) = entry::read(kind, &meta, &mut shares) else {
            continue;
        };
        assert_eq!(meta.name.as_deref(), Some(&*key.name));
        assert_eq!(meta.uid, Some(entry.uid.to_string()));
        assert!(entry.is_ours() || entry.remembered(&key).is_none());
        assert!(entry.is_ours() || entry.hash().is_none());
    }
}
