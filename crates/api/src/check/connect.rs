//! Which registry, and how it is reached. A new kind of registry is one arm in [`source`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use diolkos_istio::validate;
use url::Url;

use super::{DEFAULT_NAMESPACE, dubbo, eureka, nacos, text};
use crate::{
    fault::{Faults, FieldPath, Problem},
    raw::{Consistency, ConsulSpec, FileSpec, RegistrySpec, TlsSpec, TokenSpec},
    settings::{
        ConsulSettings, Credential, FileSettings, SourceSettings, TlsMaterial, TlsSettings,
    },
    value,
};

const CONSUL_ADDRESS: &str = "http://127.0.0.1:8500";

pub(super) fn source(
    registry: &RegistrySpec,
    at: &FieldPath,
    folder: Option<&Path>,
    faults: &mut Faults,
) -> Option<SourceSettings> {
    let paths = Paths { folder };
    exactly_one(&registry.variants(), at, faults);
    // Each that is given is checked, so that its faults are seen even if there is one too many.
    let mut found = None;
    if let Some(spec) = &registry.consul {
        let consul = consul(spec, &at.key("consul"), paths, faults);
        found = consul.map(Box::new).map(SourceSettings::Consul);
    }
    if let Some(spec) = &registry.etcd {
        let etcd = dubbo::etcd(spec, registry, &at.key("etcd"), paths, faults);
        found = etcd.map(Box::new).map(SourceSettings::Etcd);
    }
    if let Some(spec) = &registry.eureka {
        let eureka = eureka::eureka(spec, &at.key("eureka"), paths, faults);
        found = eureka.map(Box::new).map(SourceSettings::Eureka);
    }
    if let Some(spec) = &registry.file {
        found = file(spec, &at.key("file"), paths, faults).map(SourceSettings::File);
    }
    if let Some(spec) = &registry.nacos {
        let nacos = nacos::nacos(spec, registry, &at.key("nacos"), paths, faults);
        found = nacos.map(Box::new).map(SourceSettings::Nacos);
    }
    if let Some(spec) = &registry.zookeeper {
        let zookeeper = dubbo::zookeeper(spec, registry, &at.key("zookeeper"), paths, faults);
        found = zookeeper.map(Box::new).map(SourceSettings::ZooKeeper);
    }
    found
}

/// Reports none or several of the fields, at the last one that is too many.
fn exactly_one(fields: &[(&'static str, bool)], at: &FieldPath, faults: &mut Faults) {
    let given: Vec<_> = fields
        .iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| *name)
        .collect();
    if given.len() == 1 {
        return;
    }
    let at = given.last().map_or_else(|| at.clone(), |name| at.key(name));
    let of = fields.iter().map(|(name, _)| *name).collect();
    faults.add(&at, Problem::NotExactlyOne { of, given });
}

/// Where relative paths start.
#[derive(Clone, Copy)]
pub(super) struct Paths<'a> {
    folder: Option<&'a Path>,
}

impl Paths<'_> {
    fn resolve(self, path: &str, at: &FieldPath, faults: &mut Faults) -> Option<PathBuf> {
        if path.is_empty() {
            faults.add(at, Problem::Empty);
            return None;
        }
        match self.folder {
            Some(folder) => Some(folder.join(path)),
            None if Path::new(path).is_absolute() => Some(path.into()),
            None => {
                faults.add(at, Problem::RelativePath(path.to_owned()));
                None
            }
        }
    }

    /// As [`resolve`](Self::resolve), of a field that may be missing.
    fn resolve_given(
        self,
        path: Option<&String>,
        at: &FieldPath,
        faults: &mut Faults,
    ) -> Option<Option<PathBuf>> {
        match path {
            None => Some(None),
            Some(path) => self.resolve(path, at, faults).map(Some),
        }
    }
}

