//! What is carried over at all.

use diolkos_model::{Instance, Service};
use globset::GlobSet;

use crate::{Matcher, Select};

/// The key under which sources keep an instance's plain tags, joined by commas.
pub(crate) const TAGS: &str = "tags";

/// The name that globs are about: the service's. That of a variant of a Dubbo interface
/// (`INTERFACE:VERSION`) is the interface's, as for the sources, which decide what to read by it.
pub(crate) fn name(service: &Service) -> &str {
    let name = &*service.key.name;
    let interface = service.meta.iter().find(|(key, _)| &**key == "interface");
    interface
        .map(|(_, interface)| &**interface)
        .filter(|interface| {
            let variant = name.strip_prefix(interface);
            variant.is_some_and(|variant| variant.starts_with(':'))
        })
        .unwrap_or(name)
}

/// Whether a service is carried over.
pub(crate) fn service(select: &Select, service: &Service) -> Result<(), String> {
    let name = name(service);
    if let Some(include) = &select.include
        && !matches_service(include, service)
    {
        return Err(format!("'{name}' is not in select.include"));
    }
    // An exclusion that looks at instances excludes those, not the whole service.
    let excluded = |matcher: &Matcher| {
        !matcher.is_empty() && !matcher.selects_instances() && matches_service(matcher, service)
    };
    if select.exclude.iter().any(excluded) {
        return Err(format!("'{name}' is in select.exclude"));
    }
    Ok(())
}

/// Whether an instance of a service that is carried over goes along.
pub(crate) fn instance(
    select: &Select,
    service: &Service,
    instance: &Instance,
) -> Result<(), String> {
    if let Some(include) = &select.include
        && !matches_instance(include, instance)
    {
        return Err("its tags or metadata are not in select.include".into());
    }
    let excluded = |matcher: &Matcher| {
        matcher.selects_instances()
            && matches_service(matcher, service)
            && matches_instance(matcher, instance)
    };
    if select.exclude.iter().any(excluded) {
        return Err("its tags or metadata are in select.exclude".into());
    }
    Ok(())
}

fn matches_service(matcher: &Matcher, service: &Service) -> bool {
    let fits =
        |globs: &Option<GlobSet>, text: &str| globs.as_ref().is_none_or(|g| g.is_match(text));
    fits(&matcher.services, name(service)) && fits(&matcher.groups, &service.key.group)
}

fn matches_instance(matcher: &Matcher, instance: &Instance) -> bool {
    let value = |key: &str| {
        instance
            .labels
            .iter()
            .find(|(k, _)| &**k == key)
            .map(|(_, value)| &**value)
    };
    let tags = matcher.tags.as_ref().is_none_or(|globs| {
        value(TAGS)
            .unwrap_or_default()
            .split(',')
            .filter(|tag| !tag.is_empty())
            .any(|tag| globs.is_match(tag))
    });
    tags && matcher
        .metadata
        .iter()
        .all(|(key, globs)| value(key).is_some_and(|value| globs.is_match(value)))
}

#[cfg(test)]
mod tests {
    use diolkos_model::Interner;

    use crate::testing;

    #[test]
    fn variants_of_an_interface_have_its_name() {
        for (key, meta, expected) in [
            ("a.B:1.0", &[("interface", "a.B")][..], "a.B"),
            ("a.B", &[("interface", "a.B")], "a.B"),
            // What others call an interface says nothing of their name.
            ("web", &[("interface", "eth0")], "web"),
            ("web:1", &[], "web:1"),
            ("eth01", &[("interface", "eth0")], "eth01"),
        ] {
            let mut service = testing::service(key, "");
            service.meta = Interner::new().labels(meta.iter().copied());
            assert_eq!(super::name(&service), expected, "{key} {meta:?}");
        }
    }
}
