//! DNS names, and the names, labels and annotations of Kubernetes.
//!
//! Two forms of the DNS label are in use and must not be mixed up: Istio's takes both cases
//! (`pkg/config/labels`), that of Kubernetes lower case only (`k8s.io/apimachinery/pkg/util/validation`).

use super::{
    limit,
    violation::{Violation, clip, length},
};

/// Which letters a rule takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    /// Lower case only, as Kubernetes.
    Lower,
    /// Both, as Istio.
    Any,
}

impl Case {
    fn alphanumeric(self, byte: u8) -> bool {
        match self {
            Self::Lower => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
            Self::Any => byte.is_ascii_alphanumeric(),
        }
    }
}

/// Whether `value` starts and ends alphanumeric, with `inner` bytes allowed between. Not empty.
fn is_enclosed(value: &str, case: Case, inner: &[u8]) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    case.alphanumeric(*first)
        && case.alphanumeric(*last)
        && bytes
            .iter()
            .all(|byte| case.alphanumeric(*byte) || inner.contains(byte))
}

/// Istio's DNS label: `labels.IsDNS1123Label`.
pub(super) fn is_label(value: &str) -> bool {
    value.len() <= limit::DNS_LABEL && is_enclosed(value, Case::Any, b"-")
}

/// A first label with a wildcard in front, `*`, `*-` or none: `labels.IsWildcardDNS1123Label`.
fn is_wildcard_label(value: &str) -> bool {
    let Some(rest) = value.strip_prefix('*') else {
        return is_label(value);
    };
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    value.len() <= limit::DNS_LABEL && (value == "*" || is_enclosed(rest, Case::Any, b"-"))
}

/// `agent.ValidateDNS1123Labels`. `name` is the whole name, `labels` the part to check.
fn labels(name: &str, labels: &str) -> Result<(), Violation> {
    let last = labels.rsplit('.').next().unwrap_or_default();
    // As strconv.Atoi: what does not fit into 64 bits is not a number.
    if last.parse::<i64>().is_ok() {
        return Err(Violation::NameNumericEnd { name: clip(name) });
    }
    // One final dot is allowed: `example.com.`
    let labels = match labels.strip_suffix('.') {
        Some(rest) => rest,
        None if labels.is_empty() => return Ok(()),
        None => labels,
    };
    match labels.split('.').find(|label| !is_label(label)) {
        Some(label) => Err(Violation::NameLabel {
            name: clip(name),
            label: clip(label),
        }),
        None => Ok(()),
    }
}

/// `agent.CheckDNS1123Preconditions`: the length, in bytes.
fn preconditions(name: &str) -> Result<(), Violation> {
    if name.is_empty() {
        return Err(Violation::NameEmpty);
    }
    if name.len() > limit::DNS_NAME {
        return Err(Violation::TooLong {
            value: clip(name),
            length: name.len(),
            limit: limit::DNS_NAME,
        });
    }
    Ok(())
}

/// A full DNS name as Istio takes it (`agent.ValidateFQDN`): an address to resolve.
///
/// Upper case and one final dot are allowed, `_`, `:`, `@` and wildcards are not; labels have at
/// most 63 bytes, the name 255. A name whose last label is a number is taken for an IP address.
///
/// # Errors
/// [`Violation::NameEmpty`], [`Violation::TooLong`], [`Violation::NameNumericEnd`] or
/// [`Violation::NameLabel`].
pub fn fqdn(name: &str) -> Result<(), Violation> {
    preconditions(name)?;
    labels(name, name)
}

/// A host of a service entry as Istio takes it (`agent.ValidateWildcardDomain`, and not `*`).
///
/// As [`fqdn`], but the first label may be or begin with a wildcard, and a single label may be a
/// number. Istio only warns of `*foo.example.com`: see [`is_partial_wildcard`].
///
/// # Errors
/// Those of [`fqdn`], and [`Violation::HostMatchesAll`].
pub fn host(name: &str) -> Result<(), Violation> {
    if name == "*" {
        return Err(Violation::HostMatchesAll);
    }
    preconditions(name)?;
    let (first, rest) = match name.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    if !is_wildcard_label(first) {
        return Err(Violation::NameLabel {
            name: clip(name),
            label: clip(first),
        });
    }
    rest.map_or(Ok(()), |rest| labels(name, rest))
}

