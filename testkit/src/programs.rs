//! Where the servers' programs lie: `$DIOLKOS_TESTBED`, filled by `testbed/setup`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The path of a program that `testbed/setup` built.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    existing(testbed()?.join("bin").join(name))
}

/// The path of a data file that `testbed/setup` left in its folder.
pub(crate) fn data(name: &str) -> Result<PathBuf> {
    existing(testbed()?.join(name))
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{} is missing: run `testbed/setup` once, then run the test again",
        path.display()
    );
    Ok(path)
}

fn testbed() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("DIOLKOS_TESTBED").filter(|v| !v.is_empty()) {
        return Ok(folder.into());
    }
    let home = env::var_os("HOME")
        .context("neither DIOLKOS_TESTBED nor HOME is set: cannot find the test servers")?;
    Ok(PathBuf::from(home).join(".cache/diolkos-testbed"))
}
