//! Waiting for a condition, with a deadline.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

const PAUSE: Duration = Duration::from_millis(25);

/// What one look at the world found: the value, or why it is not there yet.
pub trait Outcome {
    /// What a successful look yields.
    type Value;

    /// The value, or why not.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl<T> Outcome for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl<T, E: Debug> Outcome for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|e| format!("{e:?}"))
    }
}

impl Outcome for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "it is not so".to_owned())
    }
}

/// Looks every 25 ms until `check` finds a value, and returns that.
///
/// # Panics
/// When `deadline` passes first; the message names `what` and shows the last look's error.
pub async fn eventually<O: Outcome>(
    deadline: Duration,
    what: &str,
    check: impl AsyncFnMut() -> O,
) -> O::Value {
    match poll(deadline, check).await {
        Ok(value) => value,
        Err(last) => panic!("{what}: not within {deadline:?}; last look: {last}"),
    }
}

/// As [`eventually`], but the last look's error is returned.
pub(crate) async fn poll<O: Outcome>(
    deadline: Duration,
    mut check: impl AsyncFnMut() -> O,
) -> Result<O::Value, String> {
    let end = Instant::now() + deadline;
    let mut last = "none came to an end".to_owned();
    loop {
        match timeout_at(end, check()).await {
            Ok(found) => match found.outcome() {
                Ok(value) => return Ok(value),
                Err(error) => last = error,
            },
            Err(_) => return Err(last),
        }
        if Instant::now() + PAUSE >= end {
            return Err(last);
        }
        sleep(PAUSE).await;
    }
}
