//! Until when this process may write.
//!
//! Several replicas share the registries out among themselves: who writes the objects of which is
//! decided by leases, which end. Two writers at once do no harm, since both write the same; but a
//! process that slept beyond its lease knows only what was true before, so it asks the clock
//! immediately before each request.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::watch, time::Instant};

use crate::WriteError;

/// For each registry that this process writes the objects of: until when, on the monotonic clock.
pub type Terms = BTreeMap<Arc<str>, Instant>;

/// Which registries' objects this process may write now.
#[derive(Clone, Debug)]
pub struct Authority {
    terms: Option<watch::Receiver<Arc<Terms>>>,
}

impl Authority {
    /// All, for ever: there is one process only.
    #[must_use]
    pub fn always() -> Self {
        Self { terms: None }
    }

    /// Those that have a term, until it ends. Once the sender is gone no term is renewed.
    #[must_use]
    pub fn until(terms: watch::Receiver<Arc<Terms>>) -> Self {
        Self { terms: Some(terms) }
    }

    /// Whether the objects of the registry may be written at this instant.
    #[must_use]
    pub fn permits(&self, registry: &str) -> bool {
        let Some(terms) = &self.terms else {
            return true;
        };
        let end = terms.borrow().get(registry).copied();
        end.is_some_and(|end| Instant::now() < end)
    }

    /// Waits until terms are given, renewed or taken away. That one ends by itself is not told.
    pub async fn changed(&mut self) {
        if let Some(terms) = &mut self.terms
            && terms.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// The right to make one change, to be asked for immediately before each request.
#[derive(Clone, Debug)]
pub struct Permit {
    authority: Authority,
    registry: Arc<str>,
}

impl Permit {
    /// As much as `authority` permits for objects of `registry`.
    #[must_use]
    pub fn new(authority: Authority, registry: Arc<str>) -> Self {
        Self {
            authority,
            registry,
        }
    }

    /// For who has the store alone: tests.
    #[cfg(any(test, feature = "conformance"))]
    #[must_use]
    pub fn always() -> Self {
        Self::new(Authority::always(), "any".into())
    }

    /// No right at all.
    #[cfg(any(test, feature = "conformance"))]
    #[must_use]
    pub fn never() -> Self {
        let (_, none) = watch::channel(Arc::default());
        Self::new(Authority::until(none), "any".into())
    }

    /// Whether the request may be sent.
    ///
    /// # Errors
    /// [`WriteError::NotPermitted`]: the term is over.
    pub fn check(&self) -> Result<(), WriteError> {
        if self.authority.permits(&self.registry) {
            Ok(())
        } else {
            Err(WriteError::NotPermitted(self.registry.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_term_ends_by_itself_and_what_has_none_is_not_permitted() {
        let terms = Terms::from([("one".into(), Instant::now() + SECOND)]);
        let (sender, receiver) = watch::channel(Arc::new(terms));
        let mut authority = Authority::until(receiver);
        assert!(authority.permits("one") && !authority.permits("two"));
        tokio::time::advance(SECOND).await;
        assert!(!authority.permits("one"), "the end is not part of it");
        let renewed = Terms::from([("one".into(), Instant::now() + SECOND)]);
        sender.send_replace(Arc::new(renewed));
        authority.changed().await;
        assert!(authority.permits("one"));
        sender.send_replace(Arc::default());
        assert!(!authority.permits("one"), "taken away at once");
        authority.changed().await;
        drop(sender);
        let told = tokio::time::timeout(SECOND, authority.changed()).await;
        assert!(told.is_err(), "nobody is left to tell");
    }

    #[tokio::test(start_paused = true)]
    async fn always_never_changes() {
        let mut authority = Authority::always();
        assert!(authority.permits("any"));
        let told = tokio::time::timeout(SECOND, authority.changed()).await;
        assert!(told.is_err());
    }
}
