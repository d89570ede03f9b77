//! The header of a file: what it is, of which version, how long, and a checksum over all of it.
//!
//! ```text
//! 0        8        12       20         36
//! | magic  | version| length | checksum | payload … |      numbers are little-endian
//! ```
//!
//! The header stays as it is in all versions, so that a file of a newer one can be told from a
//! damaged one.

use xxhash_rust::xxh3::Xxh3;

use crate::{FileProblem, MAX_FILE};

/// The bytes before the payload.
pub(crate) const HEADER: usize = 36;
/// The version of the payload that this program writes and reads.
pub(crate) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"diolkos\0";
/// Where the checksum is; it covers everything else.
const CHECKSUM: std::ops::Range<usize> = 20..HEADER;

/// Fills in the header of a file whose payload begins at [`HEADER`]. Returns the checksum.
pub(crate) fn seal(file: &mut [u8]) -> u128 {
    seal_as(VERSION, file)
}

/// As [`seal`], for a file of that version.
pub(crate) fn seal_as(version: u32, file: &mut [u8]) -> u128 {
    let length = (file.len() - HEADER) as u64;
    file[..8].copy_from_slice(&MAGIC);
    file[8..12].copy_from_slice(&version.to_le_bytes());
    file[12..20].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(file);
    file[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// The payload of an undamaged file of our version, and the file's checksum.
///
/// # Errors
/// Everything else.
pub(crate) fn unseal(file: &[u8]) -> Result<(&[u8], u128), FileProblem> {
    if !file.starts_with(&MAGIC) {
        return Err(FileProblem::NoSnapshot);
    }
    let (Some(version), Some(length), Some(said)) = (
        array(file, 8).map(u32::from_le_bytes),
        array(file, 12).map(u64::from_le_bytes),
        array(file, CHECKSUM.start).map(u128::from_le_bytes),
    ) else {
        return Err(FileProblem::Truncated);
    };
    let payload = &file[HEADER..];
    if (payload.len() as u64) < length {
        return Err(FileProblem::Truncated);
    }
    // After the checksum, so that a damaged version is not taken for a newer one.
    if payload.len() as u64 > length || checksum(file) != said {
        return Err(FileProblem::Damaged);
    }
    match version {
        VERSION => Ok((payload, said)),
        version if version > VERSION => Err(FileProblem::Newer { version }),
        version => Err(FileProblem::Older { version }),
    }
}

/// Whether a file of this length may be read into memory.
pub(crate) fn check_length(length: u64) -> Result<(), FileProblem> {
    if length > MAX_FILE {
        return Err(FileProblem::TooLong { length });
    }
    Ok(())
}

fn checksum(file: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&file[..CHECKSUM.start]);
    hasher.update(&file[HEADER..]);
    hasher.digest128()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
