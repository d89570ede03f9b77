//! Values with a notation of their own.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{fault::Problem, settings::Shrink};

/// A duration as Kubernetes writes it: `90s`, `1h30m`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, Problem> {
    parse_duration(text).ok_or_else(|| Problem::Duration(text.to_owned()))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// A number of bytes as Kubernetes writes it: `16Mi`, `512Ki`, `1048576`.
pub(crate) fn size(text: &str) -> Result<usize, Problem> {
    parse_size(text).ok_or_else(|| Problem::Size(text.to_owned()))
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bytes: usize = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(bytes)
}

/// The path of a node: begins with `/`, does not end with it, and has no part that is empty, `.` or
/// `..` or holds a control character (ZooKeeper's rules).
pub(crate) fn node(text: &str) -> Result<String, Problem> {
    let is_part =
        |part: &str| !["", ".", ".."].contains(&part) && !part.chars().any(|c| c.is_control());
    match text.strip_prefix('/') {
        Some(rest) if rest.split('/').all(is_part) => Ok(text.to_owned()),
        _ => Err(Problem::Node(text.to_owned())),
    }
}

/// A share (`30%`) or a number.
pub(crate) fn shrink(value: &IntOrString) -> Result<Shrink, Problem> {
    let (parsed, text) = match value {
        IntOrString::Int(number) => (
            u32::try_from(*number).ok().map(Shrink::Count),
            number.to_string(),
        ),
        IntOrString::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok());
            (
                percent
                    .filter(|percent| *percent <= 100)
                    .map(Shrink::Percent),
                text.clone(),
            )
        }
    };
    parsed.ok_or(Problem::Share(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("60s", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("", None),
            ("60", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("1.5h", None),
            ("1s ", None),
            ("99999999999999999999s", None),
            ("9999999999999999h", None),
        ] {
            assert_eq!(
                duration(text).ok(),
                millis.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("16Mi", Some(16 << 20)),
            ("512Ki", Some(512 << 10)),
            ("1Gi", Some(1 << 30)),
            ("1048576", Some(1 << 20)),
            ("0", Some(0)),
            ("", None),
            ("Mi", None),
            ("16M", None),
            ("16 Mi", None),
            ("-1Mi", None),
            ("1.5Mi", None),
            ("99999999999999999999", None),
            ("99999999999999Gi", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn nodes() {
        for path in ["/dubbo", "/shop/dubbo", "/a b", "/a..b", "/ä"] {
            assert_eq!(node(path).as_deref(), Ok(path));
        }
        for path in [
            "", "/", "dubbo", "/dubbo/", "//dubbo", "/a//b", "/a/../b", "/.", "/a\n",
        ] {
            assert_eq!(node(path), Err(Problem::Node(path.to_owned())));
        }
    }

    #[test]
    fn shares() {
        let text = |text: &str| IntOrString::String(text.to_owned());
        for (value, expected) in [
            (text("30%"), Some(Shrink::Percent(30))),
            (text("0%"), Some(Shrink::Percent(0))),
            (text("100%"), Some(Shrink::Percent(100))),
            (IntOrString::Int(5), Some(Shrink::Count(5))),
            (text("101%"), None),
            (text("5"), None),
            (text("-1%"), None),
            (text(""), None),
            (IntOrString::Int(-1), None),
        ] {
            assert_eq!(shrink(&value).ok(), expected, "{value:?}");
        }
    }
}
