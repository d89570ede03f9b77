//! Waiting between tries.

use std::time::Duration;

/// Exponential back-off with full jitter: each wait is drawn between half of the current limit and
/// the limit, so that many replicas do not come back at one instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits of about `first`, doubling up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            tries: 0,
        }
    }

    /// The next wait.
    pub fn next_delay(&mut self) -> Duration {
        let limit = self
            .first
            .saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX))
            .min(self.most);
        self.tries = self.tries.saturating_add(1).min(31);
        limit.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// The next wait is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_stays_there() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        for _ in 0..100 {
            let wait = backoff.next_delay();
            assert!(wait >= Duration::from_millis(50) && wait <= Duration::from_secs(3));
        }
        assert!(backoff.next_delay() >= Duration::from_millis(1500));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
