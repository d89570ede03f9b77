//! What the conformance suite cannot know of Nacos, on real servers.

mod changes;
mod support;
mod trouble;
