//! A connection to a server by gRPC.

use std::{future, sync::Arc, time::Duration};

use bytes::Bytes;
use diolkos_net::{GrpcError, root_cause};
use futures::stream;
use http::uri::PathAndQuery;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request, Response, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    ANSWER_LIMIT, Client, DEADLINE, Error, Name, Page, Pushes, ServiceInfo,
    auth::{Proof, Subject},
    json::{self, Outcome},
    proto::{Payload, REQUEST, STREAM},
};

/// Between two questions whether the server is still there.
const BEAT: Duration = Duration::from_secs(5);
/// Between two questions whether the server has set the connection up.
const REGISTERING: Duration = Duration::from_millis(20);
/// Answers to pushes that wait to be sent.
const ANSWERS: usize = 16;
/// The type of an answer that is an error and nothing else.
const ERROR: &str = "ErrorResponse";

/// Codes of errors in answers: `NacosException`, and `ConfigQueryResponse` for the last.
mod code {
    pub(super) const FORBIDDEN: i64 = 403;
    pub(super) const STARTING: i64 = 300;
    pub(super) const UNREGISTERED: i64 = 301;
    pub(super) const NO_HANDLER: i64 = 302;
    pub(super) const NO_CONFIG: i64 = 300;
}

/// A connection to one server, for one namespace. Cheap to clone; requests run concurrently. It is
/// closed when the last clone and its [`Pushes`] are dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    fuzzy_watch: bool,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    server: usize,
    grpc: Grpc<Channel>,
    namespace: String,
    /// As the server sees us.
    ip: String,
}

/// Why a request has no answer.
enum Failure {
    /// The server says so.
    Answered {
        kind: String,
        code: i64,
        message: String,
    },
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(crate) async fn open(
    client: Client,
    server: usize,
    namespace: &str,
) -> Result<(Connection, Pushes), Error> {
    let address = &client.at(server).grpc;
    let channel = address
        .connect(client.tls())
        .await
        .map_err(|error| match error {
            GrpcError::Config(what) => Error::Config(what),
            GrpcError::Connect(what) => Error::Transport(what),
        })?;
    let grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_LIMIT);
    let mut shared = Shared {
        grpc,
        server,
        namespace: match namespace {
            "" => "public".to_owned(),
            id => id.to_owned(),
        },
        ip: String::new(),
        client,
    };
    let checked = shared.check().await?;
    shared.ip = checked.ip();
    let mut connection = Connection {
        shared: Arc::new(shared),
        fuzzy_watch: false,
    };
    let (answers, inbound) = connection.shared.stream();
    let mut pushes = Pushes::new(connection.clone(), answers, inbound);
    let set_up = connection.set_up(&mut pushes, checked.negotiates);
    connection.fuzzy_watch = timeout(DEADLINE, set_up)
        .await
        .unwrap_or_else(|_| Err(connection.lost("does not set the connection up")))?;
    pushes.watch_over();
    Ok((connection, pushes))
}

/// The answer to `ServerCheckRequest`.
#[derive(serde::Deserialize)]
struct Checked {
    #[serde(default, rename = "connectionId")]
    connection: String,
    #[serde(default, rename = "supportAbilityNegotiation")]
    negotiates: bool,
}

impl Checked {
    /// Our address, out of `<time>_<address>_<port>`.
    fn ip(&self) -> String {
        self.connection.split('_').nth(1).unwrap_or_default().into()
    }
}

impl Connection {
    /// The server's HTTP address, for messages.
    #[must_use]
    pub fn server(&self) -> &str {
        self.shared.client.server(self.shared.server)
    }

    /// Whether the server can tell of services that come and go (Nacos 3).
    #[must_use]
    pub fn has_fuzzy_watch(&self) -> bool {
        self.fuzzy_watch
    }

