//! The temporary folder of one server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A folder with `log/` and `data/`. It is removed on drop; when the test is failing, the logs stay and their
/// place is printed.
#[derive(Debug)]
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new(server: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("diolkos-{server}-"))
            .tempdir()
            .context("cannot create a temporary folder")?;
        let home = Self(folder);
        fs::create_dir(home.path().join("log"))?;
        fs::create_dir(home.data())?;
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.path().join("log").join(format!("{process}.log"))
    }

    /// Writes a file under `data/` and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.data().join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            // State may be large (etcd alone preallocates 64 MiB); the logs are what a person reads.
            fs::remove_dir_all(self.data()).ok();
            #[expect(
                clippy::print_stderr,
                reason = "the test harness shows it with the failed test"
            )]
            {
                eprintln!(
                    "testkit: server logs are kept in {}",
                    self.path().join("log").display()
                );
            }
        }
    }
}
