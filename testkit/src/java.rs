//! Java programs of the test bed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::process::Spec;
use crate::programs::data;

/// A class with the jars that `testbed/setup` left in this folder of its own.
pub(crate) struct Class<'a> {
    /// Such as `zookeeper/current`.
    pub(crate) jars: &'a str,
    /// The class whose `main` runs.
    pub(crate) main: &'a str,
    /// The largest heap, in MiB.
    pub(crate) heap: u32,
}

impl Class<'_> {
    /// The command of a small, soon started virtual machine; its log goes to `log`. Arguments of the virtual machine
    /// come first, those of the class are added by the caller.
    pub(crate) fn spec(&self, name: &str, options: &[String], log: PathBuf) -> Result<Spec> {
        let spec = Spec::new(name, "java".into(), log)
            .arg(format!("-Xmx{}m", self.heap))
            // The second compiler and the parallel collector cost a short-lived program more than they give.
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .args(["-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true"])
            .args(options.iter().map(OsString::from))
            .arg("-cp")
            .arg(class_path(&data(self.jars)?))
            .arg(self.main);
        Ok(spec)
    }
}

fn class_path(folder: &Path) -> OsString {
    folder.join("*").into_os_string()
}
