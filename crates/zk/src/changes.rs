//! What watches said and nobody has asked for yet.

use std::collections::BTreeMap;

use crate::{Change, Changed};

/// Whether a change is one of the node itself or of its list of children: neither says anything of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Node,
    Children,
}

/// The newest change of each node, so however long nobody asks, there are no more of them than nodes (twice).
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<(Box<str>, Side), Change>);

impl Changes {
    pub(crate) fn add(&mut self, path: &str, kind: Change) {
        let side = match kind {
            Change::Children => Side::Children,
            Change::Created | Change::Deleted | Change::Data => Side::Node,
        };
        let newest = self.0.entry((path.into(), side)).or_insert(kind);
        // Other data of a node of which nobody knows yet: it is new still.
        if (*newest, kind) != (Change::Created, Change::Data) {
            *newest = kind;
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Changed> {
        std::mem::take(&mut self.0)
            .into_iter()
            .map(|((path, _), kind)| Changed {
                path: path.into(),
                kind,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(kinds: &[Change]) -> Vec<Change> {
        let mut changes = Changes::default();
        kinds.iter().for_each(|kind| changes.add("/a", *kind));
        let taken = changes.take().into_iter().map(|changed| changed.kind);
        let taken = taken.collect();
        assert!(changes.take().is_empty());
        taken
    }

    #[test]
    fn the_newest_counts() {
        use Change::{Children, Created, Data, Deleted};
        assert_eq!(after(&[Created, Deleted]), [Deleted]);
        assert_eq!(after(&[Deleted, Created]), [Created]);
        assert_eq!(after(&[Created, Data, Data]), [Created]);
        assert_eq!(after(&[Data, Deleted]), [Deleted]);
        assert_eq!(after(&[Data, Children, Data]), [Data, Children]);
    }
}
