//! Lines for the log, few however much goes wrong. What happened to each object is in the ledger.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// The least time between two lines that say the same.
const INTERVAL: Duration = Duration::from_secs(30);

/// Counts what is not said.
#[derive(Debug, Default)]
pub(super) struct Summary(BTreeMap<&'static str, Said>);

#[derive(Debug)]
struct Said {
    at: Instant,
    more: usize,
}

impl Summary {
    /// Something of the category happened once more. If it is to be said: how often it happened
    /// since it was said last, this time included.
    pub(super) fn add(&mut self, category: &'static str, now: Instant) -> Option<usize> {
        match self.0.get_mut(category) {
            Some(said) if now < said.at + INTERVAL => {
                said.more += 1;
                None
            }
            Some(said) => {
                said.at = now;
                Some(std::mem::take(&mut said.more) + 1)
            }
            None => {
                self.0.insert(category, Said { at: now, more: 0 });
                Some(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_said_then_one_line_an_interval_with_a_count() {
        let mut summary = Summary::default();
        let mut lines = Vec::new();
        for second in 0..95 {
            for _ in 0..10 {
                lines.extend(summary.add("Invalid", Instant::now()));
            }
            if second == 7 {
                assert_eq!(summary.add("Denied", Instant::now()), Some(1));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, [1, 300, 300, 300]);
    }
}
