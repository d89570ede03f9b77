//! Services and instances as registries know them.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use crate::{ContentHash, Hasher, Labels};

/// Names a service in a registry. Two registries never share a key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The name of the `Registry` document that carries the service over.
    pub registry: Arc<str>,
    /// The registry's own partition: Consul's datacenter, the Nacos or Polaris namespace; else empty.
    pub namespace: Arc<str>,
    /// The Nacos or Dubbo group; else empty.
    pub group: Arc<str>,
    /// The service's name, as the registry writes it.
    pub name: Arc<str>,
}

impl fmt::Display for ServiceKey {
    /// `registry/namespace/group/name`, without the parts that are empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        for part in [&self.namespace, &self.group, &self.name] {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an instance listens. Registries hold host names and rubbish as well as addresses; the plan
/// decides what of it the mesh can use.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A literal IP address.
    Ip(IpAddr),
    /// Anything else, as written; may be empty.
    Name(Arc<str>),
}

impl FromStr for Address {
    type Err = std::convert::Infallible;

    /// Never fails: what is not an IP address is a name. Brackets around IPv6 are accepted.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        Ok(bare
            .parse()
            .map_or_else(|_| Self::Name(text.into()), Self::Ip))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A port of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// The registry's name for it. Empty for the one port of a registry that does not name ports.
    pub name: Arc<str>,
    /// The port number as registered. Wider than a port, so that 0 and 70000 can be reported.
    pub number: u32,
    /// The protocol as the registry has it (`http`, `grpc`, `dubbo`, …), lower case; `None` if it says nothing.
    pub protocol: Option<Arc<str>>,
}

/// Whether an instance may get traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// It may.
    Healthy,
    /// It may not, and this is why, in the registry's words (`critical: check web-ttl`, `maintenance`, `disabled`, `isolated`, …).
    Unhealthy(Arc<str>),
}

impl Health {
    /// Whether the instance may get traffic.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }
}

/// A load-balancing weight in thousandths, since some registries hold fractions. 0 means "no traffic".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(pub u32);

impl Weight {
    /// A whole-number weight. Values above 4,294,967 are taken as that.
    #[must_use]
    pub fn whole(weight: u32) -> Self {
        Self(weight.saturating_mul(1000))
    }

    /// A fractional weight, rounded to a thousandth. Negative and not-a-number are 0; a positive
    /// weight never rounds down to 0, which would mean "no traffic".
    #[must_use]
    pub fn fraction(weight: f64) -> Self {
        if weight.is_nan() || weight <= 0.0 {
            return Self(0);
        }
        // The cast saturates.
        Self(((weight * 1000.0).round() as u32).max(1))
    }
}

/// Where an instance is. Empty parts are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// For example `eu-west-1`, or Consul's datacenter.
    pub region: Arc<str>,
    /// For example `eu-west-1a`.
    pub zone: Arc<str>,
    /// For example a rack or a campus.
    pub sub_zone: Arc<str>,
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    /// Unique inside the service and stable while the instance lives (Consul: `node/service-id`).
    pub id: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// Its ports; the first is the default one. Empty if the registry gave none.
    pub ports: Arc<[Port]>,
    /// Whether it may get traffic.
    pub health: Health,
    /// Its share of the traffic; `None` if the registry says nothing.
    pub weight: Option<Weight>,
    /// Where it is.
    pub locality: Locality,
    /// The version, from the registry's usual places.
    pub version: Option<Arc<str>>,
    /// Tags and metadata, as the registry has them: not yet safe as Kubernetes labels.
    pub labels: Labels,
}

/// A service with all its instances, the unit that moves through Diolkos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// Metadata of the service itself.
    pub meta: Labels,
    /// Its instances, sorted by id, each id once. See [`Service::new`].
    pub instances: Arc<[Instance]>,
}

