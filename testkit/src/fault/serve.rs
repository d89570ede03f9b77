//! The connections of the proxy.

use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, EXPECT, HOST};
use axum::http::{Request, Response};
use futures::stream;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::rules::strip;
use super::{Fault, Logged, Moment, Shared};
use crate::lock;

/// Time for the bytes before a break to leave: what is not sent by then is lost, as on a real wire.
const FLUSH: Duration = Duration::from_millis(20);

/// Accepts until aborted.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(connection(stream, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
            else => return,
        }
    }
}

/// Serves one connection, and ends it with a reset if a fault or the test asks for one.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let reset = Arc::new(AtomicBool::new(false));
    let mut cuts = shared.cuts.subscribe();
    let before = *cuts.borrow_and_update();
    let service =
        service_fn(|request| Box::pin(answer(Arc::clone(&shared), Arc::clone(&reset), request)));
    let mut http = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // An error is the end of this connection, on either side; clients see it themselves.
        _ = poll_fn(|cx| http.poll_without_shutdown(cx)) => {}
        _ = cuts.wait_for(|cuts| *cuts != before) => reset.store(true, Ordering::SeqCst),
    }
    let stream = http.into_parts().io.into_inner();
    if reset.load(Ordering::SeqCst) {
        // If the socket is gone already, the client has seen an end.
        stream.set_zero_linger().ok();
    }
}

/// One request. An error ends the connection without a word.
async fn answer(
    shared: Arc<Shared>,
    reset: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let exchange = Exchange::begin(shared, &request);
    let answered = exchange.run(request).await;
    match &answered {
        Ok(response) => exchange.note(|logged| logged.told = Some(response.status().as_u16())),
        Err(_) => reset.store(true, Ordering::SeqCst),
    }
    answered
}

/// One request and its line of the log.
struct Exchange {
    shared: Arc<Shared>,
    line: usize,
}

impl Exchange {
    fn begin(shared: Arc<Shared>, request: &Request<Incoming>) -> Self {
        let mut log = lock(&shared.log);
        log.push(Logged {
            method: request.method().clone(),
            path: path(request),
            told: None,
            server: None,
        });
        let line = log.len() - 1;
        drop(log);
        Self { shared, line }
    }

    fn note(&self, note: impl FnOnce(&mut Logged)) {
        note(&mut lock(&self.shared.log)[self.line]);
    }

    async fn run(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let hook = self.shared.hook(request.method());
        let Some(hook) = hook else {
            return self.meet_rules(request).await;
        };
        if hook.moment == Moment::After {
            read_to_end(self.forward(request).await?).await?;
        }
        hook.act().await;
        Err(broken("a hook took the place of the answer"))
    }

    async fn meet_rules(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        for rule in self.shared.plan(request.method(), &path(&request)) {
            match rule.fault() {
                Fault::Delay(time) => sleep(*time).await,
                Fault::Reply(reply) => return Ok(reply.response()),
                Fault::Cut(most) => {
                    let answer = self.forward(request).await?;
                    return Ok(pass(answer, Some(*most)));
                }
                Fault::Hang => rule.until_ended().await,
                Fault::HalfOpen => pending().await,
                Fault::Reset => return Err(broken("a rule resets the connection")),
                Fault::LoseReply => {
                    read_to_end(self.forward(request).await?).await?;
                    return Err(broken("a rule loses the reply"));
                }
            }
        }
        Ok(pass(self.forward(request).await?, None))
    }

    /// Sends the request to the server and waits for the head of its answer.
    async fn forward(&self, request: Request<Incoming>) -> io::Result<reqwest::Response> {
        let url = format!("{}{}", self.shared.target, path(&request));
        let (mut head, body) = request.into_parts();
        strip(&mut head.headers);
        for name in [HOST, CONTENT_LENGTH, EXPECT] {
            head.headers.remove(name);
        }
        let body = axum::body::to_bytes(Body::new(body), usize::MAX)
            .await
            .map_err(io::Error::other)?;
        let mut forwarded = self.shared.client.request(head.method, url);
        if !body.is_empty() {
            forwarded = forwarded.body(body);
        }
        let answer = forwarded.headers(head.headers).send().await;
        let answer = answer.map_err(io::Error::other)?;
        self.note(|logged| logged.server = Some(answer.status().as_u16()));
        Ok(answer)
    }
}

fn path(request: &Request<Incoming>) -> String {
    let path = request.uri().path_and_query();
    path.map_or("/", |path| path.as_str()).to_owned()
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, why)
}

async fn read_to_end(answer: reqwest::Response) -> io::Result<()> {
    answer.bytes().await.map_err(io::Error::other)?;
    Ok(())
}

/// Passes an answer on as it comes, and with `most` breaks off after so many bytes of the body.
fn pass(mut answer: reqwest::Response, most: Option<usize>) -> Response<Body> {
    let mut response = Response::new(());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    strip(response.headers_mut());
    let body = stream::unfold(
        Passing {
            answer,
            most,
            cut: false,
        },
        |mut passing| async {
            let piece = passing.next().await.transpose()?;
            Some((piece, passing))
        },
    );
    response.map(|()| Body::from_stream(body))
}

/// A body on its way.
struct Passing {
    answer: reqwest::Response,
    /// How many bytes may still pass, if not all.
    most: Option<usize>,
    /// Whether there was more than that.
    cut: bool,
}

impl Passing {
    /// The next piece of the body, `None` at its end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.cut {
            sleep(FLUSH).await;
            return Err(broken("the answer is cut"));
        }
        let Some(mut piece) = self.answer.chunk().await.map_err(io::Error::other)? else {
            return Ok(None);
        };
        if let Some(most) = &mut self.most {
            self.cut = piece.len() > *most;
            piece.truncate(*most);
            *most -= piece.len();
        }
        Ok(Some(piece))
    }
}
