use diolkos_istio::Kind;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn key() -> ObjectKey {
    ObjectKey {
        kind: Kind::ServiceEntry,
        namespace: "mesh".into(),
        name: "orders".into(),
    }
}

fn lost(after: Option<Duration>) -> WriteError {
    let reason = "lost".into();
    WriteError::Retry { reason, after }
}

fn pauses(error: &WriteError, jitter: f64) -> Vec<u64> {
    let pace = Pace::default();
    let tries = (0..10).map(|tries| pause(error, tries, &pace, jitter));
    tries.map(|pause| pause.as_millis() as u64).collect()
}

#[test]
fn pauses_double_up_to_the_slowest_and_spread_downwards() {
    let doubling = [
        500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000,
    ];
    assert_eq!(pauses(&lost(None), 0.0), doubling);
    assert_eq!(pauses(&lost(None), 1.0), doubling.map(|ms| ms * 4 / 5));
    let slow = doubling.map(|ms| ms.max(10_000));
    assert_eq!(pauses(&WriteError::Invalid("no".into()), 0.0), slow);
    assert_eq!(pauses(&WriteError::Denied("no".into()), 0.0), slow);
    for (asked, waits) in [(7_000, 7_000), (1, 500), (3_600_000, 60_000)] {
        let error = lost(Some(Duration::from_millis(asked)));
        assert_eq!(pauses(&error, 1.0), [waits; 10], "asked for {asked} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn something_else_is_tried_at_once_but_a_flapping_object_does_not_hammer() {
    let (pace, key) = (Pace::default(), key());
    let mut retries = Retries::default();
    let start = Instant::now();
    let mut tries = Vec::new();
    let mut now = start;
    // Every 10 ms something else is wanted, and each try is refused.
    for wanted in 0..12_000 {
        now += Duration::from_millis(10);
        let hash = Some(ContentHash(wanted));
        retries.wants(&key, hash, &pace);
        if wanted == 0 || retries.pop(now).is_some() {
            tries.push((now - start).as_secs_f64());
            retries.fail(
                &key,
                hash,
                &WriteError::Invalid("no".into()),
                now,
                &pace,
                0.0,
            );
        }
    }
    let waits: Vec<f64> = tries.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(waits[0] < 0.02, "the first other one at once: {waits:?}");
    assert!((6..=12).contains(&tries.len()), "in two minutes: {waits:?}");
    assert!(waits[1..].is_sorted(), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_due_once_and_can_be_forgotten() {
    let (pace, key, now) = (Pace::default(), key(), Instant::now());
    let mut retries = Retries::default();
    assert_eq!((retries.next(), retries.pop(now)), (None, None));
    for _ in 0..2 {
        retries.fail(&key, None, &lost(None), now, &pace, 0.0);
    }
    assert_eq!(retries.next(), Some(now + SECOND), "the second pause");
    assert_eq!(retries.pop(now + SECOND / 2), None);
    assert_eq!(retries.pop(now + SECOND), Some(key.clone()));
    assert_eq!((retries.len(), retries.contains(&key)), (0, true));
    // Nothing makes one that is being tried due.
    retries.sooner(&key, &pace);
    assert_eq!(retries.next(), None);
    retries.fail(&key, None, &lost(None), now, &pace, 0.0);
    retries.forget(&key);
    assert_eq!((retries.len(), retries.contains(&key)), (0, false));
    assert_eq!(retries.next(), None);
}

#[tokio::test(start_paused = true)]
async fn repairs_are_made_at_once_three_times_then_ever_later_until_it_is_quiet() {
    let (pace, key) = (Pace::default(), key());
    let mut repairs = Repairs::default();
    let mut now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..12 {
        // Somebody answers each repair within 10 ms.
        now += Duration::from_millis(10);
        let late = repairs.edited(&key, now, &pace);
        let due = late.map_or(now, |(_, due)| due);
        waits.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert!(repairs.edited(&key, now + 59 * SECOND, &pace).is_some());
    now += 59 * SECOND + 60 * SECOND;
    assert_eq!(
        repairs.edited(&key, now + QUIET, &pace),
        None,
        "it was quiet"
    );
    now += QUIET;
    // Those that are left alone are forgotten.
    let other = ObjectKey {
        name: "stock".into(),
        ..key
    };
    repairs.edited(&other, now + 2 * QUIET, &pace);
    assert_eq!(repairs.objects.len(), 1);
}
