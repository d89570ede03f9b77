//! TLS as a client, from files that may change at any time.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::time::Instant;

/// Files are not looked at again sooner than this.
const FRESH: Duration = Duration::from_secs(5);

/// Whom a TLS client trusts and what it shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates (PEM) of the authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain (PEM). Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of the client's certificate. Needs `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The DNS name to ask for and to find in the server's certificate, instead of the host that
    /// is connected to.
    pub server_name: Option<String>,
}

/// TLS cannot be set up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the kind wanted.
    #[error("cannot read {what} from {}: {problem}", path.display())]
    File {
        /// What was expected in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        problem: String,
    },
    /// The parts do not go together.
    #[error("{0}")]
    Config(String),
}

impl TlsConfig {
    /// Reads the files and makes a configuration for one kind of connection.
    ///
    /// `alpn` are the protocols to offer, best first (`h2`, `http/1.1`; none for plain TLS).
    ///
    /// # Errors
    /// Names the file that is at fault.
    pub fn client_config(&self, alpn: &[&str]) -> Result<ClientConfig, TlsError> {
        let builder = builder()?.with_root_certificates(self.roots()?);
        let mut config = match (&self.cert_file, &self.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(read_certificates(cert)?, read_key(key)?)
                .map_err(|error| TlsError::File {
                    what: "the client certificate",
                    path: cert.clone(),
                    problem: format!("{error} (key: {})", key.display()),
                })?,
            _ => {
                let problem = "a client certificate needs both its file and its key's file";
                return Err(TlsError::Config(problem.into()));
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca_file else {
            // Single broken certificates in the system's store are normal.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        };
        for certificate in read_certificates(path)? {
            roots.add(certificate).map_err(|error| TlsError::File {
                what: "certificates of authorities",
                path: path.clone(),
                problem: error.to_string(),
            })?;
        }
        Ok(roots)
    }

    /// A number that changes with the content of the files. Files that cannot be read count as empty.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in [&self.ca_file, &self.cert_file, &self.key_file] {
            let content = path.as_ref().and_then(|path| std::fs::read(path).ok());
            content.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// A configuration that trusts nobody, for clients that never speak TLS.
pub(crate) fn without_roots() -> Result<ClientConfig, TlsError> {
    Ok(builder()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Config(error.to_string()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |problem: String| TlsError::File {
        what: "certificates",
        path: path.to_owned(),
        problem,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| error(e.to_string()))?;
    if certificates.is_empty() {
        return Err(error("there is no PEM certificate in it".into()));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        what: "a private key",
        path: path.to_owned(),
        problem: error.to_string(),
    })
}

/// A [`ClientConfig`] that follows its files.
#[derive(Debug)]
pub struct ReloadingTls {
    config: TlsConfig,
    alpn: &'static [&'static str],
    state: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    looked_at: Instant,
    fingerprint: u64,
    generation: u64,
    current: Arc<ClientConfig>,
}

impl ReloadingTls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Names the file that is at fault.
    pub fn new(config: TlsConfig, alpn: &'static [&'static str]) -> Result<Self, TlsError> {
        // Before the content: a change in between is then seen by the next look.
        let fingerprint = config.fingerprint();
        let current = Arc::new(config.client_config(alpn)?);
        Ok(Self {
            config,
            alpn,
            state: Mutex::new(Loaded {
                looked_at: Instant::now(),
                fingerprint,
                generation: 0,
                current,
            }),
        })
    }

    /// The configuration, and a number that grows whenever it changes. Looks at the files at most
    /// every 5 seconds. Files that cannot be used (half written, expired from a Secret) are
    /// reported in the log and change nothing.
    pub fn current(&self) -> (Arc<ClientConfig>, u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= FRESH {
            state.looked_at = Instant::now();
            self.reload(&mut state);
        }
        (state.current.clone(), state.generation)
    }

    fn reload(&self, state: &mut Loaded) {
        let fingerprint = self.config.fingerprint();
        if fingerprint == state.fingerprint {
            return;
        }
        // Also after a failure: the same bad files are reported once.
        state.fingerprint = fingerprint;
        match self.config.client_config(self.alpn) {
            Ok(config) => {
                state.current = Arc::new(config);
                state.generation += 1;
                tracing::info!(tls = ?self.config, "tls files changed, new connections use them");
            }
            Err(error) => {
                tracing::warn!(%error, "tls files changed and cannot be used, keeping the former ones");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let config = TlsConfig {
            ca_file: Some(path.clone()),
            ..TlsConfig::default()
        };
        for content in [None, Some(""), Some("no PEM at all")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = config.client_config(&[]).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let config = TlsConfig {
            cert_file: Some("client.pem".into()),
            ..TlsConfig::default()
        };
        let error = config.client_config(&[]).unwrap_err().to_string();
        assert!(error.contains("key"), "{error}");
    }
}
