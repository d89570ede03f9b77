//! A stream of bytes into frames.

use crate::jute::Malformed;

/// What is asked of the connection at once, at most.
const PIECE: usize = 64 << 10;
/// A reply's header: what is looked at of a frame that is too large.
pub(crate) const HEAD: usize = 16;

/// A frame of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// The beginning of a frame that is larger than the limit; the rest is read away.
    Large {
        /// Its first bytes.
        head: &'a [u8],
        /// Its size.
        bytes: usize,
    },
}

/// Cuts a stream into frames. Memory grows with what has come, not with what a length promises, and not beyond the
/// limit by more than a piece.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    /// How many bytes of a frame that is too large are still to come.
    skip: usize,
    limit: usize,
}

impl Splitter {
    /// Frames of more than `limit` bytes are [`Frame::Large`].
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            skip: 0,
            limit: limit.max(HEAD),
        }
    }

    /// Where to append what was read. Call [`next`](Self::next) until it gives nothing before calling this.
    pub(crate) fn space(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() < PIECE && self.buffer.capacity() > 4 * PIECE {
            self.buffer.shrink_to(PIECE);
        }
        self.buffer.reserve(PIECE);
        &mut self.buffer
    }

    /// The next frame, if all that is wanted of it has come.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Malformed> {
        let skipped = self.skip.min(self.buffer.len() - self.start);
        self.skip -= skipped;
        self.start += skipped;
        let Some((length, rest)) = self.buffer[self.start..].split_first_chunk() else {
            return Ok(None);
        };
        let bytes = usize::try_from(i32::from_be_bytes(*length))
            .map_err(|_| Malformed("a frame of negative length"))?;
        let large = bytes > self.limit;
        let wanted = if large { HEAD } else { bytes };
        let Some(frame) = rest.get(..wanted) else {
            return Ok(None);
        };
        self.start += 4 + wanted;
        if large {
            self.skip = bytes - wanted;
            return Ok(Some(Frame::Large { head: frame, bytes }));
        }
        Ok(Some(Frame::Whole(frame)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// All frames of a stream that comes in these pieces: the length of each, and what is seen of it.
    fn frames<'a>(
        limit: usize,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<(usize, Vec<u8>)>, Malformed> {
        let mut splitter = Splitter::new(limit);
        let mut frames = Vec::new();
        for piece in pieces {
            splitter.space().extend_from_slice(piece);
            while let Some(frame) = splitter.next()? {
                frames.push(match frame {
                    Frame::Whole(bytes) => (bytes.len(), bytes.to_vec()),
                    Frame::Large { head, bytes } => (bytes, head.to_vec()),
                });
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            bodies in vec(vec(any::<u8>(), 0..200), 0..8),
            limit in 16usize..150,
            piece in 1usize..50,
        ) {
            let stream: Vec<u8> = bodies
                .iter()
                .flat_map(|body| [&(body.len() as u32).to_be_bytes()[..], body].concat())
                .collect();
            let wanted: Vec<_> = bodies
                .iter()
                .map(|body| (body.len(), body[..if body.len() > limit { HEAD } else { body.len() }].to_vec()))
                .collect();
            prop_assert_eq!(frames(limit, stream.chunks(piece)), Ok(wanted));
        }

        #[test]
        fn any_bytes(stream in vec(any::<u8>(), 0..300), piece in 1usize..50) {
            let once = frames(64, [&stream[..]].into_iter());
            prop_assert_eq!(once, frames(64, stream.chunks(piece)));
        }
    }

    #[test]
    fn a_promise_costs_nothing() {
        let mut splitter = Splitter::new(usize::MAX);
        splitter.space().extend_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(splitter.next(), Ok(None));
        splitter.space();
        assert!(splitter.buffer.capacity() < 3 * PIECE);
    }
}
