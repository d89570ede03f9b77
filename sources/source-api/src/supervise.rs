//! Runs a source for ever: reconnects, counts epochs, keeps health.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Backoff, Epoch, Phase, Source, SourceCx, SourceError};

/// The first wait after a lost connection.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait after a lost connection.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The shortest wait after a refusal or a configuration that cannot work: a fast retry would only fill logs.
const SLOW_WAIT: Duration = Duration::from_secs(5);
/// A connection that was live for this long is one that worked.
const STEADY: Duration = Duration::from_secs(5);
/// The shortest time between two lines in the log about the same trouble.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The source ended because it was told to.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped;

/// Runs `source` until `cx.cancel` fires or nobody listens to its events.
///
/// # Waiting
///
/// Between two connections it waits about 200 ms, doubling up to 30 s, each wait drawn between half
/// of that and the whole, so that many replicas do not come back at one instant; after a refusal or
/// a configuration error at least 5 s.
///
/// The waits start anew after a connection that worked: one that completed its synchronisation and
/// was [live](Phase::Live) for 5 s after that. One that breaks sooner, or over and over in the middle
/// of its snapshot, was of no use, although it was accepted; reading the whole registry again each
/// time would be a load on a registry in trouble, so the waits grow on.
///
/// # Logging
///
/// The loss is logged at once, then at most once a minute while it lasts, and at once when its kind
/// changes (unreachable, denied, misconfigured).
pub async fn supervise<S: Source>(registry: &str, mut source: S, mut cx: SourceCx) -> Stopped {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut log = LossLog::default();
    let mut epoch: Epoch = 0;
    let cancel = cx.cancel.clone();
    loop {
        epoch += 1;
        cx.health.begin(epoch);
        let ended = tokio::select! {
            ended = source.run(epoch, &mut cx) => ended,
            () = cancel.cancelled() => return Stopped,
        };
        let live_since = *cx.health.live_since();
        if live_since.is_some_and(|since| since.elapsed() >= STEADY) {
            backoff.reset();
            log = LossLog::default();
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
        if log.is_due(phase) {
            tracing::warn!(
                registry,
                epoch,
                phase = phase.as_str(),
                error = detail,
                retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "lost the registry, the mesh stays as it is"
            );
        }
        cx.health.lost(phase, detail);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = cancel.cancelled() => return Stopped,
        }
    }
}

/// When an outage was logged last.
#[derive(Debug, Default)]
struct LossLog(Option<(Phase, Instant)>);

impl LossLog {
    /// Whether a loss is to be logged now; if so, it counts as logged.
    fn is_due(&mut self, phase: Phase) -> bool {
        let told = self
            .0
            .is_some_and(|(last, at)| last == phase && at.elapsed() < LOG_PAUSE);
        if !told {
            self.0 = Some((phase, Instant::now()));
        }
        !told
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

    /// Each connection: synchronises if it is to, lasts, and breaks.
    struct Breaking {
        runs: Arc<AtomicU64>,
        syncs: bool,
        lasts: Duration,
        error: fn() -> SourceError,
    }

    impl Source for Breaking {
        async fn run(&mut self, epoch: Epoch, cx: &mut SourceCx) -> Result<(), SourceError> {
            self.runs.store(epoch, Ordering::SeqCst);
            cx.health.syncing("reading");
            if self.syncs {
                cx.health.live("following");
            }
            tokio::time::sleep(self.lasts).await;
            Err((self.error)())
        }
    }

    /// The connections that a supervised source makes in a time, and its phase at the end of it.
    async fn connections_in(
        time: Duration,
        (syncs, lasts): (bool, Duration),
        error: fn() -> SourceError,
    ) -> (u64, Phase) {
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
        let source = Breaking {
            runs: runs.clone(),
            syncs,
            lasts,
            error,
        };
        let task = tokio::spawn(async move { supervise("r", source, cx).await });
        tokio::time::sleep(time).await;
        cancel.cancel();
        assert_eq!(task.await.unwrap(), Stopped);
        let phase = watch.borrow().phase;
        (runs.load(Ordering::SeqCst), phase)
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn down() -> SourceError {
        SourceError::Transport("down".into())
    }

    #[tokio::test(start_paused = true)]
    async fn backs_off_and_never_gives_up() {
        let at_once = (false, Duration::ZERO);
        let (runs, phase) = connections_in(MINUTE, at_once, down).await;
        assert!((6..=14).contains(&runs), "{runs} connections in a minute");
        assert_eq!(phase, Phase::Unreachable);
        // The waits before the longest one, and then at most one each 15 s.
        let (runs, _) = connections_in(10 * MINUTE, at_once, down).await;
        assert!((20..=50).contains(&runs), "{runs} connections in 10 min");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_retried_slowly() {
        let refuse = || SourceError::Denied("403".into());
        let (runs, phase) = connections_in(MINUTE, (false, Duration::ZERO), refuse).await;
        assert!((3..=12).contains(&runs), "{runs} connections in a minute");
        assert_eq!(phase, Phase::Denied);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_breaks_soon_after_its_snapshot_is_of_no_use() {
        for lasts in [Duration::ZERO, STEADY - Duration::from_millis(1)] {
            let (runs, _) = connections_in(10 * MINUTE, (true, lasts), down).await;
            assert!((15..=50).contains(&runs), "{lasts:?}: {runs} connections");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_synchronises_is_of_no_use_however_long_it_lasts() {
        let (runs, _) = connections_in(10 * MINUTE, (false, STEADY), down).await;
        assert!((15..=40).contains(&runs), "{runs} connections");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_worked_is_made_again_at_once() {
        let (runs, _) = connections_in(10 * MINUTE, (true, STEADY), down).await;
        // 5 s each, and a wait of 0.1 to 0.2 s.
        assert!((114..=118).contains(&runs), "{runs} connections");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_logged_at_first_then_once_a_minute_and_when_it_changes() {
        let mut log = LossLog::default();
        let mut lines = 0;
        for _ in 0..600 {
            lines += u32::from(log.is_due(Phase::Unreachable));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, 10);
        assert!(log.is_due(Phase::Denied));
        assert!(!log.is_due(Phase::Denied));
        assert!(log.is_due(Phase::Unreachable));
    }
}
