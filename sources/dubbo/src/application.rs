//! Application-level registration: instances of applications, and what these say elsewhere of the
//! interfaces that they provide.

use std::sync::Arc;

use diolkos_model::Interner;
use serde_json::{Map, Value};

use crate::{
    Options,
    labels::is_kept,
    provider::{Provider, Registration, Standing},
    url::{Parameters, ProviderUrl, get},
};

/// What an instance's record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) host: String,
    /// Protocols and ports; one with no protocol where the record names none.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) metadata_in: Storage,
    /// Custom metadata, and that which the model reads.
    pub(crate) parameters: Parameters,
    pub(crate) standing: Standing,
}

/// A port of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) protocol: String,
    pub(crate) port: u32,
}

/// Where the metadata of an instance's interfaces is (`dubbo.metadata.storage-type`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Storage {
    /// With the instance, which has to be called for it; what the registry has instead is a
    /// definition of each interface. The revision.
    Local(Arc<str>),
    /// In the registry, under the revision.
    Remote(Arc<str>),
}

/// Why a record is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("it has no address")]
    NoAddress,
}

impl Record {
    /// Reads what Curator writes (ZooKeeper: `address`, `payload.metadata`) or what Dubbo itself
    /// writes (`host`, `metadata`).
    pub(crate) fn parse(data: &[u8], options: &Options) -> Result<Self, RecordError> {
        let record: Map<String, Value> = serde_json::from_slice(data)?;
        let host = ["address", "host"]
            .into_iter()
            .filter_map(|name| record.get(name)?.as_str())
            .find(|host| !host.is_empty())
            .ok_or(RecordError::NoAddress)?;
        let payload = record.get("payload").unwrap_or(&Value::Null);
        let metadata = payload.get("metadata").or(record.get("metadata"));
        let metadata = metadata.map(texts).unwrap_or_default();
        let mut made = Self::made_of(host, port(record.get("port")), &metadata, options);
        if record.get("enabled") == Some(&Value::Bool(false)) {
            made.parameters.insert("enabled".into(), "false".into());
        }
        Ok(made)
    }

    /// The same of a registry that keeps the parts.
    pub(crate) fn of_parts(parts: Registration, options: &Options) -> Result<Self, RecordError> {
        let Registration { url, standing } = parts;
        if url.host.is_empty() {
            return Err(RecordError::NoAddress);
        }
        Ok(Self {
            standing,
            ..Self::made_of(&url.host, url.port, &url.parameters, options)
        })
    }

    fn made_of(host: &str, port: u32, metadata: &Parameters, options: &Options) -> Self {
        let text = |name: &str| metadata.get(name).map(String::as_str).unwrap_or_default();
        let revision = text("dubbo.metadata.revision").into();
        Self {
            host: host.to_owned(),
            endpoints: endpoints(text("dubbo.endpoints"), port),
            metadata_in: match text("dubbo.metadata.storage-type") {
                "remote" => Storage::Remote(revision),
                _ => Storage::Local(revision),
            },
            parameters: kept(metadata, options),
            standing: Standing::default(),
        }
    }

    /// The instance as providers of the application, one for each port.
    pub(crate) fn providers(
        &self,
        application: &str,
        options: &Options,
        interner: &mut Interner,
    ) -> Vec<Provider> {
        let mut parameters = self.parameters.clone();
        parameters.insert("application".into(), application.to_owned());
        self.endpoints
            .iter()
            .map(|endpoint| self.provider(endpoint, parameters.clone(), options, interner))
            .collect()
    }

    /// The instance as providers of an interface that its application provides.
    pub(crate) fn providers_of(
        &self,
        exported: &Exported,
        application: &str,
        options: &Options,
        interner: &mut Interner,
    ) -> Vec<Provider> {
        let mut parameters = exported.parameters.clone();
        parameters.insert("application".into(), application.to_owned());
        for (name, value) in &self.parameters {
            // These are of the application, where they are at all.
            if !["version", "group", "interface"].contains(&&**name) {
                parameters.insert(name.clone(), value.clone());
            }
        }
        self.endpoints_of(exported)
            .iter()
            .map(|endpoint| self.provider(endpoint, parameters.clone(), options, interner))
            .collect()
    }

    /// The ports at which an interface is provided: all, unless its metadata names the protocol.
    fn endpoints_of(&self, exported: &Exported) -> Vec<Endpoint> {
        let Some(protocol) = &exported.protocol else {
            return self.endpoints.clone();
        };
        let own = self.endpoints.iter().find(|e| e.protocol == *protocol);
        let first = || self.endpoints.first().map_or(0, |endpoint| endpoint.port);
        let port = own.map(|endpoint| endpoint.port).or(exported.port);
        vec![Endpoint {
            protocol: protocol.clone(),
            port: port.unwrap_or_else(first),
        }]
    }

