//! The JSON of answers.
//!
//! Versions differ in what they leave out and in some names, and what others registered may be
//! anything: one entry of a list that makes no sense is left out, and its siblings stay.

use std::{collections::BTreeMap, sync::Arc};

use serde::{
    Deserialize,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Value, value::RawValue};

use crate::{Error, Host, Name, Page, ServiceInfo};

const DEFAULT_GROUP: &str = "DEFAULT_GROUP";
const DEFAULT_CLUSTER: &str = "DEFAULT";
/// Between a group and a service, where both are one text.
const SPLITTER: &str = "@@";

type Result<T> = std::result::Result<T, serde_json::Error>;

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Protocol(format!("an answer makes no sense: {error}"))
    }
}

impl Name {
    /// From a service as servers write it, with its group before it or not, and its group, which
    /// may be absent.
    pub(crate) fn read(service: &str, group: Option<&str>) -> Self {
        let (before, bare) = match service.split_once(SPLITTER) {
            Some((before, bare)) => (Some(before), bare),
            None => (None, service),
        };
        let group = group.filter(|group| !group.is_empty()).or(before);
        Self {
            group: group.unwrap_or(DEFAULT_GROUP).into(),
            service: bare.into(),
        }
    }

    /// `GROUP@@service`.
    pub(crate) fn grouped(&self) -> String {
        format!("{}{SPLITTER}{}", self.group, self.service)
    }
}

/// Whether a gRPC request succeeded.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    #[serde(default)]
    pub(crate) result_code: i64,
    #[serde(default)]
    pub(crate) error_code: i64,
    pub(crate) message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawService<'a> {
    name: Option<String>,
    group_name: Option<String>,
    #[serde(borrow)]
    hosts: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    last_ref_time: Option<&'a RawValue>,
    checksum: Option<String>,
    reach_protection_threshold: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHost {
    ip: String,
    port: u32,
    weight: Option<f64>,
    healthy: Option<bool>,
    enabled: Option<bool>,
    ephemeral: Option<bool>,
    cluster_name: Option<String>,
    metadata: Option<BTreeMap<String, Value>>,
}

/// A `ServiceInfo`. `asked` is its name if it says none itself.
pub(crate) fn service(json: &[u8], asked: Option<&Name>) -> Result<ServiceInfo> {
    let raw: RawService<'_> = serde_json::from_slice(json)?;
    let name = match (&raw.name, asked) {
        (Some(name), _) if !name.is_empty() => Name::read(name, raw.group_name.as_deref()),
        (_, Some(asked)) => asked.clone(),
        _ => return Err(serde_json::Error::custom("a service without a name")),
    };
    let time = raw.last_ref_time.map(RawValue::get);
    Ok(ServiceInfo {
        hosts: hosts(&raw.hosts.unwrap_or_default()),
        name,
        last_ref_time: time.and_then(|time| time.parse().ok()).unwrap_or(0),
        checksum: raw.checksum.unwrap_or_default(),
        protected: raw.reach_protection_threshold.unwrap_or(false),
    })
}

/// Whether a `ServiceInfo` says if the service is protected.
pub(crate) fn tells_protection(json: &[u8]) -> Result<bool> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        reach_protection_threshold: Option<bool>,
    }
    let raw: Raw = serde_json::from_slice(json)?;
    Ok(raw.reach_protection_threshold.is_some())
}

/// The service in the answer to a subscription or a query, or in a push.
pub(crate) fn service_in(json: &[u8], asked: Option<&Name>) -> Result<ServiceInfo> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow, rename = "serviceInfo")]
        service: &'a RawValue,
    }
    let raw: Raw<'_> = serde_json::from_slice(json)?;
    service(raw.service.get().as_bytes(), asked)
}

/// What `/v3/client/ns/instance/list` and `/v3/admin/ns/instance/list` say: instances only, or a
/// service, by version.
pub(crate) fn service_or_hosts(json: &[u8], asked: &Name) -> Result<ServiceInfo> {
    if json.trim_ascii_start().first() != Some(&b'[') {
        return service(json, Some(asked));
    }
    Ok(ServiceInfo {
        name: asked.clone(),
        hosts: hosts(&serde_json::from_slice::<Vec<&RawValue>>(json)?),
        last_ref_time: 0,
        checksum: String::new(),
        protected: false,
    })
}

fn hosts(raw: &[&RawValue]) -> Vec<Host> {
    entries::<RawHost>(raw).map(Host::from).collect()
}

impl From<RawHost> for Host {
    fn from(raw: RawHost) -> Self {
        // What Java's `Instance` has where nothing is said.
        Self {
            ip: raw.ip,
            port: raw.port,
            weight: raw.weight.unwrap_or(1.0),
            healthy: raw.healthy.unwrap_or(true),
            enabled: raw.enabled.unwrap_or(true),
            ephemeral: raw.ephemeral.unwrap_or(true),
            cluster: raw
                .cluster_name
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| DEFAULT_CLUSTER.into()),
            metadata: texts(raw.metadata.unwrap_or_default()),
        }
    }
}

