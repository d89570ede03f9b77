//! Consul's index, by the rules that its documentation sets for clients of blocking queries.

/// Where a blocking query stands. 0 asks for an answer at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index(u64);

/// What an answer says about the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is as before: the wait ran out.
    Same(Index),
    /// It moved on.
    Forward(Index),
    /// It went back (a restored snapshot, a rebuilt cluster): all that is known is in doubt.
    Back,
}

impl Index {
    /// The value for the query.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// The index that an answer to a plain read carried.
    pub(crate) fn of(returned: Option<u64>) -> Self {
        Self(returned.unwrap_or(0).max(1))
    }

    /// The index after an answer that carried `returned`. An answer without an index or with 0
    /// counts as 1: with 0 the next query would not wait, and the loop would spin.
    pub(crate) fn advance(self, returned: Option<u64>) -> Step {
        let next = Self::of(returned);
        match next.0.cmp(&self.0) {
            std::cmp::Ordering::Less => Step::Back,
            std::cmp::Ordering::Equal => Step::Same(next),
            std::cmp::Ordering::Greater => Step::Forward(next),
        }
    }
}

impl Step {
    /// The index for the next query.
    pub(crate) fn index(self) -> Index {
        match self {
            Self::Same(index) | Self::Forward(index) => index,
            Self::Back => Index::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        for (at, returned, next, back) in [
            (0, Some(7), 7, false),
            (7, Some(7), 7, false),
            (7, Some(9), 9, false),
            (7, Some(6), 0, true),
            (7, Some(0), 0, true),
            (7, None, 0, true),
            (0, Some(0), 1, false),
            (0, None, 1, false),
            (1, None, 1, false),
        ] {
            let step = Index(at).advance(returned);
            assert_eq!(step.index(), Index(next), "{at} {returned:?}");
            assert_eq!(step == Step::Back, back, "{at} {returned:?}");
        }
    }
}
