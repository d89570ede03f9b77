//! The suite that every source passes against its real server.
//!
//! A test of the source's crate says how to reach the registry around the source, and gets one test
//! a case:
//!
//! ```ignore
//! struct Server { /* … */ }
//!
//! impl diolkos_source_api::conformance::Fixture for Server { /* … */ }
//!
//! async fn server() -> anyhow::Result<Server> { /* … */ }
//!
//! diolkos_source_api::conformance_tests!(server, cut);
//! ```
//!
//! Not every registry can be put into every trouble. Groups of cases that need one are named after
//! the fixture and need the methods of [`Fixture`] that say so: `cut`, `hang`, `hide`.
//!
//! The source runs under the real [`supervise`](crate::supervise). Its events build the registry as
//! the engine would see it, and each one is checked against the [protocol](crate) and against what
//! the registry is known to hold: what the suite has put there and has seen once is never removed,
//! and never missing from a snapshot that counts as complete.

use std::{
    collections::BTreeSet, future::Future, net::Ipv4Addr, panic::AssertUnwindSafe, sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use diolkos_model::{Address, Instance, Weight};
use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream};

use crate::Source;

mod bed;
pub mod cases;
mod world;

/// A service to be in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Lower-case letters, digits and `-`.
    pub name: String,
    /// At least one. Any that the registry has besides are to go.
    pub instances: Vec<WantedInstance>,
}

/// An instance to be in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedInstance {
    /// Unique in the service.
    pub id: String,
    /// Unique in the service, too.
    pub ip: Ipv4Addr,
    /// Its only port.
    pub port: u16,
    /// The version.
    pub version: Option<String>,
    /// Whether it may get traffic.
    pub healthy: bool,
    /// The weight, if the registry is to be told one.
    pub weight: Option<u32>,
}

/// What of an instance is compared: ids and labels are the registry's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Content {
    address: Address,
    port: Option<u32>,
    version: Option<Arc<str>>,
    healthy: bool,
    weight: Option<Weight>,
}

impl WantedInstance {
    fn content(&self) -> Content {
        Content {
            address: Address::Ip(self.ip.into()),
            port: Some(self.port.into()),
            version: self.version.as_deref().map(Into::into),
            healthy: self.healthy,
            weight: self.weight.map(Weight::whole),
        }
    }

    /// Whether this is what the source says. A weight that the registry was not told may be any.
    fn is(&self, seen: &Content) -> bool {
        let weight = match self.weight {
            None => seen.weight,
            Some(weight) => Some(Weight::whole(weight)),
        };
        let wanted = Content {
            weight,
            ..self.content()
        };
        wanted == *seen
    }
}

impl Wanted {
    fn is(&self, seen: &BTreeSet<Content>) -> bool {
        self.instances.len() == seen.len()
            && self
                .instances
                .iter()
                .all(|wanted| seen.iter().any(|seen| wanted.is(seen)))
    }
}

fn content(instance: &Instance) -> Content {
    Content {
        address: instance.address.clone(),
        port: instance.ports.first().map(|port| port.number),
        version: instance.version.clone(),
        healthy: instance.health.is_healthy(),
        weight: instance.weight,
    }
}

/// A way in which the registry cannot be reached by the source. The suite reaches it all the same:
/// put a proxy between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Connections break, new ones are refused.
    Cut,
    /// Connections stay and nothing answers.
    Hang,
}

/// A registry with no services in it, and those who work on it besides the source. What a method
/// does is done when it returns. Dropping it ends the server.
#[expect(
    async_fn_in_trait,
    reason = "the suite awaits them in the test's own task"
)]
pub trait Fixture {
    /// The source.
    type Source: Source;

    /// A new source for the registry of that name, as after a restart.
    fn source(&self, registry: Arc<str>) -> Self::Source;

    /// How long a change may take to be seen.
    fn budget(&self) -> Duration;

    /// How long the source may take to notice an outage.
    fn notices(&self) -> Duration {
        Duration::from_secs(15)
    }

    /// Puts a service into the registry as it is to be, with no other instances; also during an outage.
    async fn put(&mut self, service: &Wanted) -> Result<()>;

    /// Puts many services into the registry.
    async fn put_all(&mut self, services: &[Wanted]) -> Result<()> {
        for service in services {
            self.put(service).await?;
        }
        Ok(())
    }

    /// Removes a service with all its instances; also during an outage.
    async fn delete(&mut self, name: &str) -> Result<()>;

    /// Groups `cut` and `hang`: from now on the source cannot reach the registry.
    async fn outage(&mut self, _kind: Outage) -> Result<()> {
        bail!("the fixture has no outages")
    }

