//! The set of checks that do not pass, and what a change of it touches.

use std::{collections::HashMap, sync::Arc};

use diolkos_model::{ContentHash, Hasher};

use crate::wire::Check;

/// All checks of a datacenter that do not pass.
#[derive(Debug, Default)]
pub(crate) struct Failing(HashMap<Id, State>);

type Id = (Box<str>, Box<str>);

/// What an instance's health is made of. Not the output, which changes with every run of a check.
#[derive(Debug, PartialEq)]
struct State {
    service: Arc<str>,
    content: ContentHash,
}

/// What a change of checks touches.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Touched {
    /// Services, by name; some may be named twice.
    pub(crate) services: Vec<Arc<str>>,
    /// Nodes, by name: all their services are touched.
    pub(crate) nodes: Vec<Arc<str>>,
}

impl Failing {
    /// The set that Consul's list describes.
    pub(crate) fn of(checks: &[Check]) -> Self {
        Self(
            checks
                .iter()
                .map(|check| (id(check), state(check)))
                .collect(),
        )
    }

    /// Replaces the set, and says what the difference touches.
    pub(crate) fn replace(&mut self, new: Self) -> Touched {
        let mut touched = Touched::default();
        for (id, state) in &new.0 {
            let before = self.0.remove(id);
            if before.as_ref() != Some(state) {
                touched.add(id, state);
                before.iter().for_each(|before| touched.add(id, before));
            }
        }
        // What is left is not failing any more.
        for (id, state) in &self.0 {
            touched.add(id, state);
        }
        *self = new;
        touched
    }
}

impl Touched {
    fn add(&mut self, (node, _): &Id, state: &State) {
        if state.service.is_empty() {
            self.nodes.push((**node).into());
        } else {
            self.services.push(state.service.clone());
        }
    }
}

fn id(check: &Check) -> Id {
    (check.node.as_str().into(), check.check_id.as_str().into())
}

fn state(check: &Check) -> State {
    let mut hasher = Hasher::new();
    for part in [&check.service_id, &check.name, &check.status, &check.notes] {
        hasher.str(part);
    }
    State {
        service: check.service_name.as_str().into(),
        content: hasher.finish(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, service: &str, status: &str) -> Check {
        Check {
            node: "n1".into(),
            check_id: id.into(),
            service_name: service.into(),
            status: status.into(),
            ..Check::default()
        }
    }

    #[test]
    fn only_what_differs_is_touched() {
        let mut failing = Failing::of(&[
            check("stays", "a", "critical"),
            check("recovers", "b", "critical"),
            check("worsens", "c", "warning"),
        ]);
        let touched = failing.replace(Failing::of(&[
            check("stays", "a", "critical"),
            check("worsens", "c", "critical"),
            check("fails", "d", "critical"),
            check("serfHealth", "", "critical"),
        ]));
        let mut services = touched.services;
        services.sort();
        services.dedup();
        assert_eq!(
            services,
            ["b".into(), "c".into(), "d".into()] as [Arc<str>; 3]
        );
        assert_eq!(touched.nodes, ["n1".into()] as [Arc<str>; 1]);
    }

    #[test]
    fn a_new_output_touches_nothing() {
        let mut failing = Failing::of(&[check("a", "a", "critical")]);
        let again = failing.replace(Failing::of(&[check("a", "a", "critical")]));
        assert_eq!(again, Touched::default());
    }
}
