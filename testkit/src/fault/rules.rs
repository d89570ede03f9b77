//! Which requests, what happens to them, and how often it did.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use tokio::sync::watch;

use super::{Fault, Moment, Shared};
use crate::lock;

type Test = dyn Fn(&Method, &str) -> bool + Send + Sync;

/// Which requests a rule takes.
#[derive(Clone)]
pub struct On {
    tests: Vec<Arc<Test>>,
    skip: usize,
    take: usize,
}

impl On {
    /// Every request.
    #[must_use]
    pub fn every() -> Self {
        Self {
            tests: Vec::new(),
            skip: 0,
            take: usize::MAX,
        }
    }

    /// Requests that change nothing: all but those of [`writes`](Self::writes).
    #[must_use]
    pub fn reads() -> Self {
        Self::every().test(|method, _| !is_write(method))
    }

    /// POST, PUT, PATCH and DELETE.
    #[must_use]
    pub fn writes() -> Self {
        Self::every().test(|method, _| is_write(method))
    }

    /// Only one method.
    #[must_use]
    pub fn method(self, method: Method) -> Self {
        self.test(move |of, _| *of == method)
    }

    /// Only requests whose path, with its query, contains this text.
    #[must_use]
    pub fn path(self, part: &str) -> Self {
        let part = part.to_owned();
        self.test(move |_, path| path.contains(&part))
    }

    /// Only requests of which `test` is true; it sees the method, and the path with its query.
    #[must_use]
    pub fn test(mut self, test: impl Fn(&Method, &str) -> bool + Send + Sync + 'static) -> Self {
        self.tests.push(Arc::new(test));
        self
    }

    /// Only the `n`-th of these requests, counted from 1 since the rule was added.
    #[must_use]
    pub fn nth(self, n: usize) -> Self {
        self.skip(n.saturating_sub(1)).first(1)
    }

    /// Only the next `count` of these requests.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.take = count;
        self
    }

    /// Not the next `count` of these requests.
    #[must_use]
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    fn matches(&self, method: &Method, path: &str) -> bool {
        self.tests.iter().all(|test| test(method, path))
    }
}

impl fmt::Debug for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("On")
            .field("tests", &self.tests.len())
            .field("skip", &self.skip)
            .field("take", &self.take)
            .finish()
    }
}

pub(super) fn is_write(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
}

/// A rule that was added to a proxy.
#[derive(Debug)]
pub struct Rule(pub(super) Arc<Entry>);

impl Rule {
    /// How many requests it was done to.
    pub fn hits(&self) -> usize {
        self.0.hits.load(Ordering::SeqCst)
    }

    /// Ends the rule. Requests that [`Fault::Hang`] holds go on.
    pub fn end(&self) {
        self.0.end();
    }
}

/// A rule, as the proxy has it.
#[derive(Debug)]
pub(super) struct Entry {
    on: On,
    fault: Fault,
    seen: AtomicUsize,
    hits: AtomicUsize,
    ended: watch::Sender<bool>,
}

impl Entry {
    pub(super) fn new(on: On, fault: Fault) -> Self {
        Self {
            on,
            fault,
            seen: AtomicUsize::new(0),
            hits: AtomicUsize::new(0),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(super) fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Waits for [`end`](Self::end).
    pub(super) async fn until_ended(&self) {
        // The sender lives in `self`, so there is always an answer.
        self.ended.subscribe().wait_for(|ended| *ended).await.ok();
    }

    /// Whether the rule takes this request; counts it.
    fn takes(&self, method: &Method, path: &str) -> bool {
        if *self.ended.borrow() || !self.on.matches(method, path) {
            return false;
        }
        let place = self.seen.fetch_add(1, Ordering::SeqCst);
        let takes = place >= self.on.skip && place - self.on.skip < self.on.take;
        if takes {
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
        takes
    }
}

impl Shared {
    /// The rules that a request meets: delays, and what decides.
    pub(super) fn plan(&self, method: &Method, path: &str) -> Vec<Arc<Entry>> {
        let mut plan = Vec::new();
        for entry in lock(&self.rules).iter() {
            if !entry.takes(method, path) {
                continue;
            }
            plan.push(Arc::clone(entry));
            if !matches!(entry.fault, Fault::Delay(_)) {
                break;
            }
        }
        plan
    }

    /// Counts a write; takes out the hook whose turn it is.
    pub(super) fn hook(&self, method: &Method) -> Option<Hook> {
        if !is_write(method) {
            return None;
        }
        let mut hooks = lock(&self.hooks);
        for hook in hooks.iter_mut() {
            hook.left = hook.left.saturating_sub(1);
        }
        let due = hooks.iter().position(|hook| hook.left == 0)?;
        Some(hooks.swap_remove(due))
    }
}

/// What is to be done at a write.
pub(super) struct Hook {
    left: usize,
    pub(super) moment: Moment,
    act: Box<dyn FnOnce() + Send>,
}

impl Hook {
    pub(super) fn new(n: usize, moment: Moment, act: Box<dyn FnOnce() + Send>) -> Self {
        Self {
            left: n.max(1),
            moment,
            act,
        }
    }

    /// Does it; it may block, as waiting for the end of a process does.
    pub(super) async fn act(self) {
        if let Err(error) = tokio::task::spawn_blocking(self.act).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// An answer: made up, or what the server said earlier ([`HttpFault::record`](super::HttpFault::record)).
#[derive(Debug, Clone)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    /// An answer of this status with no body.
    ///
    /// # Panics
    /// When it is no HTTP status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("an HTTP status"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Sets a header.
    ///
    /// # Panics
    /// When the name or the value cannot be a header's.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("the name of a header");
        let value = HeaderValue::try_from(value).expect("the value of a header");
        self.headers.insert(name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// A Kubernetes `Status` object with this code and reason, such as 409 and `Conflict`.
    #[must_use]
    pub fn kubernetes(code: u16, reason: &str) -> Self {
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": format!("injected by the fault proxy: {reason}"), "reason": reason, "code": code,
        });
        Self::status(code)
            .header("content-type", "application/json")
            .body(status.to_string())
    }

    pub(super) async fn of(answer: reqwest::Response) -> Result<Self> {
        let mut headers = answer.headers().clone();
        strip(&mut headers);
        Ok(Self {
            status: answer.status(),
            headers,
            body: answer.bytes().await?,
        })
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// Removes the headers that are about one connection and not about the message.
pub(super) fn strip(headers: &mut HeaderMap) {
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
}
