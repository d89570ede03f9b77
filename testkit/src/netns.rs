//! Tests in a network namespace of their own, for programs that refuse loopback addresses.
//!
//! The test program runs itself again for the one test, inside of a new namespace, so that everything the test
//! starts is inside too. There is nothing but `lo`, which has [`ADDRESSES`] beside 127.0.0.1.
//!
//! ```no_run
//! use diolkos_testkit::netns;
//!
//! #[test]
//! fn a_test() -> anyhow::Result<()> {
//!     netns::isolated(async {
//!         tokio::net::TcpListener::bind("10.77.0.1:20880").await?;
//!         Ok(())
//!     })
//! }
//! ```

use std::any::type_name;
use std::env;
use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

use crate::home::Home;

/// The addresses of `lo` beside those of 127.0.0.0/8.
pub const ADDRESSES: [Ipv4Addr; 9] = {
    let mut all = [Ipv4Addr::new(10, 77, 0, 1); 9];
    let mut last = 1;
    while last < 9 {
        all[last as usize] = Ipv4Addr::new(10, 77, 0, last + 1);
        last += 1;
    }
    all
};

/// Says to the program that it is inside; its value is the file that the test makes to show that it was run.
const MARK: &str = "DIOLKOS_TESTKIT_NETNS";

/// Runs the body of the test that calls it on a runtime of its own inside of a new network namespace. Call it from
/// the test function itself and give it an `async` block: the test is known by the name of that block's type.
///
/// # Errors
/// What the body ends with; when the kernel gives no namespace (without root it needs user namespaces); when `ip`
/// or `unshare` is missing.
pub fn isolated<B: Future<Output = Result<()>>>(body: B) -> Result<()> {
    if is_inside() {
        return inside(body);
    }
    let home = Home::new("netns")?;
    let started = home.data().join("started");
    let test = test_name(type_name::<B>());
    run_again(
        &[test, "--exact", "--include-ignored", "--nocapture"],
        &started,
    )?;
    // The harness is content when no test has the name.
    ensure!(
        started.exists(),
        "{} did not find the test",
        type_name::<B>()
    );
    Ok(())
}

/// As [`isolated`], for the `main` of a program that is no test.
///
/// # Errors
/// As [`isolated`].
pub fn program(body: impl Future<Output = Result<()>>) -> Result<()> {
    if is_inside() {
        return inside(body);
    }
    let home = Home::new("netns")?;
    run_again(&[], &home.data().join("started"))
}

fn inside(body: impl Future<Output = Result<()>>) -> Result<()> {
    if let Some(file) = env::var_os(MARK) {
        fs::write(file, "")?;
    }
    tokio::runtime::Runtime::new()?.block_on(body)
}

/// The test's name as the harness knows it: the path of the function without the crate.
fn test_name(block: &str) -> &str {
    let function = block.split("::{").next().unwrap_or(block);
    function.split_once("::").map_or(function, |(_, name)| name)
}

fn run_again(arguments: &[&str], started: &Path) -> Result<()> {
    let user = if geteuid().is_root() {
        &[][..]
    } else {
        &["--user", "--map-root-user"]
    };
    let addresses = ADDRESSES.map(|ip| format!("ip address add {ip}/32 dev lo && "));
    let script = format!(
        "exec 2>&1 && ip link set lo up && {} exec \"$@\"",
        addresses.concat()
    );
    let mut child = Command::new("unshare")
        .arg("--net")
        .args(user)
        // After the namespaces: to enter a user namespace forgets the signal.
        .args(["setpriv", "--pdeathsig", "KILL", "--"])
        .args(["sh", "-c", &script, "sh"])
        .arg(env::current_exe()?)
        .args(arguments)
        .env(MARK, started)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start unshare (Debian package util-linux)")?;
    let output = child.stdout.take().context("no pipe")?;
    for line in BufReader::new(output).split(b'\n') {
        #[expect(
            clippy::print_stderr,
            reason = "the test harness shows it with the failed test"
        )]
        {
            eprintln!("{}", String::from_utf8_lossy(&line?));
        }
    }
    let status = child.wait()?;
    ensure!(
        status.success(),
        "it failed in its namespace ({status}): {arguments:?}"
    );
    Ok(())
}

/// Whether this is the inside of [`isolated`].
pub(crate) fn is_inside() -> bool {
    env::var_os(MARK).is_some()
}

/// Gives `lo` one more address.
///
/// # Errors
/// Outside of [`isolated`]; when `ip` fails.
pub fn add_address(address: IpAddr) -> Result<()> {
    ensure!(is_inside(), "the machine's own network stays as it is");
    let output = Command::new("ip")
        .args(["address", "add", &address.to_string(), "dev", "lo"])
        .output()
        .context("cannot start ip (Debian package iproute2)")?;
    ensure!(
        output.status.success(),
        "cannot add {address}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
