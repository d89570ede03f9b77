//! What is known of one namespace, and what there is to ask. Pure: no I/O, no clock.
//!
//! # Which answer counts
//!
//! Pushes and answers come over different streams, so that one can overtake the other. Each carries
//! the time at which the server made it:
//!
//! - A push that is older than what was seen before does not count, and the service is asked for.
//! - An answer counts whatever its time is, unless a newer push came after the question: it was asked
//!   when all that is known had been seen. So a server whose clock was set back is heard again after
//!   one question, and a service that was pushed out of order ends as it is.
//!
//! # When a service is gone
//!
//! No list removes anything. A service that two whole lists lack is asked for, and is gone if it has
//! no instances.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use diolkos_model::ServiceKey;
use diolkos_nacos::{Error, Host, Name, ServiceInfo};

use crate::{Config, Directory, metadata::Metadata, told::Told};

/// So many whole lists in a row have to lack a service before it is asked for.
const ABSENCES: u8 = 2;
/// Reasons that are written out in one line.
const REASONS: usize = 3;

/// The names of a list.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) names: HashSet<Name>,
    /// Why it may lack some.
    pub(crate) torn: Option<Arc<str>>,
    /// Whether what it lacks was looked for twice, or there is only one page.
    pub(crate) certain: bool,
}

/// A question for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) name: Name,
    /// Whether to subscribe to it as well.
    pub(crate) subscribe: bool,
    /// Whether the lists lack it.
    absent: bool,
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) info: ServiceInfo,
    /// The hosts with their true health, where the service is under its protection threshold.
    pub(crate) health: Option<Vec<Host>>,
    /// Why that health is not known, although it would be needed.
    pub(crate) doubt: Option<Arc<str>>,
}

/// Where a question stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asking {
    #[default]
    Not,
    Queued,
    UnderWay,
}

/// A service that is followed.
#[derive(Debug, Default)]
struct Followed {
    subscribed: bool,
    /// The time of what was seen last over this connection.
    last: Option<i64>,
    asking: Asking,
    /// A push was taken since the question that is under way.
    touched: bool,
    /// To be asked once more after that; of one that is leaving, that it has come back.
    again: bool,
    /// How many whole lists in a row lack it.
    absences: u8,
    /// It has instances, though the lists lack it, and that was said.
    odd: bool,
    /// It is gone; the subscription is being ended.
    leaving: bool,
}

/// One namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) id: Arc<str>,
    pub(crate) directory: Directory,
    pub(crate) metadata: Metadata,
    pub(crate) told: Told,
    services: HashMap<Name, Followed>,
    queue: VecDeque<Name>,
    /// Questions under way.
    under_way: usize,
    /// Services that the sweep has still to look at.
    round: Vec<Name>,
    /// Services that cannot be read, and why. What is known of them stays.
    doubts: BTreeMap<Name, Arc<str>>,
    /// Why the list of services may lack some.
    torn: Option<Arc<str>>,
    /// Why metadata in the configuration cannot be read.
    pub(crate) metadata_doubt: Option<Arc<str>>,
}

impl Namespace {
    /// Nothing is known of it.
    pub(crate) fn new(config: &Config, id: &str) -> Self {
        Self {
            id: id.into(),
            directory: Directory::new(config, id),
            metadata: Metadata::default(),
            told: Told::default(),
            services: HashMap::new(),
            queue: VecDeque::new(),
            under_way: 0,
            round: Vec::new(),
            doubts: BTreeMap::new(),
            torn: None,
            metadata_doubt: None,
        }
    }

    /// A new connection begins: there are no subscriptions, and times of other servers say nothing.
    pub(crate) fn begin(&mut self) {
        self.services.retain(|_, followed| !followed.leaving);
        for followed in self.services.values_mut() {
            *followed = Followed::default();
        }
        self.queue.clear();
        self.under_way = 0;
        self.round.clear();
        self.doubts.clear();
        self.torn = None;
        self.metadata_doubt = None;
        self.metadata.begin();
    }

