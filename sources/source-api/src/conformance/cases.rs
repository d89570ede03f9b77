//! The cases. Each begins with a registry that has no services.
//!
//! Numbers in brackets are the guarantees of the [crate documentation](crate).
#![expect(
    clippy::missing_errors_doc,
    reason = "an error is what the case found wrong"
)]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Fixture, Outage,
    bed::{Bed, PATIENCE, many, wanted},
};
use crate::{EventSender, HealthReporter, Phase, Source, SourceCx, SourceError};

/// [2] A registry without services is synchronised all the same.
pub async fn an_empty_registry_is_a_complete_snapshot<F: Fixture>(fixture: F) -> Result<()> {
    let bed = Bed::live(fixture, &[]).await?;
    bed.names_only(&[])?;
    bed.stop().await.map(drop)
}

/// [1, 2] The first snapshot names all services with all their instances.
pub async fn services_that_are_there_are_in_the_first_snapshot<F: Fixture>(
    fixture: F,
) -> Result<()> {
    let services = [
        wanted("orders", [1, 2, 3], 8080),
        wanted("stock", [1], 9090),
        wanted("carts", [1, 2], 80),
    ];
    let bed = Bed::live(fixture, &services).await?;
    bed.names_only(&services)?;
    let first = bed.world().snapshots[0].clone();
    ensure!(first.epoch == 1 && first.names.len() == 3, "{first:?}");
    bed.stop().await.map(drop)
}

/// [1] Each change of an instance gives the whole service as it is now.
pub async fn instances_come_change_and_go<F: Fixture>(fixture: F) -> Result<()> {
    let other = wanted("stock", [1, 2], 9090);
    let mut bed = Bed::live(fixture, &[wanted("orders", [1], 8080), other]).await?;
    let mut versions = wanted("orders", [1, 3], 8081);
    versions.instances[1].version = Some("v2".to_owned());
    for service in [
        wanted("orders", [1, 2], 8080),
        wanted("orders", [1, 2, 3], 8080),
        wanted("orders", [1, 3], 8080),
        wanted("orders", [1, 3], 8081),
        versions,
        wanted("orders", [4], 8081),
    ] {
        bed.put(&service).await?;
    }
    bed.stop().await.map(drop)
}

/// [4] New services are seen, and those that are gone go; with no new connection.
pub async fn services_come_and_go<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::live(fixture, &[wanted("orders", [1], 8080)]).await?;
    bed.put(&wanted("stock", [1, 2], 80)).await?;
    bed.put(&wanted("carts", [1], 80)).await?;
    bed.delete("stock").await?;
    bed.put(&wanted("stock", [3], 81)).await?;
    for name in ["orders", "stock", "carts"] {
        bed.delete(name).await?;
    }
    bed.put(&wanted("orders", [1], 8080)).await?;
    let run = bed.world().run;
    ensure!(run == 1, "it took {run} connections");
    bed.stop().await.map(drop)
}

/// An instance that may get no traffic stays known as such.
pub async fn health_is_followed<F: Fixture>(fixture: F) -> Result<()> {
    let mut service = wanted("orders", [1, 2], 8080);
    service.instances[1].healthy = false;
    let mut bed = Bed::live(fixture, std::slice::from_ref(&service)).await?;
    for healthy in [[true, true], [false, true], [false, false], [true, true]] {
        service.instances[0].healthy = healthy[0];
        service.instances[1].healthy = healthy[1];
        bed.put(&service).await?;
    }
    bed.stop().await.map(drop)
}

/// Weights are carried as registered.
pub async fn weights_are_followed<F: Fixture>(fixture: F) -> Result<()> {
    let mut service = wanted("orders", [1, 2], 8080);
    let mut set = |weights: [u32; 2]| {
        for (instance, weight) in service.instances.iter_mut().zip(weights) {
            instance.weight = Some(weight);
        }
        service.clone()
    };
    let mut bed = Bed::live(fixture, &[set([1, 50])]).await?;
    for weights in [[2, 50], [100, 1]] {
        bed.put(&set(weights)).await?;
    }
    bed.stop().await.map(drop)
}

