//! Jute, ZooKeeper's serialisation: big-endian numbers, and strings, buffers and lists behind their lengths.

use bytes::{BufMut as _, BytesMut};

/// Bytes that are not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

const SHORT: Malformed = Malformed("it ends too early");

/// Reads from the front. Lengths are compared with what is there before anything is allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn int(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn long(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// A buffer; one that is not there (length −1) is empty.
    pub(crate) fn buffer(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.buffer()?).map_err(|_| Malformed("a string is not UTF-8"))
    }

    pub(crate) fn strings(&mut self) -> Result<Vec<String>, Malformed> {
        let count = self.length()?;
        // Each has at least its length.
        if count > self.0.len() / 4 {
            return Err(SHORT);
        }
        (0..count)
            .map(|_| self.string().map(str::to_owned))
            .collect()
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        match self.int()? {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_| Malformed("a length is negative")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

/// Appends a frame: what `body` writes, behind its length.
pub(crate) fn frame(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    body(out);
    let length = length(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a buffer or a string.
pub(crate) fn put_buffer(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(length(bytes.len()));
    out.put_slice(bytes);
}

/// Appends a list of strings.
pub(crate) fn put_strings<'a>(out: &mut BytesMut, strings: impl ExactSizeIterator<Item = &'a str>) {
    out.put_i32(length(strings.len()));
    for string in strings {
        put_buffer(out, string.as_bytes());
    }
}

/// A length as it is written. What is longer is refused where it comes in: paths by their check, the rest is ours.
fn length(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_use() {
        assert_eq!(Reader(&[0x7f, 0xff, 0xff, 0xff]).buffer(), Err(SHORT));
        assert_eq!(
            Reader(&[0x7f, 0xff, 0xff, 0xff, 0]).strings().err(),
            Some(SHORT)
        );
        assert!(Reader(&[0xff, 0xff, 0xff, 0xfe]).buffer().is_err());
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff]).buffer(), Ok(&[][..]));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut out = BytesMut::new();
        frame(&mut out, |out| {
            put_strings(out, ["a", "", "ü"].into_iter());
        });
        let mut reader = Reader(&out);
        let body = reader.buffer().unwrap();
        assert!(reader.0.is_empty());
        assert_eq!(Reader(body).strings().unwrap(), ["a", "", "ü"]);
    }
}
