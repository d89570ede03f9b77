//! Names that Kubernetes and DNS accept, made from names that registries accept.

use diolkos_model::ContentHash;

/// Longest DNS label (RFC 1035).
const LABEL: usize = 63;
/// Longest DNS name, and longest Kubernetes object name.
const NAME: usize = 253;

/// Makes one DNS label of any text: lower case, other characters become `-`, none at the ends.
/// Longer than 63 characters: cut, with a hash of the whole text, so that two long names stay two.
/// Empty if nothing of the text can stay.
#[must_use]
pub fn dns_label(text: &str) -> String {
    let mut label = String::with_capacity(text.len());
    for c in text.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() {
            label.push(c);
        } else if !label.is_empty() {
            label.push('-');
        }
    }
    label.truncate(label.trim_end_matches('-').len());
    shorten(label, text, LABEL)
}

/// Makes a DNS name of any text: each part between dots by [`dns_label`], empty parts left out.
#[must_use]
pub fn dns_name(text: &str) -> String {
    let parts: Vec<_> = text
        .split('.')
        .map(dns_label)
        .filter(|label| !label.is_empty())
        .collect();
    shorten(parts.join("."), text, NAME)
}

/// Cuts `name` to `most` characters; what is cut is replaced by a hash of `original`.
fn shorten(mut name: String, original: &str, most: usize) -> String {
    if name.len() <= most {
        return name;
    }
    let hash = short_hash(original);
    name.truncate(most - hash.len() - 1);
    name.truncate(name.trim_end_matches(['-', '.']).len());
    format!("{name}-{hash}")
}

/// Twelve hexadecimal digits that stand for `text`.
#[must_use]
pub fn short_hash(text: &str) -> String {
    format!("{:012x}", ContentHash::of(text.as_bytes()).0 >> 80)
}

/// The name of an object that belongs to `host`: `host-SUFFIX`, cut where that is too long.
#[must_use]
pub fn object_name(host: &str, suffix: &str) -> String {
    let most = NAME - suffix.len() - 1;
    format!("{}-{suffix}", shorten(host.to_owned(), host, most))
}

/// Makes a Kubernetes label value of any text: `[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?`, at most
/// 63 characters. Other characters become `-`. Empty if nothing can stay.
#[must_use]
pub fn label_value(text: &str) -> String {
    let value: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let value = value.trim_matches(['-', '_', '.']);
    shorten(value.to_owned(), text, LABEL)
}

/// Makes a Kubernetes label key of any text: an optional DNS prefix, `/`, and a name as
/// [`label_value`]. `None` if nothing can stay.
#[must_use]
pub fn label_key(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(dns_name(prefix)), label_value(name)),
        None => (None, label_value(text)),
    };
    if name.is_empty() {
        return None;
    }
    match prefix {
        None => Some(name),
        Some(prefix) if prefix.is_empty() => Some(name),
        Some(prefix) => Some(format!("{prefix}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        let long = "a".repeat(70);
        for (text, expected) in [
            ("My_Service", "my-service"),
            ("com.foo.Bar$Baz", "com.foo.bar-baz"),
            ("..a..", "a"),
            ("__", ""),
            ("täst", "t-st"),
            ("web.", "web"),
        ] {
            assert_eq!(dns_name(text), expected, "{text}");
        }
        let cut = dns_name(&long);
        assert_eq!(cut.len(), 63);
        assert_ne!(cut, dns_name(&format!("{long}b")));
    }

    proptest! {
        #[test]
        fn dns_names_are_valid_and_stable(text in ".{0,300}") {
            let name = dns_name(&text);
            prop_assert!(name.len() <= 253);
            // Istio takes no number as the last label (it would look like an IP address); the
            // planner refuses such a host.
            let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
            prop_assert!(numeric || diolkos_istio::validate::host(&name).is_ok(), "{name}");
            prop_assert_eq!(dns_name(&name), name.clone());
        }

        #[test]
        fn label_values_are_valid(text in ".{0,100}") {
            let value = label_value(&text);
            prop_assert!(value.len() <= 63 && !value.starts_with(['-', '_', '.']) && !value.ends_with(['-', '_', '.']));
        }

        #[test]
        fn object_names_fit(host in "[a-z.]{1,260}") {
            prop_assert!(object_name(&host, "0123456789ab").len() <= 253);
        }
    }
}