fn file(
    spec: &FileSpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<FileSettings> {
    let path = paths.resolve(&spec.path, &at.key("path"), faults)?;
    Some(FileSettings { path })
}

fn consul(
    spec: &ConsulSpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<ConsulSettings> {
    let urls = Urls {
        default: CONSUL_ADDRESS,
        credentials: "token",
        path: Context::Any,
    };
    let addresses = urls.check(&spec.addresses, &at.key("addresses"), faults);
    let datacenters = at.key("datacenters");
    text::no_repeats(text::items(&spec.datacenters, &datacenters), faults);
    for (at, datacenter) in text::items(&spec.datacenters, &datacenters) {
        text::not_empty(Some(datacenter), &at, faults);
    }
    text::not_empty(spec.namespace.as_deref(), &at.key("namespace"), faults);
    text::not_empty(spec.partition.as_deref(), &at.key("partition"), faults);
    let token = match &spec.token {
        None => Some(None),
        Some(spec) => token(spec, &at.key("token"), paths, faults).map(Some),
    };
    let tls = match &spec.tls {
        None => Some(TlsSettings::default()),
        Some(spec) => tls(spec, &at.key("tls"), paths, faults),
    };
    let addresses = addresses?;
    if spec.tls.is_some() {
        tls_has_use(&addresses, &at.key("tls"), faults);
    }
    Some(ConsulSettings {
        addresses,
        datacenters: spec.datacenters.clone(),
        namespace: spec.namespace.clone(),
        partition: spec.partition.clone(),
        consistency: spec.consistency.unwrap_or(Consistency::Stale),
        token: token?,
        tls: tls?,
    })
}

/// What is special about a list of base URLs.
pub(super) struct Urls {
    /// The address where none is given.
    pub(super) default: &'static str,
    /// The field that credentials belong in.
    pub(super) credentials: &'static str,
    /// The path of an address.
    pub(super) path: Context,
}

/// The path of a base URL.
pub(super) enum Context {
    /// There is none.
    None,
    /// It may have one: the server may be behind a proxy.
    Any,
    /// It has one: this one where none is written.
    Default(&'static str),
}

impl Urls {
    pub(super) fn check(
        &self,
        list: &[String],
        at: &FieldPath,
        faults: &mut Faults,
    ) -> Option<Vec<String>> {
        if list.is_empty() {
            return Some(vec![self.default.to_owned()]);
        }
        let urls: Vec<_> = text::items(list, at)
            .map(|(at, address)| faults.take(&at, self.base_url(address)))
            .collect();
        let urls: Vec<_> = urls.into_iter().collect::<Option<_>>()?;
        // Only now: the fault shows the address, which may have held a password.
        text::no_repeats(text::items(&urls, at), faults);
        Some(urls)
    }

    /// A base URL without a `/` at the end.
    fn base_url(&self, text: &str) -> Result<String, Problem> {
        if !["http://", "https://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
        {
            return Err(Problem::Url(
                "it must begin with http:// or https://".to_owned(),
            ));
        }
        let url = Url::parse(text).map_err(|error| Problem::Url(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Problem::InlineSecret(self.credentials));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Problem::Url("remove what follows '?' or '#'".to_owned()));
        }
        let base = url.as_str().trim_end_matches('/');
        let has_path = !url.path().trim_matches('/').is_empty();
        match self.path {
            Context::None if has_path => Err(Problem::Url("remove the path".to_owned())),
            Context::Default(path) if !has_path => Ok(format!("{base}{path}")),
            _ => Ok(base.to_owned()),
        }
    }
}

/// How long nothing counts as gone after a registry was lost.
pub(super) fn settle_time(text: &str, at: &FieldPath, faults: &mut Faults) -> Option<Duration> {
    let time = faults.take(at, value::duration(text))?;
    if time > Duration::from_secs(3600) {
        let (least, most) = ("0s", "1h");
        faults.add(at, Problem::Range { least, most });
    }
    Some(time)
}

/// TLS for addresses of which none uses it is a mistake.
pub(super) fn tls_has_use(addresses: &[String], at: &FieldPath, faults: &mut Faults) {
    if !addresses.iter().any(|a| a.starts_with("https:")) {
        let problem = "TLS is set up, but no address begins with https://";
        faults.add(at, Problem::Conflict(problem));
    }
}

pub(super) fn token(
    spec: &TokenSpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<Credential> {
    let given = [
        ("file", spec.file.is_some()),
        ("secretRef", spec.secret_ref.is_some()),
    ];
    exactly_one(&given, at, faults);
    if let Some(secret) = &spec.secret_ref {
        let at = at.key("secretRef");
        let namespace = secret_name(secret.namespace.as_deref(), &secret.name, &at, faults);
        text::not_empty(Some(&secret.key), &at.key("key"), faults);
        return Some(Credential::Secret {
            namespace,
            name: secret.name.clone(),
            key: secret.key.clone(),
        });
    }
    paths
        .resolve(spec.file.as_ref()?, &at.key("file"), faults)
        .map(Credential::File)
}

/// Checks the name of a Secret; returns its namespace.
fn secret_name(namespace: Option<&str>, name: &str, at: &FieldPath, faults: &mut Faults) -> String {
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    faults.take(&at.key("namespace"), validate::dns1123_label(namespace));
    faults.take(&at.key("name"), validate::dns1123_subdomain(name));
    namespace.to_owned()
}

pub(super) fn tls(
    spec: &TlsSpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<TlsSettings> {
    if let Some(name) = &spec.server_name {
        faults.take(&at.key("serverName"), validate::fqdn(name));
    }
    let files = tls_files(spec, at, paths, faults);
    let material = match &spec.secret_ref {
        None => files?,
        Some(secret) => {
            if spec.ca_file.is_some() || spec.cert_file.is_some() || spec.key_file.is_some() {
                let problem = "certificates come either from files or from a Secret";
                faults.add(&at.key("secretRef"), Problem::Conflict(problem));
            }
            let at = at.key("secretRef");
            let namespace = secret_name(secret.namespace.as_deref(), &secret.name, &at, faults);
            TlsMaterial::Secret {
                namespace,
                name: secret.name.clone(),
            }
        }
    };
    Some(TlsSettings {
        material,
        server_name: spec.server_name.clone(),
    })
}

fn tls_files(
    spec: &TlsSpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<TlsMaterial> {
    let ca = paths.resolve_given(spec.ca_file.as_ref(), &at.key("caFile"), faults);
    let cert = paths.resolve_given(spec.cert_file.as_ref(), &at.key("certFile"), faults);
    let key = paths.resolve_given(spec.key_file.as_ref(), &at.key("keyFile"), faults);
    let identity = match (cert?, key?) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (cert, _) => {
            let field = if cert.is_some() {
                "certFile"
            } else {
                "keyFile"
            };
            let problem = "'certFile' and 'keyFile' go together";
            faults.add(&at.key(field), Problem::Conflict(problem));
            return None;
        }
    };
    Some(TlsMaterial::Files { ca: ca?, identity })
}
