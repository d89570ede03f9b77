//! What the tests of the servers share.

use std::path::Path;
use std::time::Duration;

use diolkos_testkit::eventually;

/// Waits until no process has this id.
pub(crate) async fn assert_gone(pid: u32) {
    let gone = async || !Path::new(&format!("/proc/{pid}")).exists();
    eventually(
        Duration::from_secs(5),
        &format!("process {pid} is gone"),
        gone,
    )
    .await;
}
