//! When something may be sent. Pure: the time is an argument.
//!
//! Changes are written in bursts with a gap: istiod pushes to the proxies when no event came for
//! 100 ms (at the latest after 10 s), so a steady trickle of writes would delay every proxy by 10 s.

use std::time::Duration;

use tokio::time::Instant;

/// How fast the loop goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The time without writes after a burst. Above istiod's 100 ms of quiet.
    pub gap: Duration,
    /// The longest time from the first write of a burst to the gap, however much is left to write.
    pub burst: Duration,
    /// The wait before an object that failed is tried again the first time; doubles up to `slowest`.
    /// An object that others keep changing is made right after twice that, doubling too.
    pub retry: Duration,
    /// The longest wait before an object is tried again.
    pub slowest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            gap: Duration::from_millis(150),
            burst: Duration::from_secs(5),
            retry: Duration::from_millis(500),
            slowest: Duration::from_secs(60),
        }
    }
}

/// Bursts and gaps.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    began: Option<Instant>,
    /// When a write was last sent or done.
    last: Option<Instant>,
    /// Until when we were asked to send nothing.
    asked: Option<Instant>,
}

impl Bursts {
    /// Until when nothing may be sent; `None` if something may be now.
    pub(super) fn closed_until(&self, now: Instant, pace: &Pace) -> Option<Instant> {
        if let Some(until) = self.asked.filter(|until| now < *until) {
            return Some(until);
        }
        let rested = self.last? + pace.gap;
        let open = self.began.is_some_and(|began| now < began + pace.burst);
        (now < rested && !open).then_some(rested)
    }

    pub(super) fn sent(&mut self, now: Instant, pace: &Pace) {
        let rested = self.last.is_none_or(|last| now >= last + pace.gap);
        if rested || self.began.is_none() {
            self.began = Some(now);
        }
        self.last = Some(now);
    }

    /// A write was done: istiod hears of it now. One that hangs or fails does not prolong the gap.
    pub(super) fn ended(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// All is sent: what comes from now on waits for the gap.
    pub(super) fn over(&mut self) {
        self.began = None;
    }

    /// The other side asked to be left alone.
    pub(super) fn pause(&mut self, until: Instant) {
        self.asked = self.asked.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_burst_has_a_longest_duration_and_a_gap_after_it() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |ms: u32| start + ms * MS;
        let mut bursts = Bursts::default();
        assert_eq!(bursts.closed_until(at(0), &pace), None);
        for ms in (0..5_000).step_by(100) {
            assert_eq!(bursts.closed_until(at(ms), &pace), None, "{ms} ms");
            bursts.sent(at(ms), &pace);
        }
        assert_eq!(bursts.closed_until(at(5_000), &pace), Some(at(5_050)));
        bursts.ended(at(5_010));
        assert_eq!(bursts.closed_until(at(5_020), &pace), Some(at(5_160)));
        assert_eq!(bursts.closed_until(at(5_160), &pace), None);
        bursts.sent(at(5_160), &pace);
        assert_eq!(bursts.closed_until(at(10_100), &pace), None, "a new burst");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_that_is_over_has_its_gap_too() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut bursts = Bursts::default();
        bursts.sent(start, &pace);
        bursts.over();
        bursts.ended(start + 20 * MS);
        let closed = bursts.closed_until(start + 21 * MS, &pace);
        assert_eq!(closed, Some(start + 170 * MS));
        assert_eq!(bursts.closed_until(start + 170 * MS, &pace), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_was_asked_for_holds_whatever_the_bursts_say() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut bursts = Bursts::default();
        bursts.sent(start, &pace);
        bursts.pause(start + 7_000 * MS);
        bursts.pause(start + 1_000 * MS);
        let closed = bursts.closed_until(start + 6_999 * MS, &pace);
        assert_eq!(closed, Some(start + 7_000 * MS), "the longest counts");
        assert_eq!(bursts.closed_until(start + 7_000 * MS, &pace), None);
    }
}
