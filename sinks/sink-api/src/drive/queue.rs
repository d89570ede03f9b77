//! In which order objects are written. Pure: no I/O, no clock.
//!
//! Objects are grouped by service. Services that lose an endpoint come first: traffic to an instance
//! that is gone fails, one that is not there yet is only missing. Within a service what is new comes
//! before what is old goes, so that an endpoint that gets another name is never missing in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diolkos_istio::{Kind, ObjectKey};
use diolkos_model::ServiceKey;

/// How urgent a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Something of it goes.
    Urgent,
    /// Something is new or different.
    Rest,
    /// Nobody knows whose it was. After all that is wanted: it may be what that was called before.
    Orphan,
}

/// The order of classes, except for one pick in [`TURN`]: else those who change always would starve
/// the others.
const FIRST: [Class; 3] = [Class::Urgent, Class::Rest, Class::Orphan];
const NOW_AND_THEN: [Class; 3] = [Class::Rest, Class::Orphan, Class::Urgent];
const TURN: usize = 4;

/// What is written in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    Service(ServiceKey),
    Orphan(ObjectKey),
}

/// The steps of a group; none begins before those before it are done. Endpoints come before the
/// services that select them, and go before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stage(usize);

const STAGES: usize = 4;

impl Stage {
    pub(super) fn put(kind: Kind) -> Self {
        Self(match kind {
            Kind::WorkloadEntry => 0,
            Kind::ServiceEntry => 1,
        })
    }

    pub(super) fn delete(kind: Kind) -> Self {
        Self(match kind {
            Kind::WorkloadEntry => 2,
            Kind::ServiceEntry => 3,
        })
    }

    fn deletes(self) -> bool {
        self >= Self::delete(Kind::WorkloadEntry)
    }
}

/// An object that was picked. Has to be [handed back](Queue::done) when its write has ended.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) key: ObjectKey,
    pub(super) group: Group,
    pub(super) ticket: Ticket,
}

/// What the queue remembers of an object that was picked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    group: u64,
    stage: Stage,
    since: u64,
}

/// Objects to be written, each once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By number; lower is older.
    groups: BTreeMap<u64, Members>,
    numbers: HashMap<Group, u64>,
    places: HashMap<ObjectKey, (u64, Stage)>,
    /// The groups of each class that have something to do.
    ready: [BTreeSet<u64>; 3],
    /// How many objects, picked ones included, are there since which generation.
    since: BTreeMap<u64, usize>,
    next: u64,
    picks: usize,
}

#[derive(Debug)]
struct Members {
    group: Group,
    class: Class,
    /// Each with the generation that it is there since.
    todo: BTreeMap<(Stage, ObjectKey), u64>,
    /// How many of each stage were picked and are not done.
    picked: [usize; STAGES],
}

impl Members {
    /// The next object, if no earlier stage is under way.
    fn next(&self) -> Option<(Stage, ObjectKey)> {
        let ((stage, key), _) = self.todo.first_key_value()?;
        let under_way = self.picked[..stage.0].iter().any(|n| *n > 0);
        (!under_way).then(|| (*stage, key.clone()))
    }

    fn is_over(&self) -> bool {
        self.todo.is_empty() && self.picked == [0; STAGES]
    }
}

impl Queue {
    /// Adds an object, or moves it. `since` is the generation of the desired state that asks for it;
    /// of several the oldest counts.
    pub(super) fn push(&mut self, key: ObjectKey, group: &Group, stage: Stage, since: u64) {
        let since = self.remove(&key).map_or(since, |before| before.min(since));
        let urgent = stage.deletes() && matches!(group, Group::Service(_));
        let number = self.number(group);
        if let Some(members) = self.groups.get_mut(&number) {
            members.todo.insert((stage, key.clone()), since);
            self.ready[members.class as usize].insert(number);
        }
        self.places.insert(key, (number, stage));
        *self.since.entry(since).or_default() += 1;
        if urgent {
            self.hurry(group);
        }
    }

