//! Servers that go, come back with less, or do not let us in.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use diolkos_nacos::Auth;
use diolkos_source_api::Phase;
use diolkos_testkit::{Nacos, NacosInstance, eventually, nacos::NacosService, netns};

use crate::support::{GROUP, Running, SOON, config, delete, put};

const SERVICES: usize = 20;

/// Some services with two instances each.
fn names() -> Vec<String> {
    (0..SERVICES).map(|n| format!("service-{n}")).collect()
}

#[test]
fn a_server_that_forgot_everything_takes_nothing_away() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::start().await?;
        let client = server.client().await?;
        let instances = [1, 2].map(|port| NacosInstance::new("10.0.0.1", port));
        let names = names();
        let services: Vec<NacosService<'_>> = names
            .iter()
            .map(|name| ("dev", GROUP, &**name, &instances[..]))
            .collect();
        eventually(SOON, "Nacos' client registers", async || {
            client.put_all(&services).await
        })
        .await;
        let door = server.door().await?;
        let mut settings = config(&door, "dev");
        settings.settle = Duration::from_secs(20);
        let running = Running::synced(settings).await;
        let whole = || {
            running
                .world()
                .ports()
                .values()
                .all(|ports| *ports == [1, 2])
        };
        ensure!(running.world().services.len() == SERVICES && whole());
        ensure!(running.world().complete() == 1, "the first one is complete");

        // A frozen server changes nothing.
        server.stop_process()?;
        running.health(Phase::Unreachable, "").await;
        server.continue_process()?;
        running
            .until("a snapshot", |world| world.snapshots.len() > 1)
            .await;

        // The client does not come back before the source has.
        client.stop_process()?;
        server.kill()?;
        running.health(Phase::Unreachable, "").await;
        let before = running.world().snapshots.len();
        server.restart().await?;
        running
            .until("a snapshot", |world| world.snapshots.len() > before)
            .await;
        ensure!(server.services("dev", GROUP).await?.is_empty());
        ensure!(!running.world().snapshots[before].is_complete());
        ensure!(running.world().services.len() == SERVICES && whole());
        client.continue_process()?;
        running
            .until("a complete snapshot", |world| world.complete() > 1)
            .await;
        {
            let world = running.world();
            ensure!(world.services.len() == SERVICES, "{world:?}");
            let lost = (&world.removed, &world.missing);
            ensure!(lost.0.is_empty() && lost.1.is_empty(), "{world:?}");
        }
        running
            .until("all are as they were", |world| {
                world.ports().values().all(|ports| *ports == [1, 2])
            })
            .await;
        Ok(())
    })
}

#[test]
fn a_namespace_that_may_not_be_read_costs_itself_only() -> Result<()> {
    netns::isolated(async {
        let server = Nacos::builder().auth().start().await?;
        let client = server.client().await?;
        let one = [NacosInstance::new("10.0.0.1", 1)];
        put(&client, ("open", GROUP, "orders"), &one).await;
        put(&client, ("shut", GROUP, "orders"), &one).await;
        server.add_reader("reader", "secret", &["open"]).await?;
        let folder = tempfile::tempdir()?;
        let password_file = folder.path().join("password");
        fs::write(&password_file, "secret")?;
        let door = server.door().await?;
        let mut settings = config(&door, "open");
        settings.namespaces.push("shut".to_owned());
        settings.client.auth = Some(Auth::Password {
            username: "reader".to_owned(),
            password_file,
        });
        let running = Running::synced(settings).await;
        let [open, shut] = ["open", "shut"].map(|name| format!("{name}/{GROUP}/orders"));
        running.shows("one namespace", &[(&open, &[1])]).await;
        let detail = running.health(Phase::Live, "namespace shut").await;
        ensure!(detail.contains("denied"), "{detail}");
        ensure!(running.world().complete() == 0);
        // What may be read is followed, and goes.
        put(&client, ("open", GROUP, "stock"), &one).await;
        let stock = format!("open/{GROUP}/stock");
        running
            .shows("a new service", &[(&open, &[1]), (&stock, &[1])])
            .await;
        delete(&server, &client, "open", "stock").await;
        running.shows("it went", &[(&open, &[1])]).await;
        let epoch = running.health.borrow().epoch;
        let right = [
            ("role", "reader-role"),
            ("resource", "shut:*:*"),
            ("action", "r"),
        ];
        server.post("/v1/auth/permissions", &right).await?;
        running.shows("both", &[(&open, &[1]), (&shut, &[1])]).await;
        running
            .until("it is complete", |world| world.complete() == 1)
            .await;
        ensure!(running.health.borrow().epoch == epoch, "in the same run");
        eventually(SOON, "no complaint", async || {
            let detail = running.health.borrow().detail.clone();
            ensure!(!detail.contains("shut"), "{detail}");
            Ok(())
        })
        .await;
        Ok(())
    })
}
