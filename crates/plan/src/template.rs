//! The expressions in `host`, `namespace`, `aliases` and `locality`.
//!
//! ```text
//! {service}.{group|lower}.{meta.env}.internal
//! ```
//!
//! Variables: `service`, `group`, `namespace`, `datacenter`, `registry`, `version`, `region`,
//! `zone`, `subzone` and `meta.KEY`. Filters, left to right: `lower` and `dns` (makes the value one
//! valid DNS label). A template is checked when the document is read, not when the first odd name
//! arrives.

use std::{fmt, sync::Arc};

use diolkos_model::{Instance, Service};

use crate::names;

/// A checked template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: Arc<str>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable, Vec<Filter>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    Service,
    Group,
    Namespace,
    Registry,
    Version,
    Region,
    Zone,
    SubZone,
    Meta(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Lower,
    Dns,
}

/// Why a text is not a template.
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// `{` without `}`.
    #[error("'{{' at character {0} is never closed")]
    Unclosed(usize),
    /// `}` without `{`.
    #[error("'}}' at character {0} closes nothing")]
    Unopened(usize),
    /// Not a variable.
    #[error(
        "unknown variable '{0}'; known are service, group, namespace, datacenter, registry, version, region, zone, subzone and meta.KEY"
    )]
    Variable(String),
    /// Not a filter.
    #[error("unknown filter '{0}'; known are lower and dns")]
    Filter(String),
    /// Nothing in it.
    #[error("the template is empty")]
    Empty,
}

/// A variable of the template has no value for this service.
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
#[error("'{{{variable}}}' has no value here")]
pub struct MissingValue {
    /// The variable, as written.
    pub variable: String,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`]: what is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let offset = text.len() - rest.len() + at;
            if rest[at..].starts_with('}') {
                return Err(TemplateError::Unopened(offset + 1));
            }
            if at > 0 {
                parts.push(Part::Literal(rest[..at].to_owned()));
            }
            let close = rest[at..]
                .find('}')
                .ok_or(TemplateError::Unclosed(offset + 1))?;
            parts.push(parse_expression(&rest[at + 1..at + close])?);
            rest = &rest[at + close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err(TemplateError::Empty);
        }
        Ok(Self {
            source: text.into(),
            parts,
        })
    }

    /// A template that is this text, whatever it holds.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        Self {
            source: text.into(),
            parts: vec![Part::Literal(text.to_owned())],
        }
    }

    /// Fills in the values of a service, and of an instance where one is given.
    ///
    /// # Errors
    /// [`MissingValue`] for a variable that is empty here, or of which `dns` leaves nothing.
    pub fn render(
        &self,
        service: &Service,
        instance: Option<&Instance>,
    ) -> Result<String, MissingValue> {
        let mut text = String::with_capacity(self.source.len() + 16);
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Variable(variable, filters) => {
                    let value = variable.value(service, instance).unwrap_or_default();
                    let filtered =
                        filters
                            .iter()
                            .fold(value.to_owned(), |value, filter| match filter {
                                Filter::Lower => value.to_lowercase(),
                                Filter::Dns => names::dns_label(&value),
                            });
                    // A part of a host that is nothing would leave another host.
                    if filtered.is_empty() {
                        return Err(MissingValue {
                            variable: variable.to_string(),
                        });
                    }
                    text.push_str(&filtered);
                }
            }
        }
        Ok(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Variable {
    fn value<'a>(&self, service: &'a Service, instance: Option<&'a Instance>) -> Option<&'a str> {
        // What a registry keeps on instances is taken from the first one where a service is meant.
        let instance = instance.or(service.instances.first());
        match self {
            Self::Service => Some(&service.key.name),
            Self::Group => Some(&service.key.group),
            Self::Namespace => Some(&service.key.namespace),
            Self::Registry => Some(&service.key.registry),
            Self::Version => instance.and_then(|i| i.version.as_deref()),
            Self::Region => instance.map(|i| &*i.locality.region),
            Self::Zone => instance.map(|i| &*i.locality.zone),
            Self::SubZone => instance.map(|i| &*i.locality.sub_zone),
            Self::Meta(key) => {
                let find = |labels: &'a diolkos_model::Labels| {
                    labels.iter().find(|(k, _)| **k == **key).map(|(_, v)| &**v)
                };
                find(&service.meta).or_else(|| instance.and_then(|i| find(&i.labels)))
            }
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "service",
            Self::Group => "group",
            Self::Namespace => "namespace",
            Self::Registry => "registry",
            Self::Version => "version",
            Self::Region => "region",
            Self::Zone => "zone",
            Self::SubZone => "subzone",
            Self::Meta(key) => return write!(f, "meta.{key}"),
        })
    }
}

fn parse_expression(text: &str) -> Result<Part, TemplateError> {
    let mut words = text.split('|').map(str::trim);
    let name = words.next().unwrap_or_default();
    let variable = match name {
        "service" => Variable::Service,
        "group" => Variable::Group,
        // Consul's partition of services is the datacenter; the key holds it as the namespace.
        "namespace" | "datacenter" => Variable::Namespace,
        "registry" => Variable::Registry,
        "version" => Variable::Version,
        "region" => Variable::Region,
        "zone" => Variable::Zone,
        "subzone" => Variable::SubZone,
        _ => match name.strip_prefix("meta.") {
            Some(key) if !key.is_empty() => Variable::Meta(key.to_owned()),
            _ => return Err(TemplateError::Variable(name.to_owned())),
        },
    };
    let filters = words
        .map(|word| match word {
            "lower" => Ok(Filter::Lower),
            "dns" => Ok(Filter::Dns),
            _ => Err(TemplateError::Filter(word.to_owned())),
        })
        .collect::<Result<_, _>>()?;
    Ok(Part::Variable(variable, filters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::service;

    #[test]
    fn renders() {
        let service = service("My_Service", "dc1");
        for (template, expected) in [
            ("{service}.service.consul", Ok("My_Service.service.consul")),
            ("{service|lower}.x", Ok("my_service.x")),
            ("{service | lower | dns}.{datacenter}", Ok("my-service.dc1")),
            ("plain", Ok("plain")),
            ("{group}.x", Err("group")),
            ("{meta.none}", Err("meta.none")),
            ("{registry|dns}", Ok("consul")),
        ] {
            let rendered = Template::parse(template).unwrap().render(&service, None);
            let rendered = rendered.as_deref().map_err(|e| e.variable.as_str());
            assert_eq!(rendered, expected, "{template}");
        }
    }

    #[test]
    fn a_value_of_which_nothing_is_left_is_none() {
        let template = Template::parse("{service|dns}.x").unwrap();
        let rendered = template.render(&service("__", ""), None);
        assert_eq!(rendered.unwrap_err().variable, "service");
    }

    #[test]
    fn refuses_what_is_no_template() {
        for (text, error) in [
            ("", TemplateError::Empty),
            ("{service", TemplateError::Unclosed(1)),
            ("a}b", TemplateError::Unopened(2)),
            ("{Service}", TemplateError::Variable("Service".into())),
            ("{meta.}", TemplateError::Variable("meta.".into())),
            ("{service|upper}", TemplateError::Filter("upper".into())),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
    }
}
