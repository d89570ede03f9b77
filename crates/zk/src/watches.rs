//! The watches of a session, to be set again on its next connection.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

use crate::messages::EventKind;

/// What a watch looks at, in the order of the lists of `SetWatches2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// The data of a node, once.
    Data,
    /// A node that is not there, once.
    Exists,
    /// The children of a node, once.
    Children,
    /// A node and its children.
    Persistent,
    /// A node and all below it.
    Recursive,
}

/// A watch that a server has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Watch {
    pub(crate) kind: Kind,
    /// With the chroot.
    pub(crate) path: Box<str>,
}

#[derive(Debug, Default)]
pub(crate) struct Watches(BTreeSet<Watch>);

impl Watches {
    pub(crate) fn insert(&mut self, kind: Kind, path: &str) {
        let path = path.into();
        self.0.insert(Watch { kind, path });
    }

    /// Forgets the one-shot watches that such an event ends.
    pub(crate) fn fired(&mut self, event: EventKind, path: &str) {
        let ended: &[Kind] = match event {
            EventKind::Created | EventKind::Data => &[Kind::Data, Kind::Exists],
            EventKind::Children => &[Kind::Children],
            EventKind::Deleted => &[Kind::Data, Kind::Exists, Kind::Children],
        };
        for &kind in ended {
            let path = path.into();
            self.0.remove(&Watch { kind, path });
        }
    }

    /// The watches after this one, in order: as many as `bytes` hold, but at least one if there is one.
    pub(crate) fn chunk(&self, after: Option<&Watch>, bytes: usize) -> Vec<Watch> {
        let from = after.map_or(Unbounded, Excluded);
        let mut sum = 0;
        self.0
            .range((from, Unbounded))
            .take_while(|watch| {
                let first = sum == 0;
                sum += 4 + watch.path.len();
                first || sum <= bytes
            })
            .cloned()
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_all_watches_once_and_bounded() {
        let mut watches = Watches::default();
        for i in 0..1_000 {
            watches.insert(Kind::Children, &format!("/some/path/{i}"));
            watches.insert(Kind::Recursive, &format!("/other/{i}"));
        }
        watches.insert(Kind::Persistent, &format!("/{}", "x".repeat(5_000)));
        let (mut seen, mut last) = (Vec::new(), None);
        loop {
            let chunk = watches.chunk(last.as_ref(), 1_000);
            let size: usize = chunk.iter().map(|watch| 4 + watch.path.len()).sum();
            assert!(size <= 1_000 || chunk.len() == 1, "{size}");
            last = chunk.last().cloned();
            if last.is_none() {
                break;
            }
            seen.extend(chunk);
        }
        assert!(seen.iter().eq(watches.0.iter()));
    }

    #[test]
    fn one_shot_watches_end_persistent_ones_stay() {
        let all = [
            Kind::Data,
            Kind::Exists,
            Kind::Children,
            Kind::Persistent,
            Kind::Recursive,
        ];
        for (event, left) in [
            (EventKind::Created, &all[2..]),
            (EventKind::Data, &all[2..]),
            (EventKind::Deleted, &all[3..]),
        ] {
            let mut watches = Watches::default();
            all.iter().for_each(|kind| watches.insert(*kind, "/a"));
            watches.fired(event, "/b");
            assert_eq!(watches.len(), all.len());
            watches.fired(event, "/a");
            let kinds: Vec<_> = watches.0.iter().map(|watch| watch.kind).collect();
            assert_eq!(kinds, left);
        }
    }
}
