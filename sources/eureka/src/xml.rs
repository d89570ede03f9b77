//! The XML form of an answer, each instance brought to the JSON form.
//!
//! Attributes become fields with an `@` before their name, the text of an element with attributes
//! the field `$`, repeated elements a list. There is no document type in Eureka's answers, so one
//! that brings its own (and entities with it) is refused.

use quick_xml::{
    Reader,
    escape::resolve_xml_entity,
    events::{BytesRef, BytesStart, Event},
};
use serde_json::{Map, Value};

use crate::wire::{DecodeError, Each, Head, plain};

/// Elements inside of elements; Eureka's are at most 6 deep.
const DEEPEST: usize = 16;

/// Reads `<applications>`.
pub(crate) fn decode(body: &[u8], each: &mut Each<'_>) -> Result<Head, DecodeError> {
    let text = std::str::from_utf8(body).map_err(fault)?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let mut head = Head::default();
    loop {
        match next(&mut reader)? {
            Event::Start(start) if start.name().as_ref() == "applications" => {
                applications(&mut reader, &mut head, each)?;
                return Ok(head);
            }
            Event::Start(start) => {
                let name = start.name();
                return Err(fault(format!("it begins with <{}>", name.as_ref())));
            }
            Event::Eof => return Err(fault("it has no elements")),
            _ => {}
        }
    }
}

fn applications(
    reader: &mut Reader<&[u8]>,
    head: &mut Head,
    each: &mut Each<'_>,
) -> Result<(), DecodeError> {
    children(reader, |reader, start| {
        match start.name().as_ref() {
            "application" => application(reader, each)?,
            "apps__hashcode" => {
                let value = element(reader, start, 1)?;
                head.hash = Some(plain(&value).trim().to_owned());
            }
            "versions__delta" => {
                let value = element(reader, start, 1)?;
                head.version = plain(&value).trim().parse().ok();
            }
            _ => drop(element(reader, start, 1)?),
        }
        Ok(())
    })
}

/// The name comes before the instances; where it does not, they tell it themselves.
fn application(reader: &mut Reader<&[u8]>, each: &mut Each<'_>) -> Result<(), DecodeError> {
    let mut name = String::new();
    children(reader, |reader, start| {
        let value = element(reader, start, 2)?;
        match start.name().as_ref() {
            "name" => name = plain(&value).into_owned(),
            "instance" => each(&name, &value),
            _ => {}
        }
        Ok(())
    })
}

/// Calls `child` for each element inside of the one that has begun.
fn children<'i>(
    reader: &mut Reader<&'i [u8]>,
    mut child: impl FnMut(&mut Reader<&'i [u8]>, &BytesStart<'i>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    loop {
        match next(reader)? {
            Event::Start(start) => child(reader, &start)?,
            Event::End(_) => return Ok(()),
            Event::Eof => return Err(fault("it breaks off")),
            _ => {}
        }
    }
}

/// The element that has begun, to its end.
fn element(
    reader: &mut Reader<&[u8]>,
    start: &BytesStart<'_>,
    depth: usize,
) -> Result<Value, DecodeError> {
    if depth > DEEPEST {
        return Err(fault(format!("elements are more than {DEEPEST} deep")));
    }
    let mut fields = Map::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(fault)?;
        let value = attribute
            .normalized_value(quick_xml::XmlVersion::Implicit1_0)
            .map_err(fault)?;
        fields.insert(format!("@{}", attribute.key.as_ref()), value.into());
    }
    let is_map = start.name().as_ref() == "metadata";
    let mut text = String::new();
    loop {
        match next(reader)? {
            Event::Start(child) => {
                let name = child.name();
                let name = if is_map {
                    unescape(name.as_ref())
                } else {
                    name.as_ref().to_owned()
                };
                add(&mut fields, name, element(reader, &child, depth + 1)?);
            }
            Event::Text(part) => text.push_str(&part.xml10_content()),
            Event::CData(part) => text.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) => text.push_str(&resolve(&reference)?),
            Event::End(_) => break,
            Event::Eof => return Err(fault("it breaks off")),
            _ => {}
        }
    }
    if fields.is_empty() {
        return Ok(Value::String(text));
    }
    if !text.trim().is_empty() {
        fields.insert("$".to_owned(), text.into());
    }
    Ok(Value::Object(fields))
}

/// One more element of a name makes a list of them.
fn add(fields: &mut Map<String, Value>, name: String, value: Value) {
    match fields.get_mut(&name) {
        None => drop(fields.insert(name, value)),
        Some(Value::Array(several)) => several.push(value),
        Some(one) => {
            let first = one.take();
            *one = Value::Array(vec![first, value]);
        }
    }
}

/// Undoes how XStream writes names that it takes for Java's: `__` is `_`, and `_-` is `$`.
fn unescape(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('_') {
        plain.push_str(&rest[..at]);
        let (mark, length) = match rest.as_bytes().get(at + 1) {
            Some(b'_') => ('_', 2),
            Some(b'-') => ('$', 2),
            _ => ('_', 1),
        };
        plain.push(mark);
        rest = &rest[at + length..];
    }
    plain + rest
}

fn resolve(reference: &BytesRef<'_>) -> Result<String, DecodeError> {
    if let Some(character) = reference.resolve_char_ref().map_err(fault)? {
        return Ok(character.into());
    }
    let name = reference.xml10_content();
    match resolve_xml_entity(&name) {
        Some(text) => Ok(text.to_owned()),
        None => Err(fault(format!("the entity &{name}; is not XML's"))),
    }
}

fn next<'i>(reader: &mut Reader<&'i [u8]>) -> Result<Event<'i>, DecodeError> {
    match reader.read_event().map_err(fault)? {
        Event::DocType(_) => Err(fault("it has a document type")),
        event => Ok(event),
    }
}

// By value, for `map_err`.
#[expect(clippy::needless_pass_by_value)]
fn fault(problem: impl ToString) -> DecodeError {
    DecodeError::Xml(problem.to_string())
}
