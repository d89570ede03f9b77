//! The one task that owns all mutable state and publishes what the mesh should hold.
