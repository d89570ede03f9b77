//! What is kept of an object: a few numbers, not its metadata.

use std::{collections::HashSet, fmt, sync::Arc, time::SystemTime};

use diolkos_istio::{Kind, ObjectKey, annotation, label};
use diolkos_model::{ContentHash, Interner};
use diolkos_sink_api::{Remembered, State};
use kube::api::ObjectMeta;

/// What we know of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) uid: Uid,
    /// `metadata.resourceVersion`. Greater is later: the API server promises that since Kubernetes 1.35, and etcd
    /// has always given it.
    pub(crate) version: u64,
    /// `metadata.generation`: grows with each change of the spec, not of metadata or status.
    pub(crate) generation: i64,
    /// [`State::Gone`] is the tombstone of an object that we removed, until the watch has seen that.
    pub(crate) state: State,
    /// Shared by the objects of a service. `None` where the object does not name one.
    pub(crate) cause: Option<Arc<Cause>>,
}

/// What an object says of why it is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cause {
    service: Arc<str>,
    endpoints: Option<u32>,
    empty_since: Option<SystemTime>,
}

impl Entry {
    /// The same, but the spec is not as it should be.
    pub(crate) fn unsettled(mut self) -> Self {
        if let State::Ours { hash, .. } = &mut self.state {
            *hash = None;
        }
        self
    }

    /// What an object of ours tells of the time before, if it names its service.
    pub(crate) fn remembered(&self, object: &ObjectKey) -> Option<Remembered> {
        let State::Ours { registry, .. } = &self.state else {
            return None;
        };
        let Cause {
            service,
            endpoints,
            empty_since,
        } = &**self.cause.as_ref()?;
        Some(Remembered {
            object: object.clone(),
            registry: registry.clone(),
            service: service.clone(),
            endpoints: *endpoints,
            empty_since: *empty_since,
        })
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.state, State::Ours { .. })
    }

    pub(crate) fn hash(&self) -> Option<ContentHash> {
        match self.state {
            State::Ours { hash, .. } => hash,
            State::Foreign | State::Gone => None,
        }
    }
}

/// What many objects have in common, kept once.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    names: Interner,
    causes: HashSet<Arc<Cause>>,
}

impl Shares {
    fn cause(&mut self, read: &Remembered) -> Arc<Cause> {
        let cause = Cause {
            service: self.names.string(&read.service),
            endpoints: read.endpoints,
            empty_since: read.empty_since,
        };
        if let Some(known) = self.causes.get(&cause) {
            return known.clone();
        }
        let cause = Arc::new(cause);
        self.causes.insert(cause.clone());
        cause
    }

    /// Forgets what no object has any more.
    pub(crate) fn sweep(&mut self) {
        self.causes.retain(|cause| Arc::strong_count(cause) > 1);
        self.names.sweep();
    }
}

/// Reads an object's metadata. `None` where what every stored object has is missing.
pub(crate) fn read(
    kind: Kind,
    meta: &ObjectMeta,
    shares: &mut Shares,
) -> Option<(ObjectKey, Entry)> {
    let key = ObjectKey {
        kind,
        namespace: shares.names.string(meta.namespace.as_deref()?),
        name: meta.name.as_deref()?.into(),
    };
    let registry = owner(meta, &mut shares.names);
    let annotated = |name: &str| meta.annotations.as_ref()?.get(name).map(String::as_str);
    let remembered = registry
        .as_ref()
        .and_then(|registry| Remembered::read(&key, registry, annotated));
    let entry = Entry {
        uid: Uid::parse(meta.uid.as_deref()?)?,
        version: meta.resource_version.as_deref()?.parse().ok()?,
        generation: meta.generation.unwrap_or_default(),
        state: registry.map_or(State::Foreign, |registry| State::Ours {
            registry,
            hash: hash(meta),
        }),
        cause: remembered.map(|read| shares.cause(&read)),
    };
    Some((key, entry))
}

/// The registry of an object of ours.
fn owner(meta: &ObjectMeta, names: &mut Interner) -> Option<Arc<str>> {
    let labels = meta.labels.as_ref()?;
    let ours = labels
        .get(label::MANAGED_BY)
        .is_some_and(|manager| manager == label::MANAGER);
    let registry = labels.get(label::REGISTRY)?;
    ours.then(|| names.string(registry))
}