    /// Takes over a list. With `all`, each service is asked for, else those that are new or gone.
    pub(crate) fn listed(&mut self, listing: Listing, all: bool) {
        let mut ask = Vec::new();
        for name in &listing.names {
            match self.services.get_mut(name) {
                Some(followed) => followed.absences = 0,
                None if self.directory.takes(name) => {
                    self.services.insert(name.clone(), Followed::default());
                    ask.push(name.clone());
                }
                None => {}
            }
        }
        for (name, followed) in &mut self.services {
            if listing.torn.is_none() && !listing.names.contains(name) {
                followed.absences = match listing.certain && all {
                    true => ABSENCES,
                    false => followed.absences.saturating_add(1),
                };
            }
            if all || followed.absences >= ABSENCES {
                ask.push(name.clone());
            }
        }
        for name in ask {
            self.look(&name);
        }
        self.torn = listing.torn;
    }

    /// Nacos says that there is such a service now. One that is followed already is pushed.
    pub(crate) fn added(&mut self, name: &Name) {
        match self.services.get_mut(name) {
            Some(followed) => {
                followed.absences = 0;
                followed.again |= followed.leaving;
            }
            None if self.directory.takes(name) => {
                self.services.insert(name.clone(), Followed::default());
                self.look(name);
            }
            None => {}
        }
    }

    /// Nacos says that the service went, which counts like a list that lacks it.
    pub(crate) fn deleted(&mut self, name: &Name) {
        if let Some(followed) = self.services.get_mut(name) {
            followed.absences = followed.absences.max(1);
            self.look(name);
        }
    }

    /// Takes over a push.
    pub(crate) fn pushed(&mut self, info: &ServiceInfo) {
        let Some(followed) = self.services.get_mut(&info.name) else {
            return;
        };
        if followed.leaving {
            return;
        }
        let older = followed.last.is_some_and(|last| info.last_ref_time < last);
        if older || info.protected {
            tracing::debug!(
                namespace = &*self.id,
                service = &*info.name.service,
                group = &*info.name.group,
                older,
                "a push does not count, asking for the service"
            );
            self.look(&info.name);
            return;
        }
        followed.last = Some(info.last_ref_time);
        followed.touched = true;
        self.doubts.remove(&info.name);
        self.directory.set(info, None);
    }

