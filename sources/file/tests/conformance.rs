//! The suite that every source passes, on real files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use diolkos_source_api::conformance::{Fixture, Outage, Wanted};
use diolkos_source_file::FileSource;
use tempfile::TempDir;

/// A directory with one file a service.
struct Files {
    home: TempDir,
    /// Where the files are now: somewhere else while the volume is not mounted.
    now: PathBuf,
}

async fn files() -> Result<Files> {
    let home = tempfile::tempdir()?;
    let now = home.path().join("services");
    fs::create_dir(&now)?;
    Ok(Files { home, now })
}

impl Files {
    fn mounted(&self) -> PathBuf {
        self.home.path().join("services")
    }

    fn file(&self, service: &str) -> PathBuf {
        self.now.join(format!("{service}.yaml"))
    }

    fn write(&self, path: &Path, content: &str) -> Result<()> {
        let temporary = self.home.path().join("temporary");
        fs::write(&temporary, content)?;
        Ok(fs::rename(temporary, path)?)
    }

    fn rename(&mut self, to: PathBuf) -> Result<()> {
        fs::rename(&self.now, &to)?;
        self.now = to;
        Ok(())
    }
}

fn yaml(service: &Wanted) -> String {
    let mut text = format!("name: {}\ninstances:\n", service.name);
    for instance in &service.instances {
        text += &format!("- id: {}\n  address: {}\n", instance.id, instance.ip);
        text += &format!(
            "  port: {}\n  healthy: {}\n",
            instance.port, instance.healthy
        );
        let version = instance.version.iter();
        text.extend(version.map(|version| format!("  version: {version}\n")));
        let weight = instance.weight.iter();
        text.extend(weight.map(|weight| format!("  weight: {weight}\n")));
    }
    text
}

impl Fixture for Files {
    type Source = FileSource;

    fn source(&self, registry: Arc<str>) -> FileSource {
        FileSource::new(registry, self.mounted())
    }

    fn budget(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn put(&mut self, service: &Wanted) -> Result<()> {
        self.write(&self.file(&service.name), &yaml(service))
    }

    async fn delete(&mut self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.file(name))?)
    }

    async fn outage(&mut self, kind: Outage) -> Result<()> {
        ensure!(kind == Outage::Cut, "files cannot hang");
        self.rename(self.home.path().join("elsewhere"))
    }

    async fn recover(&mut self) -> Result<()> {
        self.rename(self.mounted())
    }

    async fn hide(&mut self, name: &str) -> Result<()> {
        let file = self.file(name);
        let broken = fs::read_to_string(&file)? + "- [";
        self.write(&file, &broken)
    }

    async fn unhide(&mut self, name: &str) -> Result<()> {
        let file = self.file(name);
        let broken = fs::read_to_string(&file)?;
        self.write(&file, broken.trim_end_matches("- ["))
    }
}

diolkos_source_api::conformance_tests!(files, cut, hide);
