//! A door for fuzzers: bytes of a server through everything that reads them.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::sync::{Notify, oneshot};

use crate::{
    WatchMode,
    driver::{Exchange, Request},
    jute::Reader,
    messages::{self, Ask, Header},
    path::Chroot,
    session::{State, lock},
    splitter::{Frame, Splitter},
};

const LIMIT: usize = 256;

/// Reads `bytes` as what a server sends: as frames, however they are cut, and as replies to requests of each kind.
///
/// # Panics
/// If something that has to hold does not.
pub fn stream(bytes: &[u8]) {
    let frames = frames(&[bytes]);
    let piece = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
    assert_eq!(frames, self::frames(&pieces), "pieces make no difference");
    for (frame, _) in &frames {
        body(frame);
    }
    converse(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        path(text);
    }
}

/// The frames until one is wrong: what is seen of each, and its size.
fn frames(pieces: &[&[u8]]) -> Vec<(Vec<u8>, usize)> {
    let mut splitter = Splitter::new(LIMIT);
    let mut frames = Vec::new();
    for piece in pieces {
        splitter.space().extend_from_slice(piece);
        while let Ok(Some(frame)) = splitter.next() {
            frames.push(match frame {
                Frame::Whole(bytes) => (bytes.to_vec(), bytes.len()),
                Frame::Large { head, bytes } => (head.to_vec(), bytes),
            });
        }
    }
    frames
}

/// One frame as everything that it could be. Whether it can be read is all there is to it.
fn body(frame: &[u8]) {
    let mut read = usize::from(messages::grant(frame).is_ok());
    if let Ok((_, body)) = Header::read(frame) {
        read += usize::from(messages::event(body).is_ok());
        for ask in ASKS {
            read += usize::from(ask.read(body).is_ok());
        }
        if let Ok(names) = Reader(body).strings() {
            assert!(names.len() <= body.len() / 4, "no more than there is room");
        }
    }
    assert!(read <= 2 + ASKS.len());
}

const ASKS: [Ask; 5] = [
    Ask::Children { watch: true },
    Ask::Data { watch: true },
    Ask::Exists { watch: true },
    Ask::Sync,
    Ask::AddWatch(WatchMode::PersistentRecursive),
];

/// A stream as the answers to one request of each kind: each gets one at most, and none twice.
fn converse(bytes: &[u8]) {
    let state = Arc::new(Mutex::new(State::default()));
    let chroot = Chroot::new("/base").unwrap_or_default();
    let mut exchange = Exchange::new(chroot, state.clone(), Arc::new(Notify::new()), LIMIT);
    let mut out = BytesMut::new();
    let mut answers: Vec<_> = ASKS
        .into_iter()
        .map(|ask| {
            let (reply, answer) = oneshot::channel();
            let path = "/base/node".to_owned();
            exchange.send(Request { ask, path, reply }, &mut out);
            answer
        })
        .collect();
    let mut splitter = Splitter::new(LIMIT);
    splitter.space().extend_from_slice(bytes);
    while let Ok(Some(frame)) = splitter.next() {
        if exchange.take(&frame).is_err() {
            break;
        }
    }
    let answered: Vec<bool> = answers.iter_mut().map(|a| a.try_recv().is_ok()).collect();
    assert!(
        answered.is_sorted_by(|a, b| a >= b),
        "answers come in the order of the requests"
    );
    for changed in lock(&state).changes.take() {
        assert!(changed.path.starts_with('/'), "{changed:?}");
    }
}

/// A path that is accepted comes back as it was.
fn path(text: &str) {
    for chroot in ["", "/base"] {
        let chroot = Chroot::new(chroot).unwrap_or_default();
        if let Ok(full) = chroot.full(text) {
            assert_eq!(chroot.strip(&full), Some(text));
        }
    }
    if let Ok(chroot) = Chroot::new(text) {
        let full = chroot.full("/node").unwrap_or_default();
        assert!(full.is_empty() || chroot.strip(&full) == Some("/node"));
    }
}
