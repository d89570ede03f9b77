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
