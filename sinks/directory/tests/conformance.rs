//! The suite that every sink passes, on a real directory.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use diolkos_istio::{Kind, ObjectKey};
use diolkos_sink_api::conformance::Fixture;
use diolkos_sink_directory::DirectorySink;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Directory(TempDir);

async fn directory() -> Result<Directory> {
    Ok(Directory(tempfile::tempdir()?))
}

impl Directory {
    fn path(&self, key: &ObjectKey) -> PathBuf {
        let ObjectKey {
            kind,
            namespace,
            name,
        } = key;
        let kind = kind.name().to_lowercase();
        self.0
            .path()
            .join(format!("{namespace}_{kind}_{name}.yaml"))
    }

    /// As careful people and programs do it: a half-written file is never seen.
    fn write(&self, key: &ObjectKey, manifest: &Value) -> Result<()> {
        let temporary = self.0.path().join(".by-hand");
        // JSON is YAML.
        fs::write(&temporary, manifest.to_string())?;
        Ok(fs::rename(temporary, self.path(key))?)
    }
}

fn read(path: &Path) -> Result<Option<Value>> {
    match fs::read_to_string(path) {
        Ok(yaml) => Ok(Some(serde_saphyr::from_str(&yaml)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn key(file: &str) -> Result<ObjectKey> {
    let parts: Vec<&str> = file.split('_').collect();
    let [namespace, kind, name] = *parts else {
        bail!("{file} is no name of an object");
    };
    let kind = Kind::ALL
        .into_iter()
        .find(|k| k.name().to_lowercase() == kind);
    Ok(ObjectKey {
        kind: kind.with_context(|| format!("{file} has no kind"))?,
        namespace: namespace.into(),
        name: name.into(),
    })
}

impl Fixture for Directory {
    type Sink = DirectorySink;

    fn sink(&self) -> DirectorySink {
        DirectorySink::new(self.0.path().to_owned())
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<Value>> {
        read(&self.path(key))
    }

    async fn versions(&self) -> Result<BTreeMap<ObjectKey, String>> {
        let mut versions = BTreeMap::new();
        for file in fs::read_dir(self.0.path())? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_str().context("a name is not UTF-8")?;
            // Hidden files are being written.
            let Some(name) = name.strip_suffix(".yaml") else {
                continue;
            };
            let stamp = match file.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let version = format!("{} {}.{}", stamp.ino(), stamp.mtime(), stamp.mtime_nsec());
            versions.insert(key(name)?, version);
        }
        Ok(versions)
    }

    async fn edit(&self, key: &ObjectKey) -> Result<()> {
        let mut manifest = read(&self.path(key))?.context("it is not there")?;
        match key.kind {
            Kind::WorkloadEntry => manifest["spec"]["address"] = json!("10.9.9.9"),
            Kind::ServiceEntry => manifest["spec"]["location"] = json!("MESH_EXTERNAL"),
        }
        self.write(key, &manifest)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        Ok(fs::remove_file(self.path(key))?)
    }

    async fn put_foreign(&self, key: &ObjectKey) -> Result<()> {
        let manifest = json!({
            "apiVersion": Kind::API_VERSION,
            "kind": key.kind.name(),
            "metadata": {"name": key.name, "namespace": key.namespace},
            "spec": {"address": "10.9.9.9"},
        });
        self.write(key, &manifest)
    }
}

diolkos_sink_api::conformance_tests!(directory);
