//! An API server that hangs, dies and comes back.

use std::time::{Duration, Instant};

use anyhow::Result;
use diolkos_sink_api::{Outcome, Sink, State, WriteError};
use diolkos_sink_kubernetes::{KubernetesSink, Options};
use diolkos_testkit::eventually;

use crate::support::{Bed, SOON, changed, drifts, observed, one, put, service_entry};

#[tokio::test]
async fn a_server_that_hangs_or_is_gone_ends_no_call_late_and_loses_no_change() -> Result<()> {
    let bed = Bed::start().await?;
    let deadline = Duration::from_millis(500);
    let mut sink = KubernetesSink::with_options(
        bed.client.clone(),
        Options {
            deadline,
            ..Options::default()
        },
    );
    sink.observe().await?;
    let [a, b, c] = ["a", "b", "c"].map(|name| service_entry(name, 80));
    for object in [&a, &b] {
        assert_eq!(one(&mut sink, put(object)).await, Ok(Outcome::Created));
    }

    bed.kubernetes.stop_process()?;
    // The signal takes a moment to reach all threads.
    eventually(SOON, "the server hangs", async || {
        let answer = bed.kubernetes.get("/version");
        tokio::time::timeout(Duration::from_millis(300), answer)
            .await
            .is_err()
    })
    .await;
    let begun = Instant::now();
    match one(&mut sink, put(&c)).await {
        Err(WriteError::Retry { reason, .. }) => {
            assert_eq!(reason, "no answer from the API server within 0.5 s");
        }
        other => panic!("{other:?}"),
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    bed.kubernetes.kill()?;
    match one(&mut sink, put(&c)).await {
        Err(WriteError::Retry { reason, .. }) => {
            assert!(reason.contains("Connection refused"), "{reason}");
        }
        other => panic!("{other:?}"),
    }

    bed.kubernetes.restart().await?;
    bed.delete(&a.key).await?;
    bed.patch(&b.key, r#"{"spec": {"hosts": ["elsewhere.example"]}}"#)
        .await?;
    drifts(
        &mut sink,
        vec![observed(&a.key, State::Gone), observed(&b.key, changed())],
    )
    .await?;
    eventually(SOON, "writes work again", async || {
        one(&mut sink, put(&c)).await
    })
    .await;
    Ok(())
}
