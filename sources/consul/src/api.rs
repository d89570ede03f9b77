//! The requests that the source makes, and how far their answers can be believed.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use diolkos_net::{
    Answer, Bytes, HeaderMap, HeaderName, HeaderValue, HttpClient, HttpError, Request, StatusCode,
    TokenFile,
};
use diolkos_source_api::{Backoff, Evidence, HealthReporter, SourceError};

use crate::{
    Config, Consistency,
    index::Index,
    wire::{self, Catalog, Check, Entry, List, NodeServices},
};

/// How long an answer to a plain request may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// What a waiting query may take beyond its wait, to which Consul adds up to a sixteenth.
const GRACE: Duration = Duration::from_secs(10);
/// How often a request that Consul's rate limit refuses is sent, before the connection is given up.
const TRIES: u32 = 12;
/// The wait after the first refusal, and the longest.
const REFUSED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(4));
/// The longest time without the leader in which a server's data count as current. Consul's followers hear of their
/// leader several times a second, and look for another one after 5 s at its default settings.
const FRESH: Duration = Duration::from_secs(5);
/// The accessor of the token that is in force when none is sent. The same in every Consul.
const ANONYMOUS: &str = "00000000-0000-0000-0000-000000000002";

/// What is read, and what its headers say.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) value: T,
    pub(crate) index: Option<u64>,
    pub(crate) evidence: Evidence,
    /// Whether Consul denies by default: see [`Api::identify`].
    pub(crate) denies: bool,
}

impl<T> Reply<T> {
    /// The same answer with its value turned into another.
    pub(crate) fn map<U>(self, value: impl FnOnce(T) -> U) -> Reply<U> {
        Reply {
            value: value(self.value),
            index: self.index,
            evidence: self.evidence,
            denies: self.denies,
        }
    }
}

/// Consul's HTTP API, for one connection of the source.
#[derive(Debug)]
pub(crate) struct Api<'a> {
    pub(crate) http: &'a HttpClient,
    pub(crate) config: &'a Config,
    pub(crate) token: Option<&'a TokenFile>,
    pub(crate) health: HealthReporter,
    /// Whether Consul knows us by no token while its default is to deny: see [`Api::identify`].
    pub(crate) anonymous: AtomicBool,
}

