//! A disk that is small and fills up.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::home::Home;
use crate::process::{Process, Spec};

const START: Duration = Duration::from_secs(10);
const FILLER: &str = ".filler";

/// A tmpfs of a given size for one program or more; see [`Prepared::on`](crate::program::Prepared::on). It keeps
/// its files while programs end and start, and is gone on drop.
///
/// It needs no rights: it is mounted in user and mount namespaces of its own (util-linux's `unshare`), which a
/// process keeps alive and programs enter (`nsenter`). Other processes, the test among them, find an empty folder
/// at its path; [`outside`](Self::outside) is the way in.
#[derive(Debug)]
pub struct SmallDisk {
    // The process ends before its folder goes.
    keeper: Process,
    home: Home,
}

impl SmallDisk {
    /// Mounts a disk of so many bytes.
    ///
    /// # Errors
    /// When the kernel gives no user namespaces; the error holds what `unshare` said.
    pub async fn new(bytes: u64) -> Result<Self> {
        let home = Home::new("disk")?;
        let folder = folder(&home);
        fs::create_dir(&folder)?;
        let mounted = home.data().join("mounted");
        let script = r#"mount -t tmpfs -o size="$1",mode=0700 tmpfs "$2" && touch "$3" && exec sleep infinity"#;
        let spec = Spec::new("disk", "unshare".into(), home.log("disk"))
            .args(["--user", "--map-root-user", "--mount", "setpriv"])
            .args(["--pdeathsig", "KILL", "--", "sh", "-c", script, "sh"])
            .arg(bytes.to_string())
            .args([folder.as_os_str(), mounted.as_os_str()]);
        let keeper = Process::start(spec)?;
        keeper.ready(START, async || mounted.exists()).await?;
        Ok(Self { keeper, home })
    }

    /// The path at which programs [on it](crate::program::Prepared::on) find it.
    pub fn path(&self) -> PathBuf {
        folder(&self.home)
    }

    /// The path at which everybody else does.
    pub fn outside(&self) -> PathBuf {
        let root = Path::new("/proc").join(self.keeper.pid().to_string());
        // Joining an absolute path would replace the first.
        let mut path = root.join("root").into_os_string();
        path.push(self.path());
        path.into()
    }

    /// Takes all room that is left.
    ///
    /// # Errors
    /// When the disk cannot be written for another reason than that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.outside().join(FILLER))
            .context("cannot fill the disk")?;
        // Single bytes at the end: a page that does not fit whole is refused whole.
        for piece in [64 * 1024, 1] {
            loop {
                match file.write(&vec![0; piece]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("cannot fill the disk"),
                }
            }
        }
        Ok(())
    }

    /// Gives the room back that [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.outside().join(FILLER)).context("cannot free the disk")
    }

    /// Makes it read-only, or writable again. No file may be open for writing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read_only(&self, on: bool) -> Result<()> {
        let entry = self.entry();
        let output = Command::new(&entry[0])
            .args(&entry[1..])
            .args(["mount", "-o", if on { "remount,ro" } else { "remount,rw" }])
            .arg(self.path())
            .output()
            .context("cannot start nsenter")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cannot remount: {}", said.trim());
        Ok(())
    }

    /// The start of a command line that runs a program where the disk is mounted.
    pub(crate) fn entry(&self) -> Vec<OsString> {
        let keeper = self.keeper.pid().to_string();
        let words = ["nsenter", "--target", &keeper, "--user", "--mount", "--"];
        words.map(OsString::from).into()
    }
}

fn folder(home: &Home) -> PathBuf {
    home.data().join("disk")
}