    /// Groups `cut` and `hang`: the end of an outage.
    async fn recover(&mut self) -> Result<()> {
        bail!("the fixture has no outages")
    }

    /// Group `hide`: the registry's answers lack a service that it has, and it can be known that
    /// they lack something.
    async fn hide(&mut self, _name: &str) -> Result<()> {
        bail!("the fixture hides nothing")
    }

    /// Group `hide`: the end of [`Self::hide`].
    async fn unhide(&mut self, _name: &str) -> Result<()> {
        bail!("the fixture hides nothing")
    }
}

/// Calls a macro with the names of the cases of a group.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($callback:path, [$($with:tt)*], all) => {
        $callback! { [$($with)*]
            an_empty_registry_is_a_complete_snapshot
            services_that_are_there_are_in_the_first_snapshot
            instances_come_change_and_go
            services_come_and_go
            health_is_followed
            weights_are_followed
            to_register_the_same_again_is_no_change
            many_changes_at_once_are_all_found
            a_resync_names_everything_again
            a_restart_says_the_same
            many_services_are_synchronised
            a_slow_listener_loses_nothing
            it_ends_at_once_while_it_synchronises
            it_ends_at_once_while_it_follows
            a_run_ends_by_itself_when_cancelled
            it_ends_when_nobody_listens
        }
    };
    ($callback:path, [$($with:tt)*], cut) => {
        $callback! { [$($with)*]
            a_cut_changes_nothing
            what_happened_during_a_cut_is_found
            a_cut_in_the_first_snapshot_loses_nothing
            it_ends_at_once_without_a_connection
        }
    };
    ($callback:path, [$($with:tt)*], hang) => {
        $callback! { [$($with)*]
            a_hang_changes_nothing
            what_happened_during_a_hang_is_found
            it_ends_at_once_when_nothing_answers
        }
    };
    ($callback:path, [$($with:tt)*], hide) => {
        $callback! { [$($with)*] an_answer_that_lacks_something_is_partial }
    };
}

/// One test for each case of the suite; see the [module documentation](crate::conformance).
#[macro_export]
macro_rules! conformance_tests {
    ([$fixture:path] $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> ::anyhow::Result<()> {
                $crate::conformance::cases::$case($fixture().await?).await
            }
        )*
    };
    ($fixture:path $(, $group:ident)*) => {
        $crate::conformance_cases!($crate::conformance_tests, [$fixture], all);
        $($crate::conformance_cases!($crate::conformance_tests, [$fixture], $group);)*
    };
}

/// All cases of the suite in one test, so many at a time, for registries whose servers are too slow
/// to start one for each case: `conformance_suite!(fixture, 4, cut, hang).await?`, where `fixture`
/// is a function that returns a future of a fixture. Each case needs a part of the registry of its
/// own.
#[macro_export]
macro_rules! conformance_suite {
    ([$suite:ident $fixture:ident] $($case:ident)*) => {
        $($suite.add(stringify!($case), async {
            $crate::conformance::cases::$case($fixture().await?).await
        });)*
    };
    ($fixture:expr, $parallel:expr $(, $group:ident)*) => {{
        let fixture = &$fixture;
        let mut suite = $crate::conformance::Suite::default();
        // Those with outages take longest, so they begin first.
        $($crate::conformance_cases!($crate::conformance_suite, [suite fixture], $group);)*
        $crate::conformance_cases!($crate::conformance_suite, [suite fixture], all);
        suite.run($parallel)
    }};
}

/// Cases that run in one test: see [`conformance_suite!`](crate::conformance_suite).
#[derive(Default)]
pub struct Suite<'a> {
    cases: Vec<LocalBoxFuture<'a, Option<String>>>,
}

impl<'a> Suite<'a> {
    /// One more case. A panic in it is its failure.
    pub fn add(&mut self, name: &'static str, case: impl Future<Output = Result<()>> + 'a) {
        let case = AssertUnwindSafe(case).catch_unwind().map(move |ended| {
            let fault = match ended {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{name}: {error:?}")),
                Err(_) => Some(format!("{name}: it panicked, see above")),
            };
            tracing::info!(name, failed = fault.is_some(), "a case ended");
            fault
        });
        self.cases.push(case.boxed_local());
    }

    /// Runs all, so many at a time.
    ///
    /// # Errors
    /// What the cases found wrong.
    pub async fn run(self, parallel: usize) -> Result<()> {
        let ended = stream::iter(self.cases).buffer_unordered(parallel);
        let faults: Vec<String> = ended.filter_map(std::future::ready).collect().await;
        if faults.is_empty() {
            return Ok(());
        }
        bail!("{} cases failed:\n{}", faults.len(), faults.join("\n"))
    }
}
