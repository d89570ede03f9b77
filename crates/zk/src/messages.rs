//! Requests and answers: their numbers, how they are written and read. All of it is pure.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{
    WatchMode,
    jute::{self, Malformed, Reader, put_buffer, put_strings},
    watches::{Kind, Watch},
};

/// Transaction ids of what is no ordinary request.
pub(crate) mod xid {
    pub(crate) const EVENT: i32 = -1;
    pub(crate) const PING: i32 = -2;
    pub(crate) const AUTH: i32 = -4;
    pub(crate) const SET_WATCHES: i32 = -8;
}

/// Error codes of replies that mean something to us.
pub(crate) mod code {
    pub(crate) const OK: i32 = 0;
    pub(crate) const UNIMPLEMENTED: i32 = -6;
    pub(crate) const NO_NODE: i32 = -101;
    pub(crate) const NO_AUTH: i32 = -102;
    pub(crate) const SESSION_EXPIRED: i32 = -112;
    pub(crate) const AUTH_FAILED: i32 = -115;
    pub(crate) const SESSION_MOVED: i32 = -118;
    /// The server demands an authentication that we do not have, and hangs up.
    pub(crate) const AUTH_REQUIRED: i32 = -124;
}

mod opcode {
    pub(super) const EXISTS: i32 = 3;
    pub(super) const GET_DATA: i32 = 4;
    pub(super) const GET_CHILDREN: i32 = 8;
    pub(super) const SYNC: i32 = 9;
    pub(super) const PING: i32 = 11;
    pub(super) const AUTH: i32 = 100;
    pub(super) const SET_WATCHES: i32 = 101;
    pub(super) const SET_WATCHES_2: i32 = 105;
    pub(super) const ADD_WATCH: i32 = 106;
}

/// What a client shows to go on with a session. All zero for a new one.
#[derive(Clone, Default)]
pub(crate) struct Ticket {
    pub(crate) id: i64,
    pub(crate) password: Vec<u8>,
    /// The newest transaction seen: a server that is behind it refuses us.
    pub(crate) zxid: i64,
}

/// A session, as the server grants it.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) id: i64,
    pub(crate) password: Vec<u8>,
    pub(crate) timeout: Duration,
}

/// Asks for a session.
pub(crate) fn hello(out: &mut BytesMut, ticket: &Ticket, timeout: Duration) {
    jute::frame(out, |out| {
        out.put_i32(0);
        out.put_i64(ticket.zxid);
        out.put_i32(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
        out.put_i64(ticket.id);
        match ticket.password.as_slice() {
            [] => put_buffer(out, &[0; 16]),
            password => put_buffer(out, password),
        }
        // We are not content with a server that has lost the others.
        out.put_u8(0);
    });
}

/// Reads the answer to [`hello`]: nothing if the session has expired.
pub(crate) fn grant(frame: &[u8]) -> Result<Option<Grant>, Malformed> {
    let mut reader = Reader(frame);
    if reader.int()? != 0 {
        return Err(Malformed("the greeting is not ZooKeeper's"));
    }
    let timeout = reader.int()?;
    let id = reader.long()?;
    let password = reader.buffer()?;
    if password.len() > 64 {
        return Err(Malformed("the session's password is too long"));
    }
    Ok(match u64::try_from(timeout) {
        Ok(timeout @ 1..) if id != 0 => Some(Grant {
            id,
            password: password.to_vec(),
            timeout: Duration::from_millis(timeout),
        }),
        _ => None,
    })
}

/// Shows `user:password`.
pub(crate) fn auth(out: &mut BytesMut, credentials: &[u8]) {
    jute::frame(out, |out| {
        out.put_i32(xid::AUTH);
        out.put_i32(opcode::AUTH);
        out.put_i32(0);
        put_buffer(out, b"digest");
        put_buffer(out, credentials);
    });
}

pub(crate) fn ping(out: &mut BytesMut) {
    jute::frame(out, |out| {
        out.put_i32(xid::PING);
        out.put_i32(opcode::PING);
    });
}

/// Sets watches again. One-shot ones whose node changed after `zxid` fire at once.
pub(crate) fn set_watches(out: &mut BytesMut, zxid: i64, watches: &[Watch]) {
    let list = |out: &mut BytesMut, kind: Kind| {
        let paths: Vec<&str> = watches
            .iter()
            .filter(|watch| watch.kind == kind)
            .map(|watch| &*watch.path)
            .collect();
        put_strings(out, paths.into_iter());
    };
    // Servers before 3.6 know the first request only, and have no other watches.
    let lasting = watches.iter().any(|watch| watch.kind >= Kind::Persistent);
    jute::frame(out, |out| {
        out.put_i32(xid::SET_WATCHES);
        out.put_i32(if lasting {
            opcode::SET_WATCHES_2
        } else {
            opcode::SET_WATCHES
        });
        out.put_i64(zxid);
        for kind in [Kind::Data, Kind::Exists, Kind::Children] {
            list(out, kind);
        }
        if lasting {
            list(out, Kind::Persistent);
            list(out, Kind::Recursive);
        }
    });
}

/// An ordinary request about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Children { watch: bool },
    Data { watch: bool },
    Exists { watch: bool },
    Sync,
    AddWatch(WatchMode),
}

