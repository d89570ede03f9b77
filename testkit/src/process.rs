//! One child process that never outlives the test.
//!
//! Two guards end it. Dropping [`Process`] sends SIGTERM and, after a short grace, SIGKILL; that also runs when a
//! test panics. For a test process that is itself killed, the child is started through util-linux's
//! `setpriv --pdeathsig KILL`, which asks the kernel to kill it with its parent (asking from here would need `unsafe`).
//! The kernel means the parent *thread*, and tokio's threads come and go, so every child is started by one thread
//! that lives as long as the test process. Envoy asks for the same by itself, with SIGTERM.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::{Outcome, poll};
use crate::lock;

/// How long a child may take to end by itself before SIGKILL. Its state is thrown away, so there is little to save.
const GRACE: Duration = Duration::from_millis(300);
const LOG_LINES: usize = 30;

/// What to start, kept for restarts.
#[derive(Debug)]
pub(crate) struct Spec {
    name: String,
    /// What stands before everything else on the command line, if anything.
    within: Vec<OsString>,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    log: PathBuf,
}

impl Spec {
    pub(crate) fn new(name: &str, program: PathBuf, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            within: Vec::new(),
            program,
            args: Vec::new(),
            env: Vec::new(),
            log,
        }
    }

    /// Runs the program by another one, which must replace itself by it.
    pub(crate) fn within(mut self, command: Vec<OsString>) -> Self {
        self.within = command;
        self
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    fn command(&self) -> Result<Command> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .context("cannot open the server's log")?;
        // Last before the program: to enter a user namespace forgets the signal.
        let setpriv = ["setpriv", "--pdeathsig", "KILL", "--"].map(OsString::from);
        let mut words = self.within.iter().chain(&setpriv);
        let mut command = Command::new(words.next().context("no command")?);
        command
            .args(words)
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }
}

/// A running child process.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Mutex<Child>,
}

impl Process {
    pub(crate) fn start(spec: Spec) -> Result<Self> {
        let child = spawn(&spec)?;
        Ok(Self {
            spec,
            child: Mutex::new(child),
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    /// The log of the process: what it wrote to its standard output and standard error.
    pub fn log(&self) -> &Path {
        &self.spec.log
    }

    /// SIGSTOP: the process keeps its sockets and answers nothing, like a hung server.
    ///
    /// The kernel stops the threads one by one after the signal was sent; this returns when all have stopped.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let end = Instant::now() + Duration::from_secs(5);
        while !is_stopped(self.pid())? {
            if Instant::now() >= end {
                bail!("{} does not stop", self.spec.name);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGCONT: the end of [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&self) -> Result<()> {
        let mut child = lock(&self.child);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM: the process may end by itself. See [`ended`](Self::ended).
    pub(crate) fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// When it runs on for longer than `limit`, with the end of its log.
    pub(crate) async fn ended(&self, limit: Duration) -> Result<()> {
        let gone = poll(limit, async || self.exited().is_some());
        match gone.await {
            Ok(()) => Ok(()),
            Err(_) => bail!(
                "{} runs on after {limit:?}; {}",
                self.spec.name,
                self.log_tail()
            ),
        }
    }

    /// Starts the same command again; kills the process first if it runs.
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        *lock(&self.child) = spawn(&self.spec)?;
        Ok(())
    }

    /// Waits until `check` finds something.
    ///
    /// # Errors
    /// When the process ends or `deadline` passes first, with the end of its log.
    pub(crate) async fn ready<O: Outcome>(
        &self,
        deadline: Duration,
        mut check: impl AsyncFnMut() -> O,
    ) -> Result<O::Value> {
        let found = poll(deadline, async || match self.exited() {
            Some(status) => Ok(Err(status)),
            None => check().await.outcome().map(Ok),
        });
        match found.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => bail!(
                "{} ended at start ({status}); {}",
                self.spec.name,
                self.log_tail()
            ),
            Err(last) => bail!(
                "{} is not ready after {deadline:?}: {last}; {}",
                self.spec.name,
                self.log_tail()
            ),
        }
    }

    fn exited(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = lock(&self.child);
        // A child that was waited for has no pid any more: the number may be another process's.
        if let Some(status) = child.try_wait()? {
            bail!("{} has ended ({status})", self.spec.name);
        }
        kill_process(pid(&child)?, signal)
            .with_context(|| format!("cannot signal {}", self.spec.name))
    }

    fn log_tail(&self) -> String {
        let text = fs::read(&self.spec.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("the end of its log:\n{}", tail.join("\n"))
    }

    fn end(&self) -> Result<()> {
        if self.exited().is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        // A stopped process sees SIGTERM only once it continues.
        self.resume()?;
        let end = Instant::now() + GRACE;
        while self.exited().is_none() {
            if Instant::now() >= end {
                return self.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end().is_err() {
            // It ended between the look and the signal; nothing is left to do.
            self.kill().ok();
        }
    }
}

/// Whether every thread of a process is stopped.
fn is_stopped(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that is gone meanwhile answers nothing.
        let stat = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        // The state follows the name, which stands in parentheses and may hold any character.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        if state.is_some_and(|rest| !rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn pid(child: &Child) -> Result<Pid> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| anyhow!("{} is no process id", child.id()))
}

/// Runs `start` up to three times while it fails because somebody outside of the tests has one of our ports.
pub(crate) async fn with_free_ports<T>(mut start: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match start().await {
            Err(e)
                if attempt < 3
                    && format!("{e:#}")
                        .to_lowercase()
                        .contains("address already in use") =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a child from the thread that stays (see the module's documentation).
fn spawn(spec: &Spec) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The other side waits for the answer; if it is gone, dropping the result is all there is to do.
                reply.send(command.spawn()).ok();
            }
        });
        Mutex::new(orders)
    });
    let (reply, child) = mpsc::sync_channel(1);
    lock(spawner)
        .send((spec.command()?, reply))
        .map_err(|_| anyhow!("the thread that starts servers is gone"))?;
    let child = child
        .recv()
        .context("the thread that starts servers is gone")?;
    child.with_context(|| {
        format!(
            "cannot start {} through setpriv (Debian package util-linux)",
            spec.name
        )
    })
}