/// Metadata are texts; what others made of them in JSON is written as JSON.
fn texts(raw: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    let text = |(key, value)| match value {
        Value::Null => None,
        Value::String(text) => Some((key, text)),
        other => Some((key, other.to_string())),
    };
    raw.into_iter().filter_map(text).collect()
}

/// A page of a list, whatever it is called.
#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(alias = "totalCount")]
    count: Option<i64>,
    #[serde(
        borrow,
        alias = "doms",
        alias = "serviceNames",
        alias = "serviceList",
        alias = "pageItems",
        alias = "list"
    )]
    items: Option<Vec<&'a RawValue>>,
}

fn page<T: DeserializeOwned, U>(json: &[u8], from: impl FnMut(T) -> U) -> Result<Page<U>> {
    let raw: RawPage<'_> = serde_json::from_slice(json)?;
    let items = raw
        .items
        .ok_or_else(|| serde_json::Error::custom("a list without entries"))?;
    let read: Vec<U> = entries(&items).map(from).collect();
    Ok(Page {
        // Absent or negative: there is no more than this.
        total: raw
            .count
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(items.len()),
        others: items.len() - read.len(),
        items: read,
    })
}

/// Names of services of a group.
pub(crate) fn service_names(json: &[u8]) -> Result<Page<Arc<str>>> {
    page(json, |name: String| Name::read(&name, None).service)
}

/// Services with their groups.
pub(crate) fn catalog(json: &[u8]) -> Result<Page<Name>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        name: String,
        group_name: Option<String>,
    }
    page(json, |raw: Raw| {
        Name::read(&raw.name, raw.group_name.as_deref())
    })
}

/// The clusters of a service, in its details.
pub(crate) fn clusters(json: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        clusters: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Cluster {
        name: String,
    }
    let raw: Raw<'_> = serde_json::from_slice(json)?;
    Ok(entries(&raw.clusters)
        .map(|cluster: Cluster| cluster.name)
        .collect())
}

/// Instances of a catalog.
pub(crate) fn instances(json: &[u8]) -> Result<Page<Host>> {
    page(json, |raw: RawHost| raw.into())
}

/// A configuration item, whose content lists of Nacos 3 leave out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawItem {
    pub(crate) data_id: String,
    pub(crate) content: Option<String>,
}

/// Configuration items.
pub(crate) fn configs(json: &[u8]) -> Result<Page<RawItem>> {
    page(json, |item| item)
}

/// The content in a gRPC or HTTP answer about one configuration item.
pub(crate) fn content(json: &[u8]) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Raw {
        content: Option<String>,
    }
    Ok(serde_json::from_slice::<Option<Raw>>(json)?.and_then(|raw| raw.content))
}

/// What `data` is in the envelope of answers of v2 and v3, or what the server says instead.
pub(crate) fn data(json: &[u8]) -> Result<std::result::Result<&[u8], String>> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        code: i64,
        message: Option<String>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let raw: Raw<'_> = serde_json::from_slice(json)?;
    Ok(match (raw.code, raw.data) {
        (0, data) => Ok(data.map_or(b"null", |data| data.get().as_bytes())),
        (code, _) => Err(format!("{} (code {code})", raw.message.unwrap_or_default())),
    })
}

/// What an error says, in JSON of Nacos or of its Web server.
pub(crate) fn message(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Raw {
        message: Option<String>,
        data: Option<Value>,
    }
    let raw: Raw = serde_json::from_slice(json).ok()?;
    // In v3 the message is general, and what is particular is in the data.
    match (raw.message, raw.data) {
        (Some(message), Some(Value::String(data))) => Some(format!("{message}: {data}")),
        (message, _) => message,
    }
}

/// The entries that make sense.
fn entries<T: DeserializeOwned>(raw: &[&RawValue]) -> impl Iterator<Item = T> {
    raw.iter().filter_map(|entry| {
        serde_json::from_str(entry.get())
            .inspect_err(|error| tracing::debug!(%error, "an entry of a list makes no sense"))
            .ok()
    })
}

pub(crate) fn decode_for_fuzz(data: &[u8]) {
    let name = Name::read("name", None);
    let results = [
        service(data, None).err(),
        tells_protection(data).err(),
        service_in(data, Some(&name)).err(),
        service_or_hosts(data, &name).err(),
        service_names(data).err(),
        catalog(data).err(),
        instances(data).err(),
        clusters(data).err(),
        configs(data).err(),
        content(data).err(),
        self::data(data).err(),
        serde_json::from_slice::<Outcome>(data).err(),
    ];
    for error in results.into_iter().flatten() {
        tracing::trace!(%error);
    }
    tracing::trace!(message = message(data));
}

#[cfg(test)]
mod tests;