    /// A page of the services of a group, without their group. Pages count from 1.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, group: &str, page: u32, size: u32) -> Result<Page<Arc<str>>, Error> {
        let body = json!({
            "namespace": self.shared.namespace,
            "groupName": group,
            "serviceName": "",
            "pageNo": page,
            "pageSize": size,
            "selector": "",
            "module": "naming",
        });
        let answer = self
            .request("ServiceListRequest", body, Subject::Services)
            .await?;
        Ok(json::service_names(&answer)?)
    }

    /// Subscribes a service: from now on the server pushes what changes. The answer is the service
    /// as it is now; one that is not registered has no hosts, and can be subscribed too.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn subscribe(&self, name: &Name) -> Result<ServiceInfo, Error> {
        let answer = self.subscription(name, true).await?;
        Ok(json::service_in(&answer, Some(name))?)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn unsubscribe(&self, name: &Name) -> Result<(), Error> {
        self.subscription(name, false).await.map(drop)
    }

    async fn subscription(&self, name: &Name, subscribe: bool) -> Result<Bytes, Error> {
        let body = json!({
            "namespace": self.shared.namespace,
            "serviceName": &*name.service,
            "groupName": &*name.group,
            "subscribe": subscribe,
            "clusters": "",
            "module": "naming",
        });
        self.request("SubscribeServiceRequest", body, Subject::Service(name))
            .await
    }

    /// A service as it is now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn query(&self, name: &Name) -> Result<ServiceInfo, Error> {
        let body = json!({
            "namespace": self.shared.namespace,
            "serviceName": &*name.service,
            "groupName": &*name.group,
            "cluster": "",
            "healthyOnly": false,
            "udpPort": 0,
            "module": "naming",
        });
        let answer = self
            .request("ServiceQueryRequest", body, Subject::Service(name))
            .await?;
        Ok(json::service_in(&answer, Some(name))?)
    }

    /// Asks for hints of all services of the namespace that come and go, those of now first.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the server cannot do that.
    pub async fn fuzzy_watch(&self) -> Result<(), Error> {
        if !self.fuzzy_watch {
            let server = self.server();
            let what = format!("{server} does not tell of services that come and go");
            return Err(Error::Unsupported(what));
        }
        let namespace = &self.shared.namespace;
        let body = json!({
            "initializing": true,
            "namespace": namespace,
            "groupKeyPattern": format!("{namespace}>>*>>*"),
            "receivedGroupKeys": [],
            "watchType": "WATCH",
            "module": "naming",
        });
        self.request("NamingFuzzyWatchRequest", body, Subject::Services)
            .await
            .map(drop)
    }

    /// The content of a configuration item; `None` if there is no such item.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn config(&self, group: &str, data_id: &str) -> Result<Option<String>, Error> {
        let tenant = tenant(&self.shared.namespace);
        let body = json!({
            "dataId": data_id,
            "group": group,
            "tenant": tenant,
            "headers": {"notify": "false"},
            "module": "config",
        });
        let subject = Subject::Configs { tenant, group };
        match self.proven("ConfigQueryRequest", body, subject).await {
            Ok(answer) => Ok(json::content(&answer)?),
            Err(Failure::Answered { kind, code, .. })
                if kind != ERROR && code == code::NO_CONFIG =>
            {
                Ok(None)
            }
            Err(failure) => Err(self.shared.explain(failure)),
        }
    }

    /// Asks the server whether it is there and takes requests on this connection.
    async fn health(&self) -> Result<(), Failure> {
        let body = json!({"module": "internal"});
        self.shared
            .once("HealthCheckRequest", &body, &Proof::Nothing)
            .await
            .map(drop)
    }

    /// Returns when the connection is of no more use.
    pub(crate) async fn beat(&self) -> Error {
        loop {
            sleep(BEAT).await;
            if let Err(failure) = self.health().await {
                return self.shared.explain(failure);
            }
        }
    }

    /// Waits until the server takes requests. Returns whether it has the fuzzy watch.
    async fn set_up(&self, pushes: &mut Pushes, negotiates: bool) -> Result<bool, Error> {
        tokio::select! {
            biased;
            error = pushes.fail() => return Err(error),
            registered = self.registered() => registered?,
        }
        // What a server that negotiates says at once.
        if negotiates {
            return pushes.abilities().await;
        }
        Ok(false)
    }

    /// The connection is registered by a message on the stream, which requests may overtake.
    async fn registered(&self) -> Result<(), Error> {
        loop {
            match self.health().await {
                Err(Failure::Answered { code, .. }) if code == code::UNREGISTERED => {
                    sleep(REGISTERING).await;
                }
                other => return other.map_err(|failure| self.shared.explain(failure)),
            }
        }
    }

    async fn request(
        &self,
        kind: &'static str,
        body: Value,
        subject: Subject<'_>,
    ) -> Result<Bytes, Error> {
        let answer = self.proven(kind, body, subject).await;
        answer.map_err(|failure| self.shared.explain(failure))
    }

    /// A request that shows who we are; with a new token if the server does not take the old one.
    async fn proven(
        &self,
        kind: &'static str,
        body: Value,
        subject: Subject<'_>,
    ) -> Result<Bytes, Failure> {
        let (shared, client) = (&*self.shared, &self.shared.client);
        let proof = client.prove(shared.server, subject).await?;
        let answer = shared.once(kind, &body, &proof).await;
        if !is_forbidden(&answer) {
            return answer;
        }
        let again = client.prove_again(shared.server, subject, &proof).await?;
        let Some(proof) = again else {
            return answer;
        };
        let answer = shared.once(kind, &body, &proof).await;
        if is_forbidden(&answer) {
            client.refused_again(shared.server, &proof).await;
        }
        answer
    }

    /// The connection is over.
    pub(crate) fn lost(&self, why: &str) -> Error {
        Error::Transport(format!("{}: {why}", self.shared.name()))
    }

    pub(crate) fn broken(&self, status: &Status) -> Error {
        self.shared.broken(status)
    }

    /// Something came on the stream.
    pub(crate) fn heard(&self) {
        self.shared.client.meter().answered();
    }
}