/// The answer to an [`Ask`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Children(Vec<String>),
    Data(Bytes),
    Done,
}

impl Ask {
    pub(crate) fn write(self, out: &mut BytesMut, xid: i32, path: &str) {
        let opcode = match self {
            Self::Children { .. } => opcode::GET_CHILDREN,
            Self::Data { .. } => opcode::GET_DATA,
            Self::Exists { .. } => opcode::EXISTS,
            Self::Sync => opcode::SYNC,
            Self::AddWatch(_) => opcode::ADD_WATCH,
        };
        jute::frame(out, |out| {
            out.put_i32(xid);
            out.put_i32(opcode);
            put_buffer(out, path.as_bytes());
            match self {
                Self::Children { watch } | Self::Data { watch } | Self::Exists { watch } => {
                    out.put_u8(watch.into());
                }
                Self::Sync => {}
                Self::AddWatch(WatchMode::Persistent) => out.put_i32(0),
                Self::AddWatch(WatchMode::PersistentRecursive) => out.put_i32(1),
            }
        });
    }

    /// Reads what is behind the header of a reply without an error. What comes after the part that is of use (the
    /// node's numbers) is not looked at.
    pub(crate) fn read(self, body: &[u8]) -> Result<Answer, Malformed> {
        let mut body = Reader(body);
        Ok(match self {
            Self::Children { .. } => Answer::Children(body.strings()?),
            // A copy: the buffer is not kept alive by it.
            Self::Data { .. } => Answer::Data(Bytes::copy_from_slice(body.buffer()?)),
            Self::Exists { .. } | Self::Sync | Self::AddWatch(_) => Answer::Done,
        })
    }

    /// The watch that the server has after this answer.
    pub(crate) fn watch(self, code: i32) -> Option<Kind> {
        match (self, code) {
            (Self::Children { watch: true }, code::OK) => Some(Kind::Children),
            (Self::Data { watch: true } | Self::Exists { watch: true }, code::OK) => {
                Some(Kind::Data)
            }
            (Self::Exists { watch: true }, code::NO_NODE) => Some(Kind::Exists),
            (Self::AddWatch(WatchMode::Persistent), code::OK) => Some(Kind::Persistent),
            (Self::AddWatch(WatchMode::PersistentRecursive), code::OK) => Some(Kind::Recursive),
            _ => None,
        }
    }
}

/// What is before each reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) xid: i32,
    pub(crate) zxid: i64,
    pub(crate) code: i32,
}

impl Header {
    /// Reads a header; the rest is the body.
    pub(crate) fn read(frame: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut reader = Reader(frame);
        let header = Self {
            xid: reader.int()?,
            zxid: reader.long()?,
            code: reader.int()?,
        };
        Ok((header, reader.0))
    }
}

/// What a watch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Created,
    Deleted,
    Data,
    Children,
}

/// Reads the body of an event: nothing if it is not about a node (the session's state, watches that were removed).
pub(crate) fn event(body: &[u8]) -> Result<Option<(EventKind, &str)>, Malformed> {
    let mut reader = Reader(body);
    let kind = match reader.int()? {
        1 => EventKind::Created,
        2 => EventKind::Deleted,
        3 => EventKind::Data,
        4 => EventKind::Children,
        _ => return Ok(None),
    };
    let _state = reader.int()?;
    Ok(Some((kind, reader.string()?)))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn lists_of_watches_are_those_of_their_kinds() {
        let watch = |kind, path: &str| Watch {
            kind,
            path: path.into(),
        };
        let some = [watch(Kind::Data, "/d"), watch(Kind::Children, "/c")];
        let all = [&some[..], &[watch(Kind::Recursive, "/r")]].concat();
        for (watches, opcode, lists) in [
            (&some[..], 101, vec![vec!["/d"], vec![], vec!["/c"]]),
            (
                &all,
                105,
                vec![vec!["/d"], vec![], vec!["/c"], vec![], vec!["/r"]],
            ),
        ] {
            let mut out = BytesMut::new();
            set_watches(&mut out, 7, watches);
            let mut reader = Reader(Reader(&out).buffer().unwrap());
            assert_eq!(reader.int(), Ok(-8));
            assert_eq!(reader.int(), Ok(opcode));
            assert_eq!(reader.long(), Ok(7));
            for list in lists {
                assert_eq!(reader.strings().unwrap(), list);
            }
            assert!(reader.0.is_empty());
        }
    }

    #[test]
    fn an_expired_session_is_none() {
        let mut expired = [0; 37];
        expired[19] = 16;
        assert!(grant(&expired).unwrap().is_none());
        expired[7] = 1;
        assert!(grant(&expired).unwrap().is_none());
        expired[15] = 1;
        assert_eq!(grant(&expired).unwrap().unwrap().id, 1);
        assert!(grant(b"HTTP/1.1 400 Bad Request").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
            crate::fuzz::stream(&bytes);
        }
    }
}