    fn number(&mut self, group: &Group) -> u64 {
        if let Some(number) = self.numbers.get(group) {
            return *number;
        }
        self.next += 1;
        let members = Members {
            group: group.clone(),
            class: match group {
                Group::Service(_) => Class::Rest,
                Group::Orphan(_) => Class::Orphan,
            },
            todo: BTreeMap::new(),
            picked: [0; STAGES],
        };
        self.groups.insert(self.next, members);
        self.numbers.insert(group.clone(), self.next);
        self.next
    }

    /// What is left to do of the group becomes urgent.
    pub(super) fn hurry(&mut self, group: &Group) {
        let number = self.numbers.get(group);
        let members = number.and_then(|number| Some((number, self.groups.get_mut(number)?)));
        if let Some((number, members)) = members {
            if self.ready[members.class as usize].remove(number) {
                self.ready[Class::Urgent as usize].insert(*number);
            }
            members.class = Class::Urgent;
        }
    }

    /// Takes an object out and tells since when it was there; `None` if it is not in the queue, or
    /// was picked.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<u64> {
        let (number, stage) = self.places.remove(key)?;
        let members = self.groups.get_mut(&number)?;
        let since = members.todo.remove(&(stage, key.clone()))?;
        self.count_down(since);
        self.tidy(number);
        Some(since)
    }

    /// The object to be written next. `None` if there is none, or if what comes next has to wait for
    /// what was picked.
    pub(super) fn pick(&mut self) -> Option<Picked> {
        self.picks += 1;
        let order = if self.picks.is_multiple_of(TURN) {
            NOW_AND_THEN
        } else {
            FIRST
        };
        let ready = order.iter().flat_map(|class| &self.ready[*class as usize]);
        let (number, (stage, key)) = ready
            .filter_map(|number| Some((*number, self.groups.get(number)?.next()?)))
            .next()?;
        self.places.remove(&key);
        let members = self.groups.get_mut(&number)?;
        let since = members.todo.remove(&(stage, key.clone()))?;
        members.picked[stage.0] += 1;
        let group = members.group.clone();
        self.tidy(number);
        Some(Picked {
            key,
            group,
            ticket: Ticket {
                group: number,
                stage,
                since,
            },
        })
    }

    /// The write of a picked object has ended, or did not begin.
    pub(super) fn done(&mut self, ticket: Ticket) {
        if let Some(members) = self.groups.get_mut(&ticket.group) {
            let picked = &mut members.picked[ticket.stage.0];
            *picked = picked.saturating_sub(1);
        }
        self.count_down(ticket.since);
        self.tidy(ticket.group);
    }

    fn count_down(&mut self, since: u64) {
        if let Some(count) = self.since.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.since.remove(&since);
            }
        }
    }

    fn tidy(&mut self, number: u64) {
        let Some(members) = self.groups.get(&number) else {
            return;
        };
        if members.todo.is_empty() {
            self.ready[members.class as usize].remove(&number);
        }
        if members.is_over() {
            self.numbers.remove(&members.group);
            self.groups.remove(&number);
        }
    }

    /// How many objects wait.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether the object waits.
    pub(super) fn contains(&self, key: &ObjectKey) -> bool {
        self.places.contains_key(key)
    }

    /// Whether something of the group waits.
    pub(super) fn has_more(&self, group: &Group) -> bool {
        let number = self.numbers.get(group);
        number
            .and_then(|number| self.groups.get(number))
            .is_some_and(|members| !members.todo.is_empty())
    }

    /// The oldest generation that has objects that wait or were picked.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.since.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKLOAD: Kind = Kind::WorkloadEntry;
    const SERVICE: Kind = Kind::ServiceEntry;

    fn key(kind: Kind, name: &str) -> ObjectKey {
        ObjectKey {
            kind,
            namespace: "mesh".into(),
            name: name.into(),
        }
    }

    fn service(name: &str) -> Group {
        Group::Service(ServiceKey {
            registry: "one".into(),
            namespace: "".into(),
            group: "".into(),
            name: name.into(),
        })
    }

    /// `put w a-1` of service `a`, `delete s a` and so on.
    fn push(queue: &mut Queue, what: &str, kind: Kind, name: &str) {
        let stage = match what {
            "put" => Stage::put(kind),
            _ => Stage::delete(kind),
        };
        let group = service(name.split('-').next().unwrap_or(name));
        queue.push(key(kind, name), &group, stage, 1);
    }

    /// The names in the order in which they come when each write ends before the next begins.
    fn one_by_one(queue: &mut Queue) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(picked) = queue.pick() {
            queue.done(picked.ticket);
            names.push(picked.key.name.to_string());
        }
        names
    }

    #[test]
    fn within_a_service_new_ones_come_before_old_ones_go() {
        let mut queue = Queue::default();
        push(&mut queue, "delete", SERVICE, "a");
        push(&mut queue, "delete", WORKLOAD, "a-old");
        push(&mut queue, "put", SERVICE, "a-new");
        push(&mut queue, "put", WORKLOAD, "a-1");
        push(&mut queue, "put", WORKLOAD, "a-2");
        let [first, second] = [queue.pick().unwrap(), queue.pick().unwrap()];
        assert!(queue.pick().is_none(), "the service entry waits");
        queue.done(first.ticket);
        assert!(queue.pick().is_none(), "for both");
        queue.done(second.ticket);
        assert_eq!(one_by_one(&mut queue), ["a-new", "a-old", "a"]);
        assert!(queue.groups.is_empty() && queue.numbers.is_empty());
        assert_eq!((queue.len(), queue.oldest()), (0, None));
    }

    #[test]
    fn what_loses_an_endpoint_comes_first_then_in_order_of_coming() {
        let mut queue = Queue::default();
        for name in ["m", "c", "x", "b"] {
            push(&mut queue, "put", SERVICE, name);
        }
        queue.hurry(&service("x"));
        push(&mut queue, "delete", WORKLOAD, "z-1");
        queue.push(
            key(SERVICE, "lost"),
            &Group::Orphan(key(SERVICE, "lost")),
            Stage::delete(SERVICE),
            1,
        );
        assert_eq!(
            one_by_one(&mut queue),
            ["x", "z-1", "m", "c", "b", "lost"],
            "the orphan last: it may be an old name"
        );
    }

    #[test]
    fn urgent_ones_without_end_do_not_starve_the_rest() {
        let mut queue = Queue::default();
        push(&mut queue, "put", SERVICE, "calm");
        let mut picks = 0;
        loop {
            push(&mut queue, "delete", WORKLOAD, &format!("busy-{picks}"));
            let picked = queue.pick().unwrap();
            queue.done(picked.ticket);
            picks += 1;
            if &*picked.key.name == "calm" {
                break;
            }
        }
        assert_eq!(picks, TURN);
    }

    #[test]
    fn a_group_that_has_to_wait_holds_nobody_back() {
        let mut queue = Queue::default();
        push(&mut queue, "put", WORKLOAD, "a-1");
        push(&mut queue, "put", SERVICE, "a");
        push(&mut queue, "put", SERVICE, "b");
        let hangs = queue.pick().unwrap();
        assert_eq!(&*hangs.key.name, "a-1");
        assert_eq!(one_by_one(&mut queue), ["b"]);
        queue.done(hangs.ticket);
        assert_eq!(one_by_one(&mut queue), ["a"]);
    }

    #[test]
    fn an_object_is_in_it_once_and_the_oldest_generation_counts() {
        let mut queue = Queue::default();
        for since in [3, 5] {
            let stage = Stage::put(SERVICE);
            queue.push(key(SERVICE, "a"), &service("a"), stage, since);
        }
        assert_eq!((queue.len(), queue.oldest()), (1, Some(3)));
        // It is to go instead.
        queue.push(key(SERVICE, "a"), &service("a"), Stage::delete(SERVICE), 6);
        assert_eq!((queue.len(), queue.oldest()), (1, Some(3)));
        let picked = queue.pick().unwrap();
        assert_eq!((queue.len(), queue.oldest()), (0, Some(3)), "under way");
        queue.done(picked.ticket);
        assert_eq!(queue.oldest(), None);
        queue.push(key(SERVICE, "a"), &service("a"), Stage::put(SERVICE), 7);
        assert_eq!(queue.remove(&key(SERVICE, "a")), Some(7));
        assert!(queue.pick().is_none() && queue.groups.is_empty());
    }
}