impl Api<'_> {
    /// The names of all services with their tags, at once or as soon as they change.
    pub(crate) async fn catalog(
        &self,
        dc: &str,
        after: Option<Index>,
    ) -> Result<Reply<Catalog>, SourceError> {
        let request = self.read(["v1", "catalog", "services"], dc, after);
        self.fetch(request, wire::decode_catalog).await
    }

    /// All checks that do not pass, at once or as soon as they change.
    pub(crate) async fn failing(
        &self,
        dc: &str,
        after: Option<Index>,
    ) -> Result<Reply<List<Check>>, SourceError> {
        let request = self
            .read(["v1", "health", "state", "any"], dc, after)
            .query("filter", "Status != \"passing\"");
        self.fetch(request, wire::decode_list).await
    }

    /// All instances of a service. Never a waiting query: those may be answered from the agent's
    /// streaming backend, which does not say whether there is a leader.
    pub(crate) async fn instances(
        &self,
        dc: &str,
        name: &str,
    ) -> Result<Reply<List<Entry>>, SourceError> {
        let request = self.read(["v1", "health", "service", name], dc, None);
        self.fetch(request, wire::decode_list).await
    }

    /// All nodes.
    pub(crate) async fn nodes(&self, dc: &str) -> Result<Reply<List<wire::Node>>, SourceError> {
        let request = self.read(["v1", "catalog", "nodes"], dc, None);
        self.fetch(request, wire::decode_list).await
    }

    /// What is registered on a node.
    pub(crate) async fn node_services(
        &self,
        dc: &str,
        node: &str,
    ) -> Result<Reply<NodeServices>, SourceError> {
        let request = self.read(["v1", "catalog", "node-services", node], dc, None);
        self.fetch(request, wire::decode).await
    }

    /// The agent's own datacenter.
    pub(crate) async fn own_datacenter(&self) -> Result<String, SourceError> {
        let request = Request::get(["v1", "catalog", "datacenters"]);
        let known: Reply<Vec<String>> = self.fetch(request, wire::decode).await?;
        if let [only] = known.value.as_slice() {
            return Ok(only.clone());
        }
        // Only this tells which of several it is, and only to tokens that may read the agent.
        let agent: Result<Reply<wire::Agent>, _> = self
            .fetch(Request::get(["v1", "agent", "self"]), wire::decode)
            .await;
        match agent {
            Ok(agent) => Ok(agent.value.config.datacenter),
            Err(SourceError::Denied(_)) => Err(SourceError::Config(format!(
                "{} knows the datacenters {} and does not tell this token which is its own: \
                 list the wanted ones under `datacenters`, or grant `agent:read`",
                self.http.address(),
                known.value.join(", ")
            ))),
            Err(error) => Err(error),
        }
    }

    /// Finds out whether Consul knows us by a token. To the anonymous, a Consul that denies by
    /// default shows less than there is and hides even that it does; to all others it says so in a
    /// header. Asking beats looking at our own configuration: the agent may have a default token.
    pub(crate) async fn identify(&self, dc: &str) -> Result<(), SourceError> {
        let request = Request::get(["v1", "acl", "token", "self"]).query("dc", dc);
        let token: Result<Reply<wire::Token>, _> = self.fetch(request, wire::decode).await;
        let anonymous = match token {
            Ok(token) => token.value.accessor_id == ANONYMOUS,
            Err(SourceError::Denied(_)) => true,
            Err(error) => return Err(error),
        };
        self.anonymous.store(anonymous, Ordering::Relaxed);
        Ok(())
    }

    fn read<'a>(
        &self,
        path: impl IntoIterator<Item = &'a str>,
        dc: &str,
        after: Option<Index>,
    ) -> Request {
        let Config {
            namespace,
            partition,
            consistency,
            wait,
            ..
        } = self.config;
        let mut request = Request::get(path).query("dc", dc).deadline(DEADLINE);
        for (key, value) in [("ns", namespace), ("partition", partition)] {
            if let Some(value) = value {
                request = request.query(key, value);
            }
        }
        let mode = match consistency {
            Consistency::Stale if after.is_some() => Some("stale"),
            Consistency::Stale | Consistency::Default => None,
            Consistency::Consistent => Some("consistent"),
        };
        if let Some(mode) = mode {
            request = request.query(mode, "");
        }
        if let Some(index) = after {
            request = request
                .query("index", index.get().to_string())
                .query("wait", format!("{}ms", wait.as_millis()))
                .deadline(*wait + *wait / 16 + GRACE);
        }
        request
    }

    async fn fetch<T>(
        &self,
        request: Request,
        decode: impl FnOnce(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<Reply<T>, SourceError> {
        let answer = self.send(request).await?;
        let value = decode(&answer.body).map_err(|error| {
            let from = self.http.name(answer.from);
            SourceError::Protocol(format!("{from} does not speak Consul's API: {error}"))
        })?;
        Ok(Reply {
            value,
            index: number(&answer.headers, "x-consul-index"),
            evidence: self.evidence(&answer.headers),
            denies: denies(&answer.headers),
        })
    }

    /// Sends, and sends again while Consul's rate limit asks for patience.
    async fn send(&self, request: Request) -> Result<Answer, SourceError> {
        let request = self.authorized(request)?;
        let mut backoff = Backoff::new(REFUSED.0, REFUSED.1);
        let mut tries = 1;
        loop {
            // With this request: while all is quiet, that shows the ones that wait.
            let open = self.http.in_flight() + 1;
            self.health.traffic(open, self.http.requests() + 1);
            let answer = self.http.send(&request).await.map_err(unreachable)?;
            self.health.contact();
            if !is_rate_limited(&answer) || tries == TRIES {
                return self.judge(answer);
            }
            tries += 1;
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    fn authorized(&self, request: Request) -> Result<Request, SourceError> {
        let Some(file) = self.token else {
            return Ok(request);
        };
        let token = file
            .read()
            .map_err(|error| SourceError::Config(error.to_string()))?;
        let mut value = HeaderValue::try_from(token).map_err(|_| {
            let path = file.path().display();
            SourceError::Config(format!("the credential file {path} holds no ACL token"))
        })?;
        value.set_sensitive(true);
        Ok(request.header(HeaderName::from_static("x-consul-token"), value))
    }

    fn judge(&self, answer: Answer) -> Result<Answer, SourceError> {
        let status = answer.status;
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let from = self.http.name(answer.from);
        let text = format!("{from} answers {status}: {}", said(&answer.body));
        Err(match status.as_u16() {
            401 | 403 => SourceError::Denied(match self.token {
                Some(file) => format!("{text} (token from {})", file.path().display()),
                None => format!("{text} (no token is configured)"),
            }),
            400 => SourceError::Config(text),
            300..=428 | 430..=499 => SourceError::Protocol(text),
            _ => {
                self.http.fail_over(answer.from);
                SourceError::Transport(text)
            }
        })
    }

    fn evidence(&self, headers: &HeaderMap) -> Evidence {
        // First, since it is the greater doubt: what is in the answer may be wrong, too.
        if let Some(why) = staleness(headers) {
            return Evidence::Stale(why.into());
        }
        let doubt = if is(headers, "x-consul-results-filtered-by-acls", "true") {
            "the token may not read everything (X-Consul-Results-Filtered-By-ACLs)"
        } else if denies(headers) && self.anonymous.load(Ordering::Relaxed) {
            "Consul denies by default and no valid token is sent"
        } else {
            return Evidence::Complete;
        };
        Evidence::Partial(doubt.into())
    }
}

/// Why an answer may be of long ago, if it may. Only agents with `discovery_max_stale` answer so to plain reads.
fn staleness(headers: &HeaderMap) -> Option<String> {
    // The streaming backend never says that there is a leader.
    if is(headers, "x-consul-knownleader", "false")
        && !is(headers, "x-consul-query-backend", "streaming")
    {
        return Some("Consul has no leader".to_owned());
    }
    let age = Duration::from_millis(number(headers, "x-consul-lastcontact")?);
    (age > FRESH).then(|| {
        let seconds = age.as_secs_f32();
        format!(
            "the server that answered heard of its leader {seconds} s ago (X-Consul-LastContact)"
        )
    })
}

/// 429, or 503 for what only the leader can answer.
fn is_rate_limited(answer: &Answer) -> bool {
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE => answer.body.starts_with(b"rate limit"),
        _ => false,
    }
}

fn denies(headers: &HeaderMap) -> bool {
    is(headers, "x-consul-default-acl-policy", "deny")
}

fn is(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers.get(name).is_some_and(|found| found == value)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn an_answer_is_stale_without_a_leader_or_long_after_one() {
        const LEADER: &str = "x-consul-knownleader";
        const CONTACT: &str = "x-consul-lastcontact";
        for (pairs, stale) in [
            (&[][..], false),
            (&[(LEADER, "true"), (CONTACT, "0")], false),
            (&[(LEADER, "true"), (CONTACT, "5000")], false),
            (&[(LEADER, "true"), (CONTACT, "5001")], true),
            (&[(LEADER, "true"), (CONTACT, "soon")], false),
            (&[(LEADER, "false"), (CONTACT, "0")], true),
            (
                &[(LEADER, "false"), ("x-consul-query-backend", "streaming")],
                false,
            ),
        ] {
            assert_eq!(staleness(&headers(pairs)).is_some(), stale, "{pairs:?}");
        }
    }
}
