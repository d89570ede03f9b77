//! What to do about one Lease. Pure: the time is told.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::LeaseSettings;

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) holder: Option<Arc<str>>,
    /// What its holder promises to renew it within.
    pub(super) duration: Duration,
    /// How often the holder changed.
    pub(super) transitions: i32,
    /// By the holder's clock, as is `renewed`: never compared with ours.
    pub(super) acquired: Option<Timestamp>,
    pub(super) renewed: Option<Timestamp>,
}

/// A Lease as we saw it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// `None`: there is no such Lease.
    pub(super) record: Option<Record>,
    /// When we first saw that.
    pub(super) since: Instant,
}

impl Seen {
    /// From when on anybody may take the Lease.
    pub(super) fn free_at(&self) -> Instant {
        match &self.record {
            Some(record) if record.holder.is_some() => self.since + record.duration,
            _ => self.since,
        }
    }

    /// The holder, if the Lease has not expired.
    pub(super) fn holder(&self, now: Instant) -> Option<&Arc<str>> {
        let record = self.record.as_ref().filter(|_| now < self.free_at());
        record.and_then(|record| record.holder.as_ref())
    }
}

/// Our own part in a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mine {
    /// We do not count ourselves as the holder.
    No,
    Holding {
        /// The start of the last renewal that worked.
        renewed: Instant,
        /// Since when another should have it.
        astray: Option<Instant>,
    },
    /// We write no more, and give the Lease back once what we began has ended.
    Leaving { since: Instant },
}

/// Who should hold a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preferred {
    Me,
    /// Another replica, which is alive.
    Another,
    /// We do not serve that registry any more.
    Unwanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Wait,
    /// Make us the holder of a Lease that is free, or that does not exist.
    Take,
    Renew,
    /// Stop to write.
    Leave,
    /// Give it back.
    Release,
}

/// What to do about a Lease.
pub(super) fn decide(
    seen: &Seen,
    mine: Mine,
    preferred: Preferred,
    now: Instant,
    settings: &LeaseSettings,
) -> Action {
    let holder = seen.record.as_ref().and_then(|r| r.holder.as_ref());
    if holder == Some(&settings.identity) {
        return as_holder(mine, preferred, now, settings);
    }
    // Another who is alive comes first; if it does not come, it is better that somebody writes.
    let wait = match preferred {
        Preferred::Me => Duration::ZERO,
        Preferred::Another => settings.renew,
        Preferred::Unwanted => return Action::Wait,
    };
    if now >= seen.free_at() + wait {
        Action::Take
    } else {
        Action::Wait
    }
}

fn as_holder(mine: Mine, preferred: Preferred, now: Instant, settings: &LeaseSettings) -> Action {
    match mine {
        Mine::Leaving { since } if now >= since + settings.margin => Action::Release,
        Mine::Leaving { .. } => Action::Wait,
        _ if preferred == Preferred::Unwanted => Action::Release,
        Mine::Holding {
            astray: Some(since),
            ..
        } if now >= since + settings.duration => Action::Leave,
        Mine::Holding { renewed, .. } if now < renewed + settings.renew => Action::Wait,
        // `No`: we took it, and the answer was lost.
        Mine::Holding { .. } | Mine::No => Action::Renew,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 15 s, renewed every 5 s, margin 3 s.
    fn settings() -> LeaseSettings {
        LeaseSettings::new("ns".into(), "me".into(), super::super::LEASE_DURATION)
    }

    fn seen(holder: Option<&str>, since: Instant) -> Seen {
        let record = Record {
            holder: holder.map(Into::into),
            duration: Duration::from_secs(15),
            transitions: 0,
            acquired: None,
            renewed: None,
        };
        Seen {
            record: Some(record),
            since,
        }
    }

    #[test]
    fn a_lease_of_another() {
        let start = Instant::now();
        let missing = Seen {
            record: None,
            since: start,
        };
        let (free, held) = (seen(None, start), seen(Some("other"), start));
        use Preferred::{Another, Me, Unwanted};
        // Seconds after it was first seen so, who should have it, what to do.
        let table = [
            (&missing, 0, Me, Action::Take),
            (&missing, 0, Another, Action::Wait),
            (&missing, 5, Another, Action::Take),
            (&free, 0, Me, Action::Take),
            (&free, 4, Another, Action::Wait),
            (&free, 5, Another, Action::Take),
            (&free, 99, Unwanted, Action::Wait),
            (&held, 14, Me, Action::Wait),
            (&held, 15, Me, Action::Take),
            (&held, 19, Another, Action::Wait),
            (&held, 20, Another, Action::Take),
            (&held, 99, Unwanted, Action::Wait),
        ];
        for (seen, after, preferred, action) in table {
            let now = start + Duration::from_secs(after);
            let got = decide(seen, Mine::No, preferred, now, &settings());
            assert_eq!(got, action, "{seen:?} after {after} s, {preferred:?}");
        }
    }

    #[test]
    fn a_lease_of_ours() {
        let start = Instant::now();
        let at = |after| start + Duration::from_secs(after);
        let held = |astray: Option<u64>| Mine::Holding {
            renewed: start,
            astray: astray.map(at),
        };
        use Preferred::{Another, Me, Unwanted};
        let table = [
            (held(None), 4, Me, Action::Wait),
            (held(None), 5, Me, Action::Renew),
            // It may have expired meanwhile: whoever took it has changed its version.
            (held(None), 99, Me, Action::Renew),
            (Mine::No, 1, Me, Action::Renew),
            (held(Some(0)), 14, Another, Action::Renew),
            (held(Some(0)), 15, Another, Action::Leave),
            (Mine::Leaving { since: start }, 2, Another, Action::Wait),
            (Mine::Leaving { since: start }, 3, Another, Action::Release),
            (Mine::Leaving { since: start }, 3, Me, Action::Release),
            (held(None), 0, Unwanted, Action::Release),
        ];
        for (mine, after, preferred, action) in table {
            let lease = seen(Some("me"), start);
            let got = decide(&lease, mine, preferred, at(after), &settings());
            assert_eq!(got, action, "{mine:?} after {after} s, {preferred:?}");
        }
    }
}
