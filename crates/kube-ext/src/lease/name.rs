//! Names of Leases and replicas.

use rand::Rng as _;
use xxhash_rust::xxh3::xxh3_64;

/// What the names of our Leases begin with.
const PREFIX: &str = "diolkos-";
/// What comes after it in the Lease of a replica.
const REPLICA: &str = "replica-";
/// The longest part of a name that is taken as it is. The API allows 253 characters with all that we add.
const LONGEST: usize = 200;
/// The characters of a random suffix: no vowels, so no words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name for this process that no other has: that of the pod or host, made a DNS label, and a random suffix.
/// A process that is started anew in the same pod is another replica.
#[must_use]
pub fn replica_identity(host: &str) -> String {
    let mut name = dns(host);
    name.truncate(LONGEST);
    let name = name.trim_matches(['-', '.']);
    let mut rng = rand::rng();
    let suffix = (0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]));
    let suffix: String = suffix.collect();
    if name.is_empty() {
        suffix
    } else {
        format!("{name}-{suffix}")
    }
}

/// The Lease of a replica.
pub(super) fn of_replica(identity: &str) -> String {
    format!("{PREFIX}{REPLICA}{}", safe(identity))
}

/// The Lease of a registry. Two registries never share one, and none has a replica's.
pub(super) fn of_registry(registry: &str) -> String {
    if registry.starts_with(REPLICA) {
        return format!(
            "{PREFIX}{:016x}-{}",
            xxh3_64(registry.as_bytes()),
            safe(registry)
        );
    }
    format!("{PREFIX}{}", safe(registry))
}

/// `name` as it is if a DNS-1123 subdomain may hold it, else something like it with a hash.
fn safe(name: &str) -> String {
    let mut made = dns(name);
    if made == name && (1..=LONGEST).contains(&name.len()) {
        return made;
    }
    made.truncate(LONGEST);
    let hash = xxh3_64(name.as_bytes());
    format!("{}-{hash:016x}", made.trim_matches(['-', '.']))
        .trim_start_matches('-')
        .to_owned()
}

/// ASCII letters in lower case, digits, and `-`; dots where a subdomain may have them.
fn dns(name: &str) -> String {
    let one = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' => c,
        _ => '-',
    };
    let made: String = name.chars().map(one).collect();
    let made = made.trim_matches(['-', '.']);
    let labels = made.split('.').map(|label| label.trim_matches('-'));
    let labels: Vec<_> = labels.filter(|label| !label.is_empty()).collect();
    labels.join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn plain_names_stay_and_odd_ones_become_names_of_their_own() {
        assert_eq!(of_registry("consul"), "diolkos-consul");
        assert_eq!(of_registry("dc1.consul"), "diolkos-dc1.consul");
        assert_eq!(of_replica("pod-0-x2b4c"), "diolkos-replica-pod-0-x2b4c");
        let long = "x".repeat(240);
        let odd = [
            "A",
            "a",
            "a_b",
            "a-b",
            "a..b",
            "a.b",
            "-",
            "",
            "é",
            "replica-a",
            &long,
        ];
        let names: BTreeSet<_> = odd.iter().map(|name| of_registry(name)).collect();
        assert_eq!(names.len(), odd.len(), "{names:?}");
        let replicas: BTreeSet<_> = ["a", "A", "replica-a"].map(of_replica).into();
        assert!(names.is_disjoint(&replicas), "{names:?} {replicas:?}");
        for name in names {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            for label in name.split('.') {
                let edges = label.starts_with('-') || label.ends_with('-') || label.is_empty();
                assert!(label.chars().all(fine) && !edges, "{name}");
            }
            assert!(name.len() <= 253, "{name}");
        }
    }

    #[test]
    fn every_process_is_another_replica() {
        let (one, two) = (replica_identity("Host_1"), replica_identity("Host_1"));
        assert!(one.starts_with("host-1-") && one != two, "{one} {two}");
        assert_eq!(replica_identity("").len(), 5);
    }
}
