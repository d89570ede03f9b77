//! From providers to services.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use diolkos_model::{
    Address, Health, Instance, Interner, Locality, Port, Service, ServiceKey, Weight,
};

use crate::{
    Namespaces, Options, Variants,
    provider::{DEFAULT_WEIGHT, Provider, port_protocol},
    rules::{Rule, settle},
};

/// The namespace that dubbo2istio's users have by default.
const MESH_NAMESPACE: &str = "dubbo";

/// A provider, and whether its interface itself was registered (or its application).
pub(crate) struct Seen<'a> {
    pub(crate) provider: Cow<'a, Provider>,
    pub(crate) of_interface: bool,
}

/// A node that cannot be read: it is shown, and gets no traffic.
pub(crate) struct Unreadable {
    pub(crate) id: Arc<str>,
    pub(crate) why: Arc<str>,
}

/// A provider with what the rules make of it.
struct Live<'a> {
    provider: &'a Provider,
    weight: i64,
    down: Option<&'a str>,
}

/// What services are made with, apart from what is registered.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) options: &'a Options,
    pub(crate) namespaces: &'a Namespaces,
}

/// A group and a version.
type Variant<'a> = (&'a str, &'a str);

/// The services of an interface: one, or one for each group and version. `rules` are in the order
/// in which they are applied.
pub(crate) fn interface(
    name: &str,
    seen: &[Seen<'_>],
    unreadable: &[Unreadable],
    rules: &[&Rule],
    context: Context<'_>,
    interner: &mut Interner,
) -> Vec<Service> {
    let options = context.options;
    let live = distinct(seen)
        .into_iter()
        .map(|provider| live(provider, name, rules));
    let mut variants: BTreeMap<Variant<'_>, Vec<Live<'_>>> = BTreeMap::new();
    for live in live {
        let Provider { group, version, .. } = live.provider;
        let variant = match options.variants {
            Variants::Labels => ("", ""),
            Variants::Hosts => (&**group, &**version),
        };
        variants.entry(variant).or_default().push(live);
    }
    if variants.is_empty() && !unreadable.is_empty() {
        variants.insert(("", ""), Vec::new());
    }
    let mut unreadable = unreadable;
    variants
        .into_iter()
        .map(|(variant, live)| {
            let key = interface_key(name, variant, context, interner);
            let meta = interface_meta(name, variant, context.namespaces);
            // Nothing says which variant a node was that cannot be read: the first one shows it.
            let unreadable = std::mem::take(&mut unreadable);
            service(key, meta, &live, unreadable, options, interner)
        })
        .collect()
}

/// The service of an application, of which `providers` has one for each port of an instance.
pub(crate) fn application(
    name: &str,
    instances: &[(Arc<str>, Vec<Provider>)],
    unreadable: &[Unreadable],
    Context {
        options,
        namespaces,
    }: Context<'_>,
    interner: &mut Interner,
) -> Service {
    let key = ServiceKey {
        registry: options.registry.clone(),
        namespace: namespaces.applications.clone(),
        group: interner.string(""),
        name: interner.string(name),
    };
    let meta = vec![
        ("application", name.to_owned()),
        (
            "dubboHost",
            format!("{}.dubbo{}", name.to_lowercase(), namespaces.host_suffix),
        ),
    ];
    let live: Vec<(Arc<str>, Vec<Live<'_>>)> = instances
        .iter()
        .map(|(id, ports)| {
            let live = ports.iter().map(|provider| live(provider, name, &[]));
            (id.clone(), live.collect())
        })
        .collect();
    assemble(key, meta, &live, unreadable, options, interner)
}

/// Of several registrations of one place in one group and version, the interface's own, and of
/// these the newest: an ephemeral node outlives a provider that was killed. Of two that are the
/// same but for that, the one that the registry has nothing against.
fn distinct<'a>(seen: &'a [Seen<'_>]) -> Vec<&'a Provider> {
    let mut best: BTreeMap<_, &Seen<'_>> = BTreeMap::new();
    for one in seen {
        let p = &one.provider;
        let rank = |seen: &Seen<'_>| {
            let Provider {
                timestamp,
                standing,
                ..
            } = &*seen.provider;
            (seen.of_interface, *timestamp, standing.down.is_none())
        };
        best.entry((&p.address, p.port, &p.group, &p.version))
            .and_modify(|best| {
                if rank(one) > rank(best) {
                    *best = one;
                }
            })
            .or_insert(one);
    }
    best.into_values().map(|seen| &*seen.provider).collect()
}

fn live<'a>(provider: &'a Provider, interface: &str, rules: &[&Rule]) -> Live<'a> {
    let settings = settle(rules, interface, provider);
    let standing = &provider.standing;
    let down = match (standing.down.as_deref(), settings.disabled) {
        (Some(why), _) => Some(why),
        (None, Some(true)) => Some("disabled=true"),
        (None, None) if !provider.enabled => Some("enabled=false"),
        (None, Some(false) | None) => None,
    };
    Live {
        provider,
        weight: standing.of_weight(settings.weight.unwrap_or(DEFAULT_WEIGHT)),
        down,
    }
}

