//! The cases. Each begins with an empty store.
//!
//! Numbers in brackets are the guarantees of the [crate documentation](crate).
#![expect(
    clippy::missing_errors_doc,
    reason = "an error is what the case found wrong"
)]

mod others;
mod trouble;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use diolkos_istio::{Object, ObjectKey};
use diolkos_plan::Endpoints;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    FOREIGN_NAME, FOREIGN_VALUE, Fixture,
    bed::{Bed, ELSEWHERE, INLINE, Mark, PATIENCE, WORK},
};
use crate::{Change, Outcome, Permit, Sink, WriteError, Writer};

pub use others::*;
pub use trouble::*;

/// Objects of both kinds are stored with labels, annotations and spec as they should be.
pub async fn objects_are_written_as_they_should_be<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::new(fixture);
    bed.shop.put(WORK, "orders", &["a", "b", "c"], 8080);
    bed.shop.put(INLINE, "stock", &["a", "b"], 9090);
    bed.publish();
    let before = bed.mark().await?;
    bed.start();
    bed.settled().await?;
    bed.is_right().await?;
    bed.nothing_fails()?;
    for (key, result) in bed.tries(&before) {
        ensure!(result == Ok(Outcome::Created), "{key}: {result:?}");
    }
    Ok(())
}

/// [P8, 4] A change of one service writes what changed of it, once.
pub async fn a_change_writes_its_own_objects_only<F: Fixture>(fixture: F) -> Result<()> {
    let names = ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"];
    let mut bed = Bed::settled_with(fixture, &names).await?;
    for (ids, port) in [
        (&["a", "b", "c"][..], 80),
        (&["b", "c"], 80),
        (&["b", "c"], 81),
        (&["d"], 81),
    ] {
        let (before, hashes) = (bed.mark().await?, bed.shop.hashes());
        bed.shop.put(WORK, "s3", ids, port);
        bed.publish();
        bed.settled().await?;
        let now = bed.shop.hashes();
        let changed: BTreeSet<_> = hashes
            .keys()
            .chain(now.keys())
            .filter(|key| hashes.get(*key) != now.get(*key))
            .cloned()
            .collect();
        ensure!(!changed.is_empty(), "the case changes nothing");
        let tries = bed.tries(&before).len();
        ensure!(
            tries == changed.len(),
            "{tries} writes for {} objects",
            changed.len()
        );
        let touched = bed.touched(&before).await?;
        ensure!(
            touched == changed,
            "written: {touched:?}; changed: {changed:?}"
        );
        bed.is_right().await?;
    }
    bed.nothing_fails()
}

/// [4] What an object no longer says is taken out of it.
pub async fn endpoints_move_into_the_service_entry_and_out<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    let namespace = bed.fixture.namespace();
    for endpoints in [Endpoints::Inline, Endpoints::WorkloadEntry] {
        bed.shop.registry(WORK, namespace, endpoints);
        bed.shop.put(WORK, "orders", &["a", "b"], 80);
        bed.publish();
        bed.settled().await?;
        bed.is_right().await?;
    }
    bed.nothing_fails()
}

/// [P4] A desired state that says the same writes nothing, nor does the echo of our own writes [7].
pub async fn nothing_changed_nothing_written<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    bed.shop.put(WORK, "orders", &["a", "b"], 81);
    bed.publish();
    bed.settled().await?;
    let before = bed.mark().await?;
    for _ in 0..3 {
        bed.shop.replan();
        bed.publish();
        bed.settled().await?;
    }
    let touched = bed.touched(&before).await?;
    ensure!(touched.is_empty(), "written: {touched:?}");
    Ok(())
}

/// [P4, 1] The first diff after a start is exact.
pub async fn a_restart_with_nothing_changed_writes_nothing<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    // Objects that were changed are stored otherwise than new ones, perhaps.
    bed.shop.put(WORK, "orders", &["a", "b"], 81);
    bed.shop.put(INLINE, "carts", &["a"], 80);
    bed.publish();
    bed.settled().await?;
    let before = bed.mark().await?;
    for _ in 0..2 {
        bed.stop().await?;
        bed.shop.replan();
        bed.start();
        bed.settled().await?;
    }
    let tries = bed.tries(&before);
    ensure!(tries.is_empty(), "tried: {tries:?}");
    let touched = bed.touched(&before).await?;
    ensure!(touched.is_empty(), "written: {touched:?}");
    bed.is_right().await
}

