//! The stub of Nacos says what real ones said: sessions that were recorded with 2.2.4 and 3.0.3 are played again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diolkos_testkit::nacos_stub::{Host, NacosStub, Version};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

const SOON: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(string, tag = "3")]
    kind: String,
    #[prost(btree_map = "string, string", tag = "7")]
    headers: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(message, optional, tag = "2")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    body: Option<Any>,
}

/// A message: its type and its body.
type Message = (String, Value);

fn close((kind, body): &Message) -> Payload {
    let metadata = Metadata {
        kind: kind.clone(),
        headers: BTreeMap::new(),
    };
    let value = body.to_string().into_bytes();
    Payload {
        metadata: Some(metadata),
        body: Some(Any { value }),
    }
}

fn open(payload: Payload) -> Result<Message> {
    let kind = payload.metadata.context("no metadata")?.kind;
    let body = payload.body.context("no body")?;
    Ok((kind, serde_json::from_slice(&body.value)?))
}

/// Without what is different each time.
fn constant(message: &Message) -> Message {
    let (kind, mut body) = message.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("connectionId");
        body.remove("requestId");
        if let Some(info) = body.get_mut("serviceInfo").and_then(Value::as_object_mut) {
            info.remove("lastRefTime");
        }
    }
    (kind, body)
}

/// A line of a recording: `C` or `S`, `>` for requests and answers and `~` for the stream, and the message.
fn line(line: &str) -> Result<(&str, Message)> {
    let (_, rest) = line.split_once("ms ").context("no time")?;
    let (who, rest) = rest.split_once(' ').context("no direction")?;
    let (kind, body) = rest.split_once(' ').context("no type")?;
    Ok((who, (kind.to_owned(), serde_json::from_str(body)?)))
}

/// The messages of a recording in one direction, of the connection that subscribes.
fn messages(recording: &str, direction: &str) -> Result<Vec<Message>> {
    let mut all = Vec::new();
    for text in recording.lines() {
        let (who, message) = line(text)?;
        let first = |kind: &str| message.0 != kind || all.iter().all(|(k, _)| k != kind);
        let once = [
            "ServerCheckRequest",
            "ServerCheckResponse",
            "SetupAckRequest",
        ];
        let publishes = message.0.contains("Instance");
        if who == direction && once.iter().all(|kind| first(kind)) && !publishes {
            all.push(message);
        }
    }
    Ok(all)
}

/// A client that says what it is told to.
struct Client {
    channel: Channel,
    stream: mpsc::Sender<Payload>,
    pushes: Streaming<Payload>,
}

impl Client {
    async fn connect(stub: &NacosStub) -> Result<Self> {
        let url = format!("http://{}", stub.grpc_address());
        let channel = Endpoint::from_shared(url)?.connect().await?;
        let (stream, mut said) = mpsc::channel(16);
        let said = stream::poll_fn(move |cx| said.poll_recv(cx));
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await?;
        let codec = ProstCodec::<Payload, Payload>::default();
        let path = "/BiRequestStream/requestBiStream".parse()?;
        let pushes = grpc.streaming(Request::new(said), path, codec).await?;
        Ok(Self {
            channel,
            stream,
            pushes: pushes.into_inner(),
        })
    }

    async fn ask(&self, message: &Message) -> Result<Message> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let codec = ProstCodec::<Payload, Payload>::default();
        let path = "/Request/request".parse()?;
        let answer = grpc
            .unary(Request::new(close(message)), path, codec)
            .await?;
        open(answer.into_inner())
    }

    async fn pushed(&mut self) -> Result<Message> {
        let pushed = timeout(SOON, self.pushes.next()).await?;
        open(pushed.context("the stream ended")??)
    }
}