/// What is registered again as it was has the same content.
pub async fn to_register_the_same_again_is_no_change<F: Fixture>(fixture: F) -> Result<()> {
    let services = [
        wanted("orders", [1, 2], 8080),
        wanted("stock", [1, 2], 9090),
    ];
    let mut bed = Bed::live(fixture, &services).await?;
    let before = bed.world().changes;
    for _ in 0..3 {
        bed.fixture.put_all(&services).await?;
    }
    // Once this is seen, so is all before it.
    bed.put(&wanted("marker", [1], 80)).await?;
    bed.put(&wanted("marker", [1, 2], 80)).await?;
    let changes = bed.world().changes - before;
    ensure!(changes == 2, "{changes} changes, two of them the marker's");
    bed.stop().await.map(drop)
}

/// A burst over many services is followed as a whole.
pub async fn many_changes_at_once_are_all_found<F: Fixture>(fixture: F) -> Result<()> {
    let mut services = many(60);
    let mut bed = Bed::live(fixture, &services).await?;
    for (number, service) in services.iter_mut().enumerate() {
        let instances = [1, 2, 3].into_iter().take(1 + number % 3);
        *service = wanted(&service.name, instances, 9000);
        bed.put_unseen(service).await?;
    }
    let gone = services.split_off(40);
    for service in &gone {
        bed.delete_unseen(&service.name).await?;
    }
    bed.shows(&services).await?;
    for service in &gone {
        bed.lacks(&service.name).await?;
    }
    bed.stop().await.map(drop)
}

/// [2] A resync is a snapshot inside the same connection.
pub async fn a_resync_names_everything_again<F: Fixture>(fixture: F) -> Result<()> {
    let services = many(10);
    let bed = Bed::live(fixture, &services).await?;
    for _ in 0..2 {
        let before = bed.world().snapshots.len();
        let changes = bed.world().changes;
        bed.resync.send(()).await?;
        bed.until(PATIENCE, "a new snapshot", |world| {
            ensure!(world.snapshots.len() > before, "there is none");
            Ok(())
        })
        .await?;
        let world = bed.world();
        let last = &world.snapshots[before];
        ensure!(last.complete && last.epoch == 1, "{last:?}");
        ensure!(last.names.len() == services.len(), "{last:?}");
        ensure!(world.changes == changes, "the content is different");
    }
    bed.stop().await.map(drop)
}

/// [2] A new source says what the old one said.
pub async fn a_restart_says_the_same<F: Fixture>(fixture: F) -> Result<()> {
    let services = many(5);
    let mut bed = Bed::live(fixture, &services).await?;
    for _ in 0..2 {
        bed = Bed::run(usize::MAX, bed.stop().await?, &services);
        bed.synced().await?;
        bed.shows(&services).await?;
    }
    bed.stop().await.map(drop)
}

/// [2] A large registry is synchronised as a whole, and followed.
pub async fn many_services_are_synchronised<F: Fixture>(fixture: F) -> Result<()> {
    let services = many(500);
    let mut bed = Bed::live(fixture, &services).await?;
    bed.put(&wanted("many-250", [3], 8081)).await?;
    bed.stop().await.map(drop)
}

/// [6] When the channel is full the source waits, and nothing is lost.
pub async fn a_slow_listener_loses_nothing<F: Fixture>(fixture: F) -> Result<()> {
    let mut services = many(50);
    let mut bed = Bed::live(fixture, &services).await?;
    bed.pause();
    for service in &mut services {
        *service = wanted(&service.name, [1, 4], 9000);
        bed.put_unseen(service).await?;
    }
    bed.delete_unseen("many-7").await?;
    services.remove(7);
    // Not to wait for something: the source is to stand before a full channel for a while.
    sleep(Duration::from_secs(1)).await;
    bed.take(usize::MAX);
    bed.shows(&services).await?;
    bed.lacks("many-7").await?;
    bed.stop().await.map(drop)
}

/// [8] In the middle of a snapshot.
pub async fn it_ends_at_once_while_it_synchronises<F: Fixture>(fixture: F) -> Result<()> {
    let bed = Bed::start_taking(3, fixture, &many(50)).await?;
    bed.until(PATIENCE, "it has begun", |world| {
        ensure!(world.events == 3, "{} events", world.events);
        Ok(())
    })
    .await?;
    bed.stop().await.map(drop)
}

