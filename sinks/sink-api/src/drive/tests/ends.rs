//! Authority, conflicts, and how the loop ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn nothing_is_written_without_authority_and_all_is_when_it_comes() {
    let mut bed = Bed::start(Script::default());
    bed.terms.send_replace(Arc::default());
    many(&mut bed, 0..10);
    bed.after(SECOND).await;
    assert_eq!(bed.sink.writes().len(), 0);
    assert_eq!(bed.ledger.pending(), 20);
    assert_eq!(bed.ledger.totals("one"), Default::default(), "no failure");
    bed.permit(SECOND);
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!((bed.sink.writes().len(), bed.ledger.pending()), (20, 0));
    // The term ends without a word.
    tokio::time::sleep(SECOND).await;
    many(&mut bed, 10..20);
    bed.after(SECOND).await;
    assert_eq!((bed.sink.writes().len(), bed.ledger.pending()), (20, 20));
    // Another replica writes them meanwhile.
    for (key, hash) in bed.shop.hashes() {
        let registry = "one".into();
        let hash = Some(hash);
        bed.sink.drift(&key, State::Ours { registry, hash });
    }
    bed.permit(60 * SECOND);
    tokio::time::sleep(SECOND).await;
    assert_eq!(bed.ledger.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_term_that_ends_in_a_burst_ends_the_burst() {
    let takes = Duration::from_millis(20);
    let mut bed = Bed::start(Script {
        takes,
        ..Script::default()
    });
    bed.permit(SECOND);
    let end = Instant::now() + SECOND;
    many(&mut bed, 0..500);
    bed.after(10 * SECOND).await;
    let writes = bed.sink.writes();
    let last = writes.iter().map(|(at, _)| *at).max().unwrap();
    assert!((200..600).contains(&writes.len()), "{}", writes.len());
    assert!(last < end && last >= end - 2 * takes);
    assert_eq!(bed.ledger.pending(), 1000 - writes.len());
    bed.permit(60 * SECOND);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((bed.ledger.pending(), bed.sink.writes().len()), (0, 1000));
}

#[tokio::test(start_paused = true)]
async fn who_keeps_changing_an_object_is_answered_ever_more_slowly() {
    let mut bed = Bed::start(Script::default());
    let [_, object] = bed.put("orders", &["a"]).try_into().unwrap();
    bed.after(SECOND).await;
    let edited = || State::Ours {
        registry: "one".into(),
        hash: None,
    };
    let mut contested = false;
    for _ in 0..2_000 {
        // A controller that answers at once.
        bed.sink.drift(&object, edited());
        tokio::time::sleep(SECOND / 10).await;
        contested |= bed.ledger.totals("one").failing.contains_key("Contested");
    }
    let tries = bed.sink.tries(&object);
    assert!((8..=12).contains(&tries.len()), "{:?}", waits(&tries));
    assert!(contested, "people are told");
    // It is left alone.
    tokio::time::sleep(125 * SECOND).await;
    assert_eq!(bed.ledger.totals("one"), Default::default());
    let before = bed.sink.tries(&object).len();
    bed.sink.drift(&object, edited());
    tokio::time::sleep(SECOND).await;
    assert_eq!(bed.sink.tries(&object).len(), before + 1, "at once again");
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_is_told_once() {
    let mut shop = Shop::default();
    shop.registry("one", "mesh", Endpoints::WorkloadEntry);
    shop.put("one", "orders", &["a"], 80);
    let there = shop.hashes().into_iter().map(|(key, hash)| Observed {
        key,
        state: State::Ours {
            registry: "one".into(),
            hash: Some(hash),
        },
    });
    let mut bed = Bed::start(Script {
        there: there.collect(),
        deaf: true,
        ..Script::default()
    });
    let told = bed.remembered.recv().await.unwrap();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|object| &*object.service == "one/orders"));
    assert_eq!(bed.remembered.recv().await, None, "never again");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_over_when_nobody_wants_the_object_or_it_is_as_it_should_be() {
    let mut bed = Bed::start(Script::default());
    let [_, first] = bed.put("orders", &["a"]).try_into().unwrap();
    let [_, second] = bed.put("stock", &["a"]).try_into().unwrap();
    for key in [&first, &second] {
        bed.sink.drift(key, State::Foreign);
    }
    tokio::time::sleep(SECOND).await;
    bed.after(SECOND).await;
    let conflicts = |n| BTreeMap::from([("ForeignObject", n)]);
    assert_eq!(bed.ledger.totals("one").failing, conflicts(2));
    assert_eq!(bed.ledger.pending(), 0, "nothing can be done about them");
    bed.shop.remove("one", "orders");
    bed.after(SECOND).await;
    assert_eq!(bed.ledger.totals("one").failing, conflicts(1));
    let state = State::Ours {
        registry: "one".into(),
        hash: bed.shop.hashes().get(&second).copied(),
    };
    bed.sink.drift(&second, state);
    tokio::time::sleep(SECOND).await;
    assert_eq!(bed.ledger.totals("one"), Default::default());
    assert!(bed.sink.tries(&first).is_empty() && bed.sink.tries(&second).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_not_written_and_is_read_again() {
    let mut bed = Bed::start(Script {
        unreadable: true,
        ..Script::default()
    });
    bed.put("orders", &["a"]);
    bed.after(300 * SECOND).await;
    assert_eq!(bed.sink.writes().len(), 0);
    assert_eq!(bed.ledger.unreadable().as_deref(), Some("cannot be read"));
    let reads = bed.sink.script().reads;
    assert!((5..15).contains(&reads), "{reads} reads");
    bed.sink.script().unreadable = false;
    tokio::time::sleep(61 * SECOND).await;
    assert_eq!(bed.ledger.unreadable(), None);
    assert_eq!((bed.ledger.pending(), bed.sink.writes().len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_deaf_is_read_now_and_then_and_written_all_the_same() {
    let mut bed = Bed::start(Script {
        deaf: true,
        ..Script::default()
    });
    let [workload, _] = bed.put("orders", &["a"]).try_into().unwrap();
    bed.after(10 * SECOND).await;
    let reads = bed.sink.script().reads;
    assert!((10..30).contains(&reads), "{reads} reads");
    assert!(!bed.sink.tries(&workload).is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_once_whatever_it_waits_for() {
    for script in [
        Script::default(),
        Script {
            unreadable: true,
            ..Script::default()
        },
        Script {
            deaf: true,
            ..Script::default()
        },
    ] {
        let mut bed = Bed::start(script);
        bed.put("orders", &["a"]);
        bed.after(3 * SECOND).await;
        let took = bed.stop().await;
        assert!(took < SECOND / 10, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_not_wait_for_ever_for_a_write() {
    let mut bed = Bed::start(Script::default());
    let [workload, _] = bed.put("orders", &["a"]).try_into().unwrap();
    bed.sink.script().hangs.insert(workload);
    bed.after(SECOND).await;
    assert_eq!(bed.sink.writes().len(), 1);
    let took = bed.stop().await;
    assert!(took <= GRACE + SECOND / 10, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_publisher() {
    let mut bed = Bed::start(Script::default());
    bed.put("orders", &["a"]);
    bed.publish();
    drop(bed.desired);
    bed.task.await.unwrap();
    assert_eq!(bed.sink.writes().len(), 2, "the last word was heard");
}