/// A service that is gone takes its objects with it and nothing else.
pub async fn a_removed_service_takes_its_own_objects_only<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "orders-2", "stock"]).await?;
    let gone: BTreeSet<_> = bed.keys(WORK, "orders").into_iter().collect();
    let before = bed.mark().await?;
    bed.shop.remove(WORK, "orders");
    bed.publish();
    bed.settled().await?;
    for (key, result) in bed.tries(&before) {
        ensure!(result == Ok(Outcome::Deleted), "{key}: {result:?}");
    }
    let touched = bed.touched(&before).await?;
    ensure!(touched == gone, "removed: {touched:?}; should be: {gone:?}");
    bed.is_right().await
}

/// [P5] What nobody wants after a restart goes, not before its registry was seen as a whole.
pub async fn orphans_are_swept_once_their_registry_is_complete<F: Fixture>(
    fixture: F,
) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    bed.stop().await?;
    let orphans = bed.keys(WORK, "orders");
    bed.shop.remove(WORK, "orders");
    bed.shop.complete(WORK, false);
    bed.publish();
    let before = bed.mark().await?;
    bed.start();
    bed.settled().await?;
    let touched = bed.touched(&before).await?;
    ensure!(touched.is_empty(), "written: {touched:?}");
    bed.is_right_beside(&orphans).await?;
    bed.shop.complete(WORK, true);
    bed.publish();
    bed.settled().await?;
    bed.is_right().await
}

/// [P7] Objects of a registry that is not configured here may be another instance's.
pub async fn orphans_of_a_registry_that_is_not_configured_stay<F: Fixture>(
    fixture: F,
) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    bed.shop.put(INLINE, "stock", &["a"], 80);
    bed.publish();
    bed.settled().await?;
    let orphans = bed.keys(INLINE, "stock");
    bed.shop.unconfigure(INLINE);
    let before = bed.mark().await?;
    bed.publish();
    bed.settled().await?;
    bed.stop().await?;
    bed.start();
    bed.settled().await?;
    let touched = bed.touched(&before).await?;
    ensure!(touched.is_empty(), "written: {touched:?}");
    bed.is_right_beside(&orphans).await
}

/// [P7, 3] An object of somebody else is neither changed nor removed, and that is reported.
pub async fn a_foreign_object_stays_and_ours_comes_when_it_goes<F: Fixture>(
    fixture: F,
) -> Result<()> {
    let mut bed = Bed::new(fixture);
    bed.shop.put(WORK, "orders", &["a"], 80);
    bed.shop.put(INLINE, "stock", &["a"], 80);
    bed.publish();
    let [workload, entry] = two(bed.keys(WORK, "orders"))?;
    let inline = bed.keys(INLINE, "stock");
    let foreign: Vec<_> = [workload, entry].into_iter().chain(inline).collect();
    for key in &foreign {
        bed.fixture.put_foreign(key).await?;
    }
    let before = bed.mark().await?;
    bed.start();
    bed.settled().await?;
    bed.shop.put(WORK, "orders", &["a"], 81);
    bed.publish();
    bed.settled().await?;
    for key in &foreign {
        let record = bed.drivers[0].ledger.record(key);
        let error = record.and_then(|record| record.result.err());
        let category = error.as_ref().map(WriteError::category);
        ensure!(category == Some("ForeignObject"), "{key}: {error:?}");
    }
    // Nobody wants it any more: that is no reason to remove it.
    let stock = bed.shop.objects(INLINE, "stock");
    bed.shop.remove(INLINE, "stock");
    bed.publish();
    bed.settled().await?;
    bed.shop.put(INLINE, "stock", &["a"], 80);
    bed.publish();
    bed.settled().await?;
    let after = bed.mark().await?;
    stays(&before, &after, &foreign)?;
    for key in &foreign {
        bed.fixture.delete(key).await?;
    }
    bed.until("our objects come", async || {
        bed.holds(&stock).await?;
        bed.is_right().await
    })
    .await?;
    bed.settled().await?;
    bed.nothing_fails()
}

