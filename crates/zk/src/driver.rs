//! The task that owns a connection: requests out, replies and events in, pings, and the end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use crate::{
    Error,
    error::Fault,
    greeting::silence,
    messages::{self, Answer, Ask, Header, code, xid},
    path::Chroot,
    session::{State, lock},
    splitter::Frame,
    wire::Wire,
};

/// How many requests are under way at once. A server stops reading at 1,000 of all its clients
/// (`globalOutstandingLimit`).
pub(crate) const WINDOW: usize = 256;

/// A request, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    /// With the chroot.
    pub(crate) path: String,
    pub(crate) reply: oneshot::Sender<Result<Answer, Error>>,
}

/// Requests that were sent, and what comes back. No I/O.
pub(crate) struct Exchange {
    pub(crate) chroot: Chroot,
    pub(crate) state: Arc<Mutex<State>>,
    /// Rings when there are changes.
    pub(crate) bell: Arc<Notify>,
    /// The largest answer that is accepted.
    pub(crate) limit: usize,
    xid: i32,
    /// In the order in which they were sent, which is that of the replies.
    pending: VecDeque<(i32, Request)>,
}

impl Exchange {
    pub(crate) fn new(
        chroot: Chroot,
        state: Arc<Mutex<State>>,
        bell: Arc<Notify>,
        limit: usize,
    ) -> Self {
        Self {
            chroot,
            state,
            bell,
            limit,
            xid: 0,
            pending: VecDeque::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= WINDOW
    }

    /// Writes a request, unless nobody waits for it any more.
    pub(crate) fn send(&mut self, request: Request, out: &mut BytesMut) {
        if request.reply.is_closed() {
            return;
        }
        self.xid = self.xid.checked_add(1).unwrap_or(1);
        request.ask.write(out, self.xid, &request.path);
        self.pending.push_back((self.xid, request));
    }

    /// Takes what the server sent.
    pub(crate) fn take(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        let (bytes, large) = match *frame {
            Frame::Whole(bytes) => (bytes, None),
            Frame::Large { head, bytes } => (head, Some(bytes)),
        };
        let (header, body) = Header::read(bytes)?;
        match header.xid {
            xid::PING => Ok(()),
            xid::EVENT if large.is_none() => self.event(body),
            xid::AUTH if header.code != code::OK => Err(refused(header.code)),
            _ => self.reply(header, body, large),
        }
    }

    fn event(&mut self, body: &[u8]) -> Result<(), Fault> {
        if let Some((kind, path)) = messages::event(body)?
            && lock(&self.state).notice(&self.chroot, kind, path)
        {
            self.bell.notify_one();
        }
        Ok(())
    }

    fn reply(&mut self, header: Header, body: &[u8], large: Option<usize>) -> Result<(), Fault> {
        let Some((_, request)) = self.pending.pop_front_if(|(xid, _)| *xid == header.xid) else {
            let problem = format!("a reply to {}, which is not the next request", header.xid);
            return Err(Fault::Protocol(problem));
        };
        self.note(&request, header);
        let Request { ask, path, reply } = request;
        let path = self.chroot.strip(&path).unwrap_or(&path).to_owned();
        let answer = match (header.code, large) {
            (code::OK, Some(bytes)) => Err(Error::TooLarge {
                path,
                bytes,
                limit: self.limit,
            }),
            (code::OK, None) => Ok(ask.read(body)?),
            (code, _) => Err(failure(ask, path, code)?),
        };
        if reply.send(answer).is_err() {
            tracing::trace!("nobody waits for the answer any more");
        }
        Ok(())
    }

    /// Remembers what the reply says of the session: before anybody sees the answer, and before the next event.
    fn note(&self, request: &Request, header: Header) {
        let mut state = lock(&self.state);
        state.saw(header.zxid);
        if let Some(kind) = request.ask.watch(header.code) {
            state.watches.insert(kind, &request.path);
        }
        if header.code == code::UNIMPLEMENTED && matches!(request.ask, Ask::AddWatch(_)) {
            state.no_add_watch = true;
        }
    }
}

/// What an error code says of the request, unless it ends the connection.
fn failure(ask: Ask, path: String, code: i32) -> Result<Error, Fault> {
    Ok(match code {
        code::NO_NODE => Error::NoNode { path },
        code::NO_AUTH => Error::NoAuth { path },
        code::UNIMPLEMENTED => Error::Unsupported(match ask {
            Ask::AddWatch(_) => "addWatch",
            Ask::Children { .. } => "getChildren",
            Ask::Data { .. } => "getData",
            Ask::Exists { .. } => "exists",
            Ask::Sync => "sync",
        }),
        code::AUTH_FAILED | code::AUTH_REQUIRED => return Err(refused(code)),
        code::SESSION_EXPIRED => return Err(Fault::Broken("the session has expired".to_owned())),
        code::SESSION_MOVED => {
            let why = "the session has moved to another connection";
            return Err(Fault::Broken(why.to_owned()));
        }
        code => Error::Server { path, code },
    })
}

fn refused(code: i32) -> Fault {
    Fault::Refused(match code {
        code::AUTH_REQUIRED => "the server demands another scheme (error -124)".to_owned(),
        code => format!("error {code} of the server"),
    })
}

/// The task.
pub(crate) struct Driver {
    pub(crate) wire: Wire,
    pub(crate) exchange: Exchange,
    /// Ends when all who could ask, or who wait for changes, are gone.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// When the server was heard.
    pub(crate) contact: watch::Sender<std::time::Instant>,
    pub(crate) ending: Ending,
    /// The session's life without contact.
    pub(crate) timeout: Duration,
}

impl Driver {
    pub(crate) async fn run(mut self) {
        match self.serve().await {
            Ok(()) => tracing::debug!(
                server = &*self.ending.server,
                "zookeeper connection dropped"
            ),
            Err(fault) => {
                tracing::debug!(
                    server = &*self.ending.server,
                    ?fault,
                    "zookeeper connection broken"
                );
                // Before those who wait lose their answers' senders.
                self.ending.because(fault);
            }
        }
    }

