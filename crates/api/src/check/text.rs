//! Templates, globs, and what else is checked in several places.

use diolkos_plan::{Matcher, Select, Template};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::{
    fault::{Faults, FieldPath, Problem},
    raw::{MatcherSpec, RegistrySpec},
};

/// What a template makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Makes {
    Host,
    Namespace,
    Locality,
}

impl Makes {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Namespace => "namespace",
            Self::Locality => "locality",
        }
    }

    /// Whether the fixed part of a template may have this character. What a registry's names
    /// bring is made valid later; what is written by hand ought to be what is meant. There is no
    /// `*`: wildcard hosts are denied.
    fn allows(self, c: char) -> bool {
        let label = c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match self {
            Self::Host => label || c == '.',
            Self::Namespace => label,
            Self::Locality => !c.is_control() && !c.is_whitespace(),
        }
    }
}

pub(super) fn template(
    text: &str,
    makes: Makes,
    at: &FieldPath,
    faults: &mut Faults,
) -> Option<Template> {
    let template = faults.take(at, Template::parse(text))?;
    if let Some(character) = literals(text).find(|c| !makes.allows(*c)) {
        faults.add(
            at,
            Problem::Literal {
                character,
                what: makes.name(),
            },
        );
        return None;
    }
    Some(template)
}

/// The characters of a valid template outside of its expressions.
fn literals(template: &str) -> impl Iterator<Item = char> {
    let mut inside = false;
    template.chars().filter(move |c| {
        let outside = !inside && *c != '{';
        inside = *c == '{' || (inside && *c != '}');
        outside
    })
}

/// A set of globs; `None` as the set if there are none.
pub(super) fn globs(
    globs: &[String],
    at: &FieldPath,
    faults: &mut Faults,
) -> Option<Option<GlobSet>> {
    let mut set = GlobSetBuilder::new();
    let mut valid = true;
    for (n, glob) in globs.iter().enumerate() {
        match Glob::new(glob) {
            Ok(glob) => drop(set.add(glob)),
            Err(error) => {
                faults.add(&at.index(n), Problem::Glob(error.kind().to_string()));
                valid = false;
            }
        }
    }
    if !valid {
        return None;
    }
    // Globs that are valid one by one can still be too large together.
    let set = faults.take(at, set.build().map_err(|e| Problem::Glob(e.to_string())))?;
    Some((!globs.is_empty()).then_some(set))
}

pub(super) fn select(spec: &RegistrySpec, at: &FieldPath, faults: &mut Faults) -> Option<Select> {
    let select = spec.select.clone().unwrap_or_default();
    let include = matcher(select.include.as_ref(), &at.key("include"), faults);
    let exclude = matcher(select.exclude.as_ref(), &at.key("exclude"), faults);
    let include_names = |name: &str| {
        select
            .include
            .iter()
            .flat_map(|include| &include.services)
            .any(|glob| glob == name)
    };
    let mut exclude = vec![exclude?];
    // Consul registers its servers as a service; nobody wants to call them by accident.
    if spec.consul.is_some() && !include_names("consul") {
        exclude.push(named("consul"));
    }
    exclude.retain(|matcher| !matcher.is_empty());
    Some(Select {
        include: Some(include?).filter(|matcher| !matcher.is_empty()),
        exclude,
        healthy_only: select.healthy_only.unwrap_or(true),
    })
}

/// Matches the service of that name, which has no characters that are special in globs.
fn named(name: &str) -> Matcher {
    let services = Glob::new(name)
        .and_then(|glob| GlobSet::builder().add(glob).build())
        .ok();
    Matcher {
        services,
        ..Matcher::default()
    }
}

fn matcher(spec: Option<&MatcherSpec>, at: &FieldPath, faults: &mut Faults) -> Option<Matcher> {
    let Some(spec) = spec else {
        return Some(Matcher::default());
    };
    let services = globs(&spec.services, &at.key("services"), faults);
    let groups = globs(&spec.groups, &at.key("groups"), faults);
    let tags = globs(&spec.tags, &at.key("tags"), faults);
    let metadata: Vec<_> = spec
        .metadata
        .iter()
        .map(|(key, values)| {
            let at = at.key("metadata").key(key);
            if values.is_empty() {
                faults.add(&at, Problem::Empty);
            }
            Some((key.clone(), globs(values, &at, faults)??))
        })
        .collect();
    Some(Matcher {
        services: services?,
        groups: groups?,
        tags: tags?,
        metadata: metadata.into_iter().collect::<Option<_>>()?,
    })
}

pub(super) fn at_least_one<N: Copy + PartialEq + From<u8>>(
    number: Option<N>,
    at: &FieldPath,
    faults: &mut Faults,
) {
    if number == Some(N::from(0)) {
        faults.add(at, Problem::Zero);
    }
}

pub(super) fn not_empty(text: Option<&str>, at: &FieldPath, faults: &mut Faults) {
    if text.is_some_and(str::is_empty) {
        faults.add(at, Problem::Empty);
    }
}

/// Reports every value that was there before.
pub(super) fn no_repeats<'a>(
    values: impl IntoIterator<Item = (FieldPath, &'a String)>,
    faults: &mut Faults,
) {
    let mut seen = std::collections::HashSet::new();
    for (at, value) in values {
        if !seen.insert(value) {
            faults.add(&at, Problem::Repeated(value.clone()));
        }
    }
}

/// The items of a list, each with its path.
pub(super) fn items<'a>(
    list: &'a [String],
    at: &'a FieldPath,
) -> impl Iterator<Item = (FieldPath, &'a String)> {
    list.iter()
        .enumerate()
        .map(|(n, value)| (at.index(n), value))
}
