//! The suite that every sink passes against the real thing.
//!
//! A test of the sink's crate says how to reach the store around the sink, and gets one test a case:
//!
//! ```ignore
//! struct Files(tempfile::TempDir);
//!
//! impl diolkos_sink_api::conformance::Fixture for Files { /* … */ }
//!
//! async fn fixture() -> anyhow::Result<Files> { /* … */ }
//!
//! diolkos_sink_api::conformance_tests!(fixture);
//! ```
//!
//! Not every store can do everything. Groups of cases that only some can pass are named after the
//! fixture, `conformance_tests!(fixture, metadata, namespaces, hang)`, and need the methods of
//! [`Fixture`] that say so.
//!
//! The sink is driven by the real [`drive`](crate::drive). That something is *not* written is told by
//! the versions in the store and by the loop's own results, after a barrier: an object that is
//! removed by hand has come back, so everything that happened before has been heard.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use diolkos_istio::ObjectKey;
use serde_json::Value;

use crate::Sink;

mod bed;
pub mod cases;

/// The label and the annotation that [`Fixture::add_foreign_metadata`] sets, with the value
/// [`FOREIGN_VALUE`].
pub const FOREIGN_NAME: &str = "conformance.example.org/kept";
/// The value of [`FOREIGN_NAME`].
pub const FOREIGN_VALUE: &str = "yes";

/// A store with nothing in it, and people who work on it besides the sink. What a method does is
/// done when it returns. Dropping it ends the store.
#[expect(
    async_fn_in_trait,
    reason = "the suite awaits them in the test's own task"
)]
pub trait Fixture {
    /// The sink.
    type Sink: Sink;

    /// A new sink on the same store, as after a restart.
    fn sink(&self) -> Self::Sink;

    /// The namespace that objects are written to. It exists.
    fn namespace(&self) -> &'static str {
        "conformance"
    }

    /// The manifest of an object as it is stored.
    async fn read(&self, key: &ObjectKey) -> Result<Option<Value>>;

    /// All objects that are stored, with something that changes whenever one is written.
    async fn versions(&self) -> Result<BTreeMap<ObjectKey, String>>;

    /// A person changes something that we set in the spec of one of our objects, and nothing else.
    async fn edit(&self, key: &ObjectKey) -> Result<()>;

    /// A person removes an object.
    async fn delete(&self, key: &ObjectKey) -> Result<()>;

    /// A person makes an object of that name, with a spec of their own and without our labels.
    async fn put_foreign(&self, key: &ObjectKey) -> Result<()>;

    /// Group `metadata`: a person adds a label and an annotation, [`FOREIGN_NAME`].
    async fn add_foreign_metadata(&self, _key: &ObjectKey) -> Result<()> {
        bail!("the fixture cannot add metadata")
    }

    /// Group `namespaces`: creates a namespace, without which nothing can be written to it.
    async fn create_namespace(&self, _name: &str) -> Result<()> {
        bail!("the fixture has no namespaces")
    }

    /// Group `hang`: the store does not answer any more (`true`), or answers again.
    async fn hang(&self, _on: bool) -> Result<()> {
        bail!("the fixture cannot hang")
    }

    /// Group `trouble`: from now on writes of objects whose names contain `part` go wrong.
    async fn trouble(&self, _part: &str, _how: Trouble) -> Result<()> {
        bail!("the fixture has no trouble")
    }

    /// Group `trouble`: all goes well again.
    async fn mend(&self) -> Result<()> {
        bail!("the fixture has no trouble")
    }
}

/// How writes of some objects go wrong. Nothing of it reaches the store, unless it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// They fail at once, as when a webhook is down.
    Fails,
    /// There is no answer.
    Hangs,
    /// They are done, but the answer is lost.
    LosesAnswers,
    /// The store asks to be left alone for so many seconds.
    Busy(u32),
}

/// One test for each case of the suite; see the [module documentation](crate::conformance).
#[macro_export]
macro_rules! conformance_tests {
    (@cases $fixture:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> ::anyhow::Result<()> {
                $crate::conformance::cases::$case($fixture().await?).await
            }
        )*
    };
    (@group $fixture:path, metadata) => {
        $crate::conformance_tests!(@cases $fixture: what_others_put_on_an_object_survives);
    };
    (@group $fixture:path, namespaces) => {
        $crate::conformance_tests!(@cases $fixture: what_cannot_be_written_holds_nobody_back);
    };
    (@group $fixture:path, hang) => {
        $crate::conformance_tests!(@cases $fixture: calls_end_though_the_store_hangs);
    };
    (@group $fixture:path, trouble) => {
        $crate::conformance_tests!(@cases $fixture:
            what_goes_wrong_starves_nobody
            a_store_that_is_busy_is_left_alone
            answers_that_are_lost_do_no_harm
        );
    };
    ($fixture:path $(, $group:ident)*) => {
        $crate::conformance_tests!(@cases $fixture:
            objects_are_written_as_they_should_be
            a_change_writes_its_own_objects_only
            endpoints_move_into_the_service_entry_and_out
            nothing_changed_nothing_written
            a_restart_with_nothing_changed_writes_nothing
            a_removed_service_takes_its_own_objects_only
            orphans_are_swept_once_their_registry_is_complete
            orphans_of_a_registry_that_is_not_configured_stay
            a_foreign_object_stays_and_ours_comes_when_it_goes
            an_object_that_became_foreign_a_moment_ago_stays
            every_change_has_its_result
            a_hand_edit_is_repaired
            an_object_removed_by_hand_comes_back
            changes_of_others_are_heard_while_much_is_written
            what_others_did_while_stopped_is_repaired_at_the_start
            many_changes_are_written_once
            two_writers_agree_and_come_to_rest
            kept_objects_stay_until_they_are_let_go
            what_is_there_is_remembered
            nothing_is_written_without_authority
            a_sink_asks_before_it_writes
            writes_stop_when_authority_goes
            a_removal_comes_first
            it_ends_soon_when_cancelled
            killed_in_a_burst_it_converges
        );
        $($crate::conformance_tests!(@group $fixture, $group);)*
    };
}