/// Plays a session: what the client says, what comes and goes, and what the server says to that.
async fn plays(version: Version, recording: &str) -> Result<()> {
    let stub = NacosStub::start(version).await?;
    let mut client = Client::connect(&stub).await?;
    let asks = messages(recording, "C>")?;
    let answers = messages(recording, "S>")?;
    ensure!(asks.len() == answers.len(), "{asks:?} {answers:?}");
    let mut pushed = Vec::new();
    for (ask, answer) in asks.iter().zip(&answers) {
        if ask.0 == "ServiceListRequest" {
            pushed.extend(registers(&stub, &mut client).await?);
        }
        if ask.0 == "HealthCheckRequest" {
            pushed.extend(deregisters(&stub, &mut client, version).await?);
        }
        let told = client.ask(ask).await?;
        assert_eq!(constant(&told), constant(answer));
        if ask.0 == "ServerCheckRequest" {
            let set_up = messages(recording, "C~")?.swap_remove(0);
            client.stream.send(close(&set_up)).await?;
            pushed.extend(set_up_ends(&mut client, version).await?);
        }
    }
    let expected: Vec<Message> = messages(recording, "S~")?.iter().map(constant).collect();
    let mut pushed: Vec<Message> = pushed.iter().map(constant).collect();
    // A real server tells a new subscriber once what it was told already.
    let first = expected
        .iter()
        .position(|(kind, _)| kind == "NotifySubscriberRequest");
    pushed.insert(
        first.context("no push")?,
        expected[first.unwrap_or_default()].clone(),
    );
    by_type(&mut pushed);
    let mut expected = expected;
    by_type(&mut expected);
    assert_eq!(pushed, expected);
    Ok(())
}

/// Pushes of different types are not in order.
fn by_type(messages: &mut [Message]) {
    messages.sort_by(|(one, _), (other, _)| one.cmp(other));
}

/// Nacos 3 says when it is ready; others have to be asked.
async fn set_up_ends(client: &mut Client, version: Version) -> Result<Option<Message>> {
    if version == Version::V3 {
        return Ok(Some(client.pushed().await?));
    }
    let query = json!({"namespace": "public", "serviceName": "x", "groupName": "DEFAULT_GROUP"});
    let query = ("ServiceQueryRequest".to_owned(), query);
    diolkos_testkit::eventually(SOON, "the connection is set up", async || {
        let (kind, answer) = client.ask(&query).await?;
        ensure!(kind == "QueryServiceResponse", "{answer}");
        Ok(())
    })
    .await;
    Ok(None)
}

async fn registers(stub: &NacosStub, client: &mut Client) -> Result<Vec<Message>> {
    let mut one = Host::new("127.0.0.11", 8080);
    one.metadata.insert("version".into(), "1.0".into());
    let mut other = Host {
        ip: "127.0.0.12".into(),
        cluster: "HZ".into(),
        ..one.clone()
    };
    other.weight = 5.0;
    stub.put("raw-svc", std::slice::from_ref(&one));
    stub.put("raw-svc", &[one, other]);
    until_pushed(client, 2).await
}

/// With Nacos 3 a service goes with its last client.
async fn deregisters(
    stub: &NacosStub,
    client: &mut Client,
    version: Version,
) -> Result<Vec<Message>> {
    if version == Version::V3 {
        stub.remove("raw-svc");
    } else {
        stub.put("raw-svc", &[]);
    }
    until_pushed(client, 1).await
}

/// All that comes up to so many pushes of a service.
async fn until_pushed(client: &mut Client, mut services: usize) -> Result<Vec<Message>> {
    let mut all = Vec::new();
    while services > 0 {
        let message = client.pushed().await?;
        services -= usize::from(message.0 == "NotifySubscriberRequest");
        let request_id = message.1["requestId"].clone();
        let response = message.0.replace("Request", "Response");
        let acknowledge = json!({"resultCode": 200, "requestId": request_id});
        client.stream.send(close(&(response, acknowledge))).await?;
        all.push(message);
    }
    Ok(all)
}

#[tokio::test]
async fn says_what_2_2_4_said() -> Result<()> {
    plays(Version::V2, include_str!("nacos/2.2.4.txt")).await
}

#[tokio::test]
async fn says_what_3_0_3_said() -> Result<()> {
    plays(Version::V3, include_str!("nacos/3.0.3.txt")).await
}
