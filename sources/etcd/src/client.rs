//! The few calls of etcd's API that are needed, on one connection.
//!
//! The usual crate compiles etcd's protocol files in its build, for which it needs `protoc` on the
//! machine that builds; three calls are not worth that.

use std::{
    error::Error as _,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use diolkos_net::{TlsConfig, TokenFile, root_cause};
use diolkos_source_api::{HealthReporter, SourceError};
use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::{sleep, timeout};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use crate::{
    User,
    connect::Member,
    proto::{
        AUTHENTICATE, AuthenticateRequest, AuthenticateResponse, Event, RANGE, RangeRequest,
        RangeResponse, WATCH, WatchCreateRequest, WatchProgressRequest, WatchRequest,
        WatchResponse, WatchUnion,
    },
    scope::Range,
};

/// An answer may be as large as this, in bytes; etcd itself takes values of up to 1.5 MiB.
const ANSWER_LIMIT: usize = 16 << 20;
/// How long a page may take. A member without a quorum answers after 7 s that it has none.
const PAGE: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The revision asked for is compacted: read anew.
    Compacted,
    /// The answer is larger than [`ANSWER_LIMIT`]: ask for less.
    TooLarge,
    /// The user may not read these keys.
    Forbidden,
    /// Anything else, which ends the connection.
    Lost(SourceError),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Lost(error)
    }
}

/// Counts what is asked, and tells that there was an answer.
#[derive(Debug)]
pub(crate) struct Meter {
    health: HealthReporter,
    requests: Arc<AtomicU64>,
}

impl Meter {
    pub(crate) fn new(health: HealthReporter, requests: Arc<AtomicU64>) -> Self {
        Self { health, requests }
    }

    fn asked(&self) {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.health.traffic(1, requests);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // The connection goes with it.
        self.health
            .traffic(0, self.requests.load(Ordering::Relaxed));
    }
}

/// A connection to a member.
#[derive(Debug)]
pub(crate) struct Client {
    grpc: Grpc<Channel>,
    member: String,
    token: Option<MetadataValue<Ascii>>,
    /// What to tell when the connection breaks before the first answer.
    hint: &'static str,
    answered: AtomicBool,
    meter: Meter,
}

impl Client {
    /// Connects and logs in.
    pub(crate) async fn connect(
        member: &Member,
        tls: &TlsConfig,
        user: Option<&User>,
        meter: Meter,
        deadline: Duration,
    ) -> Result<Self, SourceError> {
        let channel = member.connect(tls).await?;
        let mut client = Self {
            grpc: Grpc::new(channel).max_decoding_message_size(ANSWER_LIMIT),
            member: member.to_string(),
            token: None,
            hint: match &tls.cert_file {
                _ if !member.speaks_tls() => "",
                None => "; it may want a client certificate, and none is set",
                Some(_) => "; it may not take the client certificate",
            },
            answered: AtomicBool::new(false),
            meter,
        };
        if let Some(user) = user {
            client.token = client.log_in(user, deadline).await?;
        }
        Ok(client)
    }

    /// The member's address.
    pub(crate) fn member(&self) -> &str {
        &self.member
    }

    /// A token for the user; none where etcd has its access control off and lets everybody in.
    async fn log_in(
        &self,
        user: &User,
        deadline: Duration,
    ) -> Result<Option<MetadataValue<Ascii>>, SourceError> {
        let password = TokenFile::new(&user.password_file)
            .read()
            .map_err(|error| SourceError::Config(error.to_string()))?;
        let request = AuthenticateRequest {
            name: user.name.clone(),
            password,
        };
        let answer: Result<AuthenticateResponse, Status> =
            self.unary(AUTHENTICATE, request, deadline).await;
        let token = match answer {
            Ok(answer) => answer.token,
            Err(status) if status.message().contains("authentication is not enabled") => {
                tracing::warn!(
                    member = self.member,
                    user = user.name,
                    "etcd has no access control, the user is not used"
                );
                return Ok(None);
            }
            Err(status) if status.message().contains("authentication failed") => {
                return Err(SourceError::Denied(format!(
                    "{} does not take the password of user `{}` in {}",
                    self.member,
                    user.name,
                    user.password_file.display()
                )));
            }
            Err(status) => return Err(self.lost(&status)),
        };
        let mut token = MetadataValue::try_from(token).map_err(|_| {
            SourceError::Protocol(format!("{}: the token is no line of text", self.member))
        })?;
        token.set_sensitive(true);
        Ok(Some(token))
    }

