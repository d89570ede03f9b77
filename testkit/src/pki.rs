//! A certificate authority for one test server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use crate::home::Home;

/// The PEM files of one party: the authority that it trusts, its certificate and its key.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The party's certificate.
    pub cert: PathBuf,
    /// The key of `cert`, PKCS #8.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The authority and the party, as an HTTP client takes them.
    pub(crate) fn load(&self) -> Result<(reqwest::Certificate, reqwest::Identity)> {
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let identity = [read(&self.key)?, read(&self.cert)?].concat();
        Ok((
            reqwest::Certificate::from_pem(&read(&self.ca)?)?,
            reqwest::Identity::from_pem(&identity)?,
        ))
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Usage {
    Server,
    Client,
}

/// An authority that signs certificates into a server's folder.
pub(crate) struct Authority<'a> {
    home: &'a Home,
    issuer: Issuer<'static, KeyPair>,
    cert: PathBuf,
    key: PathBuf,
}

impl<'a> Authority<'a> {
    pub(crate) fn new(home: &'a Home) -> Result<Self> {
        Self::named(home, "ca")
    }

    /// One more authority beside the first, in files of this name.
    pub(crate) fn named(home: &'a Home, file: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("test-{file}"), None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let cert_file = home.write(&format!("{file}.crt"), params.self_signed(&key)?.pem())?;
        let key_file = home.write(&format!("{file}.key"), key.serialize_pem())?;
        Ok(Self {
            home,
            issuer: Issuer::new(params, key),
            cert: cert_file,
            key: key_file,
        })
    }

    pub(crate) fn cert(&self) -> &Path {
        &self.cert
    }

    pub(crate) fn key(&self) -> &Path {
        &self.key
    }

    /// Signs a certificate for `common_name` (and `organization`, which Kubernetes reads as a group) that is valid
    /// for `alternative_names` (DNS names and IP addresses), into `FILE.crt` and `FILE.key`.
    pub(crate) fn sign(
        &self,
        file: &str,
        (common_name, organization): (&str, Option<&str>),
        alternative_names: &[&str],
        usage: Usage,
    ) -> Result<TlsFiles> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = alternative_names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = name(common_name, organization);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        Ok(TlsFiles {
            ca: self.cert.clone(),
            cert: self.home.write(
                &format!("{file}.crt"),
                params.signed_by(&key, &self.issuer)?.pem(),
            )?,
            key: self
                .home
                .write(&format!("{file}.key"), key.serialize_pem())?,
        })
    }
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}
