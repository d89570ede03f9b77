//! A rate limit.

use std::time::Duration;

use tokio::time::Instant;

/// Allows `burst` actions at once and then one per `period`. Runs on tokio's clock, so paused tests
/// can drive it.
#[derive(Debug)]
pub struct TokenBucket {
    burst: u32,
    period: Duration,
    /// The bucket is full at this time; before it, one token is missing per `period`.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket. A `burst` of 0 counts as 1.
    #[must_use]
    pub fn new(burst: u32, period: Duration) -> Self {
        Self {
            burst: burst.max(1),
            period,
            full_at: Instant::now(),
        }
    }

    /// Takes a token, waiting for one if there is none. Dropping the future takes nothing.
    pub async fn take(&mut self) {
        let now = Instant::now();
        let full_at = self.full_at.max(now) + self.period;
        let slack = self.period.saturating_mul(self.burst);
        if full_at > now + slack {
            tokio::time::sleep_until(full_at - slack).await;
        }
        self.full_at = full_at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_one_per_period() {
        let mut bucket = TokenBucket::new(3, Duration::from_millis(100));
        let start = Instant::now();
        let mut taken_at = Vec::new();
        for _ in 0..6 {
            bucket.take().await;
            taken_at.push(start.elapsed().as_millis());
        }
        assert_eq!(taken_at, [0, 0, 0, 100, 200, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn fills_up_to_the_burst_and_no_further() {
        let mut bucket = TokenBucket::new(2, Duration::from_millis(100));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..3 {
            bucket.take().await;
        }
        assert_eq!(start.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_takes_nothing() {
        let mut bucket = TokenBucket::new(1, Duration::from_millis(100));
        bucket.take().await;
        for _ in 0..5 {
            let gave_up = tokio::time::timeout(Duration::from_millis(1), bucket.take()).await;
            assert!(gave_up.is_err());
        }
        let start = Instant::now();
        bucket.take().await;
        assert_eq!(start.elapsed(), Duration::from_millis(95));
    }
}
