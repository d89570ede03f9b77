//! YAML in and out: the only place that knows serde-saphyr.

mod index;

use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::{Error, MessageFormatter as _, UserMessageFormatter};

use crate::fault::{Fault, FieldPath, Place, Problem, nearest};

/// One document of a text.
pub(crate) struct Document<'a> {
    text: &'a str,
    lines_before: u32,
    index: index::Index,
}

/// The documents of a text that have content, and what ends the text too early.
pub(crate) fn documents(text: &str) -> (Vec<Document<'_>>, Option<Fault>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (scanned, error) = index::scan(text);
    let documents = scanned
        .into_iter()
        .filter(|document| !document.index.is_empty())
        .filter_map(|document| {
            let Range { start, end } = document.range;
            let text = text.get(start..end)?;
            Some(Document {
                text,
                lines_before: document.lines_before,
                index: document.index,
            })
        })
        .collect();
    let fault = error.map(|error| Fault {
        file: None,
        place: Some(index::place(error.marker())),
        path: FieldPath::default(),
        problem: Problem::Syntax(error.info()),
    });
    (documents, fault)
}

impl Document<'_> {
    /// Where the field is, or the nearest field above it that is there.
    pub(crate) fn place(&self, path: &FieldPath) -> Option<Place> {
        self.index.place(path)
    }

    /// Reads it as a type.
    ///
    /// # Errors
    /// The first thing that does not fit the type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Box<Fault>> {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(self.text, options)
            .map_err(|error| Box::new(self.fault(error.without_snippet())))
    }

    fn fault(&self, error: &Error) -> Fault {
        let place = error.location().map(|location| Place {
            line: u32::try_from(location.line())
                .unwrap_or(u32::MAX)
                .saturating_add(self.lines_before),
            column: u32::try_from(location.column()).unwrap_or(u32::MAX),
        });
        let problem = problem(error);
        let Some(place) = place else {
            return Fault {
                file: None,
                place,
                path: FieldPath::default(),
                problem,
            };
        };
        // Of a missing field the place is where its siblings are.
        if let Error::SerdeMissingField { field, .. } = error {
            let path = self.index.mapping_at(place).unwrap_or_default().key(field);
            return Fault {
                file: None,
                place: self.place(&path),
                path,
                problem,
            };
        }
        let path = self.index.path_at(place).unwrap_or_default();
        Fault {
            file: None,
            place: Some(place),
            path,
            problem,
        }
    }
}

fn problem(error: &Error) -> Problem {
    let names = |known: &[&str]| {
        known
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => {
            let known = names(expected);
            Problem::UnknownField {
                field: field.clone(),
                nearest: nearest(field, &known),
                known,
            }
        }
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => {
            let known = names(expected);
            Problem::UnknownValue {
                value: variant.clone(),
                nearest: nearest(variant, &known),
                known,
            }
        }
        Error::SerdeMissingField { .. } => Problem::MissingField,
        Error::DuplicateMappingKey { key, .. } => {
            Problem::DuplicateKey(key.clone().unwrap_or_default())
        }
        Error::AliasError { error, .. } => problem(error),
        Error::Unexpected { expected, .. } => {
            Problem::Type(format!("{} is needed", plain(expected)))
        }
        Error::InvalidScalar { ty, .. } => Problem::Type(format!("{} is needed", plain(ty))),
        Error::SerdeInvalidType {
            unexpected,
            expected,
            ..
        } => Problem::Type(format!("{} is needed, not {unexpected}", plain(expected))),
        _ => Problem::Type(UserMessageFormatter.format_message(error).into_owned()),
    }
}

/// What a parser calls a type, in words for who writes YAML.
fn plain(expected: &str) -> &str {
    match expected {
        "string scalar" => "a text",
        "sequence start" => "a list",
        "mapping start" => "a mapping",
        "boolean" => "true or false",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "IntOrString" => "a number or a text",
        other => other,
    }
}

/// Writes a value as YAML.
pub(crate) fn write(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("every JSON value has a form in YAML")
}
