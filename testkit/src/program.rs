//! Any program as a child process: what is under test, run as a user runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::disk::SmallDisk;
use crate::eventually::Outcome;
use crate::home::Home;
use crate::process::{Process, Spec};
use crate::usage;

/// A running program with a temporary folder of its own. Dropping it ends it (SIGTERM, then SIGKILL).
#[derive(Debug)]
pub struct Program {
    // The process ends before its folder goes.
    process: Arc<Process>,
    home: Home,
}

/// What to run, before it runs.
#[derive(Debug)]
pub struct Prepared {
    name: String,
    binary: PathBuf,
    within: Vec<OsString>,
    home: Home,
}

impl Program {
    /// Makes a folder for the program, so that files can be put there before it starts.
    ///
    /// # Errors
    /// When there can be no temporary folder.
    pub fn prepare(name: &str, binary: &Path) -> Result<Prepared> {
        Ok(Prepared {
            name: name.to_owned(),
            binary: binary.to_owned(),
            within: Vec::new(),
            home: Home::new(name)?,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGSTOP: the program keeps its connections and does nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub fn stop_process(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT: the end of [`stop_process`](Self::stop_process).
    ///
    /// # Errors
    /// When it has ended.
    pub fn continue_process(&self) -> Result<()> {
        self.process.resume()
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// A way to kill it from elsewhere, such as a hook of [`HttpFault`](crate::HttpFault). It does nothing once the
    /// program was dropped.
    pub fn killer(&self) -> impl Fn() -> Result<()> + Send + Sync + 'static {
        let process = Arc::downgrade(&self.process);
        move || process.upgrade().map_or(Ok(()), |process| process.kill())
    }

    /// Kills it if it runs, and starts it with the same arguments in the same folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&self) -> Result<()> {
        self.process.restart()
    }

    /// The processor time that it has used since its start.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> Result<Duration> {
        usage::cpu(self.pid())
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<u64> {
        usage::memory(self.pid())
    }

    /// The folder.
    pub fn home(&self) -> PathBuf {
        self.home.data()
    }

    /// What it wrote to standard output and standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap_or_default()
    }

    /// Waits until `check` finds something.
    ///
    /// # Errors
    /// When the program ends or `deadline` passes first, with the end of its log.
    pub async fn ready<O: Outcome>(
        &self,
        deadline: Duration,
        check: impl AsyncFnMut() -> O,
    ) -> Result<O::Value> {
        self.process.ready(deadline, check).await
    }
}

impl Prepared {
    /// The folder.
    pub fn home(&self) -> PathBuf {
        self.home.data()
    }

    /// Runs the program where the disk is mounted.
    #[must_use]
    pub fn on(mut self, disk: &SmallDisk) -> Self {
        self.within = disk.entry();
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self, args: &[String]) -> Result<Program> {
        let log = self.home.log(&self.name);
        let spec = Spec::new(&self.name, self.binary, log)
            .within(self.within)
            .args(args);
        Ok(Program {
            process: Arc::new(Process::start(spec)?),
            home: self.home,
        })
    }
}