fn interface_key(
    name: &str,
    (group, version): Variant<'_>,
    context: Context<'_>,
    interner: &mut Interner,
) -> ServiceKey {
    let name = if version.is_empty() {
        interner.string(name)
    } else {
        interner.string(&format!("{name}:{version}"))
    };
    ServiceKey {
        registry: context.options.registry.clone(),
        namespace: context.namespaces.interfaces.clone(),
        group: interner.string(group),
        name,
    }
}

/// What templates of hosts can use. `dubboHost` is the host as dubbo2istio makes it.
fn interface_meta(
    name: &str,
    (group, version): Variant<'_>,
    namespaces: &Namespaces,
) -> Vec<(&'static str, String)> {
    let mut host = name.to_lowercase();
    for part in [
        group.to_lowercase(),
        version.to_lowercase().replace('.', "-"),
    ] {
        if !part.is_empty() {
            host.push('-');
            host.push_str(&part);
        }
    }
    host.push_str(&namespaces.host_suffix);
    let mut meta = vec![("interface", name.to_owned()), ("dubboHost", host)];
    for (key, value) in [("group", group), ("version", version)] {
        if !value.is_empty() {
            meta.push((key, value.to_owned()));
        }
    }
    meta
}

fn service(
    key: ServiceKey,
    meta: Vec<(&'static str, String)>,
    live: &[Live<'_>],
    unreadable: &[Unreadable],
    options: &Options,
    interner: &mut Interner,
) -> Service {
    let instances: Vec<_> = processes(live)
        .into_iter()
        .filter_map(|ports| Some((id(ports.first()?.provider), ports)))
        .collect();
    assemble(key, meta, &instances, unreadable, options, interner)
}

/// Providers by the process that they belong to: one that exports an interface with several
/// protocols is one instance with several ports.
fn processes<'a>(live: &'a [Live<'a>]) -> Vec<Vec<Live<'a>>> {
    let mut hosts: BTreeMap<_, Vec<&Live<'_>>> = BTreeMap::new();
    for one in live {
        let p = one.provider;
        let place = (&p.address, &p.application, &p.group, &p.version);
        hosts.entry((place, one.down)).or_default().push(one);
    }
    hosts.into_values().flat_map(split).collect()
}

/// Registrations of one host, application and variant: of one process if each protocol is there
/// once, else of one for each `pid`, else each for itself.
fn split<'a>(ports: Vec<&Live<'a>>) -> Vec<Vec<Live<'a>>> {
    if one_process(&ports) {
        return vec![by_rank(&ports)];
    }
    let mut pids: BTreeMap<&str, Vec<&Live<'a>>> = BTreeMap::new();
    for port in ports {
        pids.entry(&port.provider.pid).or_default().push(port);
    }
    pids.into_iter()
        .flat_map(|(pid, ports)| {
            if !pid.is_empty() && one_process(&ports) {
                vec![by_rank(&ports)]
            } else {
                ports.iter().map(|port| by_rank(&[port])).collect()
            }
        })
        .collect()
}

fn one_process(ports: &[&Live<'_>]) -> bool {
    let protocols: BTreeSet<_> = ports.iter().map(|p| &p.provider.protocol).collect();
    protocols.len() == ports.len()
}

/// The default port first: Dubbo's own protocol, then its new one, then by number.
fn by_rank<'a>(ports: &[&Live<'a>]) -> Vec<Live<'a>> {
    let mut ports: Vec<Live<'a>> = ports.iter().map(|port| Live { ..**port }).collect();
    ports.sort_by_key(|port| {
        let rank = match &*port.provider.protocol {
            "dubbo" => 0,
            "tri" => 1,
            _ => 2,
        };
        (rank, port.provider.port)
    });
    ports
}

