//! The requests that the source makes.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use diolkos_model::Interner;
use diolkos_net::{
    AddressId, Bytes, HeaderName, HeaderValue, HttpClient, HttpError, Request, StatusCode,
    TokenFile,
};
use diolkos_source_api::{HealthReporter, SourceError};

use crate::{
    Config,
    mapping::Mapper,
    registry::Answer,
    wire::{self, DecodeError, Format},
};

/// How long an answer with everything may take.
const FULL: Duration = Duration::from_secs(20);
/// How long an answer with changes may take.
const DELTA: Duration = Duration::from_secs(10);
/// An answer of so many bytes is decoded at once.
const SMALL: usize = 256 << 10;
/// Eureka looks for `json` in it and else writes XML; servers that speak its protocol may have one only.
const ACCEPT: HeaderValue = HeaderValue::from_static("application/json, application/xml;q=0.5");

/// Eureka's HTTP API, for one connection of the source.
#[derive(Debug)]
pub(crate) struct Api<'a> {
    pub(crate) http: &'a HttpClient,
    pub(crate) config: &'a Arc<Config>,
    pub(crate) password: Option<&'a TokenFile>,
    pub(crate) interner: &'a mut Interner,
    pub(crate) health: HealthReporter,
    /// The peer that answers. Two peers may see different worlds.
    pub(crate) peer: Option<AddressId>,
}

impl Api<'_> {
    /// Everything.
    pub(crate) async fn full(&mut self) -> Result<Answer, SourceError> {
        let answer = self.send(&["apps"], FULL).await?;
        self.judge(&answer)?;
        self.decode(&answer).await
    }

    /// The changes of the last minutes; `None` if the peer does not tell them.
    pub(crate) async fn delta(&mut self) -> Result<Option<Answer>, SourceError> {
        let answer = self.send(&["apps", "delta"], DELTA).await?;
        if matches!(answer.status.as_u16(), 204 | 403 | 404) || answer.body.is_empty() {
            return Ok(None);
        }
        self.judge(&answer)?;
        let delta = self.decode(&answer).await?;
        Ok(delta.hash.is_some().then_some(delta))
    }

    /// The address of the peer.
    pub(crate) fn address(&self) -> &str {
        match self.peer {
            Some(peer) => self.http.name(peer),
            None => self.http.address(),
        }
    }

    /// What makes services of what was decoded.
    pub(crate) fn mapper(&mut self) -> Mapper<'_> {
        Mapper {
            config: self.config,
            interner: self.interner,
        }
    }

    async fn send(
        &mut self,
        path: &[&str],
        deadline: Duration,
    ) -> Result<diolkos_net::Answer, SourceError> {
        let request = Request::get(path.iter().copied())
            .header(HeaderName::from_static("accept"), ACCEPT)
            .deadline(deadline);
        let request = self.authorized(request)?;
        // With this request, which is the only one at a time.
        self.health.traffic(1, self.http.requests() + 1);
        let answer = self.http.send(&request).await.map_err(unreachable)?;
        self.health.contact();
        let peer = *self.peer.get_or_insert(answer.from);
        if peer != answer.from {
            let (lost, other) = (self.http.name(peer), self.http.name(answer.from));
            return Err(SourceError::Transport(format!(
                "{lost} cannot be reached any more, going over to {other}"
            )));
        }
        Ok(answer)
    }

    fn authorized(&self, request: Request) -> Result<Request, SourceError> {
        let (Some(user), Some(file)) = (&self.config.user, self.password) else {
            return Ok(request);
        };
        let password = file
            .read()
            .map_err(|error| SourceError::Config(error.to_string()))?;
        let credentials = STANDARD.encode(format!("{}:{password}", user.name));
        let mut value = HeaderValue::try_from(format!("Basic {credentials}"))
            .map_err(|error| SourceError::Config(format!("the user's credentials: {error}")))?;
        value.set_sensitive(true);
        Ok(request.header(HeaderName::from_static("authorization"), value))
    }

    fn judge(&self, answer: &diolkos_net::Answer) -> Result<(), SourceError> {
        let status = answer.status;
        if status == StatusCode::OK {
            return Ok(());
        }
        self.http.fail_over(answer.from);
        let from = self.http.name(answer.from);
        let text = format!("{from} answers {status}: {}", said(&answer.body));
        Err(match status.as_u16() {
            401 => SourceError::Denied(format!("{text} ({})", self.who())),
            403 => SourceError::Denied(format!(
                "{text} ({}; a Eureka that has just started also answers so until it has heard of its peers)",
                self.who()
            )),
            404 => SourceError::Config(format!(
                "{text} (there is no Eureka under this path; the path before /apps is usually /eureka)"
            )),
            300..=428 | 430..=499 => SourceError::Protocol(text),
            _ => SourceError::Transport(text),
        })
    }

    /// As whom we come, for messages.
    fn who(&self) -> String {
        match &self.config.user {
            None => "no user is configured: set `auth`".to_owned(),
            Some(user) => format!(
                "as user {} with the password from {}: check both",
                user.name,
                user.password_file.display()
            ),
        }
    }

    async fn decode(&mut self, answer: &diolkos_net::Answer) -> Result<Answer, SourceError> {
        let content_type = answer.headers.get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let decoded = match Format::of(content_type.unwrap_or_default()) {
            Ok(format) => self.decode_as(format, answer.body.clone()).await?,
            Err(error) => Err(error),
        };
        decoded.map_err(|error| {
            self.http.fail_over(answer.from);
            let from = self.http.name(answer.from);
            SourceError::Protocol(format!(
                "{from} does not speak Eureka's protocol, or wants a login: {error}"
            ))
        })
    }

    /// Large answers take their time, in which nobody else shall wait.
    async fn decode_as(
        &mut self,
        format: Format,
        body: Bytes,
    ) -> Result<Result<Answer, DecodeError>, SourceError> {
        if body.len() <= SMALL {
            return Ok(decode(&body, format, &mut self.mapper()));
        }
        let config = self.config.clone();
        // Of no more use than a new one if it does not come back.
        let mut interner = std::mem::take(self.interner);
        let work = tokio::task::spawn_blocking(move || {
            let mut mapper = Mapper {
                config: &config,
                interner: &mut interner,
            };
            let decoded = decode(&body, format, &mut mapper);
            (interner, decoded)
        });
        let (interner, decoded) = work
            .await
            .map_err(|error| SourceError::Protocol(format!("an answer cannot be read: {error}")))?;
        *self.interner = interner;
        Ok(decoded)
    }
}

/// Reads a whole answer.
pub(crate) fn decode(
    body: &[u8],
    format: Format,
    mapper: &mut Mapper<'_>,
) -> Result<Answer, DecodeError> {
    let mut changes = Vec::new();
    let mut bad = 0;
    let head = wire::decode(
        body,
        format,
        &mut |app, instance| match mapper.change(app, instance) {
            Some(change) => changes.push(change),
            None => bad += 1,
        },
    )?;
    bad += head.bad;
    if bad > 0 {
        tracing::warn!(bad, "parts of an answer are no instances, left out");
    }
    Ok(Answer {
        hash: head.hash,
        version: head.version,
        changes,
    })
}

/// The start of an error's body, on one line.
fn said(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// By value, for `map_err`.
#[expect(clippy::needless_pass_by_value)]
fn unreachable(error: HttpError) -> SourceError {
    match &error {
        HttpError::Config(_) => SourceError::Config(error.to_string()),
        _ => SourceError::Transport(error.to_string()),
    }
}
