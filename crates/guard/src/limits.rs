//! How much may vanish at once.

use std::time::Duration;

/// The settings of the guard of one registry (`Registry.spec.guard`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long it is not believed that a registry has nothing any more, or that a service lost all of several
    /// instances at once. 0 believes it at once.
    pub empty_hold: Duration,
    /// Most services that may vanish at once.
    pub max_service_shrink: Shrink,
    /// Most instances that may vanish at once.
    pub max_instance_shrink: Shrink,
    /// Complete snapshots in a row that must say the same before more may vanish; at least 1.
    pub confirm_after: u32,
    /// How long a service without instances stays, with no endpoints.
    pub empty_grace: Duration,
}

/// A bound on what may vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrink {
    /// Of what is known, in percent: 0 to 100.
    Percent(u8),
    /// A number.
    Count(u32),
}

impl Shrink {
    /// How many of `known` may go. One of several always may, or a small registry could never lose
    /// a single service; the last one may not, for nothing at all is what a broken registry answers.
    fn of(self, known: usize) -> usize {
        let most = match self {
            Self::Percent(percent) => known.saturating_mul(usize::from(percent.min(100))) / 100,
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        most.max(usize::from(known > 1))
    }

    /// Whether `lost` of `known` are more than may go at once.
    #[must_use]
    pub fn is_exceeded(self, lost: usize, known: usize) -> bool {
        lost > self.of(known)
    }
}

impl Limits {
    /// Nothing is held back, and a service without instances goes at once.
    pub const NONE: Self = Self {
        empty_hold: Duration::ZERO,
        max_service_shrink: Shrink::Percent(100),
        max_instance_shrink: Shrink::Percent(100),
        confirm_after: 1,
        empty_grace: Duration::ZERO,
    };

    /// How long after each other complete snapshots are asked for while something is held back, so
    /// that all confirmations are in when `empty_hold` is over.
    #[must_use]
    pub fn pace(&self) -> Duration {
        (self.empty_hold / self.confirm_after.max(1)).max(Duration::from_millis(100))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            empty_hold: Duration::from_secs(60),
            max_service_shrink: Shrink::Percent(30),
            max_instance_shrink: Shrink::Percent(15),
            confirm_after: 3,
            empty_grace: Duration::from_secs(600),
        }
    }
}
