//! The documents a user writes: defaults, checks, CRDs, JSON schema.
