//! File names: `<namespace>_<kind>_<name>.yaml`, a different one for each object.

use std::fmt::Write as _;

use diolkos_istio::{Kind, ObjectKey};
use diolkos_model::ContentHash;

/// What the names end with. istiod reads `.yaml` and `.yml`.
pub(crate) const EXTENSION: &str = ".yaml";
/// File systems allow 255 bytes in a name.
const LONGEST_STEM: usize = 240;
/// How much of a name that is too long stays readable.
const READABLE: usize = 200;

/// The name of the file that holds an object. Different objects have different names, on file
/// systems that do not tell upper from lower case as well.
pub(crate) fn file_name(key: &ObjectKey) -> String {
    let namespace = escape(&key.namespace);
    let name = escape(&key.name);
    let mut stem = format!("{namespace}_{}_{name}", lower_case(key.kind));
    if stem.len() > LONGEST_STEM {
        // `~` is escaped everywhere else, and what was escaped is ASCII.
        let hash = ContentHash::of(stem.as_bytes());
        stem.truncate(READABLE);
        stem = format!("{stem}~{hash}");
    }
    stem + EXTENSION
}

/// The object that a file must hold by its name; `None` for names that [`file_name`] does not give,
/// and for those that it had to shorten.
pub(crate) fn object_key(file: &str) -> Option<ObjectKey> {
    let stem = file.strip_suffix(EXTENSION)?;
    let mut parts = stem.split('_');
    let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let key = ObjectKey {
        kind: Kind::ALL.into_iter().find(|k| lower_case(*k) == kind)?,
        namespace: unescape(namespace)?.into(),
        name: unescape(name)?.into(),
    };
    (file_name(&key) == file).then_some(key)
}

fn lower_case(kind: Kind) -> String {
    kind.name().to_ascii_lowercase()
}

/// Keeps what Kubernetes allows in names, and writes other bytes as `%` and two hexadecimal digits.
/// A dot in front would hide the file.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => escaped.push(byte.into()),
            b'.' if place > 0 => escaped.push('.'),
            // Writing to a string does not fail.
            _ => write!(escaped, "%{byte:02x}").unwrap_or_default(),
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            kind: Kind::ServiceEntry,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    #[test]
    fn names_of_kubernetes_stay_readable() {
        for (namespace, name, file) in [
            ("prod", "orders", "prod_serviceentry_orders.yaml"),
            ("prod", "a.b-c", "prod_serviceentry_a.b-c.yaml"),
            ("", "x", "_serviceentry_x.yaml"),
            ("p_q", "../Ä", "p%5fq_serviceentry_%2e.%2f%c3%84.yaml"),
            (".git", "~", "%2egit_serviceentry_%7e.yaml"),
        ] {
            assert_eq!(file_name(&key(namespace, name)), file);
        }
    }

    #[test]
    fn names_of_others_are_no_keys() {
        for file in [
            "gateway.yaml",
            "prod_gateway_x.yaml",
            "prod_serviceentry_x.yml",
            "prod_serviceentry_x_y.yaml",
            "prod_serviceentry_X.yaml",
            "prod_serviceentry_%zz.yaml",
            "prod_serviceentry_%6f.yaml",
            "prod_serviceentry_%.yaml",
        ] {
            assert_eq!(object_key(file), None, "{file}");
        }
    }

    #[test]
    fn long_names_are_shortened_and_stay_different() {
        let (a, b) = ("a".repeat(260) + "1", "a".repeat(260) + "2");
        let (a, b) = (file_name(&key("prod", &a)), file_name(&key("prod", &b)));
        assert_ne!(a, b);
        assert!(a.len() <= 255 && b.len() <= 255);
        assert_eq!(object_key(&a), None);
        // The longest that Kubernetes allows.
        assert!(file_name(&key(&"n".repeat(63), &"a".repeat(253))).len() <= 255);
    }

    proptest! {
        #[test]
        fn any_name_is_safe_and_comes_back(namespace in ".{0,20}", name in ".{0,40}") {
            let key = key(&namespace, &name);
            let file = file_name(&key);
            prop_assert!(file.len() <= 255 && !file.starts_with('.'));
            prop_assert!(file.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && !b.is_ascii_uppercase()));
            if !file.contains('~') {
                prop_assert_eq!(object_key(&file), Some(key));
            }
        }
    }
}