impl Service {
    /// Brings the instances into the canonical order. Of several instances with one id the last
    /// stays: an id is unique by contract, so the later one is the newer record.
    #[must_use]
    pub fn new(key: ServiceKey, meta: Labels, mut instances: Vec<Instance>) -> Self {
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances.dedup_by(|later, earlier| {
            let same = later.id == earlier.id;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self {
            key,
            meta,
            instances: instances.into(),
        }
    }

    /// The hash of everything in it. Equal hashes: nothing to do.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        let mut hasher = Hasher::new();
        for part in [
            &self.key.registry,
            &self.key.namespace,
            &self.key.group,
            &self.key.name,
        ] {
            hasher.str(part);
        }
        hash_labels(&mut hasher, &self.meta);
        hasher.u64(self.instances.len() as u64);
        for instance in self.instances.iter() {
            hash_instance(&mut hasher, instance);
        }
        hasher.finish()
    }
}

fn hash_labels(hasher: &mut Hasher, labels: &Labels) {
    hasher.u64(labels.len() as u64);
    for (key, value) in labels.iter() {
        hasher.str(key).str(value);
    }
}

fn hash_instance(hasher: &mut Hasher, instance: &Instance) {
    // Destructured, so that a new field cannot be forgotten here.
    let Instance {
        id,
        address,
        ports,
        health,
        weight,
        locality,
        version,
        labels,
    } = instance;
    hasher.str(id);
    match address {
        Address::Ip(IpAddr::V4(ip)) => hasher.u64(4).u64(u32::from(*ip).into()),
        Address::Ip(IpAddr::V6(ip)) => {
            let bits = u128::from(*ip);
            hasher.u64(6).u64((bits >> 64) as u64).u64(bits as u64)
        }
        Address::Name(name) => hasher.u64(0).str(name),
    };
    hasher.u64(ports.len() as u64);
    for port in ports.iter() {
        hasher
            .str(&port.name)
            .u64(port.number.into())
            .opt_str(port.protocol.as_deref());
    }
    match health {
        Health::Healthy => hasher.u64(0),
        Health::Unhealthy(why) => hasher.u64(1).str(why),
    };
    hasher.u64(weight.map_or(u64::MAX, |w| w.0.into()));
    hasher
        .str(&locality.region)
        .str(&locality.zone)
        .str(&locality.sub_zone)
        .opt_str(version.as_deref());
    hash_labels(hasher, labels);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Interner;
    use proptest::prelude::*;

    fn key() -> ServiceKey {
        ServiceKey {
            registry: "consul".into(),
            namespace: "dc1".into(),
            group: "".into(),
            name: "web".into(),
        }
    }

    fn instance(id: &str, port: u32) -> Instance {
        Instance {
            id: id.into(),
            address: "10.0.0.1".parse().unwrap(),
            ports: [Port {
                name: "".into(),
                number: port,
                protocol: None,
            }]
            .into(),
            health: Health::Healthy,
            weight: None,
            locality: Locality::default(),
            version: None,
            labels: Interner::new().labels([("a", "b")]),
        }
    }

    #[test]
    fn of_one_id_the_last_record_stays() {
        let service = Service::new(
            key(),
            [].into(),
            vec![instance("b", 1), instance("a", 2), instance("b", 3)],
        );
        let seen: Vec<_> = service
            .instances
            .iter()
            .map(|i| (&*i.id, i.ports[0].number))
            .collect();
        assert_eq!(seen, [("a", 2), ("b", 3)]);
    }

    #[test]
    fn addresses() {
        for (text, is_ip) in [
            ("10.0.0.1", true),
            ("::1", true),
            ("[fd00::1]", true),
            ("web.example.org", false),
            ("", false),
            ("10.0.0.256", false),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(matches!(address, Address::Ip(_)), is_ip, "{text}");
        }
    }

    #[test]
    fn weights_never_round_to_no_traffic() {
        assert_eq!(Weight::fraction(0.0001), Weight(1));
        assert_eq!(Weight::fraction(-1.0), Weight(0));
        assert_eq!(Weight::fraction(f64::NAN), Weight(0));
        assert_eq!(Weight::fraction(1.5), Weight(1500));
        assert_eq!(Weight::whole(u32::MAX), Weight(u32::MAX));
    }

    proptest! {
        #[test]
        fn the_hash_does_not_depend_on_the_order_of_instances(ids in proptest::collection::btree_set("[a-z]{1,4}", 1..8), seed: u64) {
            let mut list: Vec<_> = ids.iter().map(|id| instance(id, 80)).collect();
            let forward = Service::new(key(), [].into(), list.clone()).content_hash();
            let turn = (seed as usize) % list.len();
            list.rotate_left(turn);
            prop_assert_eq!(forward, Service::new(key(), [].into(), list).content_hash());
        }

        #[test]
        fn any_changed_field_changes_the_hash(port in 1u32..65536, other in 1u32..65536) {
            let one = Service::new(key(), [].into(), vec![instance("a", port)]).content_hash();
            let two = Service::new(key(), [].into(), vec![instance("a", other)]).content_hash();
            prop_assert_eq!(one == two, port == other);
        }
    }
}
