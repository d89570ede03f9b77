//! Services of Dubbo: hosts with the parts of what Dubbo writes elsewhere as URLs and records.

use std::{collections::BTreeMap, sync::Arc};

use diolkos_model::{ContentHash, Hasher, Weight};
use diolkos_nacos::Host;
use diolkos_source_dubbo::{Parameters, ProviderUrl, Registration, Standing};

use super::{names::Variant, plain::DEFAULT_CLUSTER, standing::Seen};

/// What a service had in a catalogue when it was last told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    Nothing,
    /// The providers by their ids, sorted.
    Providers {
        interface: Arc<str>,
        ids: Vec<ContentHash>,
    },
    Application,
}

/// Whether this host belongs to an application of Dubbo. In one service of Nacos there may be
/// others: a Spring Cloud application that uses Dubbo registers both under its name.
pub(super) fn is_of_application(host: &Host) -> bool {
    ["dubbo.metadata.revision", "dubbo.endpoints"]
        .iter()
        .any(|name| host.metadata.contains_key(*name))
}

/// The providers of an interface that these hosts are, by hashes of all that they say.
pub(super) fn providers(
    service: &str,
    variant: &Variant,
    hosts: &[Seen<'_>],
) -> BTreeMap<ContentHash, Registration> {
    let provider = |seen: &Seen<'_>| {
        let mut hasher = Hasher::new();
        // The same provider under two names of services is two: one may go without the other.
        hasher.str(service).u64(seen.standing as u64);
        hash_host(&mut hasher, seen.host);
        (hasher.finish(), provider(variant, seen))
    };
    hosts.iter().map(provider).collect()
}

fn provider(variant: &Variant, seen: &Seen<'_>) -> Registration {
    let mut made = registration(seen);
    let ProviderUrl {
        protocol,
        path,
        parameters,
        ..
    } = &mut made.url;
    // Parts of a URL that are no parameters of it elsewhere.
    *protocol = parameters.remove("protocol").unwrap_or_default();
    *protocol = protocol.to_lowercase();
    if protocol.is_empty() {
        "dubbo".clone_into(protocol);
    }
    *path = parameters.remove("path").unwrap_or_default();
    parameters.remove("category");
    // Clients in other languages leave out what the name says.
    let of_name = [
        ("interface", &*variant.interface),
        ("version", &*variant.version),
        ("group", &*variant.group),
    ];
    for (name, value) in of_name {
        if !value.is_empty() && !parameters.contains_key(name) {
            parameters.insert(name.to_owned(), value.to_owned());
        }
    }
    made
}

/// The instances of an application that these hosts are, by their ids: those of the default cluster
/// are called as in other registries.
pub(super) fn instances<'a>(
    hosts: impl Iterator<Item = &'a Seen<'a>>,
) -> BTreeMap<Arc<str>, Registration> {
    let default = format!("@{DEFAULT_CLUSTER}");
    hosts
        .map(|seen| {
            let id = match seen.id.strip_suffix(&*default) {
                Some(bare) => bare.into(),
                None => seen.id.clone(),
            };
            (id, registration(seen))
        })
        .collect()
}

/// What all of Dubbo has in common. Dubbo itself does not look at the weight in Nacos, which is 1
/// unless an operator changes it; what he means is meant for the mesh too. The cluster is the
/// region of those that name none.
fn registration(seen: &Seen<'_>) -> Registration {
    let Seen { host, standing, .. } = seen;
    let mut parameters: Parameters = host.metadata.clone();
    if host.cluster != DEFAULT_CLUSTER && !parameters.contains_key("region") {
        parameters.insert("region".to_owned(), host.cluster.clone());
    }
    Registration {
        url: ProviderUrl {
            protocol: String::new(),
            host: host.ip.clone(),
            port: host.port,
            path: String::new(),
            parameters,
        },
        standing: Standing {
            down: standing.why().map(Into::into),
            share: Weight::fraction(host.weight),
        },
    }
}

/// All that is said of a host.
pub(super) fn hash_host(hasher: &mut Hasher, host: &Host) {
    // Destructured, so that a new field cannot be forgotten here.
    let Host {
        ip,
        port,
        weight,
        healthy,
        enabled,
        ephemeral: _,
        cluster,
        metadata,
    } = host;
    hasher
        .str(ip)
        .u64((*port).into())
        .u64(weight.to_bits())
        .u64((*healthy).into())
        .u64((*enabled).into())
        .str(cluster)
        .u64(metadata.len() as u64);
    for (name, value) in metadata {
        hasher.str(name).str(value);
    }
}