/// [3] Whose an object is, is decided at the moment of the write, not by what was last heard.
pub async fn an_object_that_became_foreign_a_moment_ago_stays<F: Fixture>(
    fixture: F,
) -> Result<()> {
    let mut bed = Bed::new(fixture);
    bed.shop.put(WORK, "orders", &["a"], 80);
    let [workload, entry] = two(bed.shop.objects(WORK, "orders"))?;
    let mut sink = bed.fixture.sink();
    sink.observe().await?;
    let writer = sink.writer();
    for object in [&workload, &entry] {
        let made = writer.apply(put(object), &Permit::always()).await;
        ensure!(made == Ok(Outcome::Created), "{made:?}");
    }
    for key in [&workload.key, &entry.key] {
        bed.fixture.delete(key).await?;
        bed.fixture.put_foreign(key).await?;
    }
    bed.shop.put(WORK, "stock", &["a"], 80);
    let [other, _] = two(bed.shop.objects(WORK, "stock"))?;
    bed.fixture.put_foreign(&other.key).await?;
    let before = bed.mark().await?;
    for change in [
        put(&workload),
        Change::Delete(entry.key.clone()),
        put(&other),
        put(&entry),
        Change::Delete(workload.key.clone()),
        Change::Delete(other.key.clone()),
    ] {
        let result = writer.apply(change.clone(), &Permit::always()).await;
        let foreign = matches!(result, Err(WriteError::Foreign(_)));
        ensure!(foreign, "{change:?}: {result:?}");
    }
    let after = bed.mark().await?;
    let keys = [workload.key, entry.key, other.key];
    stays(&before, &after, &keys)
}

/// [2] Each change has its result, whatever comes of the others at the same time.
pub async fn every_change_has_its_result<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::new(fixture);
    for name in 0..40 {
        bed.shop.put(INLINE, &format!("s{name}"), &["a"], 80);
    }
    let mut objects = bed.shop.all();
    objects.retain(|object| object.key.kind == diolkos_istio::Kind::ServiceEntry);
    bed.fixture.put_foreign(&objects[7].key).await?;
    let mut sink = bed.fixture.sink();
    sink.observe().await?;
    let changes = objects.iter().map(put).collect();
    for (key, result) in at_once(&sink.writer(), changes).await? {
        let expected = match result {
            Err(WriteError::Foreign(_)) => key == objects[7].key,
            ref result => *result == Ok(Outcome::Created) && key != objects[7].key,
        };
        ensure!(expected, "{key}: {result:?}");
    }
    bed.fixture.delete(&objects[8].key).await?;
    let delete = |object: &Object| Change::Delete(object.key.clone());
    let changes = objects.iter().map(delete).collect();
    for (key, result) in at_once(&sink.writer(), changes).await? {
        let expected = match result {
            Err(WriteError::Foreign(_)) => key == objects[7].key,
            Ok(Outcome::AlreadyGone) => key == objects[8].key,
            ref result => *result == Ok(Outcome::Deleted),
        };
        ensure!(expected, "{key}: {result:?}");
    }
    let left: Vec<_> = bed.fixture.versions().await?.into_keys().collect();
    ensure!(left == [objects[7].key.clone()], "{left:?} are left");
    Ok(())
}

/// [P9] Only the newest desired state counts: what came and went in between is not written.
pub async fn many_changes_are_written_once<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    let entry = bed.keys(WORK, "orders").remove(2);
    let before = bed.mark().await?;
    for port in 0..50 {
        bed.shop.put(WORK, "orders", &["a", "b"], 9000 + port);
        bed.shop.put(WORK, &format!("passing-{port}"), &["a"], 80);
        bed.publish();
        bed.shop.remove(WORK, &format!("passing-{port}"));
    }
    bed.publish();
    bed.settled().await?;
    bed.is_right().await?;
    let tries = bed.tries(&before);
    let writes = tries.iter().filter(|(key, _)| *key == entry).count();
    ensure!((1..=3).contains(&writes), "{writes} writes for 50 changes");
    Ok(())
}

