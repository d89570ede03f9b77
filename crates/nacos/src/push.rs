//! What servers send on their own.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json, value::RawValue};

use crate::{Error, Name, ServiceInfo, json, proto::Payload};

/// What a server says on its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// A service that was subscribed, whole.
    Service(ServiceInfo),
    /// Of a fuzzy watch: a service came. A hint only, which may be repeated.
    Added(Name),
    /// Of a fuzzy watch: a service went. A hint only, which may be repeated.
    Deleted(Name),
}

/// A message on the stream, and what to answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) content: Content,
    /// Absent where no answer is expected.
    pub(crate) answer: Option<Payload>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    /// None: a mere sign of life, or of a kind that is not known here.
    Pushes(Vec<Push>),
    /// The connection is set up.
    SetUp { fuzzy_watch: bool },
    /// The server wants the connection to end; with its reason or the server to go to.
    Reset(String),
}

impl Message {
    /// Reads a message. What is of no known kind is ignored, as newer servers may say more.
    pub(crate) fn read(payload: &Payload) -> Result<Self, Error> {
        let json = payload.json();
        let (content, answer) = match payload.kind() {
            "NotifySubscriberRequest" => {
                let service = json::service_in(json, None)?;
                let content = Content::Pushes(vec![Push::Service(service)]);
                (content, Some("NotifySubscriberResponse"))
            }
            "NamingFuzzyWatchSyncRequest" => {
                let content = Content::Pushes(fuzzy_batch(json)?);
                (content, Some("NamingFuzzyWatchSyncResponse"))
            }
            "NamingFuzzyWatchChangeNotifyRequest" => {
                let change: Change = serde_json::from_slice(json)?;
                let content = Content::Pushes(change.push().into_iter().collect());
                (content, Some("NamingFuzzyWatchChangeNotifyResponse"))
            }
            "ClientDetectionRequest" => {
                (Content::Pushes(Vec::new()), Some("ClientDetectionResponse"))
            }
            "SetupAckRequest" => (set_up(json)?, None),
            "ConnectResetRequest" => (reset(json), Some("ConnectResetResponse")),
            kind => {
                tracing::debug!(kind, "a message of an unknown kind is ignored");
                (Content::Pushes(Vec::new()), None)
            }
        };
        let answer = answer.map(|kind| acknowledge(kind, json)).transpose()?;
        Ok(Self { content, answer })
    }
}

fn acknowledge(kind: &str, request: &[u8]) -> Result<Payload, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        request_id: Option<String>,
    }
    let id = serde_json::from_slice::<Raw>(request)?.request_id;
    Ok(Payload::new(
        kind,
        &json!({"resultCode": 200, "requestId": id}),
    ))
}

/// A service that came or went.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    service_key: String,
    changed_type: Option<String>,
}

impl Change {
    fn push(&self) -> Option<Push> {
        // `namespace@@group@@service`
        let (_, grouped) = self.service_key.split_once("@@")?;
        let (group, service) = grouped.split_once("@@")?;
        let name = Name {
            group: group.into(),
            service: service.into(),
        };
        match self.changed_type.as_deref() {
            Some("ADD_SERVICE") => Some(Push::Added(name)),
            Some("DELETE_SERVICE") => Some(Push::Deleted(name)),
            _ => None,
        }
    }
}

/// Services that match a pattern, when its watch starts or after a loss.
fn fuzzy_batch(json: &[u8]) -> Result<Vec<Push>, Error> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        contexts: Option<Vec<&'a RawValue>>,
    }
    let raw: Raw<'_> = serde_json::from_slice(json)?;
    let changes = raw.contexts.unwrap_or_default();
    let pushes = changes
        .iter()
        .filter_map(|change| serde_json::from_str::<Change>(change.get()).ok()?.push());
    Ok(pushes.collect())
}

fn set_up(json: &[u8]) -> Result<Content, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        ability_table: Option<Value>,
    }
    let abilities = serde_json::from_slice::<Raw>(json)?.ability_table;
    let fuzzy_watch = abilities.is_some_and(|table| table["fuzzyWatch"] == true);
    Ok(Content::SetUp { fuzzy_watch })
}

/// Whatever it says, it is the end.
fn reset(json: &[u8]) -> Content {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        message: Option<String>,
        server_ip: Option<String>,
        #[serde(default, deserialize_with = "text")]
        server_port: String,
    }
    let raw: Raw = serde_json::from_slice(json).unwrap_or_default();
    let to = raw
        .server_ip
        .filter(|ip| !ip.is_empty())
        .map(|ip| format!("go to {ip}:{}", raw.server_port));
    Content::Reset(raw.message.or(to).unwrap_or_else(|| "no reason".into()))
}

/// A port, as a text or a number by version.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

pub(crate) fn decode_for_fuzz(data: &[u8]) {
    let kinds = [
        "NotifySubscriberRequest",
        "NamingFuzzyWatchSyncRequest",
        "NamingFuzzyWatchChangeNotifyRequest",
        "SetupAckRequest",
        "ConnectResetRequest",
    ];
    let wrapped = kinds.map(|kind| {
        let mut payload = Payload::new(kind, &Value::Null);
        payload.body = Some(crate::proto::Body {
            value: data.to_vec().into(),
        });
        payload
    });
    let whole = <Payload as prost::Message>::decode(data).ok();
    for payload in wrapped.iter().chain(&whole) {
        if let Err(error) = Message::read(payload) {
            tracing::trace!(%error);
        }
    }
}
