//! What is kept, who may write, and what comes first.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, timeout};

use super::super::{
    Fixture, Trouble,
    bed::{Bed, INLINE, PATIENCE, WORK},
};
use crate::{Change, Outcome, Permit, Sink as _, WriteError, Writer as _};

/// Objects that are kept are neither written nor removed, whoever wants what. When they are let go
/// they are dealt with.
pub async fn kept_objects_stay_until_they_are_let_go<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    let kept: BTreeSet<_> = bed
        .keys(WORK, "orders")
        .into_iter()
        .chain(bed.keys(WORK, "stock"))
        .collect();
    bed.shop.keep(kept.clone());
    let before = bed.mark().await?;
    bed.shop.put(WORK, "orders", &["a", "b"], 81);
    bed.shop.remove(WORK, "stock");
    bed.publish();
    bed.settled().await?;
    // A start does not touch them either.
    bed.stop().await?;
    bed.start();
    bed.settled().await?;
    let touched = bed.touched(&before).await?;
    ensure!(touched.is_empty(), "written: {touched:?}");
    bed.shop.keep(BTreeSet::new());
    bed.publish();
    bed.settled().await?;
    let touched = bed.touched(&before).await?;
    ensure!(touched == kept, "written: {touched:?}");
    bed.is_right().await
}

/// What is there is told at the start, with the service that each object is there for.
pub async fn what_is_there_is_remembered<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    bed.shop.put(INLINE, "stock", &["a", "b", "c"], 80);
    bed.publish();
    bed.settled().await?;
    let wanted = bed.shop.all();
    bed.stop().await?;
    // Somebody else's is no memory of ours.
    bed.shop.put(INLINE, "carts", &["a"], 80);
    for key in bed.keys(INLINE, "carts") {
        bed.fixture.put_foreign(&key).await?;
    }
    bed.start();
    let told = timeout(PATIENCE, bed.drivers[0].remembered.recv()).await;
    let told = told.context("nothing is told")?.context("the loop ended")?;
    ensure!(told.len() == wanted.len(), "{told:?}");
    for object in wanted {
        let remembered = told.iter().find(|told| told.object == object.key);
        let remembered = remembered.with_context(|| format!("{} is forgotten", object.key))?;
        let is = |name: &str, value: &str| object.annotations.get(name).is_none_or(|v| v == value);
        let service = is(diolkos_istio::annotation::SERVICE, &remembered.service);
        let endpoints = remembered.endpoints.map(|n| n.to_string());
        let endpoints =
            endpoints.as_ref() == object.annotations.get(diolkos_istio::annotation::ENDPOINTS);
        let registry = object
            .labels
            .get(diolkos_istio::label::REGISTRY)
            .map(String::as_str);
        let registry = registry == Some(&*remembered.registry);
        ensure!(
            service && endpoints && registry,
            "{object:?}: {remembered:?}"
        );
    }
    Ok(())
}

/// Nothing is written without authority, all is when it comes.
pub async fn nothing_is_written_without_authority<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    bed.permit(false);
    let before = bed.mark().await?;
    bed.shop.put(WORK, "orders", &["b", "c"], 80);
    bed.shop.put(INLINE, "carts", &["a"], 80);
    bed.shop.remove(WORK, "stock");
    bed.publish();
    bed.worked_through().await?;
    ensure!(bed.drivers[0].ledger.pending() > 0);
    let now = bed.mark().await?;
    let tries = bed.tries(&before);
    ensure!(tries.is_empty() && now.is(&before), "written: {tries:?}");
    bed.nothing_fails()?;
    bed.permit(true);
    bed.settled().await?;
    bed.is_right().await
}

/// [8] The sink asks for each request, and sends nothing when it may not.
pub async fn a_sink_asks_before_it_writes<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    let there = bed.shop.objects(WORK, "orders");
    bed.shop.put(WORK, "stock", &["a"], 80);
    let new = bed.shop.objects(WORK, "stock");
    let mut sink = bed.fixture.sink();
    sink.observe().await?;
    let before = bed.mark().await?;
    let puts = there.iter().chain(&new).map(super::put);
    let deletes = there
        .iter()
        .map(|object| Change::Delete(object.key.clone()));
    for change in puts.chain(deletes) {
        let result = sink.writer().apply(change.clone(), &Permit::never()).await;
        let refused = matches!(result, Err(WriteError::NotPermitted(_)));
        ensure!(refused, "{change:?}: {result:?}");
    }
    ensure!(bed.mark().await?.is(&before), "something was written");
    Ok(())
}

/// Authority that is taken away in the middle of a burst ends the writes.
pub async fn writes_stop_when_authority_goes<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    let before = bed.mark().await?;
    for name in 0..300 {
        bed.shop.put(WORK, &format!("s{name}"), &["a", "b"], 80);
    }
    bed.publish();
    let objects = bed.shop.all().len();
    bed.until("it has begun", async || {
        ensure!(bed.tries(&before).len() > 10, "too few are written");
        Ok(())
    })
    .await?;
    bed.permit(false);
    // What was sent before has landed when all is worked through and nothing is under way.
    bed.until("it comes to rest", async || {
        let tried = bed.tries(&before).len();
        let pending = bed.drivers[0].ledger.pending();
        let held = bed.drivers[0].ledger.held().values().sum::<usize>();
        ensure!(
            held + pending == objects,
            "{held} + {pending} of {objects}, {tried} tries"
        );
        bed.worked_through().await
    })
    .await?;
    let rest = bed.mark().await?;
    let written = bed.tries(&before).len();
    ensure!(written < objects, "all {written} were written");
    // It hears of a change, and does not write it.
    bed.shop.put(WORK, "orders", &["c"], 80);
    bed.publish();
    bed.worked_through().await?;
    ensure!(bed.mark().await?.is(&rest), "it goes on writing");
    bed.permit(true);
    bed.settled().await?;
    bed.is_right().await
}