/// Whether a host has a wildcard that is not a label of its own, such as `*foo.example.com`.
///
/// Istio accepts those with a warning (`agent.ValidatePartialWildCard`), but does not route to them.
#[must_use]
pub fn is_partial_wildcard(name: &str) -> bool {
    name.contains('*') && name != "*" && !name.starts_with("*.")
}

/// A port name: `ValidatePortName`, a DNS label of either case.
///
/// # Errors
/// [`Violation::PortName`].
pub fn port_name(name: &str) -> Result<(), Violation> {
    if is_label(name) {
        return Ok(());
    }
    Err(Violation::PortName { name: clip(name) })
}

/// A DNS label of Kubernetes (`IsDNS1123Label`): a namespace.
///
/// # Errors
/// [`Violation::Dns1123Label`].
pub fn dns1123_label(value: &str) -> Result<(), Violation> {
    if value.len() <= limit::DNS_LABEL && is_enclosed(value, Case::Lower, b"-") {
        return Ok(());
    }
    Err(Violation::Dns1123Label { value: clip(value) })
}

fn is_subdomain(value: &str, case: Case) -> bool {
    value.len() <= limit::DNS_SUBDOMAIN
        && value.split('.').all(|label| is_enclosed(label, case, b"-"))
}

/// A DNS subdomain of Kubernetes (`IsDNS1123Subdomain`): an object's name. Its labels have no
/// length of their own.
///
/// # Errors
/// [`Violation::Dns1123Subdomain`].
pub fn dns1123_subdomain(value: &str) -> Result<(), Violation> {
    if is_subdomain(value, Case::Lower) {
        return Ok(());
    }
    Err(Violation::Dns1123Subdomain { value: clip(value) })
}

/// `IsQualifiedName`: an optional DNS name and `/`, then a name.
fn is_qualified(key: &str, prefix_case: Case) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(|prefix| is_subdomain(prefix, prefix_case))
        && name.len() <= limit::LABEL_NAME
        && is_enclosed(name, Case::Any, b"-_.")
}

fn qualified(key: &str, prefix_case: Case) -> Result<(), Violation> {
    if is_qualified(key, prefix_case) {
        return Ok(());
    }
    Err(Violation::LabelKey { key: clip(key) })
}

/// The key of an object's label (`IsQualifiedName` of Kubernetes).
///
/// # Errors
/// [`Violation::LabelKey`].
pub fn label_key(key: &str) -> Result<(), Violation> {
    qualified(key, Case::Lower)
}

/// The value of an object's label (`IsValidLabelValue` of Kubernetes): at most 63 bytes.
///
/// # Errors
/// [`Violation::LabelValue`] or [`Violation::TooLong`].
pub fn label_value(value: &str) -> Result<(), Violation> {
    endpoint_label_value(value)?;
    length(value, limit::LABEL_VALUE)
}

/// The key of an annotation: Kubernetes puts it in lower case before it looks.
///
/// # Errors
/// [`Violation::LabelKey`].
pub fn annotation_key(key: &str) -> Result<(), Violation> {
    qualified(key, Case::Any)
}

/// The key of a label in a workload entry's spec (`labels.validateTagKey` of Istio): either case.
pub(super) fn endpoint_label_key(key: &str) -> Result<(), Violation> {
    qualified(key, Case::Any)
}

