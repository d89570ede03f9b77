//! What people and other programs do to our objects.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::super::{
    Fixture,
    bed::{Bed, PATIENCE, WORK},
};

/// [7] An object that somebody changed is made right.
pub async fn a_hand_edit_is_repaired<F: Fixture>(fixture: F) -> Result<()> {
    let bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    let edited: BTreeSet<_> = bed.keys(WORK, "orders").into_iter().skip(1).collect();
    let before = bed.mark().await?;
    for key in &edited {
        bed.fixture.edit(key).await?;
    }
    bed.until("they are repaired", async || {
        let tries = bed.tries(&before);
        for key in &edited {
            ensure!(tries.iter().any(|(tried, _)| tried == key), "{key} is not");
        }
        bed.is_right().await
    })
    .await?;
    let touched = bed.touched(&before).await?;
    ensure!(touched == edited, "written: {touched:?}");
    bed.nothing_fails()
}

/// [7] An object that somebody removed is made again.
pub async fn an_object_removed_by_hand_comes_back<F: Fixture>(fixture: F) -> Result<()> {
    let bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    let before = bed.mark().await?;
    let removed: BTreeSet<_> = bed.keys(WORK, "orders").into_iter().skip(1).collect();
    for key in &removed {
        bed.fixture.delete(key).await?;
    }
    bed.until("they come back", async || bed.is_right().await)
        .await?;
    let touched = bed.touched(&before).await?;
    ensure!(touched == removed, "written: {touched:?}");
    bed.nothing_fails()
}

/// [7] Dropping the future of `drift`, as the loop does for each desired state, loses nothing.
pub async fn changes_of_others_are_heard_while_much_is_written<F: Fixture>(
    fixture: F,
) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock"]).await?;
    let orders = bed.shop.objects(WORK, "orders");
    let mut port = 8000;
    for _ in 0..3 {
        for object in &orders {
            bed.fixture.delete(&object.key).await?;
        }
        let end = Instant::now() + PATIENCE;
        while let Err(fault) = bed.holds(&orders).await {
            ensure!(Instant::now() < end, "{fault}");
            port += 1;
            bed.shop.put(WORK, "stock", &["a", "b"], port);
            bed.publish();
            bed.worked_through().await?;
        }
    }
    bed.until("all is right", async || bed.is_right().await)
        .await?;
    bed.settled().await?;
    bed.nothing_fails()
}

/// [1] A start finds what others changed, removed and made meanwhile.
pub async fn what_others_did_while_stopped_is_repaired_at_the_start<F: Fixture>(
    fixture: F,
) -> Result<()> {
    let mut bed = Bed::settled_with(fixture, &["orders", "stock", "carts"]).await?;
    bed.stop().await?;
    let [edited, ..] = &*bed.keys(WORK, "orders") else {
        return Ok(());
    };
    let stock = bed.keys(WORK, "stock");
    let carts = bed.keys(WORK, "carts");
    bed.fixture.edit(edited).await?;
    bed.fixture.edit(&carts[2]).await?;
    bed.fixture.delete(&stock[0]).await?;
    bed.fixture.delete(&stock[2]).await?;
    let before = bed.mark().await?;
    bed.start();
    bed.settled().await?;
    bed.is_right().await?;
    let expected: BTreeSet<_> = [edited, &carts[2], &stock[0], &stock[2]]
        .into_iter()
        .cloned()
        .collect();
    let touched = bed.touched(&before).await?;
    ensure!(touched == expected, "written: {touched:?}");
    Ok(())
}
