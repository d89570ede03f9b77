//! Which replica should hold which registry: rendezvous hashing with a limit.
//!
//! Plain rendezvous hashing (each registry to the replica with the highest hash of both names) moves least, but
//! with few registries it is far from even: of three registries on three replicas, one replica in nine times has
//! all. So pairs are taken in the order of their hashes, and a replica that has its share gets no more.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use xxhash_rust::xxh3::xxh3_64;

/// What each replica serves.
pub(super) type Serves = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// The preferred replica of each registry. The same on every replica that knows the same `serves`.
pub(super) fn share(serves: &Serves) -> BTreeMap<Arc<str>, Arc<str>> {
    let registries: BTreeSet<&Arc<str>> = serves.values().flatten().collect();
    let limit = registries.len().div_ceil(serves.len().max(1));
    let mut pairs: Vec<_> = serves
        .iter()
        .flat_map(|(replica, own)| own.iter().map(move |registry| (registry, replica)))
        .collect();
    pairs.sort_unstable_by_key(|(registry, replica)| {
        (Reverse(score(registry, replica)), *registry, *replica)
    });
    let mut shared = BTreeMap::new();
    let mut load: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    // What is left after the first round is served only by replicas that have their share.
    for limit in [limit, usize::MAX] {
        for (registry, replica) in &pairs {
            let load = load.entry(replica).or_default();
            if *load < limit && !shared.contains_key(*registry) {
                *load += 1;
                shared.insert(Arc::clone(registry), Arc::clone(replica));
            }
        }
    }
    shared
}

fn score(registry: &str, replica: &str) -> u64 {
    // No name holds a zero byte.
    xxh3_64(format!("{registry}\0{replica}").as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(prefix: &str, numbers: impl IntoIterator<Item = usize>) -> BTreeSet<Arc<str>> {
        let one = |n| Arc::from(format!("{prefix}{n}"));
        numbers.into_iter().map(one).collect()
    }

    fn all_serve(registries: usize, replicas: &BTreeSet<Arc<str>>) -> Serves {
        let registries = names("registry-", 0..registries);
        let one = |replica: &Arc<str>| (replica.clone(), registries.clone());
        replicas.iter().map(one).collect()
    }

    fn loads(shared: &BTreeMap<Arc<str>, Arc<str>>) -> BTreeMap<&str, usize> {
        let mut loads = BTreeMap::new();
        for replica in shared.values() {
            *loads.entry(&**replica).or_default() += 1;
        }
        loads
    }

    type Row = (
        &'static [(&'static str, &'static [&'static str])],
        &'static [(&'static str, &'static str)],
    );

    #[test]
    fn who_alone_serves_a_registry_gets_it() {
        let table: [Row; 4] = [
            (&[], &[]),
            (&[("a", &[])], &[]),
            (&[("a", &["x", "y"])], &[("x", "a"), ("y", "a")]),
            // Above its share, because nobody else can.
            (
                &[("a", &["x", "y", "z"]), ("b", &[])],
                &[("x", "a"), ("y", "a"), ("z", "a")],
            ),
        ];
        for (serves, expected) in table {
            let serves = serves
                .iter()
                .map(|(replica, own)| {
                    ((*replica).into(), own.iter().map(|r| (*r).into()).collect())
                })
                .collect();
            let expected = expected
                .iter()
                .map(|(registry, replica)| ((*registry).into(), (*replica).into()))
                .collect();
            assert_eq!(share(&serves), expected, "{serves:?}");
        }
    }

    #[test]
    fn a_replica_that_goes_moves_little_more_than_its_own() {
        let (registries, mut moved, mut its_own) = (24, 0, 0);
        for seed in 0..200 {
            let mut replicas = names("replica-", seed * 10..seed * 10 + 4);
            let before = share(&all_serve(registries, &replicas));
            let gone = replicas.pop_first().expect("there are four");
            let after = share(&all_serve(registries, &replicas));
            its_own += before.values().filter(|replica| **replica == gone).count();
            moved += after.iter().filter(|(r, to)| before[*r] != **to).count();
        }
        // Measured: 1.22 times as many. The others' shares grow, so some of their registries change places.
        assert!(
            moved * 2 <= its_own * 3,
            "{moved} moved instead of {its_own}"
        );
    }

    proptest! {
        #[test]
        fn every_registry_has_one_and_nobody_more_than_a_share(
            registries in 0usize..40,
            replicas in prop::collection::btree_set(0usize..1000, 1..8),
        ) {
            let replicas = names("replica-", replicas);
            let shared = share(&all_serve(registries, &replicas));
            prop_assert_eq!(shared.len(), registries);
            let most = registries.div_ceil(replicas.len());
            prop_assert!(loads(&shared).values().all(|load| *load <= most), "{:?}", loads(&shared));
        }

        #[test]
        fn a_registry_goes_to_one_that_serves_it(
            serves in prop::collection::btree_map(
                "[a-d]".prop_map(Arc::<str>::from),
                prop::collection::btree_set("[p-t]".prop_map(Arc::<str>::from), 0..6),
                0..5,
            ),
        ) {
            let shared = share(&serves);
            let all: BTreeSet<_> = serves.values().flatten().cloned().collect();
            prop_assert_eq!(shared.keys().cloned().collect::<BTreeSet<_>>(), all);
            prop_assert!(shared.iter().all(|(registry, replica)| serves[replica].contains(registry)));
        }
    }
}
