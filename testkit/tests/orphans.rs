//! No server outlives its test, whatever ends the test.
//!
//! The victims run in a process of their own: this same test program, asked for one ignored test.

mod common;

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::assert_gone;
use diolkos_testkit::Consul;

const MARK: &str = "consul runs as ";

/// Starts a victim and returns it with the id of the server that it started.
fn victim(test: &str, folder: &Path) -> anyhow::Result<(Child, u32)> {
    let mut child = Command::new(env::current_exe()?)
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("TMPDIR", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().expect("piped"));
    for line in output.lines() {
        if let Some((_, pid)) = line?.split_once(MARK) {
            return Ok((child, pid.parse()?));
        }
    }
    child.wait()?;
    anyhow::bail!("the victim started no server")
}

#[expect(
    clippy::print_stdout,
    reason = "it is how the parent test learns the id"
)]
async fn start_and_say() -> Consul {
    let consul = Consul::start().await.expect("Consul starts");
    println!("{MARK}{}", consul.pid());
    consul
}

#[tokio::test]
#[ignore = "a victim: run by the tests below"]
async fn waits_to_be_killed() {
    let _consul = start_and_say().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    panic!("nobody killed this test");
}

#[tokio::test]
#[ignore = "a victim: run by the tests below"]
async fn panics() {
    let _consul = start_and_say().await;
    panic!("as planned");
}

#[tokio::test]
async fn a_killed_test_leaves_no_server() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut child, pid) = victim("waits_to_be_killed", folder.path())?;
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    child.kill()?;
    child.wait()?;
    assert_gone(pid).await;
    Ok(())
}

#[tokio::test]
async fn a_panicking_test_leaves_its_logs_only() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut child, pid) = victim("panics", folder.path())?;
    assert!(!child.wait()?.success());
    assert_gone(pid).await;
    let kept = std::fs::read_dir(folder.path())?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .find(|path| path.join("log/consul.log").exists())
        .expect("the log is kept");
    assert!(!kept.join("data").exists());
    Ok(())
}

#[test]
fn a_server_outlives_the_thread_that_started_it() -> anyhow::Result<()> {
    let start = || tokio::runtime::Runtime::new()?.block_on(Consul::start());
    let consul = std::thread::spawn(start)
        .join()
        .expect("the thread ends by itself")?;
    tokio::runtime::Runtime::new()?.block_on(consul.get("/v1/status/leader"))?;
    Ok(())
}

#[test]
fn a_missing_program_fails_the_test_and_names_the_remedy() -> anyhow::Result<()> {
    let empty = tempfile::tempdir()?;
    let output = Command::new(env::current_exe()?)
        .args(["panics", "--exact", "--ignored", "--nocapture"])
        .env("DIOLKOS_TESTBED", empty.path())
        .env("TMPDIR", empty.path())
        .output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert!(!output.status.success());
    assert!(
        errors.contains("bin/consul is missing: run `testbed/setup`"),
        "{errors}"
    );
    Ok(())
}
