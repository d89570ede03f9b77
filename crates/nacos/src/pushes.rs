//! What a server sends on its own.

use std::{collections::VecDeque, fmt};

use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use crate::{
    Connection, DEADLINE, Error, Push,
    connection::Inbound,
    proto::Payload,
    push::{Content, Message},
};

/// What the server of a connection sends on its own. While nobody asks for it, the server waits:
/// nothing is gathered here.
pub struct Pushes {
    connection: Connection,
    stream: Stream,
    answers: mpsc::Sender<Payload>,
    /// Not taken yet.
    pushes: VecDeque<Push>,
    /// Whether the server has the fuzzy watch, if it said what it has.
    fuzzy_watch: Option<bool>,
    /// Ends when the server does not answer any more.
    beat: Option<AbortOnDropHandle<Error>>,
}

enum Stream {
    Opening(Inbound),
    Open(Box<Streaming<Payload>>),
    Over,
}

impl Pushes {
    pub(crate) fn new(
        connection: Connection,
        answers: mpsc::Sender<Payload>,
        inbound: Inbound,
    ) -> Self {
        Self {
            connection,
            stream: Stream::Opening(inbound),
            answers,
            pushes: VecDeque::new(),
            fuzzy_watch: None,
            beat: None,
        }
    }

    /// The next push. It is acknowledged before it is returned. Nothing is lost if the future is
    /// dropped before it is ready.
    ///
    /// # Errors
    /// The connection is of no more use: it broke, the server does not answer or sent us away
    /// ([`Error::Transport`]), or what it says makes no sense ([`Error::Protocol`]).
    pub async fn next(&mut self) -> Result<Push, Error> {
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return Ok(push);
            }
            self.receive().await?;
        }
    }

    /// Receives until there is an error.
    pub(crate) async fn fail(&mut self) -> Error {
        loop {
            if let Err(error) = self.receive().await {
                return error;
            }
        }
    }

    /// Waits for what a server says it has. Returns whether that is the fuzzy watch.
    pub(crate) async fn abilities(&mut self) -> Result<bool, Error> {
        loop {
            if let Some(fuzzy_watch) = self.fuzzy_watch {
                return Ok(fuzzy_watch);
            }
            self.receive().await?;
        }
    }

    /// Begins to ask the server whether it is still there.
    pub(crate) fn watch_over(&mut self) {
        let connection = self.connection.clone();
        let beat = tokio::spawn(async move { connection.beat().await });
        self.beat = Some(AbortOnDropHandle::new(beat));
    }

    /// Receives one message, or what ends the stream.
    async fn receive(&mut self) -> Result<(), Error> {
        let received = self.message().await;
        if received.is_err() {
            self.stream = Stream::Over;
        }
        received
    }

    async fn message(&mut self) -> Result<(), Error> {
        // First a place for the answer: between the message and the answer nothing is waited for.
        // No place because the stream has ended is told by the stream.
        let place = timeout(DEADLINE, self.answers.reserve()).await;
        let place = place
            .map_err(|_| self.connection.lost("does not read answers"))?
            .ok();
        let payload = tokio::select! {
            payload = self.stream.next(&self.connection) => payload?,
            Some(error) = ended(&mut self.beat) => return Err(error),
        };
        self.connection.heard();
        let message = Message::read(&payload)
            .inspect_err(|_| tracing::debug!(kind = payload.kind(), "a message makes no sense"))?;
        if let (Some(place), Some(answer)) = (place, message.answer) {
            place.send(answer);
        }
        match message.content {
            Content::Pushes(pushes) => self.pushes.extend(pushes),
            Content::SetUp { fuzzy_watch } => self.fuzzy_watch = Some(fuzzy_watch),
            Content::Reset(why) => {
                let what = format!("the server ends the connection: {why}");
                return Err(self.connection.lost(&what));
            }
        }
        Ok(())
    }
}

/// The error that ended a task, unless there is no task.
async fn ended(beat: &mut Option<AbortOnDropHandle<Error>>) -> Option<Error> {
    let error = beat.as_mut()?.await;
    *beat = None;
    match error {
        Ok(error) => Some(error),
        Err(error) => Some(Error::Transport(format!("the health check ended: {error}"))),
    }
}

impl Stream {
    async fn next(&mut self, connection: &Connection) -> Result<Payload, Error> {
        loop {
            let stream = match self {
                Self::Opening(inbound) => match inbound.await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(status)) => return Err(connection.broken(&status)),
                    Err(error) => return Err(connection.lost(&error.to_string())),
                },
                Self::Open(stream) => {
                    return match stream.message().await {
                        Ok(Some(payload)) => Ok(payload),
                        Ok(None) => Err(connection.lost("the server ended the stream")),
                        Err(status) => Err(connection.broken(&status)),
                    };
                }
                Self::Over => return Err(connection.lost("the connection is over")),
            };
            *self = Self::Open(Box::new(stream));
        }
    }
}

impl fmt::Debug for Pushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pushes")
            .field("server", &self.connection.server())
            .finish_non_exhaustive()
    }
}
