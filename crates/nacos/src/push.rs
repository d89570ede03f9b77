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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Body;

    fn message(kind: &str, body: &str) -> Result<Message, Error> {
        let mut payload = Payload::new(kind, &Value::Null);
        payload.body = Some(Body {
            value: body.to_owned().into(),
        });
        Message::read(&payload)
    }

    fn answer(kind: &str, id: &str) -> Option<Payload> {
        let body = json!({"resultCode": 200, "requestId": id});
        Some(Payload::new(kind, &body))
    }

    fn name(service: &str) -> Name {
        Name::read(service, Some("DEFAULT_GROUP"))
    }

    /// As 2.2.4 sent it.
    #[test]
    fn a_changed_service_is_acknowledged() {
        let body = r#"{"headers":{},"requestId":"2","serviceInfo":{"name":"raw-svc","groupName":"DEFAULT_GROUP",
            "clusters":"","cacheMillis":10000,"hosts":[{"ip":"127.0.0.11","port":8080,"weight":1.0,"healthy":true,
            "enabled":true,"ephemeral":true,"clusterName":"DEFAULT","serviceName":"DEFAULT_GROUP@@raw-svc",
            "metadata":{"version":"1.0"},"instanceHeartBeatInterval":5000,"instanceHeartBeatTimeOut":15000,
            "ipDeleteTimeout":30000}],"lastRefTime":1795252685096,"checksum":"","allIPs":false,
            "reachProtectionThreshold":false,"valid":true},"module":"naming"}"#;
        let read = message("NotifySubscriberRequest", body).unwrap();
        let Content::Pushes(pushes) = &read.content else {
            panic!("{read:?}")
        };
        let [Push::Service(service)] = &pushes[..] else {
            panic!("{pushes:?}")
        };
        assert_eq!(service.name, name("raw-svc"));
        assert_eq!(service.last_ref_time, 1_795_252_685_096);
        assert_eq!(service.hosts[0].ip, "127.0.0.11");
        assert_eq!(read.answer, answer("NotifySubscriberResponse", "2"));
    }

    /// As 3.0.3 sent it.
    #[test]
    fn services_that_come_and_go() {
        let kind = "NamingFuzzyWatchChangeNotifyRequest";
        let made = |key: &str, what: &str| {
            let body = json!({"headers": {}, "requestId": "3", "syncType": "FUZZY_WATCH_RESOURCE_CHANGED",
                "serviceKey": key, "changedType": what, "module": "naming"});
            message(kind, &body.to_string()).unwrap()
        };
        let key = "public@@DEFAULT_GROUP@@raw-svc";
        for (what, pushes) in [
            ("ADD_SERVICE", vec![Push::Added(name("raw-svc"))]),
            ("DELETE_SERVICE", vec![Push::Deleted(name("raw-svc"))]),
            ("RENAME_SERVICE", vec![]),
        ] {
            let read = made(key, what);
            assert_eq!(read.content, Content::Pushes(pushes));
            let expected = answer("NamingFuzzyWatchChangeNotifyResponse", "3");
            assert_eq!(read.answer, expected);
        }
        for key in ["", "public", "public@@G"] {
            assert_eq!(made(key, "ADD_SERVICE").content, Content::Pushes(vec![]));
        }
    }

    #[test]
    fn a_batch_of_a_fuzzy_watch() {
        let kind = "NamingFuzzyWatchSyncRequest";
        let body = r#"{"requestId":"1","syncType":"FUZZY_WATCH_INIT_NOTIFY","groupKeyPattern":"public>>*>>*",
            "contexts":[{"serviceKey":"public@@G@@a","changedType":"ADD_SERVICE"},7,
            {"serviceKey":"public@@G@@b","changedType":"DELETE_SERVICE"}],"totalBatch":1,"currentBatch":1}"#;
        let read = message(kind, body).unwrap();
        let of = |service| Name::read(service, Some("G"));
        let pushes = vec![Push::Added(of("a")), Push::Deleted(of("b"))];
        assert_eq!(read.content, Content::Pushes(pushes));
        assert_eq!(read.answer, answer("NamingFuzzyWatchSyncResponse", "1"));
        let finished =
            r#"{"requestId":"2","syncType":"FINISH_FUZZY_WATCH_INIT_NOTIFY","contexts":[]}"#;
        let read = message(kind, finished).unwrap();
        assert_eq!(read.content, Content::Pushes(vec![]));
    }

    #[test]
    fn what_concerns_the_connection() {
        let abilities = r#"{"headers":{},"abilityTable":{"supportPersistentInstanceByGrpc":true,"fuzzyWatch":true}}"#;
        let read = message("SetupAckRequest", abilities).unwrap();
        let set_up = Content::SetUp { fuzzy_watch: true };
        assert_eq!((read.content, read.answer), (set_up, None));
        let bare = message("SetupAckRequest", "{}").unwrap();
        assert_eq!(bare.content, Content::SetUp { fuzzy_watch: false });

        let asked = message("ClientDetectionRequest", r#"{"requestId":"9"}"#).unwrap();
        assert_eq!(asked.answer, answer("ClientDetectionResponse", "9"));
        for (body, why) in [
            (
                r#"{"requestId":"5","serverIp":"10.0.0.2","serverPort":"9848"}"#,
                "go to 10.0.0.2:9848",
            ),
            (r#"{"requestId":"5","message":"too many"}"#, "too many"),
            (r#"{"requestId":"5"}"#, "no reason"),
        ] {
            let read = message("ConnectResetRequest", body).unwrap();
            assert_eq!(read.content, Content::Reset(why.into()));
        }
        let unknown = message("BrandNewRequest", "no JSON").unwrap();
        let nothing = Message {
            content: Content::Pushes(vec![]),
            answer: None,
        };
        assert_eq!(unknown, nothing);
    }

    #[test]
    fn a_push_without_a_service_is_an_error() {
        for body in ["", "{}", r#"{"requestId":"1","serviceInfo":{}}"#, "[]"] {
            assert!(message("NotifySubscriberRequest", body).is_err(), "{body}");
        }
    }
}
