//! When to send which Event. Pure: the time is told.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{About, Notice};

/// A series that nothing was added to for so long has ended.
const FORGET: Duration = Duration::from_secs(6 * 60);
/// The most objects and reasons that are remembered. Above it, what is new is lost.
const MOST: usize = 1024;

type Key = (About, &'static str);

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The last one.
    pub(super) notice: Notice,
    /// How often it happened since the series began.
    pub(super) count: u64,
    /// The Event to count it in, if there is one with this note: the API takes no other note later.
    pub(super) event: Option<String>,
}

/// Remembers what was sent.
pub(super) struct Limiter {
    /// The least time between two requests for the same object and reason.
    pause: Duration,
    series: HashMap<Key, Series>,
}

struct Series {
    last: Notice,
    count: u64,
    /// How many of them were sent.
    told: u64,
    sent: Instant,
    /// The name and the note of the last Event.
    event: Option<(String, String)>,
}

impl Series {
    fn due(&mut self, now: Instant) -> Due {
        self.told = self.count;
        self.sent = now;
        let event = self.event.as_ref();
        let same = event.filter(|(_, note)| *note == self.last.note);
        Due {
            notice: self.last.clone(),
            count: self.count,
            event: same.map(|(name, _)| name.clone()),
        }
    }
}

impl Limiter {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            series: HashMap::new(),
        }
    }

    /// Takes over a notice; gives what is to be sent now.
    pub(super) fn notice(&mut self, notice: Notice, now: Instant) -> Option<Due> {
        self.series
            .retain(|_, s| s.told < s.count || now < s.sent + FORGET);
        let key = (notice.about.clone(), notice.reason);
        if let Some(series) = self.series.get_mut(&key) {
            series.count += 1;
            series.last = notice;
            return (now >= series.sent + self.pause).then(|| series.due(now));
        }
        if self.series.len() >= MOST {
            return None;
        }
        let mut series = Series {
            last: notice,
            count: 1,
            told: 0,
            sent: now,
            event: None,
        };
        let due = series.due(now);
        self.series.insert(key, series);
        Some(due)
    }

    /// When something is to be sent that was held back.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let held = self.series.values().filter(|s| s.told < s.count);
        held.map(|s| s.sent + self.pause).min()
    }

    /// What was held back for long enough, one at a time.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let (pause, held) = (self.pause, self.series.values_mut());
        held.filter(|s| s.told < s.count && now >= s.sent + pause)
            .min_by_key(|s| s.sent)
            .map(|series| series.due(now))
    }

    /// Notes the name of the Event that was made or repeated.
    pub(super) fn sent(&mut self, due: &Due, event: String) {
        let key = (due.notice.about.clone(), due.notice.reason);
        if let Some(series) = self.series.get_mut(&key) {
            series.event = Some((event, due.notice.note.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EVENT_PAUSE as PAUSE, EventKind};

    fn notice(name: &str, reason: &'static str) -> Notice {
        let about = About {
            api_version: "v1".into(),
            kind: "Thing".into(),
            namespace: None,
            name: name.into(),
            uid: None,
        };
        Notice {
            about,
            kind: EventKind::Normal,
            reason,
            action: "Test",
            note: String::new(),
        }
    }

    #[test]
    fn one_request_a_minute_for_an_object_and_a_reason() {
        let start = Instant::now();
        let mut limiter = Limiter::new(PAUSE);
        // Seconds, object, reason, the count that is sent.
        let table = [
            (0, "a", "One", Some(1)),
            (1, "a", "One", None),
            (2, "a", "Two", Some(1)),
            (3, "b", "One", Some(1)),
            (59, "a", "One", None),
            (60, "a", "One", Some(4)),
            (61, "a", "One", None),
            // Six minutes of quiet for the others: a new series.
            (420, "a", "Two", Some(1)),
        ];
        for (after, name, reason, sent) in table {
            let now = start + Duration::from_secs(after);
            let due = limiter.notice(notice(name, reason), now);
            assert_eq!(
                due.map(|d| d.count),
                sent,
                "{name} {reason} after {after} s"
            );
        }
    }

    #[test]
    fn what_was_held_back_is_sent_after_a_minute_and_counted_in_the_event_with_its_note() {
        let start = Instant::now();
        let mut limiter = Limiter::new(PAUSE);
        let first = limiter.notice(notice("a", "One"), start).expect("sent");
        limiter.sent(&first, "event-1".into());
        assert_eq!(limiter.next_due(), None);
        let later = start + Duration::from_secs(10);
        assert_eq!(limiter.notice(notice("a", "One"), later), None);
        let minute = start + PAUSE;
        assert_eq!(limiter.next_due(), Some(minute));
        assert_eq!(limiter.due(later), None);
        let due = limiter.due(minute).expect("sent");
        assert_eq!((due.count, due.event.as_deref()), (2, Some("event-1")));
        assert_eq!((limiter.next_due(), limiter.due(minute)), (None, None));
        let mut other = notice("a", "One");
        other.note = "other".into();
        let due = limiter.notice(other, minute + PAUSE).expect("sent");
        assert_eq!((due.count, due.event), (3, None));
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let start = Instant::now();
        let mut limiter = Limiter::new(PAUSE);
        let sent = (0..2 * MOST).filter(|n| {
            let notice = notice(&n.to_string(), "One");
            limiter.notice(notice, start).is_some()
        });
        assert_eq!(sent.count(), MOST);
        let later = start + FORGET;
        assert!(limiter.notice(notice("new", "One"), later).is_some());
        assert_eq!(limiter.series.len(), 1);
    }
}
