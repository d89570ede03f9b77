/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot work.
    #[error("{0}")]
    Config(String),
    /// The server refuses us, also with a new token.
    #[error("access denied: {0}")]
    Denied(String),
    /// No connection, or it broke, or the server sent us away.
    #[error("{0}")]
    Transport(String),
    /// The server cannot do that: it is of another version.
    #[error("{0}")]
    Unsupported(String),
    /// The server answers with an error; others may have an answer.
    #[error("{0}")]
    Refused(String),
    /// An answer that makes no sense.
    #[error("{0}")]
    Protocol(String),
}
