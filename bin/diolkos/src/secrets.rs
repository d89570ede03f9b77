//! Secrets of the cluster as files.
//!
//! Everything that uses a credential reads it from a file and notices when that changes. So a
//! Secret is kept as files in a private folder that goes with the process, and looked at again
//! every few seconds. (A Secret mounted as a volume needs none of this.)

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use diolkos_api::{Credential, TlsMaterial, TlsSettings};
use diolkos_kube_ext::Client;
use diolkos_source_consul::TlsConfig;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How often a Secret is looked at. A rotated one is in use within this time.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps Secrets as files.
pub(crate) struct Secrets {
    client: Option<Client>,
    folder: Arc<TempDir>,
    /// By namespace and name.
    watched: Mutex<BTreeMap<(String, String), JoinHandle<()>>>,
}

impl Secrets {
    pub(crate) fn new(client: Option<Client>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("diolkos-secrets-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .context("there can be no private folder for Secrets")?;
        Ok(Self {
            client,
            folder: Arc::new(folder),
            watched: Mutex::new(BTreeMap::new()),
        })
    }

    /// The file that holds a credential.
    pub(crate) fn file(&self, credential: &Credential) -> PathBuf {
        match credential {
            Credential::File(path) => path.clone(),
            Credential::Secret {
                namespace,
                name,
                key,
            } => self.watch(namespace, name).join(key),
        }
    }

    /// The files that hold certificates.
    pub(crate) fn tls(&self, settings: &TlsSettings) -> TlsConfig {
        let server_name = settings.server_name.clone();
        match &settings.material {
            TlsMaterial::Files { ca, identity } => TlsConfig {
                ca_file: ca.clone(),
                cert_file: identity.as_ref().map(|(cert, _)| cert.clone()),
                key_file: identity.as_ref().map(|(_, key)| key.clone()),
                server_name,
            },
            TlsMaterial::Secret { namespace, name } => {
                let folder = self.watch(namespace, name);
                TlsConfig {
                    ca_file: Some(folder.join("ca.crt")),
                    cert_file: Some(folder.join("tls.crt")),
                    key_file: Some(folder.join("tls.key")),
                    server_name,
                }
            }
        }
    }

    /// The folder that holds the keys of a Secret, kept up to date from now on.
    fn watch(&self, namespace: &str, name: &str) -> PathBuf {
        let folder = self.folder.path().join(namespace).join(name);
        let Some(client) = self.client.clone() else {
            return folder;
        };
        let key = (namespace.to_owned(), name.to_owned());
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.entry(key).or_insert_with_key(|(namespace, name)| {
            let (namespace, name, path) = (namespace.clone(), name.clone(), folder.clone());
            // The folder lives as long as somebody writes into it.
            let keep = self.folder.clone();
            tokio::spawn(async move {
                loop {
                    if let Err(error) = refresh(&client, &namespace, &name, &path).await {
                        tracing::warn!(
                            namespace,
                            name,
                            error = format!("{error:#}"),
                            "cannot read a Secret, the last content stays in use"
                        );
                    }
                    tokio::time::sleep(LOOK).await;
                    let _: &TempDir = &keep;
                }
            })
        });
        folder
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        for task in self
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            task.abort();
        }
    }
}

async fn refresh(
    client: &Client,
    namespace: &str,
    name: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let data = diolkos_kube_ext::secret(client, namespace, name).await?;
    fs::create_dir_all(folder)?;
    for (key, value) in data {
        write(&folder.join(key), &value)?;
    }
    Ok(())
}

/// Replaces a file as a whole, unless it is as it should be.
fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let folder = path.parent().context("a file lies in a folder")?;
    // Temporary files are readable by their owner only.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}
