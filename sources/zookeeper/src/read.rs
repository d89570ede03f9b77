//! Reading one target.

use bytes::Bytes;
use diolkos_source_api::SourceError;
use diolkos_zk::{Connection, Error};

use crate::layout::{Layout, Target};

/// What a target holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The names of the children.
    Names(Vec<String>),
    /// The data.
    Data(Bytes),
    /// There is no such node.
    Nothing,
}

/// Reads targets over one connection.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) layout: &'a Layout,
    /// Whether each read has to leave a watch behind, since there are none that stay.
    pub(crate) one_shot: bool,
}

impl Reader<'_> {
    /// What a target holds now.
    ///
    /// # Errors
    /// [`Error`]; of one that concerns this target only there is [`trouble`] to tell.
    pub(crate) async fn read(&self, target: &Target) -> Result<Found, Error> {
        let path = self.layout.path(target);
        loop {
            match self.look(target, &path).await {
                // It can have come since, and then this watch does not tell what is in it.
                Err(Error::NoNode { .. })
                    if self.one_shot
                        && target.comes_unannounced()
                        && self.connection.exists(&path, true).await? => {}
                Err(Error::NoNode { .. }) => return Ok(Found::Nothing),
                found => return found,
            }
        }
    }

    async fn look(&self, target: &Target, path: &str) -> Result<Found, Error> {
        if target.is_list() {
            let children = self.connection.children(path, self.one_shot).await?;
            Ok(Found::Names(children.names))
        } else {
            let data = self.connection.data(path, self.one_shot).await?;
            Ok(Found::Data(data))
        }
    }
}

/// What is wrong with one node and what to do about it, if the error concerns no others.
pub(crate) fn trouble(error: &Error) -> Option<String> {
    match error {
        Error::NoAuth { .. } => Some(format!(
            "{error}; grant it the permission to read, or leave it out in the selection"
        )),
        Error::TooLarge { .. } => Some(format!(
            "{error}; raise the limit here and the servers' jute.maxbuffer"
        )),
        Error::NoNode { .. } | Error::InvalidPath { .. } | Error::Server { .. } => {
            Some(error.to_string())
        }
        Error::Connection(_)
        | Error::AuthFailed(_)
        | Error::Config(_)
        | Error::Unsupported(_)
        | Error::Protocol(_) => None,
    }
}

/// What an error means that ends the connection.
pub(crate) fn fatal(error: &Error) -> SourceError {
    match error {
        Error::Connection(_) => SourceError::Transport(error.to_string()),
        Error::AuthFailed(_) => SourceError::Denied(error.to_string()),
        Error::NoAuth { .. } => {
            SourceError::Denied(trouble(error).unwrap_or_else(|| error.to_string()))
        }
        Error::TooLarge { .. } => {
            SourceError::Config(trouble(error).unwrap_or_else(|| error.to_string()))
        }
        Error::Config(_) => SourceError::Config(error.to_string()),
        Error::InvalidPath { .. } => SourceError::Config(error.to_string()),
        Error::NoNode { .. }
        | Error::Server { .. }
        | Error::Unsupported(_)
        | Error::Protocol(_) => SourceError::Protocol(error.to_string()),
    }
}