fn is_forbidden(answer: &Result<Bytes, Failure>) -> bool {
    matches!(answer, Err(Failure::Answered { code, .. }) if *code == code::FORBIDDEN)
}

/// The namespace as requests for configuration items write it.
pub(crate) fn tenant(namespace: &str) -> &str {
    match namespace {
        "public" => "",
        id => id,
    }
}

/// What the server sends on the stream, when it has begun to.
pub(crate) type Inbound = AbortOnDropHandle<Result<tonic::Streaming<Payload>, Status>>;

impl Shared {
    /// The server's gRPC address, for messages.
    fn name(&self) -> String {
        self.client.at(self.server).grpc.to_string()
    }

    async fn check(&self) -> Result<Checked, Error> {
        let body = json!({"module": "internal"});
        let answer = self
            .once("ServerCheckRequest", &body, &Proof::Nothing)
            .await;
        let answer = answer.map_err(|failure| self.explain(failure))?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Opens the stream, whose first message registers the connection.
    fn stream(&self) -> (mpsc::Sender<Payload>, Inbound) {
        let set_up = json!({
            "clientVersion": concat!("Diolkos:v", env!("CARGO_PKG_VERSION")),
            "tenant": self.namespace,
            "labels": {"source": "sdk", "module": "naming"},
            "abilities": {},
            "abilityTable": {"fuzzyWatch": true},
        });
        let set_up = self.payload("ConnectionSetupRequest", &set_up);
        let (answers, mut waiting) = mpsc::channel(ANSWERS);
        let first = stream::once(future::ready(set_up));
        let rest = stream::poll_fn(move |cx| waiting.poll_recv(cx));
        let request = Request::new(futures::StreamExt::chain(first, rest));
        let mut grpc = self.grpc.clone();
        // Servers answer nothing at all before their first message, so that nobody can wait here.
        let inbound = tokio::spawn(async move {
            ready(&mut grpc).await?;
            let path = PathAndQuery::from_static(STREAM);
            let opened = grpc.streaming(request, path, ProstCodec::default()).await;
            opened.map(Response::into_inner)
        });
        (answers, AbortOnDropHandle::new(inbound))
    }

    fn payload(&self, kind: &str, body: &Value) -> Payload {
        let mut payload = Payload::new(kind, body);
        if let Some(metadata) = &mut payload.metadata {
            metadata.client_ip.clone_from(&self.ip);
        }
        payload
    }

    async fn once(&self, kind: &str, body: &Value, proof: &Proof) -> Result<Bytes, Failure> {
        let mut payload = self.payload(kind, body);
        if let Some(metadata) = &mut payload.metadata {
            match proof {
                Proof::Nothing => {}
                Proof::Token(token) => {
                    let secret = token.secret().to_owned();
                    metadata.headers.insert("accessToken".into(), secret);
                }
                Proof::Signature(fields) => {
                    let fields = fields.iter().cloned();
                    metadata.headers.extend(fields.map(|(k, v)| (k.into(), v)));
                }
            }
        }
        self.client.meter().asked();
        let answer = timeout(DEADLINE, self.unary(payload)).await;
        let answer = answer
            .map_err(|_| self.late(kind))?
            .map_err(|status| self.broken(&status))?;
        self.granted(answer)
    }

    async fn unary(&self, payload: Payload) -> Result<Payload, Status> {
        let mut grpc = self.grpc.clone();
        ready(&mut grpc).await?;
        let path = PathAndQuery::from_static(REQUEST);
        let codec = ProstCodec::<Payload, Payload>::default();
        let answer = grpc.unary(Request::new(payload), path, codec).await?;
        Ok(answer.into_inner())
    }

    fn granted(&self, answer: Payload) -> Result<Bytes, Failure> {
        const SUCCESS: i64 = 200;
        let outcome: Outcome = serde_json::from_slice(answer.json()).map_err(Error::from)?;
        if outcome.result_code != SUCCESS {
            return Err(Failure::Answered {
                kind: answer.kind().to_owned(),
                // Some errors have only the one code, some only the other.
                code: match outcome.error_code {
                    0 => outcome.result_code,
                    code => code,
                },
                message: outcome.message.unwrap_or_default(),
            });
        }
        self.client.meter().answered();
        Ok(answer.body.map(|body| body.value).unwrap_or_default())
    }

    fn explain(&self, failure: Failure) -> Error {
        let (kind, code, message) = match failure {
            Failure::Error(error) => return error,
            Failure::Answered {
                kind,
                code,
                message,
            } => (kind, code, message),
        };
        let what = format!("{}: {message} (code {code})", self.name());
        match code {
            code::FORBIDDEN => self.client.denied(self.server, &message),
            code::STARTING | code::UNREGISTERED if kind == ERROR => Error::Transport(what),
            code::NO_HANDLER => Error::Unsupported(what),
            _ => Error::Refused(what),
        }
    }

    fn late(&self, kind: &str) -> Error {
        let (name, seconds) = (self.name(), DEADLINE.as_secs());
        Error::Transport(format!("{name}: no answer to {kind} within {seconds} s"))
    }

    fn broken(&self, status: &Status) -> Error {
        let said = match std::error::Error::source(status) {
            Some(source) => root_cause(source),
            None if status.message().is_empty() => status.code().to_string(),
            None => status.message().to_owned(),
        };
        let what = format!("{}: {said}", self.name());
        match status.code() {
            Code::Unimplemented => Error::Unsupported(format!("{what}; is it a Nacos?")),
            Code::PermissionDenied | Code::Unauthenticated => Error::Denied(what),
            // Larger than the limit.
            Code::OutOfRange | Code::ResourceExhausted => Error::Protocol(what),
            _ => Error::Transport(what),
        }
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::from_error(error.into()))
}
