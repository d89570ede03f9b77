//! From the name of a registry to that of its file.

use std::fmt::Write as _;

use diolkos_model::ContentHash;

/// The end of the name of every file.
pub(crate) const SUFFIX: &str = ".snapshot";
/// The end of the name of a file that is being written.
pub(crate) const TEMPORARY: &str = ".snapshot.tmp";
/// A longer name is cut, as file systems take 255 bytes.
const LONGEST: usize = 200;

/// The file's name. Two registries never share one, on file systems that ignore case neither: all
/// but lower-case letters, digits, `-`, `_` and dots within become `%XX`.
pub(crate) fn file_name(registry: &str) -> String {
    let mut name = String::with_capacity(registry.len() + TEMPORARY.len());
    for (at, byte) in registry.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
            b'.' if at > 0 => name.push('.'),
            // Writing to a String does not fail.
            _ => write!(name, "%{byte:02X}").unwrap_or_default(),
        }
    }
    if name.len() > LONGEST {
        name.truncate(LONGEST / 2);
        // After a `%`, no other name has one again.
        write!(name, "%%{}", ContentHash::of(registry.as_bytes())).unwrap_or_default();
    }
    name + SUFFIX
}

/// The name of the file while it is being written.
pub(crate) fn temporary_name(registry: &str) -> String {
    file_name(registry) + TEMPORARY.trim_start_matches(SUFFIX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for (registry, file) in [
            ("consul", "consul.snapshot"),
            ("a.b-c_1", "a.b-c_1.snapshot"),
            ("", ".snapshot"),
            ("..", "%2E..snapshot"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.snapshot"),
            ("Consul", "%43onsul.snapshot"),
            ("a%2Fb", "a%252%46b.snapshot"),
        ] {
            assert_eq!(file_name(registry), file);
        }
    }

    proptest! {
        #[test]
        fn two_registries_never_share_a_file(one in "[a.%/2F\0é]{0,6}|b{195,300}|B{60,80}", two in "[a.%/2F\0é]{0,6}|b{195,300}|B{60,80}") {
            let (first, second) = (file_name(&one), file_name(&two));
            prop_assert_eq!(one == two, first.eq_ignore_ascii_case(&second));
            prop_assert!(temporary_name(&one).len() <= 255);
            prop_assert!(!first.contains('/') && first.ends_with(SUFFIX));
        }
    }
}