/// The value of a label in a workload entry's spec (`labels.Instance.Validate`): of any length.
pub(super) fn endpoint_label_value(value: &str) -> Result<(), Violation> {
    if value.is_empty() || is_enclosed(value, Case::Any, b"-_.") {
        return Ok(());
    }
    Err(Violation::LabelValue { value: clip(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that `rule` takes all of `good` and none of `bad`.
    fn table(rule: fn(&str) -> Result<(), Violation>, good: &[&str], bad: &[&str]) {
        for value in good {
            assert_eq!(rule(value), Ok(()), "{value:?}");
        }
        for value in bad {
            assert!(rule(value).is_err(), "{value:?} was accepted");
        }
    }

    fn of(bytes: usize) -> String {
        "a".repeat(bytes)
    }

    /// A name of `bytes` bytes with short labels.
    fn name_of(bytes: usize) -> String {
        let mut name = "a.".repeat(bytes / 2);
        name.push_str(if bytes % 2 == 1 { "a" } else { "" });
        name
    }

    #[test]
    fn fqdns() {
        table(
            fqdn,
            &[
                "a",
                "A.B",
                "a.b.",
                "1.a",
                "a-b.c",
                "xn--nxasmq6b.example",
                // Atoi overflows: for Istio this is not a number.
                "a.99999999999999999999",
                &of(63),
                &name_of(254),
                &name_of(255),
            ],
            &[
                "",
                ".",
                "..",
                ".a",
                "a..b",
                "a..",
                "-a",
                "a-",
                "a_b.c",
                "a:b",
                "a@b",
                "a b",
                "a/b",
                "é.fr",
                "*.a",
                "*",
                "a.1",
                "1",
                "1.2.3.4",
                "a.007",
                &of(64),
                &name_of(256),
                "a\n",
                "a\0",
            ],
        );
    }

    #[test]
    fn hosts() {
        table(
            host,
            &[
                "a",
                "1",
                "A.b",
                "a.b.",
                "*.a",
                "*.",
                "*a.b",
                "*-a.b",
                "*a",
                "student.service.consul",
                &of(63),
                &format!("*{}", of(62)),
            ],
            &[
                "",
                "*",
                "**",
                "*-",
                "*-.a",
                "*--a.b",
                "a*.b",
                "a.*",
                "a.*.b",
                ".",
                ".a",
                "a..b",
                "1.2.3.4",
                "::1",
                "a_b",
                "provider:com.acme.Api",
                "DEFAULT_GROUP@@svc",
                "a.1",
                &of(64),
                &format!("*{}", of(63)),
                &name_of(256),
            ],
        );
        assert_eq!(host("*"), Err(Violation::HostMatchesAll));
    }

    #[test]
    fn partial_wildcards() {
        for name in ["*a", "*-a.b", "*a.b"] {
            assert!(is_partial_wildcard(name) && host(name).is_ok(), "{name}");
        }
        for name in ["*.a", "a", "*"] {
            assert!(!is_partial_wildcard(name), "{name}");
        }
    }

    #[test]
    fn port_names() {
        table(
            port_name,
            &["http", "HTTP-1", "1", &of(63)],
            &["", "-", "a_b", "a.b", "http-", &of(64)],
        );
    }

    #[test]
    fn kubernetes_names() {
        table(
            dns1123_label,
            &["a", "1a-b", &of(63)],
            &["", "A", "a.b", "-a", "a-", "a_b", &of(64)],
        );
        table(
            dns1123_subdomain,
            &["a", "a.b-c.1", &of(64), &of(253)],
            &["", "A", "a.", ".a", "a..b", "a_b", "a.-b", "a/b", &of(254)],
        );
    }

    #[test]
    fn keys_and_values() {
        let long_prefix = format!("{}/a", of(253));
        table(
            label_key,
            &["a", "A_b.c-1", "diolkos.io/registry", &of(63), &long_prefix],
            &[
                "",
                "/",
                "a/",
                "/a",
                "a/b/c",
                "_a",
                "a b",
                "A.io/x",
                &of(64),
                &format!("{}/a", of(254)),
                "é",
            ],
        );
        table(annotation_key, &["A.io/x", "a"], &["", "a/b/c"]);
        table(
            endpoint_label_key,
            &["A.io/x", "a", &long_prefix],
            &["", "a/", "/a", "a/b/c", "a./b", &of(64)],
        );
        table(
            label_value,
            &["", "a", "A_b.c-1", &of(63)],
            &["-", "a b", "_a", "a/b", "é", "a\n", &of(64)],
        );
        table(endpoint_label_value, &["", &of(64)], &["-a", "a b", "a:b"]);
    }
}
