//! What can be wrong, in words for the person who has to put it right.

use super::limit;
use crate::Kind;

/// A rule of Istio or Kubernetes that an object breaks: one variant a rule.
///
/// Values are cut to [`Violation::VALUE_CHARS`] characters: they come from registries and end up in
/// logs, conditions and events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Where in the object the violation is: `spec` paths as in YAML, `metadata` in full.
    #[error("{field}: {violation}")]
    At {
        /// The path of the field, such as `endpoints[3].ports["http"]`.
        field: String,
        /// The rule; never itself an `At`.
        violation: Box<Violation>,
    },
    /// A list or map has more items than the CRD allows.
    #[error("{count} items, the CRD allows {limit}; split the service or leave some out")]
    TooMany {
        /// What it has.
        count: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A string is longer than allowed.
    #[error("{value:?} is {length} characters long, at most {limit} are allowed; shorten it")]
    TooLong {
        /// Its beginning.
        value: String,
        /// Its length, in characters.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A service entry has no host.
    #[error("a service entry needs at least one host; give it one")]
    NoHosts,
    /// The host `*`.
    #[error("the host \"*\" would match every name; give a domain, such as \"*.example.com\"")]
    HostMatchesAll,
    /// A DNS name is empty.
    #[error("the DNS name is empty; give one")]
    NameEmpty,
    /// A label of a DNS name is not a DNS label.
    #[error(
        "{label:?} in the DNS name {name:?} is not a DNS label: use up to {} letters, digits and inner \"-\"",
        limit::DNS_LABEL
    )]
    NameLabel {
        /// The whole name.
        name: String,
        /// The label.
        label: String,
    },
    /// The last label of a DNS name is a number, so that the name looks like an IP address.
    #[error(
        "the last label of the DNS name {name:?} is a number; an IP address is not a host, else rename it"
    )]
    NameNumericEnd {
        /// The whole name.
        name: String,
    },
    /// With `DNS` and no endpoints the proxies resolve the host itself, which a wildcard cannot be.
    #[error(
        "{host:?} cannot be resolved: resolution {resolution} without endpoints needs full DNS names as hosts; add endpoints or use STATIC"
    )]
    HostNotResolvable {
        /// The host.
        host: String,
        /// The resolution's name.
        resolution: &'static str,
    },
    /// With several hosts, proxies tell them apart by HTTP authority or TLS server name only.
    #[error(
        "several hosts share a port of protocol {protocol:?}, which does not carry the host's name; use HTTP, HTTPS, TLS or GRPC, or one host an entry"
    )]
    HostsShareOpaquePort {
        /// The protocol as given.
        protocol: String,
    },
    /// A service address is neither IP address nor CIDR block.
    #[error("{address:?} is neither an IP address nor a CIDR block; correct or remove it")]
    ServiceAddress {
        /// The address.
        address: String,
    },
    /// CIDR blocks need resolution `NONE` or `STATIC`.
    #[error(
        "the CIDR block {address:?} needs resolution NONE or STATIC; use an IP address or change the resolution"
    )]
    CidrResolution {
        /// The address.
        address: String,
    },
    /// A port number outside of 1 to 65535.
    #[error("port {port} is not in 1..65535; correct the port that the registry gives")]
    PortNumber {
        /// The number.
        port: u32,
    },
    /// A port name that is not a DNS label.
    #[error(
        "the port name {name:?} is not a DNS label: use 1 to {} letters, digits and inner \"-\"",
        limit::DNS_LABEL
    )]
    PortName {
        /// The name.
        name: String,
    },
    /// Two service ports of one name.
    #[error("the port name {name:?} is used twice; rename one of the ports")]
    DuplicatePortName {
        /// The name.
        name: String,
    },
    /// Two service ports of one number.
    #[error("the port number {port} is used twice; remove one of the ports")]
    DuplicatePortNumber {
        /// The number.
        port: u32,
    },
    /// Istio does not know the protocol.
    #[error("Istio does not know the protocol {protocol:?}; set a protocol rule, such as TCP")]
    UnknownProtocol {
        /// The protocol.
        protocol: String,
    },
    /// Endpoints and a workload selector.
    #[error("both endpoints and a workload selector are set; keep one of them")]
    SelectorAndEndpoints,
    /// An empty key in a workload selector.
    #[error("a workload selector has an empty key with the value {value:?}; remove it")]
    SelectorKeyEmpty {
        /// The value under the key.
        value: String,
    },
    /// A wildcard in a workload selector.
    #[error(
        "a workload selector takes no wildcard, it has {key:?} = {value:?}; name the label in full"
    )]
    SelectorWildcard {
        /// The label's key.
        key: String,
        /// The label's value.
        value: String,
    },
    /// Endpoints with resolution `NONE`.
    #[error("resolution NONE takes no endpoints; use STATIC")]
    EndpointsWithoutResolution,
    /// More than one endpoint with `DNS_ROUND_ROBIN`.
    #[error("resolution DNS_ROUND_ROBIN takes one endpoint at most, there are {count}; use DNS")]
    EndpointsOfRoundRobin {
        /// How many there are.
        count: usize,
    },
    /// A number that is no resolution, or one that Diolkos does not use (`DYNAMIC_DNS`).
    #[error(
        "resolution {value} is not one of NONE, STATIC, DNS, DNS_ROUND_ROBIN; choose one of them"
    )]
    UnknownResolution {
        /// The number in the protobuf enumeration.
        value: i32,
    },
    /// A number that is no location.
    #[error("location {value} is neither MESH_EXTERNAL nor MESH_INTERNAL; choose one of them")]
    UnknownLocation {
        /// The number in the protobuf enumeration.
        value: i32,
    },
    /// An entry of `exportTo` that is no namespace, `.`, `*` or `~`.
    #[error("{value:?} is not a namespace, \".\", \"*\" or \"~\"; correct or remove it")]
    ExportTo {
        /// The entry.
        value: String,
    },
    /// An entry of `exportTo` given twice; `.` is the object's own namespace.
    #[error("{value:?} names a namespace that the list has already; remove it")]
    ExportToTwice {
        /// The second of the two.
        value: String,
    },
    /// `*` or `~` beside other entries in `exportTo`.
    #[error("{value:?} cannot stand beside other entries; keep it alone or remove it")]
    ExportToNotAlone {
        /// `*` or `~`.
        value: &'static str,
    },
    /// An endpoint without an address.
    #[error("the endpoint has no address and no network; register the instance with its address")]
    AddressMissing,
    /// The address of an endpoint of a `STATIC` service entry is not an IP address.
    #[error(
        "the address {address:?} is not an IP address, as resolution STATIC needs; register the instance with its IP address"
    )]
    AddressNotIp {
        /// The address.
        address: String,
    },
    /// The address is neither IP address nor DNS name.
    #[error(
        "the address {address:?} is neither an IP address nor a DNS name; register the instance with one"
    )]
    AddressNotIpOrName {
        /// The address.
        address: String,
    },
    /// A `unix://` address that is neither an absolute path of a file nor an abstract socket.
    #[error(
        "{address:?} is not a Unix socket: use unix:///absolute/path or unix://@name, without a final \"/\""
    )]
    UnixAddress {
        /// The address.
        address: String,
    },
    /// A `unix://` address with endpoint ports.
    #[error("the Unix socket {address:?} takes no ports; remove them")]
    UnixWithPorts {
        /// The address.
        address: String,
    },
    /// A `unix://` address in a service entry that has not exactly one port.
    #[error(
        "the Unix socket {address:?} needs a service entry with exactly one port, it has {count}"
    )]
    UnixPortCount {
        /// The address.
        address: String,
        /// How many service ports there are.
        count: usize,
    },
    /// An endpoint port that the service entry does not define.
    #[error(
        "the service entry has no port named {name:?}; add it there or remove it from the endpoint"
    )]
    UndefinedPort {
        /// The port's name.
        name: String,
    },
    /// A label key.
    #[error(
        "{key:?} is not a label key: use up to {} letters, digits and inner \"-_.\", with an optional DNS name and \"/\" before",
        limit::LABEL_NAME
    )]
    LabelKey {
        /// The key.
        key: String,
    },
    /// A label value.
    #[error("{value:?} is not a label value: use letters, digits and inner \"-_.\", or nothing")]
    LabelValue {
        /// The value.
        value: String,
    },
    /// A name that must be a DNS label in lower case, such as a namespace.
    #[error(
        "{value:?} is not a DNS label: use 1 to {} lower-case letters, digits and inner \"-\"",
        limit::DNS_LABEL
    )]
    Dns1123Label {
        /// The name.
        value: String,
    },
    /// A name that must be a DNS name in lower case, such as an object's.
    #[error(
        "{value:?} is not an object name: use 1 to {} lower-case letters, digits, inner \"-\" and \".\"",
        limit::DNS_SUBDOMAIN
    )]
    Dns1123Subdomain {
        /// The name.
        value: String,
    },
    /// An annotation that Istio refuses on these kinds.
    #[error("Istio refuses the annotation {key:?} here; remove it")]
    ReservedAnnotation {
        /// Its key.
        key: String,
    },
    /// All annotations together are too large.
    #[error("the annotations have {bytes} bytes, at most {limit} are allowed; remove some")]
    AnnotationsTooLarge {
        /// What they have, keys and values.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The object is too large for etcd.
    #[error(
        "the object has {bytes} bytes, at most {limit} are safe to store; use workload entries or fewer labels"
    )]
    ObjectTooLarge {
        /// Its size as JSON.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The key names another kind than the spec has: a defect of the caller.
    #[error("the spec is not that of a {kind}; this is a defect of Diolkos, report it")]
    WrongKind {
        /// The kind of the key.
        kind: Kind,
    },
}