    /// At most `limit` keys from `from` to the end of the range, with their values, as they are at
    /// `revision` (0: now).
    pub(crate) async fn page(
        &self,
        range: &Range,
        from: Bytes,
        limit: i64,
        revision: i64,
    ) -> Result<RangeResponse, Failure> {
        let request = RangeRequest {
            key: from,
            range_end: range.end(),
            limit,
            revision,
            keys_only: false,
        };
        self.range(request, PAGE).await
    }

    /// The value of one key now, if there is such a key.
    pub(crate) async fn get(&self, key: String) -> Result<Option<Bytes>, Failure> {
        let request = RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        };
        let answer = self.range(request, PAGE).await?;
        Ok(answer.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// Asks for next to nothing in the range: proves that the member is there, has a quorum, and
    /// lets us read.
    pub(crate) async fn probe(
        &self,
        range: &Range,
        deadline: Duration,
    ) -> Result<RangeResponse, Failure> {
        let request = RangeRequest {
            key: range.start(),
            range_end: range.end(),
            limit: 1,
            revision: 0,
            keys_only: true,
        };
        self.range(request, deadline).await
    }

    async fn range(
        &self,
        request: RangeRequest,
        deadline: Duration,
    ) -> Result<RangeResponse, Failure> {
        let answer = self.unary(RANGE, request, deadline).await;
        answer.map_err(|status| self.failure(&status))
    }

    /// Watches these ranges from a revision on, asking for a sign of life once a `pulse`.
    pub(crate) async fn watch(
        &self,
        ranges: &[&Range],
        start_revision: i64,
        pulse: Duration,
    ) -> Result<Watch<'_>, Failure> {
        let create = |range: &&Range| {
            WatchUnion::Create(WatchCreateRequest {
                key: range.start(),
                range_end: range.end(),
                start_revision,
                fragment: true,
            })
        };
        let creates: Vec<_> = ranges.iter().map(create).collect();
        let progress = stream::unfold((), move |()| async move {
            sleep(pulse).await;
            Some((WatchUnion::Progress(WatchProgressRequest {}), ()))
        });
        let requests = stream::iter(creates)
            .chain(progress)
            .map(|union| WatchRequest { union: Some(union) });
        let mut request = self.request(requests);
        // A member that lost its leader is to say so, instead of keeping quiet.
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        let silence = pulse * SILENT_PULSES;
        let opened = self.streaming(request, silence).await;
        Ok(Watch {
            client: self,
            answers: opened.map_err(|status| self.failure(&status))?,
            silence,
        })
    }

