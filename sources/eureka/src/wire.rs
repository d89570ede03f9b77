//! Eureka's answers, as far as they are used.
//!
//! The same content comes as JSON or as XML, in several dialects: a list of one element may be the
//! element itself, numbers and booleans may be strings, anything may be absent or `null`. So both
//! forms are brought to one JSON value an instance, and that is read with forbearance: what makes no
//! sense counts as absent. Instances are handed on one by one, so that a large answer is in memory
//! once.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::xml;

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("its JSON is not Eureka's: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its XML is not Eureka's: {0}")]
    Xml(String),
    #[error("its content type is `{0}`, neither JSON nor XML")]
    Format(String),
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Xml,
}

impl Format {
    /// The form that a `Content-Type` names.
    pub(crate) fn of(content_type: &str) -> Result<Self, DecodeError> {
        let essence = content_type.split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/xml" | "text/xml" => Ok(Self::Xml),
            json if json.ends_with("/json") || json.ends_with("+json") => Ok(Self::Json),
            _ => Err(DecodeError::Format(essence)),
        }
    }
}

/// What an answer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The instances of the whole registry by status, `UP_2_`; `None` if the server does not say.
    pub(crate) hash: Option<String>,
    /// How often a peer has written down its changes since it began; of no meaning in full answers.
    pub(crate) version: Option<u64>,
    /// Elements that are neither an application nor an instance.
    pub(crate) bad: usize,
}

/// Takes the name of an application and one of its instances.
pub(crate) type Each<'a> = dyn FnMut(&str, &Value) + 'a;

/// Reads an answer to `/apps` or `/apps/delta`.
pub(crate) fn decode(
    body: &[u8],
    format: Format,
    each: &mut Each<'_>,
) -> Result<Head, DecodeError> {
    match format {
        Format::Json => decode_json(body, each),
        Format::Xml => xml::decode(body, each),
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    applications: &'a RawValue,
}

#[derive(Default, Deserialize)]
struct Applications<'a> {
    #[serde(default, rename = "apps__hashcode")]
    hash: Option<Value>,
    #[serde(default, rename = "versions__delta")]
    version: Value,
    #[serde(default, borrow)]
    application: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Application<'a> {
    #[serde(default)]
    name: Value,
    #[serde(default, borrow)]
    instance: Option<&'a RawValue>,
}

fn decode_json(body: &[u8], each: &mut Each<'_>) -> Result<Head, DecodeError> {
    let document: Document<'_> = serde_json::from_slice(body)?;
    let applications: Option<Applications<'_>> = serde_json::from_str(document.applications.get())?;
    let applications = applications.unwrap_or_default();
    let mut head = Head {
        hash: applications
            .hash
            .filter(|hash| !hash.is_null())
            .map(|hash| plain(&hash).into_owned()),
        version: plain(&applications.version).trim().parse().ok(),
        bad: 0,
    };
    for application in list(applications.application)? {
        let Ok(application) = serde_json::from_str::<Application<'_>>(application.get()) else {
            head.bad += 1;
            continue;
        };
        let name = plain(&application.name);
        let Ok(instances) = list(application.instance) else {
            head.bad += 1;
            continue;
        };
        for instance in instances {
            match serde_json::from_str::<Value>(instance.get()) {
                Ok(value) if value.is_object() => each(&name, &value),
                _ => head.bad += 1,
            }
        }
    }
    Ok(head)
}

/// The elements of a list, or the only one where there is no list around it.
fn list(raw: Option<&RawValue>) -> Result<Vec<&RawValue>, serde_json::Error> {
    match raw {
        None => Ok(Vec::new()),
        Some(raw) if raw.get().starts_with('[') => serde_json::from_str(raw.get()),
        Some(raw) if matches!(raw.get(), "null" | "\"\"") => Ok(Vec::new()),
        Some(raw) => Ok(vec![raw]),
    }
}

/// The text of a value; that of XML elements with attributes, and of ports, is under `$`.
pub(crate) fn plain(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Object(fields) => match fields.get("$") {
            Some(value) if !value.is_object() => plain(value),
            _ => Cow::Borrowed(""),
        },
        Value::Null | Value::Array(_) => Cow::Borrowed(""),
    }
}

/// An instance as Eureka describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a>(pub(crate) &'a Value);

impl<'a> Record<'a> {
    /// A field's text, trimmed; empty if it is absent.
    pub(crate) fn text(&self, field: &str) -> Cow<'a, str> {
        match self.0.get(field).map(plain) {
            None => Cow::Borrowed(""),
            Some(Cow::Borrowed(text)) => Cow::Borrowed(text.trim()),
            Some(Cow::Owned(text)) => Cow::Owned(text.trim().to_owned()),
        }
    }

    /// A time in milliseconds; 0 if it is absent.
    pub(crate) fn time(&self, field: &str) -> u64 {
        self.text(field).parse().unwrap_or(0)
    }

    /// A port and whether it is in use; `default` is taken if the record does not say.
    pub(crate) fn port(&self, field: &str, default: bool) -> Option<(i64, bool)> {
        let port = self.0.get(field)?;
        let number = plain(port).trim().parse().ok()?;
        let enabled = match port.get("@enabled").or_else(|| port.get("enabled")) {
            Some(enabled) => plain(enabled).trim().eq_ignore_ascii_case("true"),
            None => default,
        };
        Some((number, enabled))
    }

    /// The metadata that the instance registered.
    pub(crate) fn metadata(&self) -> Metadata<'a> {
        Metadata::of(self.0.get("metadata"))
    }

    /// The metadata of the machine, as Amazon's has it.
    pub(crate) fn machine(&self) -> Metadata<'a> {
        let machine = self.0.get("dataCenterInfo");
        Metadata::of(machine.and_then(|machine| machine.get("metadata")))
    }
}

/// Names and values. Empty if there are none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metadata<'a>(Option<&'a serde_json::Map<String, Value>>);

impl<'a> Metadata<'a> {
    fn of(value: Option<&'a Value>) -> Self {
        Self(value.and_then(Value::as_object))
    }

    /// All that have a value. `@class` and its like are the serializer's.
    pub(crate) fn pairs(self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let pairs = self.0.into_iter().flatten();
        pairs
            .filter(|(name, _)| !name.starts_with('@') && *name != "$")
            .map(|(name, value)| (name.as_str(), plain(value)))
            .filter(|(_, value)| !value.is_empty())
    }

    /// The value under the first of these names that has one, trimmed.
    pub(crate) fn first(self, names: &[&str]) -> Option<Cow<'a, str>> {
        let values = names.iter().filter_map(|name| self.0?.get(*name));
        values.map(plain).find_map(|value| {
            match value {
                Cow::Borrowed(text) => Some(Cow::Borrowed(text.trim())),
                Cow::Owned(text) => Some(Cow::Owned(text.trim().to_owned())),
            }
            .filter(|text| !text.is_empty())
        })
    }
}

#[cfg(test)]
mod tests;