impl Violation {
    /// How much of a value a violation keeps.
    pub const VALUE_CHARS: usize = 80;

    /// The rule without the place.
    #[must_use]
    pub fn rule(&self) -> &Self {
        match self {
            Self::At { violation, .. } => violation,
            rule => rule,
        }
    }

    /// Says where the violation is. Call it from the inside out: a path grows to the left.
    #[must_use]
    pub(super) fn at(self, outer: &str) -> Self {
        match self {
            Self::At { field, violation } => Self::At {
                field: format!("{outer}.{field}"),
                violation,
            },
            rule => Self::At {
                field: outer.to_owned(),
                violation: Box::new(rule),
            },
        }
    }
}

/// The beginning of `value`, for a message.
pub(super) fn clip(value: &str) -> String {
    match value.char_indices().nth(Violation::VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// Adds what `outcome` says to `found`, with its place.
pub(super) fn note(
    found: &mut Vec<Violation>,
    outcome: Result<(), Violation>,
    field: impl FnOnce() -> String,
) {
    if let Err(violation) = outcome {
        found.push(violation.at(&field()));
    }
}

/// The CRD's `maxLength`, which counts code points.
pub(super) fn length(value: &str, limit: usize) -> Result<(), Violation> {
    // A string has at least as many bytes as characters: most need no count.
    if value.len() <= limit {
        return Ok(());
    }
    let length = value.chars().count();
    if length <= limit {
        return Ok(());
    }
    Err(Violation::TooLong {
        value: clip(value),
        length,
        limit,
    })
}

/// The CRD's `maxItems` and `maxProperties`.
pub(super) fn items(count: usize, limit: usize) -> Result<(), Violation> {
    if count <= limit {
        return Ok(());
    }
    Err(Violation::TooMany { count, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_grows_to_the_left() {
        let violation = Violation::PortNumber { port: 0 }
            .at("ports[\"http\"]")
            .at("endpoints[3]");
        assert_eq!(
            violation.to_string(),
            "endpoints[3].ports[\"http\"]: port 0 is not in 1..65535; correct the port that the registry gives"
        );
        assert_eq!(violation.rule(), &Violation::PortNumber { port: 0 });
    }

    #[test]
    fn values_are_cut_at_a_character() {
        assert_eq!(clip("short"), "short");
        assert_eq!(clip(&"é".repeat(80)), "é".repeat(80));
        assert_eq!(clip(&"é".repeat(81)), format!("{}…", "é".repeat(80)));
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert_eq!(length(&"é".repeat(64), 64), Ok(()));
        assert!(matches!(
            length(&"é".repeat(65), 64),
            Err(Violation::TooLong {
                length: 65,
                limit: 64,
                ..
            })
        ));
    }
}
