//! What time it is.

use std::time::SystemTime;

use diolkos_guard::Moment;
use tokio::time::Instant;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Of the clock that only runs forward: every wait is measured by it, so that a jump of the wall clock
    /// neither ends a hold nor prolongs it.
    pub moment: Moment,
    /// Of the wall clock: for people, and for what has to outlive the process.
    pub wall: SystemTime,
}

/// Tells the time.
pub trait Clock: Send + 'static {
    /// What time it is.
    fn now(&self) -> Now;
}

/// The clocks of the system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            moment: self.start.elapsed(),
            wall: SystemTime::now(),
        }
    }
}
