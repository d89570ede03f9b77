//! What Dubbo's registries hold in tests of incidents, and what people see of an outage.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use diolkos_testkit::eventually;

use crate::common::{Diolkos, SOON};
use crate::dubbo::Provider;
use crate::written::{Bridge, Files};

/// The interfaces at the beginning.
pub const SERVICES: usize = 6;

/// How long the processor time is measured: longer than sessions live.
const MEASURED: Duration = Duration::from_secs(5);

/// The name of an interface.
pub fn interface(service: usize) -> String {
    format!("org.demo.Service{service:02}")
}

/// Its host in the mesh.
pub fn host(service: usize) -> String {
    interface(service).to_lowercase()
}

/// Its providers.
pub fn providers(service: usize) -> [Provider; 2] {
    [1, 2].map(|n| Provider::new(&interface(service), &format!("10.0.{service}.{n}:20880")))
}

/// What the file of a service says.
pub fn file_of(files: &Files, service: usize) -> Result<String> {
    let host = host(service);
    let found = files.values().find(|(_, content)| content.contains(&host));
    let (_, content) = found.with_context(|| format!("no file of {host}"))?;
    Ok(content.clone())
}

/// Waits until the registry is followed in at least this connection, and some services are there and others not.
pub async fn until_followed(bridge: &Bridge, epoch: u64, there: &[usize], gone: &[usize]) {
    eventually(2 * SOON, "the registry is followed", async || {
        bridge.live(epoch).await?;
        for service in there {
            let host = host(*service);
            ensure!(bridge.has_host(&host)?, "{host} is not there");
        }
        for service in gone {
            let host = host(*service);
            ensure!(!bridge.has_host(&host)?, "{host} is still there");
        }
        Ok(())
    })
    .await;
}

/// Waits until a file says this, and all is written.
pub async fn until_there(bridge: &Bridge, text: &str) {
    eventually(2 * SOON, "a change is followed", async || {
        ensure!(bridge.has_host(text)?, "{text} is not there");
        bridge.live(1).await
    })
    .await;
}

/// Fails if a file of `before` was written since or is gone, other than those of these services.
pub fn only_changed(bridge: &Bridge, before: &Files, services: &[usize]) -> Result<()> {
    let now = bridge.files()?;
    let may_change = |content: &str| services.iter().any(|s| content.contains(&host(*s)));
    for (name, file) in before {
        if !may_change(&file.1) {
            ensure!(now.get(name) == Some(file), "{name}: {:?}", now.get(name));
        }
    }
    Ok(())
}

/// The share of one processor that a program uses while nobody asks it anything.
pub async fn processor_share(diolkos: &Diolkos) -> Result<f64> {
    let (before, at) = (diolkos.program().cpu()?, Instant::now());
    tokio::time::sleep(MEASURED).await;
    let used = diolkos.program().cpu()? - before;
    Ok(used.as_secs_f64() / at.elapsed().as_secs_f64())
}

/// An outage that has begun shows, costs nothing and changes nothing.
pub async fn is_visible_and_harmless(bridge: &Bridge, files: &Files, writes: f64) -> Result<()> {
    let lost = bridge.until_phase(SOON, "Unreachable").await?;
    let contact = lost["lastContact"].clone();
    ensure!(contact.is_string(), "{lost}");
    let (status, reason, message) = bridge.condition("Connected").await?;
    ensure!((&*status, &*reason) == ("False", "Unreachable"), "{reason}");
    ensure!(
        message.contains("the mesh stays as it is"),
        "the message does not say what that means: {message}"
    );
    let share = processor_share(&bridge.diolkos).await?;
    ensure!(share < 0.01, "{:.2} % of a processor", 100.0 * share);
    let status = bridge.status().await?;
    ensure!(
        status["lastContact"] == contact,
        "an attempt is no contact: {status}"
    );
    ensure!(status["phase"] == "Unreachable", "{status}");
    ensure!(status["services"] == SERVICES, "{status}");
    ensure!(bridge.metric("diolkos_source_up").await? == 0.0, "it is up");
    bridge.ready().await?;
    ensure!(bridge.files()? == *files, "files have changed");
    ensure!(bridge.writes().await? == writes, "something was written");
    Ok(())
}

/// Waits until removals are held back, and that is said.
pub async fn until_held(bridge: &Bridge) {
    eventually(2 * SOON, "removals are held back", async || {
        let (status, reason, message) = bridge.condition("RemovalsHeld").await?;
        ensure!(status == "True", "{reason}: {message}");
        ensure!(message.contains("diolkos registries release"), "{message}");
        Ok(())
    })
    .await;
}

/// Waits until nothing is held back, and all is written.
pub async fn until_not_held(bridge: &Bridge) {
    eventually(2 * SOON, "nothing is held back", async || {
        let (status, reason, message) = bridge.condition("RemovalsHeld").await?;
        ensure!(status == "False", "{reason}: {message}");
        bridge.live(1).await
    })
    .await;
}

/// One of two providers of the first service goes (`false`) and comes (`true`) all the time: that costs one write a
/// window, and no other service anything.
pub async fn a_flapping_provider_costs_little(
    bridge: &Bridge,
    turn: impl AsyncFn(bool) -> Result<()>,
) -> Result<()> {
    let (files, writes) = (bridge.files()?, bridge.writes().await?);
    let windows = bridge.metric("diolkos_plans_total").await?;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    for number in 0..80 {
        tick.tick().await;
        turn(number % 2 == 1).await?;
    }
    let content = |files: &Files| -> Vec<_> { files.values().map(|f| f.1.clone()).collect() };
    eventually(SOON, "the last state is there", async || {
        let now = bridge.files()?;
        ensure!(content(&now) == content(&files), "{now:?}");
        bridge.live(1).await
    })
    .await;
    only_changed(bridge, &files, &[0])?;
    let writes = bridge.writes().await? - writes;
    let windows = bridge.metric("diolkos_plans_total").await? - windows;
    ensure!(
        (2.0..=windows).contains(&writes),
        "{writes} writes in {windows} windows"
    );
    Ok(())
}