/// [P6] Two writers on one store give what one gives, and leave each other's objects alone.
pub async fn two_writers_agree_and_come_to_rest<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::new(fixture);
    let names: Vec<String> = (0..20).map(|name| format!("s{name}")).collect();
    for name in &names {
        bed.shop.put(WORK, name, &["a", "b"], 80);
    }
    bed.publish();
    bed.start();
    bed.start();
    bed.settled().await?;
    for port in [81, 82, 83] {
        for name in &names {
            bed.shop.put(WORK, name, &["a", "b"], port);
        }
        bed.shop.put(INLINE, "stock", &["a", "b", "c"], port);
        bed.publish();
        bed.settled().await?;
    }
    bed.shop.remove(WORK, "s7");
    bed.publish();
    bed.settled().await?;
    // What each did is heard by the other.
    bed.touched(&bed.mark().await?).await?;
    let before = bed.mark().await?;
    for _ in 0..2 {
        let touched = bed.touched(&before).await?;
        ensure!(touched.is_empty(), "they go on writing: {touched:?}");
    }
    bed.is_right().await?;
    bed.nothing_fails()
}

/// The loop ends soon when it is idle, and in the middle of a large burst.
pub async fn it_ends_soon_when_cancelled<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    let took = bed.stop().await?;
    ensure!(took < Duration::from_secs(1), "idle, it took {took:?}");
    let before = bed.mark().await?;
    bed.start();
    for name in 0..300 {
        bed.shop.put(WORK, &format!("s{name}"), &["a", "b"], 80);
    }
    bed.publish();
    bed.until("it has begun", async || {
        ensure!(!bed.tries(&before).is_empty(), "nothing is written");
        Ok(())
    })
    .await?;
    let took = bed.stop().await?;
    ensure!(took < Duration::from_secs(7), "busy, it took {took:?}");
    bed.start();
    bed.settled().await?;
    bed.is_right().await
}

/// [P5] Killed at any instant, the next start makes it whole: no orphan, nothing lost.
pub async fn killed_in_a_burst_it_converges<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    for (round, writes) in [1, 30, 90].into_iter().enumerate() {
        bed.kill().await;
        for name in 0..60 {
            let name = format!("s{name}-{}", round / 2);
            bed.shop.put(WORK, &name, &["a", "b"], 8000 + round as u32);
        }
        bed.publish();
        let objects = bed.fixture.versions().await?;
        bed.start();
        // Some stores are written one by one, others in parallel; results come after a batch.
        bed.until("some are written", async || {
            let now = bed.fixture.versions().await?;
            let changed = now
                .iter()
                .filter(|(k, v)| objects.get(k) != Some(v))
                .count();
            ensure!(changed >= writes, "{changed} are");
            Ok(())
        })
        .await?;
    }
    bed.kill().await;
    for name in 0..60 {
        bed.shop.remove(WORK, &format!("s{name}-0"));
    }
    bed.publish();
    bed.start();
    bed.settled().await?;
    bed.is_right().await?;
    bed.nothing_fails()
}

/// Group `metadata`. [4] Labels and annotations of others survive changes of our objects.
pub async fn what_others_put_on_an_object_survives<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    let keys = bed.keys(WORK, "orders");
    let before = bed.mark().await?;
    for key in &keys {
        bed.fixture.add_foreign_metadata(key).await?;
    }
    bed.shop.put(WORK, "orders", &["a", "b"], 81);
    bed.publish();
    bed.settled().await?;
    bed.is_right().await?;
    for key in &keys {
        let metadata = bed.stored(key).await?["metadata"].take();
        for part in ["labels", "annotations"] {
            let found = &metadata[part][FOREIGN_NAME];
            ensure!(found == FOREIGN_VALUE, "{key} lost it: {metadata}");
        }
    }
    let tries = bed.tries(&before);
    ensure!(tries.len() == keys.len(), "tried: {tries:?}");
    // It is no change of what is ours.
    let before = bed.mark().await?;
    bed.shop.replan();
    bed.publish();
    bed.settled().await?;
    let touched = bed.touched(&before).await?;
    ensure!(touched.is_empty(), "written: {touched:?}");
    bed.is_right().await
}