/// A removal in the middle of a large sync does not wait for its end.
pub async fn a_removal_comes_first<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "zebra"]).await?;
    let before = bed.mark().await?;
    let gone: BTreeSet<_> = bed.keys(WORK, "zebra").into_iter().collect();
    for name in 0..300 {
        bed.shop.put(WORK, &format!("s{name}"), &["a", "b"], 80);
    }
    bed.publish();
    bed.until("it has begun", async || {
        ensure!(bed.tries(&before).len() > 10, "too few are written");
        Ok(())
    })
    .await?;
    let asked = bed.mark().await?;
    bed.shop.remove(WORK, "zebra");
    bed.publish();
    bed.settled().await?;
    let tries = bed.tries(&asked);
    let deleted = tries
        .iter()
        .enumerate()
        .filter(|(_, (_, result))| *result == Ok(Outcome::Deleted));
    let last = deleted
        .map(|(place, _)| place)
        .max()
        .context("nothing is removed")?;
    let removed: BTreeSet<_> = tries
        .iter()
        .filter(|(_, result)| *result == Ok(Outcome::Deleted))
        .map(|(key, _)| key.clone())
        .collect();
    ensure!(removed == gone, "removed: {removed:?}");
    // Behind at most what was under way, and two steps: the endpoints, then the service.
    ensure!(
        last < 200 && tries.len() > 400,
        "removed as number {last} of {}",
        tries.len()
    );
    bed.is_right().await
}

/// Group `trouble`. Objects that fail or hang hold nobody back, and come when all goes well again.
pub async fn what_goes_wrong_starves_nobody<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    bed.fixture.trouble("fails-", Trouble::Fails).await?;
    bed.fixture.trouble("hangs-", Trouble::Hangs).await?;
    let before = bed.mark().await?;
    for name in 0..15 {
        bed.shop
            .put(WORK, &format!("fails-{name}"), &["a", "b"], 80);
        bed.shop.put(INLINE, &format!("hangs-{name}"), &["a"], 80);
    }
    bed.publish();
    // Each has failed once: from then on they are known.
    bed.worked_through().await?;
    let bad = bed.drivers[0].ledger.pending();
    ensure!(bad >= 45, "{bad} objects go wrong");
    let gone = bed.keys(WORK, "orders");
    bed.shop.remove(WORK, "orders");
    for name in 0..10 {
        bed.shop.put(WORK, &format!("good-{name}"), &["a", "b"], 80);
    }
    let begin = Instant::now();
    bed.publish();
    bed.worked_through().await?;
    // A request that hangs takes its whole deadline: who had to wait for one took longer than this.
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(4), "it took {took:?}");
    let tries = bed.tries(&before);
    let removed = tries
        .iter()
        .filter(|(key, result)| gone.contains(key) && *result == Ok(Outcome::Deleted));
    ensure!(
        removed.count() == gone.len(),
        "not all are removed: {tries:?}"
    );
    for name in 0..10 {
        bed.holds(&bed.shop.objects(WORK, &format!("good-{name}")))
            .await?;
    }
    bed.fixture.mend().await?;
    bed.settled().await?;
    bed.is_right().await?;
    bed.nothing_fails()
}

/// Group `trouble`. A store that asks to be left alone is, by all that is to be written.
pub async fn a_store_that_is_busy_is_left_alone<F: Fixture>(fixture: F) -> Result<()> {
    const ASKED: Duration = Duration::from_secs(1);
    let mut bed = Bed::settled_with(fixture, &["orders"]).await?;
    bed.fixture.trouble("busy", Trouble::Busy(1)).await?;
    let before = bed.mark().await?;
    bed.shop.put(WORK, "busy", &["a"], 80);
    bed.publish();
    bed.until("it is refused", async || {
        ensure!(!bed.tries(&before).is_empty(), "it is not tried");
        Ok(())
    })
    .await?;
    let refused = Instant::now();
    bed.shop.put(WORK, "stock", &["a", "b"], 80);
    let stock = bed.shop.objects(WORK, "stock");
    bed.publish();
    bed.until("the others are written", async || bed.holds(&stock).await)
        .await?;
    // It was refused a look before we knew it.
    let left_alone = refused.elapsed() + Duration::from_millis(200);
    ensure!(left_alone >= ASKED, "left alone for {left_alone:?}");
    bed.fixture.mend().await?;
    bed.settled().await?;
    bed.is_right().await
}

/// Group `trouble`. A write that was done but not answered is neither done twice nor forgotten.
pub async fn answers_that_are_lost_do_no_harm<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    bed.fixture.trouble("", Trouble::LosesAnswers).await?;
    let before = bed.mark().await?;
    bed.shop.put(WORK, "orders", &["b", "c"], 81);
    bed.shop.put(INLINE, "carts", &["a"], 80);
    bed.shop.remove(WORK, "stock");
    bed.publish();
    bed.worked_through().await?;
    ensure!(!bed.tries(&before).is_empty(), "nothing was tried");
    bed.fixture.mend().await?;
    bed.settled().await?;
    bed.is_right().await?;
    bed.nothing_fails()
}