/// `HOST:PORT[/GROUP][/:VERSION]`: nothing in it changes when the provider restarts.
fn id(provider: &Provider) -> Arc<str> {
    let mut id = match &provider.address {
        Address::Ip(ip) if ip.is_ipv6() => format!("[{ip}]:{}", provider.port),
        address => format!("{address}:{}", provider.port),
    };
    for (mark, part) in [("/", &provider.group), ("/:", &provider.version)] {
        if !part.is_empty() {
            id.push_str(mark);
            // Without marks of its own, so that no two variants have one id.
            id.push_str(
                &part
                    .replace('%', "%25")
                    .replace('/', "%2F")
                    .replace(':', "%3A"),
            );
        }
    }
    id.into()
}

fn assemble(
    key: ServiceKey,
    mut meta: Vec<(&'static str, String)>,
    instances: &[(Arc<str>, Vec<Live<'_>>)],
    unreadable: &[Unreadable],
    options: &Options,
    interner: &mut Interner,
) -> Service {
    let all = || instances.iter().flat_map(|(_, ports)| ports);
    // The first by name, whatever the order of the nodes: two namespaces never take turns.
    let namespace = first(all().map(|port| &port.provider.mesh_namespace));
    let namespace = namespace.unwrap_or(MESH_NAMESPACE).to_owned();
    meta.push(("dubboNamespace", namespace));
    if let Some(selector) = first(all().map(|port| &port.provider.workload_selector)) {
        meta.push(("workloadSelector", selector.to_owned()));
    }
    let protocols: BTreeSet<_> = all().map(|port| &port.provider.protocol).collect();
    let shape = Shape {
        named_ports: protocols.len() > 1,
        weighted: instances
            .iter()
            .any(|(_, ports)| weight(ports) != DEFAULT_WEIGHT),
    };
    let mut made: Vec<Instance> = instances
        .iter()
        .filter_map(|(id, ports)| instance(id, ports, shape, options, interner))
        .collect();
    made.extend(unreadable.iter().map(|node| shown_only(node, interner)));
    let meta = interner.labels(meta.iter().map(|(key, value)| (*key, value.as_str())));
    Service::new(key, meta, made)
}

fn first<'a>(values: impl Iterator<Item = &'a Arc<str>>) -> Option<&'a str> {
    values.map(|value| &**value).filter(|v| !v.is_empty()).min()
}

/// What all instances of a service share.
#[derive(Clone, Copy)]
struct Shape {
    /// There are several protocols, so ports need names.
    named_ports: bool,
    /// There are other weights than the default one, so all have to be said.
    weighted: bool,
}

/// The default port's.
fn weight(ports: &[Live<'_>]) -> i64 {
    ports.first().map_or(DEFAULT_WEIGHT, |port| port.weight)
}

/// What concerns the instance as a whole, it has from its default port.
fn instance(
    id: &Arc<str>,
    ports: &[Live<'_>],
    shape: Shape,
    options: &Options,
    interner: &mut Interner,
) -> Option<Instance> {
    let Live { provider, down, .. } = ports.first()?;
    let version = &provider.mesh_version;
    Some(Instance {
        id: id.clone(),
        address: provider.address.clone(),
        ports: ports
            .iter()
            .map(|port| mesh_port(port.provider, shape, options, interner))
            .collect(),
        health: down.map_or(Health::Healthy, |why| {
            Health::Unhealthy(interner.string(why))
        }),
        weight: shape.weighted.then(|| whole(weight(ports))),
        locality: provider.locality.clone(),
        version: (!version.is_empty()).then(|| version.clone()),
        labels: provider.labels.clone(),
    })
}

fn mesh_port(
    provider: &Provider,
    shape: Shape,
    options: &Options,
    interner: &mut Interner,
) -> Port {
    let protocol = &provider.protocol;
    Port {
        name: if shape.named_ports {
            protocol.clone()
        } else {
            interner.string("")
        },
        number: provider.port,
        protocol: (!protocol.is_empty()).then(|| port_protocol(protocol, options, interner)),
    }
}

fn whole(weight: i64) -> Weight {
    Weight::whole(u32::try_from(weight.max(0)).unwrap_or(u32::MAX))
}

fn shown_only(node: &Unreadable, interner: &mut Interner) -> Instance {
    let empty = interner.string("");
    Instance {
        id: node.id.clone(),
        address: Address::Name(empty.clone()),
        ports: [].into(),
        health: Health::Unhealthy(node.why.clone()),
        weight: None,
        locality: Locality {
            region: empty.clone(),
            zone: empty.clone(),
            sub_zone: empty,
        },
        version: None,
        labels: interner.labels([]),
    }
}