/// The hash that an object was written with, unless its spec changed since.
fn hash(meta: &ObjectMeta) -> Option<ContentHash> {
    let (hash, generation) = meta
        .annotations
        .as_ref()?
        .get(annotation::HASH)?
        .split_once('.')?;
    let written: i64 = generation.parse().ok()?;
    (Some(written) == meta.generation)
        .then(|| ContentHash::parse(hash))
        .flatten()
}

/// The value of [`annotation::HASH`].
pub(crate) fn hash_annotation(hash: ContentHash, generation: i64) -> String {
    format!("{hash}.{generation}")
}

/// `metadata.uid`, which is a UUID, in 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Uid(u128);

impl Uid {
    fn parse(text: &str) -> Option<Self> {
        let uid = u128::from_str_radix(&text.replace('-', ""), 16)
            .map(Self)
            .ok()?;
        // Written back it has to be what the API server knows.
        (uid.to_string() == text).then_some(uid)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (a, b, c, d, e) = (
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        );
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(generation: i64, hash: &str) -> ObjectMeta {
        let labels = [
            (label::MANAGED_BY, label::MANAGER),
            (label::REGISTRY, "consul"),
        ];
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        ObjectMeta {
            namespace: Some("a".into()),
            name: Some("b".into()),
            uid: Some("0fb2ce4e-2a29-4d56-8b36-11c1a4e5ba01".into()),
            resource_version: Some("17".into()),
            generation: Some(generation),
            labels: Some(labels.map(owned).into()),
            annotations: Some([owned((annotation::HASH, hash))].into()),
            ..Default::default()
        }
    }

    fn state(meta: &ObjectMeta) -> State {
        read(Kind::ServiceEntry, meta, &mut Shares::default())
            .unwrap()
            .1
            .state
    }

    #[test]
    fn the_hash_counts_only_for_the_generation_that_it_was_written_as() {
        let hash = ContentHash(7);
        let text = hash_annotation(hash, 3);
        let ours = |hash| State::Ours {
            registry: "consul".into(),
            hash,
        };
        assert_eq!(state(&meta(3, &text)), ours(Some(hash)));
        for (generation, text) in [(4, text.as_str()), (3, "7.3"), (3, "x"), (3, "")] {
            assert_eq!(
                state(&meta(generation, text)),
                ours(None),
                "{generation} {text}"
            );
        }
    }

    #[test]
    fn objects_of_a_service_share_what_they_remember() {
        let mut shares = Shares::default();
        let mut remember = |service: Option<&str>, endpoints: &str| {
            let mut meta = meta(1, "");
            let annotations = meta.annotations.as_mut().unwrap();
            if let Some(service) = service {
                annotations.insert(annotation::SERVICE.into(), service.into());
            }
            annotations.insert(annotation::ENDPOINTS.into(), endpoints.into());
            let (key, entry) = read(Kind::ServiceEntry, &meta, &mut shares).unwrap();
            (entry.remembered(&key), entry.cause)
        };
        let (first, cause) = remember(Some("consul/orders"), "3");
        let (_, same) = remember(Some("consul/orders"), "3");
        assert!(Arc::ptr_eq(&cause.unwrap(), &same.unwrap()));
        let first = first.unwrap();
        assert_eq!(
            (&*first.registry, &*first.service),
            ("consul", "consul/orders")
        );
        assert_eq!(first.endpoints, Some(3));
        assert_eq!(
            remember(Some("consul/orders"), "x").0.unwrap().endpoints,
            None
        );
        assert_eq!(remember(None, "3"), (None, None), "it names no service");
        shares.sweep();
        assert!(shares.causes.is_empty());
    }

    #[test]
    fn ours_has_both_labels() {
        for (key, value) in [
            (label::MANAGED_BY, Some("Helm")),
            (label::MANAGED_BY, None),
            (label::REGISTRY, None),
        ] {
            let mut meta = meta(1, "");
            let labels = meta.labels.as_mut().unwrap();
            match value {
                Some(value) => labels.insert(key.into(), value.into()),
                None => labels.remove(key),
            };
            assert_eq!(state(&meta), State::Foreign, "{key} {value:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_back_is_no_uid() {
        let text = "0fb2ce4e-2a29-4d56-8b36-11c1a4e5ba01";
        assert_eq!(Uid::parse(text).unwrap().to_string(), text);
        for text in [
            "",
            "0FB2CE4E-2A29-4D56-8B36-11C1A4E5BA01",
            "0fb2ce4e2a294d568b3611c1a4e5ba01",
            "pod-1",
        ] {
            assert_eq!(Uid::parse(text), None, "{text}");
        }
    }
}
