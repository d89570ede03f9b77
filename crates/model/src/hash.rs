//! Content hashes: 128 bits, equal on every replica and after every restart.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

/// A 128-bit hash of some content. Equal content gives equal hashes in every process and on every
/// machine, so hashes may be stored in annotations and compared after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// Hashes one run of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(bytes))
    }

    /// Reads what [`fmt::Display`] writes: 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32)
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Feeds fields into a [`ContentHash`]. Every field is written with its length or width, so that
/// `("ab", "c")` and `("a", "bc")` differ.
#[derive(Default)]
pub struct Hasher(Xxh3);

impl Hasher {
    /// An empty hasher.
    #[must_use]
    pub fn new() -> Self {
        Self(Xxh3::new())
    }

    /// A string, with its length.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.u64(text.len() as u64);
        self.0.update(text.as_bytes());
        self
    }

    /// A number.
    pub fn u64(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    /// An optional string; absent and empty differ.
    pub fn opt_str(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            None => self.u64(u64::MAX),
            Some(text) => self.str(text),
        }
    }

    /// The hash of all that was fed.
    #[must_use]
    pub fn finish(&self) -> ContentHash {
        ContentHash(self.0.digest128())
    }
}
