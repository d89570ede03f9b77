//! Runs a source for ever: reconnects, counts epochs, keeps health.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Backoff, Epoch, Phase, Source, SourceCx, SourceError};

/// The first wait after a lost connection.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait after a lost connection.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The wait after a refusal or a configuration that cannot work: a fast retry would only fill logs.
const SLOW_WAIT: Duration = Duration::from_secs(5);
/// A connection that lasted this long counts as one that worked: the back-off starts anew.
const STEADY: Duration = Duration::from_secs(60);

/// The source ended because it was told to.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped;

/// Runs `source` until `cx.cancel` fires or nobody listens to its events.
pub async fn supervise<S: Source>(registry: &str, mut source: S, mut cx: SourceCx) -> Stopped {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut epoch: Epoch = 0;
    let cancel = cx.cancel.clone();
    loop {
        epoch += 1;
        cx.health.begin(epoch);
        let started = Instant::now();
        let ended = tokio::select! {
            ended = source.run(epoch, &mut cx) => ended,
            () = cancel.cancelled() => return Stopped,
        };
        if started.elapsed() >= STEADY {
            backoff.reset();
        }
        let (phase, detail) = match ended {
            Ok(()) => (Phase::Unreachable, "the connection ended".to_owned()),
            Err(SourceError::Stopped) => return Stopped,
            Err(error) => (phase_after(&error), error.to_string()),
        };
        let wait = match phase {
            Phase::Denied | Phase::Misconfigured => backoff.next_delay().max(SLOW_WAIT),
            _ => backoff.next_delay(),
        };
        tracing::warn!(
            registry,
            epoch,
            phase = phase.as_str(),
            error = detail,
            retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "lost the registry, the mesh stays as it is"
        );
        cx.health.lost(phase, detail);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = cancel.cancelled() => return Stopped,
        }
    }
}

fn phase_after(error: &SourceError) -> Phase {
    match error {
        SourceError::Config(_) => Phase::Misconfigured,
        SourceError::Denied(_) => Phase::Denied,
        SourceError::Transport(_) | SourceError::Protocol(_) | SourceError::Stopped => {
            Phase::Unreachable
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{EventSender, HealthReporter};

    struct Failing {
        runs: Arc<AtomicU64>,
        error: fn() -> SourceError,
    }

    impl Source for Failing {
        async fn run(&mut self, epoch: Epoch, _: &mut SourceCx) -> Result<(), SourceError> {
            self.runs.store(epoch, Ordering::SeqCst);
            Err((self.error)())
        }
    }

    async fn runs_in_a_minute(error: fn() -> SourceError) -> (u64, Phase) {
        let (sender, _receiver) = mpsc::channel(1);
        let (_resync, resync) = mpsc::channel(1);
        let (health, watch) = HealthReporter::new();
        let cancel = CancellationToken::new();
        let runs = Arc::new(AtomicU64::new(0));
        let cx = SourceCx {
            events: EventSender::new("r".into(), sender),
            health,
            resync,
            cancel: cancel.clone(),
        };
        let source = Failing {
            runs: runs.clone(),
            error,
        };
        let task = tokio::spawn(async move { supervise("r", source, cx).await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        cancel.cancel();
        assert_eq!(task.await.unwrap(), Stopped);
        let phase = watch.borrow().phase;
        (runs.load(Ordering::SeqCst), phase)
    }

    #[tokio::test(start_paused = true)]
    async fn backs_off_and_never_gives_up() {
        let (runs, phase) = runs_in_a_minute(|| SourceError::Transport("down".into())).await;
        assert!((6..=14).contains(&runs), "{runs} connections in a minute");
        assert_eq!(phase, Phase::Unreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_retried_slowly() {
        let (runs, phase) = runs_in_a_minute(|| SourceError::Denied("403".into())).await;
        assert!((3..=12).contains(&runs), "{runs} connections in a minute");
        assert_eq!(phase, Phase::Denied);
    }
}