/// Group `namespaces`. [2] A namespace that is missing costs its own objects only, and they come
/// when it does.
pub async fn what_cannot_be_written_holds_nobody_back<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::new(fixture);
    bed.shop
        .registry(ELSEWHERE, "not-yet-there", Endpoints::WorkloadEntry);
    bed.shop.put(ELSEWHERE, "carts", &["a"], 80);
    let missing = bed.keys(ELSEWHERE, "carts");
    bed.shop.put(WORK, "orders", &["a", "b"], 80);
    bed.publish();
    bed.start();
    bed.worked_through().await?;
    let others = bed.shop.objects(WORK, "orders");
    bed.until("the others are written", async || bed.holds(&others).await)
        .await?;
    let ledger = &bed.drivers[0].ledger;
    for key in &missing {
        let record = ledger
            .record(key)
            .with_context(|| format!("no record of {key}"))?;
        let category = record.result.as_ref().err().map(WriteError::category);
        ensure!(category == Some("NamespaceMissing"), "{key}: {record:?}");
    }
    ensure!(ledger.pending() == missing.len(), "{}", ledger.pending());
    bed.fixture.create_namespace("not-yet-there").await?;
    bed.settled().await?;
    bed.is_right().await?;
    ensure!(ledger.totals(ELSEWHERE).failing.is_empty());
    bed.nothing_fails()
}

/// Group `hang`. [6] A store that does not answer ends neither in a wait without end nor in a lie.
pub async fn calls_end_though_the_store_hangs<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    bed.shop.put(WORK, "stock", &["a"], 80);
    let [workload, _] = two(bed.shop.objects(WORK, "stock"))?;
    let mut sink = bed.fixture.sink();
    sink.observe().await?;
    bed.fixture.hang(true).await?;
    let (writer, permit) = (sink.writer(), Permit::always());
    let result = timeout(PATIENCE, writer.apply(put(&workload), &permit)).await;
    let result = result.context("a write does not end")?;
    let retry = matches!(result, Err(WriteError::Retry { .. }));
    ensure!(retry, "{result:?}");
    let begin = Instant::now();
    bed.publish();
    let took = bed.stop().await?;
    ensure!(took < Duration::from_secs(7), "it took {took:?} to end");
    let observed = timeout(PATIENCE, async { bed.fixture.sink().observe().await });
    let observed = observed.await.context("reading does not end")?;
    ensure!(observed.is_err(), "read after {:?}", begin.elapsed());
    bed.fixture.hang(false).await?;
    bed.start();
    bed.settled().await?;
    bed.is_right().await
}

/// Fails unless these objects are what they were.
fn stays(before: &Mark, after: &Mark, keys: &[ObjectKey]) -> Result<()> {
    for key in keys {
        let (before, after) = (before.version(key), after.version(key));
        ensure!(before.is_some(), "{key} was not there");
        ensure!(before == after, "{key} was touched: {before:?}, {after:?}");
    }
    Ok(())
}

fn put(object: &Object) -> Change {
    let (object, hash) = (object.clone(), object.content_hash());
    Change::Put { object, hash }
}

/// Makes changes at once, as many as the sink takes.
async fn at_once<W: Writer>(
    writer: &W,
    changes: Vec<Change>,
) -> Result<Vec<(ObjectKey, Result<Outcome, WriteError>)>> {
    let mut writes = JoinSet::new();
    let mut results = Vec::new();
    for change in changes {
        if writes.len() >= writer.parallel() {
            results.extend(writes.join_next().await.transpose()?);
        }
        let writer = writer.clone();
        writes.spawn(async move {
            let key = change.key().clone();
            (key, writer.apply(change, &Permit::always()).await)
        });
    }
    results.extend(writes.join_all().await);
    Ok(results)
}

fn two<T>(items: Vec<T>) -> Result<[T; 2]> {
    let count = items.len();
    items
        .try_into()
        .map_err(|_| anyhow::anyhow!("{count} objects instead of two"))
}