    /// Takes over an answer. Returns the service if it is gone and its subscription is to be ended;
    /// [`Namespace::left`] follows.
    pub(crate) fn answered(&mut self, ask: &Ask, answer: Result<Answer, Error>) -> Option<Name> {
        self.under_way = self.under_way.saturating_sub(1);
        let followed = self.services.get_mut(&ask.name)?;
        followed.asking = Asking::Not;
        let again = std::mem::take(&mut followed.again);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let Name { group, service } = &ask.name;
                let reason = format!("{group}@@{service} cannot be read: {error}");
                self.doubt(&ask.name, &reason.into());
                if again {
                    self.look(&ask.name);
                }
                return None;
            }
        };
        followed.subscribed |= ask.subscribe;
        let time = answer.info.last_ref_time;
        if followed.touched && followed.last.is_some_and(|last| time < last) {
            self.look(&ask.name);
            return None;
        }
        let absent = ask.absent && followed.absences >= ABSENCES;
        if absent && answer.info.hosts.is_empty() {
            if again {
                self.look(&ask.name);
                return None;
            }
            return self.leave(&ask.name);
        }
        followed.last = Some(time);
        if absent {
            followed.absences = 0;
            if !std::mem::replace(&mut followed.odd, true) {
                tracing::warn!(
                    namespace = &*self.id,
                    service = &*ask.name.service,
                    group = &*ask.name.group,
                    "a service has instances, though the list of services lacks it"
                );
            }
        }
        let again = again || !followed.subscribed;
        self.take(answer);
        if again {
            self.look(&ask.name);
        }
        None
    }

    fn take(&mut self, answer: Answer) {
        let Answer {
            info,
            health,
            doubt,
        } = answer;
        match doubt {
            Some(doubt) => self.doubt(&info.name, &doubt),
            None => drop(self.doubts.remove(&info.name)),
        }
        self.directory.set(&info, health.as_deref());
    }

    fn doubt(&mut self, name: &Name, reason: &Arc<str>) {
        let before = self.doubts.insert(name.clone(), reason.clone());
        if before.as_ref() != Some(reason) {
            tracing::warn!(
                namespace = &*self.id,
                reason = &**reason,
                "the mesh keeps what it has of the service"
            );
        }
    }

    fn leave(&mut self, name: &Name) -> Option<Name> {
        self.directory.remove(name);
        self.doubts.remove(name);
        let followed = self.services.get_mut(name)?;
        if followed.subscribed {
            followed.leaving = true;
            return Some(name.clone());
        }
        self.services.remove(name);
        None
    }

    /// The subscription has ended: from now on the service may come again. If it has already, it is
    /// asked for.
    pub(crate) fn left(&mut self, name: &Name) {
        if self.services.remove(name).is_some_and(|gone| gone.again) {
            self.added(name);
        }
    }

    /// Asks for a service, as soon as there is room, and for what it is like from now on.
    fn look(&mut self, name: &Name) {
        let Some(followed) = self.services.get_mut(name) else {
            return;
        };
        match followed.asking {
            _ if followed.leaving => {}
            Asking::Not => {
                followed.asking = Asking::Queued;
                self.queue.push_back(name.clone());
            }
            Asking::Queued => {}
            Asking::UnderWay => followed.again = true,
        }
    }

    /// The next question.
    pub(crate) fn next_ask(&mut self) -> Option<Ask> {
        while let Some(name) = self.queue.pop_front() {
            let Some(followed) = self.services.get_mut(&name) else {
                continue;
            };
            followed.asking = Asking::UnderWay;
            followed.touched = false;
            followed.again = false;
            self.under_way += 1;
            let absent = followed.absences >= ABSENCES;
            return Some(Ask {
                subscribe: !followed.subscribed && !absent,
                absent,
                name,
            });
        }
        None
    }

    /// Asks for the next service, in turns.
    pub(crate) fn sweep(&mut self) {
        if self.round.is_empty() {
            self.round.extend(self.services.keys().cloned());
        }
        if let Some(name) = self.round.pop() {
            self.look(&name);
        }
    }

    /// Asks once more for what could not be read.
    pub(crate) fn retry(&mut self) {
        let doubted: Vec<Name> = self.doubts.keys().cloned().collect();
        for name in doubted {
            self.look(&name);
        }
    }

    /// Questions under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether there is nothing to ask and nothing asked.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way == 0 && self.queue.is_empty()
    }

    /// How many services are followed.
    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether a further list decides about a service.
    pub(crate) fn lacks(&self) -> bool {
        let mut all = self.services.values();
        all.any(|followed| followed.absences > 0 && !followed.leaving)
    }

    /// Whether services may be missing altogether, and why.
    pub(crate) fn complaint(&self) -> Option<Arc<str>> {
        let reasons = self.torn.iter().chain(&self.metadata_doubt);
        joined(reasons.chain(self.doubts.values()))
    }

    /// Whether instances of one of our services may be missing, and why.
    pub(crate) fn complaint_of(&self, key: &ServiceKey) -> Option<Arc<str>> {
        let doubts = self.doubts.iter();
        let doubts = doubts.filter(|(name, _)| self.directory.concerns(name, key));
        let metadata = self.metadata_doubt.iter();
        let metadata = metadata.filter(|_| self.directory.rests_on_metadata(key));
        joined(
            self.torn
                .iter()
                .chain(metadata)
                .chain(doubts.map(|(_, reason)| reason)),
        )
    }
}

/// Reasons in one line.
pub(crate) fn joined<'a>(mut reasons: impl Iterator<Item = &'a Arc<str>>) -> Option<Arc<str>> {
    let first: Vec<&str> = reasons.by_ref().take(REASONS).map(|r| &**r).collect();
    match (first.as_slice(), reasons.count()) {
        ([], _) => None,
        (_, 0) => Some(first.join("; ").into()),
        (_, more) => Some(format!("{}; and {more} more", first.join("; ")).into()),
    }
}

#[cfg(test)]
mod tests;