/// [8] While nothing happens.
pub async fn it_ends_at_once_while_it_follows<F: Fixture>(fixture: F) -> Result<()> {
    let bed = Bed::live(fixture, &many(3)).await?;
    bed.stop().await.map(drop)
}

/// [8] Without the supervisor's help.
pub async fn a_run_ends_by_itself_when_cancelled<F: Fixture>(mut fixture: F) -> Result<()> {
    fixture.put_all(&many(3)).await?;
    let (sender, mut events) = mpsc::channel(1);
    let (_resync, resync) = mpsc::channel(1);
    let (health, mut watched) = HealthReporter::new();
    let cancel = CancellationToken::new();
    let mut cx = SourceCx {
        events: EventSender::new("alone".into(), sender),
        health,
        resync,
        cancel: cancel.clone(),
    };
    let mut source = fixture.source("alone".into());
    let run = tokio::spawn(async move { source.run(1, &mut cx).await });
    let listener = tokio::spawn(async move { while events.recv().await.is_some() {} });
    let live = watched.wait_for(|health| health.phase == Phase::Live);
    timeout(PATIENCE, live).await.context("it is not live")??;
    cancel.cancel();
    let ended = timeout(Duration::from_secs(1), run).await;
    let ended = ended.context("it does not end within a second")??;
    let stopped = matches!(ended, Ok(()) | Err(SourceError::Stopped));
    ensure!(stopped, "it ended with {ended:?}");
    Ok(listener.await?)
}

