//! Nacos.

use url::Url;

use super::{
    connect::{self, Context, Paths},
    dubbo, text,
};
use crate::{
    fault::{Faults, FieldPath, Problem},
    raw::{NacosServices, NacosSpec, Preset, RegistrySpec},
    settings::{NacosAuth, NacosSettings, TlsSettings},
};

const ADDRESS: &str = "http://127.0.0.1:8848/nacos";
const CONTEXT: &str = "/nacos";
const NAMESPACE: &str = "public";
const GROUP: &str = "DEFAULT_GROUP";
/// All groups.
const ALL: &str = "*";
/// The distance of Nacos' own ports: 8848 and 9848.
const GRPC_PORT_OFFSET: u16 = 1000;
/// Clients of a server that was restarted are back after their next heartbeat (5 s) or reconnect.
const SETTLE_TIME: &str = "30s";

pub(super) fn nacos(
    spec: &NacosSpec,
    registry: &RegistrySpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<NacosSettings> {
    let urls = connect::Urls {
        default: ADDRESS,
        credentials: "auth",
        path: Context::Default(CONTEXT),
    };
    let addresses = urls.check(&spec.addresses, &at.key("addresses"), faults);
    let namespaces = names(&spec.namespaces, NAMESPACE, &at.key("namespaces"), faults);
    let groups = groups(&spec.groups, &at.key("groups"), faults);
    valid_names(&spec.clusters, &at.key("clusters"), faults);
    services_fit(spec, registry, at, faults);
    let auth = auth(spec, at, paths, faults);
    let tls = match &spec.tls {
        None => Some(TlsSettings::default()),
        Some(spec) => connect::tls(spec, &at.key("tls"), paths, faults),
    };
    let settle = spec.settle_time.as_deref().unwrap_or(SETTLE_TIME);
    let settle_time = connect::settle_time(settle, &at.key("settleTime"), faults);
    let dubbo = dubbo::dubbo(registry, spec.discovery, faults);
    let addresses = addresses?;
    if spec.tls.is_some() {
        connect::tls_has_use(&addresses, &at.key("tls"), faults);
    }
    let grpc_port_offset = spec.grpc_port_offset.unwrap_or(GRPC_PORT_OFFSET);
    grpc_ports(&addresses, grpc_port_offset, at, faults);
    Some(NacosSettings {
        addresses,
        namespaces,
        groups,
        clusters: spec.clusters.clone(),
        transport: spec.transport.unwrap_or_default(),
        grpc_port_offset,
        services: services(spec, registry),
        auth: auth?,
        tls: tls?,
        settle_time: settle_time?,
        dubbo: dubbo?,
    })
}

/// Which services are read.
pub(super) fn services(spec: &NacosSpec, registry: &RegistrySpec) -> NacosServices {
    let usual = match preset(registry) {
        Some(Preset::Aeraki) => NacosServices::Dubbo,
        // What Nacos' own server calls a service of Dubbo can be no host.
        Some(Preset::Nacos) => NacosServices::Other,
        Some(Preset::Higress) | None => NacosServices::All,
    };
    spec.services.unwrap_or(usual)
}

fn preset(registry: &RegistrySpec) -> Option<Preset> {
    registry.export.as_ref().and_then(|export| export.preset)
}

/// The names, or the usual one.
fn names(list: &[String], usual: &str, at: &FieldPath, faults: &mut Faults) -> Vec<String> {
    if list.is_empty() {
        return vec![usual.to_owned()];
    }
    valid_names(list, at, faults);
    list.to_owned()
}

fn valid_names(list: &[String], at: &FieldPath, faults: &mut Faults) {
    text::no_repeats(text::items(list, at), faults);
    for (at, name) in text::items(list, at) {
        text::not_empty(Some(name), &at, faults);
        if name.contains(',') {
            let problem = "write each name as an item of its own";
            faults.add(&at, Problem::Conflict(problem));
        }
    }
}

/// The groups; `None` is all.
fn groups(list: &[String], at: &FieldPath, faults: &mut Faults) -> Option<Vec<String>> {
    if list == [ALL] {
        return None;
    }
    for (at, group) in text::items(list, at) {
        if group.contains('*') {
            let problem = "write names of groups, or '*' (all) alone; patterns belong in \
                           'select.include.groups'";
            faults.add(&at, Problem::Conflict(problem));
        }
    }
    Some(names(list, GROUP, at, faults))
}

/// What does not go with the services that are read.
fn services_fit(spec: &NacosSpec, registry: &RegistrySpec, at: &FieldPath, faults: &mut Faults) {
    let services = services(spec, registry);
    if preset(registry) == Some(Preset::Aeraki) && services != NacosServices::Dubbo {
        let problem = "the preset aeraki is for services of Dubbo only: leave 'services' out, and \
                       carry the others over with a Registry of their own";
        faults.add(&at.key("services"), Problem::Conflict(problem));
    }
    if preset(registry) == Some(Preset::Nacos) && services != NacosServices::Other {
        let problem = "the preset nacos has no names for services of Dubbo: leave 'services' out, \
                       and carry them over with a Registry of their own";
        faults.add(&at.key("services"), Problem::Conflict(problem));
    }
    if spec.discovery.is_some() && services == NacosServices::Other {
        let problem = "no services of Dubbo are read: leave it out, or change 'services'";
        faults.add(&at.key("discovery"), Problem::Conflict(problem));
    }
}

fn auth(
    spec: &NacosSpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<Option<NacosAuth>> {
    let login = dubbo::login(spec.auth.as_ref(), &at.key("auth"), paths, faults);
    let Some(keys) = &spec.keys else {
        return Some(login?.map(NacosAuth::Login));
    };
    let at = at.key("keys");
    if spec.auth.is_some() {
        let problem = "either 'auth' (a user) or 'keys' (signed requests)";
        faults.add(&at, Problem::Conflict(problem));
    }
    text::not_empty(Some(&keys.access_key), &at.key("accessKey"), faults);
    let secret_key = connect::token(&keys.secret_key, &at.key("secretKey"), paths, faults)?;
    Some(Some(NacosAuth::Keys {
        access_key: keys.access_key.clone(),
        secret_key,
    }))
}

/// Every server needs a gRPC port.
fn grpc_ports(addresses: &[String], offset: u16, at: &FieldPath, faults: &mut Faults) {
    let port = |address: &String| Url::parse(address).ok()?.port_or_known_default();
    let beyond = |port: u16| port.checked_add(offset).is_none();
    if addresses.iter().filter_map(port).any(beyond) {
        let problem = "the port of an address plus this is above 65535: there is no such gRPC port";
        faults.add(&at.key("grpcPortOffset"), Problem::Conflict(problem));
    }
}