    /// Runs until nobody is left to serve.
    async fn serve(&mut self) -> Result<(), Fault> {
        let Self {
            wire,
            exchange,
            requests,
            ..
        } = self;
        let (inbound, outbound) = (&mut wire.inbound, &mut wire.outbound);
        let mut sent = Instant::now();
        let mut heard = sent;
        loop {
            while let Some(frame) = inbound.splitter.next()? {
                exchange.take(&frame)?;
            }
            // In this order: what is due is sent however much comes, and the server is silent only if there is
            // nothing to read (it is not if it was us who were stopped).
            tokio::select! {
                biased;
                () = sleep_until(sent + self.timeout / 3) => {
                    messages::ping(&mut outbound.buffer);
                    sent = Instant::now();
                }
                pushed = outbound.push(), if !outbound.is_idle() => pushed?,
                filled = inbound.fill() => {
                    filled?;
                    heard = Instant::now();
                    self.contact.send_replace(heard.into_std());
                }
                request = requests.recv(), if !exchange.is_full() => {
                    let Some(request) = request else {
                        return Ok(());
                    };
                    exchange.send(request, &mut outbound.buffer);
                    while !exchange.is_full() && let Ok(request) = requests.try_recv() {
                        exchange.send(request, &mut outbound.buffer);
                    }
                    // Else nobody waited for them.
                    if !outbound.buffer.is_empty() {
                        sent = Instant::now();
                    }
                }
                () = sleep_until(heard + silence(self.timeout)) => {
                    let silence = silence(self.timeout);
                    return Err(Fault::Broken(format!("the server was silent for {silence:?}")));
                }
            }
        }
    }
}

/// Says why the connection ended, whatever ended it.
pub(crate) struct Ending {
    pub(crate) server: Arc<str>,
    pub(crate) closed: watch::Sender<Option<Error>>,
}

impl Ending {
    fn because(&self, fault: Fault) {
        self.closed.send_replace(Some(fault.at(&self.server)));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.closed.borrow().is_none() {
            self.because(Fault::Broken("the connection was given up".to_owned()));
        }
    }
}