    async fn unary<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        deadline: Duration,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.meter.asked();
        let mut grpc = self.grpc.clone();
        let call = async {
            grpc.ready()
                .await
                .map_err(|e| Status::from_error(e.into()))?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(self.request(request), path, codec).await
        };
        let answer = in_time(deadline, call).await?;
        self.answered.store(true, Ordering::Relaxed);
        self.meter.health.contact();
        Ok(answer.into_inner())
    }

    async fn streaming<S>(
        &self,
        request: Request<S>,
        deadline: Duration,
    ) -> Result<Streaming<WatchResponse>, Status>
    where
        S: futures::Stream<Item = WatchRequest> + Send + 'static,
    {
        self.meter.asked();
        let mut grpc = self.grpc.clone();
        let call = async {
            grpc.ready()
                .await
                .map_err(|e| Status::from_error(e.into()))?;
            let path = PathAndQuery::from_static(WATCH);
            grpc.streaming(request, path, ProstCodec::default()).await
        };
        in_time(deadline, call)
            .await
            .map(tonic::Response::into_inner)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    fn failure(&self, status: &Status) -> Failure {
        let message = status.message();
        match status.code() {
            Code::OutOfRange if message.contains("compacted") => Failure::Compacted,
            // etcd's only other use of this code is for a revision of the future.
            Code::OutOfRange if message.contains("too large") => Failure::TooLarge,
            Code::PermissionDenied => Failure::Forbidden,
            _ => Failure::Lost(self.lost(status)),
        }
    }

    /// A failure that there is nothing to do about in this connection.
    pub(crate) fn lost_by(&self, failure: Failure) -> SourceError {
        let what = match failure {
            Failure::Lost(error) => return error,
            Failure::Compacted => "the revision is compacted",
            Failure::Forbidden => "the right to read was taken away meanwhile",
            Failure::TooLarge => {
                let limit = ANSWER_LIMIT >> 20;
                let what = format!("{}: a single key has more than {limit} MiB", self.member);
                return SourceError::Protocol(what);
            }
        };
        SourceError::Transport(format!("{}: {what}", self.member))
    }

    fn lost(&self, status: &Status) -> SourceError {
        let member = &self.member;
        let message = status.message();
        match status.code() {
            Code::InvalidArgument if message.contains("user name is empty") => {
                SourceError::Denied(format!("{member} lets only known users in: set `auth`"))
            }
            Code::Unimplemented => {
                SourceError::Protocol(format!("{member} is no etcd of version 3.4 or later"))
            }
            // Also a token that is not valid any more: the next connection gets a new one.
            _ => SourceError::Transport(format!("{member}: {}", self.reason(status))),
        }
    }

    /// What a status says to people. A certificate is refused after the handshake, and all that is
    /// seen of that is mostly a connection that breaks.
    fn reason(&self, status: &Status) -> String {
        match status.source() {
            Some(source) if self.answered.load(Ordering::Relaxed) => root_cause(source),
            Some(source) => format!("{}{}", root_cause(source), self.hint),
            None if status.message().is_empty() => status.code().to_string(),
            None => status.message().to_owned(),
        }
    }
}

/// Without an answer for so many pulses a watch counts as dead.
const SILENT_PULSES: u32 = 3;

/// What changes in some ranges, from a revision on and without a gap.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    client: &'a Client,
    answers: Streaming<WatchResponse>,
    silence: Duration,
}

impl Watch<'_> {
    /// The next changes; none when the answer was a mere sign of life.
    pub(crate) async fn next(&mut self) -> Result<Vec<Event>, Failure> {
        let mut events = Vec::new();
        loop {
            let mut answer = self.answer().await?;
            if answer.compact_revision != 0 {
                return Err(Failure::Compacted);
            }
            if answer.canceled {
                return Err(self.canceled(&answer.cancel_reason));
            }
            if events.is_empty() {
                events = mem::take(&mut answer.events);
            } else {
                events.append(&mut answer.events);
            }
            if !answer.fragment {
                return Ok(events);
            }
        }
    }

    async fn answer(&mut self) -> Result<WatchResponse, Failure> {
        let answer = in_time(self.silence, self.answers.message()).await;
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.transport("the watch ended")),
            Err(status) => Err(self.client.failure(&status)),
        }
    }

    fn canceled(&self, reason: &str) -> Failure {
        // Permissions are looked at when a watch is made, and there is no code in this answer.
        if reason.contains("permission denied") {
            return Failure::Forbidden;
        }
        self.transport(&format!("the watch was cancelled: {reason}"))
    }

    fn transport(&self, what: &str) -> Failure {
        SourceError::Transport(format!("{}: {what}", self.client.member)).into()
    }
}

async fn in_time<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    timeout(deadline, call).await.unwrap_or_else(|_| {
        let message = format!("no answer within {deadline:?}");
        Err(Status::deadline_exceeded(message))
    })
}