    fn provider(
        &self,
        endpoint: &Endpoint,
        parameters: Parameters,
        options: &Options,
        interner: &mut Interner,
    ) -> Provider {
        let url = ProviderUrl {
            protocol: endpoint.protocol.clone(),
            host: self.host.clone(),
            port: endpoint.port,
            path: String::new(),
            parameters,
        };
        Provider {
            standing: self.standing.clone(),
            ..Provider::new(&url, options, interner)
        }
    }
}

/// An interface, in one group and version, that an application provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exported {
    /// The protocol, where the metadata names it.
    protocol: Option<String>,
    port: Option<u32>,
    parameters: Parameters,
}

impl Exported {
    /// Reads the definition that an application published of one interface; `None` where it is
    /// not registered at the level of applications.
    pub(crate) fn of_definition(
        data: &[u8],
        options: &Options,
    ) -> Result<Option<Self>, serde_json::Error> {
        let definition: Map<String, Value> = serde_json::from_slice(data)?;
        let parameters = definition.get("parameters").map(texts).unwrap_or_default();
        // Processes of one application may register in different ways. What this one provides,
        // it registered for the interface.
        let registered = get(&parameters, "register-mode") != Some("interface");
        let provided = get(&parameters, "side") != Some("consumer");
        Ok((registered && provided).then(|| Self {
            protocol: None,
            port: None,
            parameters: kept(&parameters, options),
        }))
    }

    /// Reads the metadata of a revision: interfaces, each with what is said of it.
    pub(crate) fn of_revision(
        data: &[u8],
        options: &Options,
    ) -> Result<Vec<(String, Self)>, serde_json::Error> {
        let metadata: Map<String, Value> = serde_json::from_slice(data)?;
        let services = metadata.get("services").and_then(Value::as_object);
        let services = services.into_iter().flat_map(Map::values);
        Ok(services
            .filter_map(|s| Self::of_service(s, options))
            .collect())
    }

    fn of_service(service: &Value, options: &Options) -> Option<(String, Self)> {
        let text = |name: &str| service.get(name).and_then(Value::as_str);
        let interface = text("name").filter(|name| !name.is_empty())?.to_owned();
        let mut parameters = kept(&service.get("params").map(texts)?, options);
        for name in ["version", "group"] {
            if let Some(value) = text(name) {
                parameters.insert(name.into(), value.to_owned());
            }
        }
        let exported = Self {
            protocol: text("protocol").map(str::to_lowercase),
            port: service.get("port").map(|value| port(Some(value))),
            parameters,
        };
        Some((interface, exported))
    }
}

/// The scalars of an object, as text.
fn texts(object: &Value) -> Parameters {
    let object = object.as_object().into_iter().flatten();
    object
        .filter_map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((name.clone(), text))
        })
        .collect()
}

/// What the model makes use of: the rest would cost memory, and a change of it work.
fn kept(parameters: &Parameters, options: &Options) -> Parameters {
    const READ: [&str; 7] = [
        "timestamp",
        "version",
        "group",
        "weight",
        "enabled",
        "disabled",
        "default.weight",
    ];
    parameters
        .iter()
        .filter(|(name, value)| {
            // The address of the process that happened to publish last.
            !name.starts_with("bind.")
                && !value.is_empty()
                && (READ.contains(&name.as_str())
                    || name.starts_with("aeraki_meta_")
                    || is_kept(name, options))
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The list `[{"port":20880,"protocol":"dubbo"}]`, or else the one port of the record.
fn endpoints(list: &str, port_of_record: u32) -> Vec<Endpoint> {
    let list: Vec<Value> = serde_json::from_str(list).unwrap_or_default();
    let mut endpoints: Vec<Endpoint> = list
        .iter()
        .filter_map(|endpoint| {
            Some(Endpoint {
                protocol: endpoint.get("protocol")?.as_str()?.to_lowercase(),
                port: port(endpoint.get("port")),
            })
        })
        .collect();
    if endpoints.is_empty() {
        endpoints.push(Endpoint {
            protocol: String::new(),
            port: port_of_record,
        });
    }
    endpoints
}

/// A port as a number or as text; 0 for everything else.
fn port(value: Option<&Value>) -> u32 {
    let number = match value {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    number.map_or(0, |number| u32::try_from(number).unwrap_or(u32::MAX))
}