/// The engine is gone: the source has nothing to do any more.
pub async fn it_ends_when_nobody_listens<F: Fixture>(fixture: F) -> Result<()> {
    let mut bed = Bed::live(fixture, &many(3)).await?;
    bed.deafen().await;
    bed.put_unseen(&wanted("orders", [1], 80)).await?;
    let budget = bed.fixture.budget();
    timeout(budget, async {
        while !bed.has_ended() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .with_context(|| format!("it does not end within {budget:?}"))
}

/// Group `cut`. [P1] Nothing changes, and that nothing is known is visible.
pub async fn a_cut_changes_nothing<F: Fixture>(fixture: F) -> Result<()> {
    an_outage_changes_nothing(fixture, Outage::Cut).await
}

/// Group `hang`. [P1] As [`a_cut_changes_nothing`].
pub async fn a_hang_changes_nothing<F: Fixture>(fixture: F) -> Result<()> {
    an_outage_changes_nothing(fixture, Outage::Hang).await
}

/// [3, 5, 7]
async fn an_outage_changes_nothing<F: Fixture>(fixture: F, outage: Outage) -> Result<()> {
    let services = many(20);
    let mut bed = Bed::live(fixture, &services).await?;
    for _ in 0..2 {
        let changes = bed.world().changes;
        bed.outage(outage).await?;
        let lost = bed.health.borrow().clone();
        // Long enough for a connection that fails.
        bed.until_health("it tries again", PATIENCE, |health| {
            health.epoch > lost.epoch && health.detail != lost.detail
                || health.epoch > lost.epoch + 1
        })
        .await?;
        let now = bed.health.borrow().clone();
        ensure!(
            now.last_contact == lost.last_contact,
            "a contact during an outage: {now:?}, before {lost:?}"
        );
        bed.recover().await?;
        let world = bed.world();
        ensure!(world.changes == changes, "the content is different");
    }
    bed.stop().await.map(drop)
}

/// Group `cut`. [2] The next connection finds what changed, came and went.
pub async fn what_happened_during_a_cut_is_found<F: Fixture>(fixture: F) -> Result<()> {
    what_happened_during_an_outage_is_found(fixture, Outage::Cut).await
}

/// Group `hang`. [2] As [`what_happened_during_a_cut_is_found`].
pub async fn what_happened_during_a_hang_is_found<F: Fixture>(fixture: F) -> Result<()> {
    what_happened_during_an_outage_is_found(fixture, Outage::Hang).await
}

async fn what_happened_during_an_outage_is_found<F: Fixture>(
    fixture: F,
    outage: Outage,
) -> Result<()> {
    let mut services = many(10);
    let mut bed = Bed::live(fixture, &services).await?;
    bed.outage(outage).await?;
    services[3] = wanted("many-3", [2, 5], 8081);
    services.push(wanted("orders", [1], 80));
    for name in ["many-0", "many-1"] {
        bed.delete_unseen(name).await?;
        services.remove(0);
    }
    for service in [&services[1], &services[8]] {
        bed.put_unseen(service).await?;
    }
    bed.recover().await?;
    bed.shows(&services).await?;
    bed.names_only(&services)?;
    // It follows again.
    bed.put(&wanted("orders", [1, 2], 80)).await?;
    bed.delete("many-9").await?;
    bed.stop().await.map(drop)
}

/// Group `cut`. [3] However far the first snapshot is when the connection breaks, a snapshot that
/// counts as complete lacks nothing.
pub async fn a_cut_in_the_first_snapshot_loses_nothing<F: Fixture>(fixture: F) -> Result<()> {
    let services = many(200);
    let mut bed = Bed::start_taking(0, fixture, &services).await?;
    for events in [1, 2, 20, 100, 190] {
        // It stands before a full channel in the middle of the snapshot.
        let before = bed.world().events;
        bed.take(before + events);
        bed.until(PATIENCE, "it has begun", |world| {
            ensure!(world.events >= before + events, "{} events", world.events);
            Ok(())
        })
        .await?;
        bed.fixture.outage(Outage::Cut).await?;
        bed.take(usize::MAX);
        bed.until_health("the outage is noticed", bed.fixture.notices(), |health| {
            !health.phase.is_connected()
        })
        .await?;
        let next = bed.world().events;
        bed.take(next);
        bed.fixture.recover().await?;
    }
    bed.take(usize::MAX);
    bed.synced().await?;
    bed.shows(&services).await?;
    bed.names_only(&services)?;
    bed.stop().await.map(drop)
}

/// Group `cut`. [8] While it tries to connect, and while it waits to try again.
pub async fn it_ends_at_once_without_a_connection<F: Fixture>(mut fixture: F) -> Result<()> {
    fixture.outage(Outage::Cut).await?;
    let mut bed = Bed::run(usize::MAX, fixture, &[]);
    for epoch in [1, 2, 4] {
        bed.until_health("it tries", PATIENCE, |health| health.epoch >= epoch)
            .await?;
        ensure!(bed.world().snapshots.is_empty(), "it says it is connected");
        bed = Bed::run(usize::MAX, bed.stop().await?, &[]);
    }
    bed.stop().await.map(drop)
}

/// Group `hang`. [8] While it waits for an answer.
pub async fn it_ends_at_once_when_nothing_answers<F: Fixture>(mut fixture: F) -> Result<()> {
    let services = many(3);
    fixture.put_all(&services).await?;
    fixture.outage(Outage::Hang).await?;
    let bed = Bed::run(usize::MAX, fixture, &services);
    bed.until_health("it tries", PATIENCE, |health| health.epoch >= 1)
        .await?;
    let mut fixture = bed.stop().await?;
    fixture.recover().await?;
    let mut bed = Bed::live(fixture, &services).await?;
    bed.fixture.outage(Outage::Hang).await?;
    bed.stop().await.map(drop)
}

/// Group `hide`. [3] What may lack something does not count as complete, and a complete answer
/// follows when there is one.
pub async fn an_answer_that_lacks_something_is_partial<F: Fixture>(mut fixture: F) -> Result<()> {
    let services = many(3);
    fixture.put_all(&services).await?;
    fixture.hide("many-1").await?;
    // That a complete snapshot lacks nothing is checked all the time.
    let mut bed = Bed::run(usize::MAX, fixture, &services);
    bed.until(PATIENCE, "a snapshot", |world| {
        let first = world.snapshots.first().context("there is none")?;
        ensure!(!first.complete, "{first:?}");
        Ok(())
    })
    .await?;
    let rest = [services[0].clone(), services[2].clone()];
    bed.shows(&rest).await?;
    bed.fixture.unhide("many-1").await?;
    bed.shows(&services).await?;
    bed.synced().await?;
    // A service that is hidden later stays as it was.
    bed.fixture.hide("many-1").await?;
    bed.put(&wanted("marker", [1], 80)).await?;
    bed.resync.send(()).await?;
    bed.put(&wanted("marker", [1, 2], 80)).await?;
    ensure!(bed.world().names().contains("many-1"), "it is gone");
    bed.stop().await.map(drop)
}
