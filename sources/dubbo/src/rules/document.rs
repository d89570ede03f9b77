//! Rules of the configuration centre.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Endpoint, Level, Order, Rule, ServicePattern, is_any_host};
use crate::{provider::is_true, url::Parameters};

#[derive(Deserialize)]
struct Document {
    scope: Option<String>,
    key: Option<String>,
    enabled: Option<Value>,
    #[serde(default)]
    configs: Vec<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    addresses: Option<Vec<String>>,
    provider_addresses: Option<Vec<String>>,
    applications: Option<Vec<String>>,
    services: Option<Vec<String>>,
    side: Option<String>,
    enabled: Option<Value>,
    parameters: Option<BTreeMap<String, Value>>,
    /// Conditions of Dubbo 3 on single requests and more.
    r#match: Option<Value>,
}

/// The rules in a document that stands under `key`.
///
/// Left out, as Dubbo does or because they do not concern everybody: what is switched off, what
/// names no side, rules for consumers with certain addresses or of certain applications, and
/// conditions (`match`).
///
/// # Errors
/// If the document is no such rule: it has no effect then, as in Dubbo.
pub(crate) fn parse(key: &str, data: &[u8]) -> Result<Vec<Rule>, String> {
    let text = str::from_utf8(data).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let document: Document = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if !on(document.enabled.as_ref()) {
        return Ok(Vec::new());
    }
    let of_application = document.scope.as_deref() == Some("application");
    let rules = document
        .configs
        .iter()
        .enumerate()
        .filter_map(|(index, config)| {
            let (applications, services) = if of_application {
                of_application_scope(key, document.key.as_deref(), config)?
            } else {
                of_service_scope(key, document.key.as_deref(), config)?
            };
            let level = if of_application {
                Level::Application
            } else {
                Level::Service
            };
            rule(config, level, index, applications, services)
        });
    Ok(rules.collect())
}

type Subjects = (Option<Vec<String>>, Option<Vec<ServicePattern>>);

/// The key is the provider's application. Where the side is the consumer's, it is the consumer's.
fn of_application_scope(key: &str, own: Option<&str>, config: &Config) -> Option<Subjects> {
    if config.side.as_deref() != Some("provider") || own.is_some_and(|own| own != key) {
        return None;
    }
    let services = config.services.as_deref().unwrap_or_default();
    let any = services.is_empty() || services.iter().any(|service| service == "*");
    let services = (!any).then(|| services.iter().map(|s| service_key(s)).collect());
    Some((Some(vec![key.to_owned()]), services))
}

/// The key in the path is `INTERFACE:VERSION:GROUP`; the one in the document says the same as
/// `GROUP/INTERFACE:VERSION`.
fn of_service_scope(key: &str, own: Option<&str>, config: &Config) -> Option<Subjects> {
    let mut parts = key.splitn(3, ':');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let service = ServicePattern {
        interface: Some(part()),
        version: part(),
        group: part(),
    };
    if own.is_some_and(|own| service_key(own) != service) {
        return None;
    }
    let named = config.applications.as_deref().unwrap_or_default();
    let any = named.is_empty() || named.iter().any(|name| name == "*");
    let applications = match config.side.as_deref()? {
        "provider" => (!any).then(|| named.to_vec()),
        // Named are consumers' applications and addresses.
        "consumer" if any && for_all(config.addresses.as_deref()) => None,
        _ => return None,
    };
    Some((applications, Some(vec![service])))
}

fn for_all(addresses: Option<&[String]>) -> bool {
    let addresses = addresses.unwrap_or_default();
    let any = |address: &String| is_any_host(address.strip_suffix(":*").unwrap_or(address));
    addresses.is_empty() || addresses.iter().any(any)
}

fn rule(
    config: &Config,
    level: Level,
    index: usize,
    applications: Option<Vec<String>>,
    services: Option<Vec<ServicePattern>>,
) -> Option<Rule> {
    if !on(config.enabled.as_ref()) || config.r#match.as_ref().is_some_and(|m| !m.is_null()) {
        return None;
    }
    let parameters: Parameters = config
        .parameters
        .iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), scalar(value)?)))
        .collect();
    let addresses = config.addresses.as_deref().unwrap_or_default();
    let endpoints = |list: &[String]| list.iter().map(|text| Endpoint::parse(text)).collect();
    let own = if config.side.as_deref() == Some("provider") {
        endpoints(addresses)
    } else {
        Vec::new()
    };
    Rule {
        order: Order {
            level,
            host: addresses.iter().min().cloned().unwrap_or_default(),
            priority: parameters
                .get("priority")
                .and_then(|priority| priority.parse().ok())
                .unwrap_or(0),
            tie: index as u128,
        },
        addresses: [
            own,
            endpoints(config.provider_addresses.as_deref().unwrap_or_default()),
        ],
        applications,
        services,
        absent: false,
        weight: None,
        disabled: None,
    }
    .saying(&parameters)
}

/// `[GROUP/]INTERFACE[:VERSION]`.
fn service_key(text: &str) -> ServicePattern {
    let (group, rest) = text.split_once('/').unwrap_or(("", text));
    let (interface, version) = rest.split_once(':').unwrap_or((rest, ""));
    ServicePattern {
        interface: Some(interface.to_owned()),
        group: group.to_owned(),
        version: version.to_owned(),
    }
}

/// A switch that is on unless it says otherwise.
fn on(value: Option<&Value>) -> bool {
    value.and_then(scalar).is_none_or(|text| is_true(&text))
}

/// A value as text; `None` for lists and the like.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
