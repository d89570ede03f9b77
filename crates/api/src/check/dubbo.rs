//! The registries that Dubbo writes into: ZooKeeper and etcd.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use diolkos_istio::validate;
use diolkos_plan::names;

use super::{
    connect::{self, Paths},
    text,
};
use crate::{
    fault::{Faults, FieldPath, Problem},
    raw::{AuthSpec, Discovery, EtcdSpec, Preset, RegistrySpec, Variants, ZooKeeperSpec},
    settings::{DubboSettings, EtcdSettings, Login, TlsSettings, ZooKeeperSettings},
    value,
};

const ZOOKEEPER_ADDRESS: &str = "127.0.0.1:2181";
const ETCD_ADDRESS: &str = "http://127.0.0.1:2379";
/// Dubbo's own defaults.
const ROOT: &str = "/dubbo";
const APPLICATIONS: &str = "/services";
const PORT_NAME: &str = "tcp-dubbo";
/// Longest name of a port: `-` and a number of up to five digits are put behind it, and a port's
/// name has at most 63 characters.
const LONGEST_PORT_NAME: usize = 57;

const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
const SESSION_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(2)..=Duration::from_secs(600);
/// The list of an interface with 25,000 providers is of about this size. Servers limit what is sent
/// to them (`jute.maxbuffer`, 1 MiB unless it was raised), but not what they answer.
const FRAME_LIMIT: usize = 16 << 20;
const FRAME_LIMITS: RangeInclusive<usize> = (64 << 10)..=(1 << 30);

pub(super) fn zookeeper(
    spec: &ZooKeeperSpec,
    registry: &RegistrySpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<ZooKeeperSettings> {
    let addresses = servers(&spec.addresses, &at.key("addresses"), faults);
    let chroot = match spec.chroot.as_deref() {
        None | Some("" | "/") => Some(String::new()),
        Some(chroot) => faults.take(&at.key("chroot"), value::node(chroot)),
    };
    let root = (spec.root.as_deref(), "root");
    let roots = roots(root, spec.applications.as_deref(), at, faults);
    let auth = login(spec.auth.as_ref(), &at.key("auth"), paths, faults);
    if spec
        .auth
        .as_ref()
        .is_some_and(|auth| auth.username.contains(':'))
    {
        let problem = "a user name of ZooKeeper has no ':': the password begins there";
        faults.add(&at.key("auth").key("username"), Problem::Conflict(problem));
    }
    let tls = match &spec.tls {
        None => Some(None),
        Some(spec) => connect::tls(spec, &at.key("tls"), paths, faults).map(Some),
    };
    let session_timeout = session_timeout(spec, &at.key("sessionTimeout"), faults);
    let frame_limit = frame_limit(spec, &at.key("frameLimit"), faults);
    let dubbo = dubbo(registry, spec.discovery, faults);
    let (root, applications) = roots?;
    Some(ZooKeeperSettings {
        addresses: addresses?,
        chroot: chroot?,
        root,
        applications,
        auth: auth?,
        tls: tls?,
        session_timeout: session_timeout?,
        frame_limit: frame_limit?,
        dubbo: dubbo?,
    })
}

pub(super) fn etcd(
    spec: &EtcdSpec,
    registry: &RegistrySpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<EtcdSettings> {
    let urls = connect::Urls {
        default: ETCD_ADDRESS,
        credentials: "auth",
        path: connect::Context::None,
    };
    let addresses = urls.check(&spec.addresses, &at.key("addresses"), faults);
    let prefix = (spec.prefix.as_deref(), "prefix");
    let roots = roots(prefix, spec.applications.as_deref(), at, faults);
    let auth = login(spec.auth.as_ref(), &at.key("auth"), paths, faults);
    let tls = match &spec.tls {
        None => Some(TlsSettings::default()),
        Some(spec) => connect::tls(spec, &at.key("tls"), paths, faults),
    };
    let dubbo = dubbo(registry, spec.discovery, faults);
    let addresses = addresses?;
    if spec.tls.is_some() {
        connect::tls_has_use(&addresses, &at.key("tls"), faults);
    }
    let (prefix, applications) = roots?;
    Some(EtcdSettings {
        addresses,
        prefix,
        applications,
        auth: auth?,
        tls: tls?,
        dubbo: dubbo?,
    })
}

fn servers(list: &[String], at: &FieldPath, faults: &mut Faults) -> Option<Vec<String>> {
    if list.is_empty() {
        return Some(vec![ZOOKEEPER_ADDRESS.to_owned()]);
    }
    let valid: Vec<_> = text::items(list, at)
        .map(|(at, address)| {
            faults.take(&at, server(address).map_err(|why| Problem::Url(why.into())))
        })
        .collect();
    if !valid.iter().all(Option::is_some) {
        return None;
    }
    // Only now: the fault shows the address, which may have held a password.
    text::no_repeats(text::items(list, at), faults);
    Some(list.to_owned())
}

/// `host:port`, where an IPv6 address is in brackets.
fn server(text: &str) -> Result<(), &'static str> {
    if text.contains("://") {
        return Err("write host:port, without a scheme");
    }
    if text.contains('/') {
        return Err("write host:port; a path belongs in 'chroot'");
    }
    if text.contains(',') {
        return Err("write each server as an item of its own");
    }
    if text.contains('@') {
        return Err("write host:port; user name and password belong in 'auth'");
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("the port is missing; write host:port")?;
    if !port.parse::<u16>().is_ok_and(|port| port != 0) || port.starts_with('+') {
        return Err("the port must be a number from 1 to 65535");
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(ip) if ip.parse::<std::net::Ipv6Addr>().is_err() => {
            Err("what is in brackets is no IPv6 address")
        }
        Some(_) => Ok(()),
        None if host.contains(':') => Err("write an IPv6 address in brackets: [fd00::1]:2181"),
        None if host.is_empty() || !host.chars().all(is_name) => {
            Err("the host is no name and no address")
        }
        None => Ok(()),
    }
}

/// Where interfaces and applications are registered.
fn roots(
    (interfaces, field): (Option<&str>, &str),
    applications: Option<&str>,
    at: &FieldPath,
    faults: &mut Faults,
) -> Option<(String, String)> {
    let root = value::node(interfaces.unwrap_or(ROOT));
    let root = faults.take(&at.key(field), root);
    let applications = value::node(applications.unwrap_or(APPLICATIONS));
    let applications = faults.take(&at.key("applications"), applications);
    if root.is_some() && root == applications {
        let problem = "interfaces and applications cannot be registered at the same path";
        faults.add(&at.key("applications"), Problem::Conflict(problem));
    }
    Some((root?, applications?))
}

pub(super) fn login(
    spec: Option<&AuthSpec>,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<Option<Login>> {
    let Some(spec) = spec else {
        return Some(None);
    };
    text::not_empty(Some(&spec.username), &at.key("username"), faults);
    let password = connect::token(&spec.password, &at.key("password"), paths, faults)?;
    Some(Some(Login {
        username: spec.username.clone(),
        password,
    }))
}

fn session_timeout(spec: &ZooKeeperSpec, at: &FieldPath, faults: &mut Faults) -> Option<Duration> {
    let Some(text) = &spec.session_timeout else {
        return Some(SESSION_TIMEOUT);
    };
    let timeout = faults.take(at, value::duration(text))?;
    if !SESSION_TIMEOUTS.contains(&timeout) {
        let (least, most) = ("2s", "10m");
        faults.add(at, Problem::Range { least, most });
    }
    Some(timeout)
}

fn frame_limit(spec: &ZooKeeperSpec, at: &FieldPath, faults: &mut Faults) -> Option<usize> {
    let Some(text) = &spec.frame_limit else {
        return Some(FRAME_LIMIT);
    };
    let limit = faults.take(at, value::size(text))?;
    if !FRAME_LIMITS.contains(&limit) {
        let (least, most) = ("64Ki", "1Gi");
        faults.add(at, Problem::Range { least, most });
    }
    Some(limit)
}

/// What `export` says of Dubbo.
pub(super) fn dubbo(
    registry: &RegistrySpec,
    discovery: Option<Discovery>,
    faults: &mut Faults,
) -> Option<DubboSettings> {
    let export = registry.export.clone().unwrap_or_default();
    let aeraki = export.preset == Some(Preset::Aeraki);
    let spec = export.dubbo.unwrap_or_default();
    let at = FieldPath::default().key("spec").key("export").key("dubbo");
    let name = spec.port_name.as_deref().unwrap_or(PORT_NAME);
    let protocol = faults.take(&at.key("portName"), protocol(name));
    // dubbo2istio knows nothing of applications.
    let (usual_discovery, usual_variants) = if aeraki {
        (Discovery::Interface, Variants::Hosts)
    } else {
        (Discovery::Both, Variants::Labels)
    };
    Some(DubboSettings {
        discovery: discovery.unwrap_or(usual_discovery),
        variants: spec.variants.unwrap_or(usual_variants),
        protocol: protocol?,
        aeraki,
    })
}

/// The protocol that makes the plan name a port so.
fn protocol(name: &str) -> Result<Arc<str>, Problem> {
    validate::port_name(name)?;
    if name == "tcp" {
        return Ok(name.into());
    }
    let protocol = name.strip_prefix("tcp-").ok_or(Problem::Conflict(
        "write tcp or tcp-NAME: to Istio, Dubbo's protocol is TCP, and it takes the protocol from \
         the part before the first '-'",
    ))?;
    if names::dns_label(protocol) != protocol {
        return Err(Problem::Conflict(
            "behind 'tcp-' write lower-case letters, digits and '-' between them",
        ));
    }
    if validate::protocol(protocol).is_some() {
        return Err(Problem::Conflict(
            "behind 'tcp-' write no protocol that Istio routes by: the ports would be of that one",
        ));
    }
    if name.len() > LONGEST_PORT_NAME {
        return Err(Problem::Conflict(
            "at most 57 characters: the number of the port is put behind it",
        ));
    }
    Ok(protocol.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_host_and_port() {
        for good in [
            "zk:2181",
            "zoo_1.example:2181",
            "10.0.0.1:1",
            "[fd00::1]:65535",
        ] {
            assert_eq!(server(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "zk",
            "zk:",
            ":2181",
            "zk:0",
            "zk:65536",
            "zk:+1",
            "fd00::1:2181",
            "[fd00::1]",
            "[zk]:2181",
            "zookeeper://zk:2181",
            "zk:2181/dubbo",
            "a:1,b:1",
            "me:pw@zk:2181",
            "z k:1",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_names() {
        for (name, expected) in [
            ("tcp-dubbo", Some("dubbo")),
            ("tcp-metaprotocol-dubbo", Some("metaprotocol-dubbo")),
            ("tcp", Some("tcp")),
            ("dubbo", None),
            ("http-dubbo", None),
            ("tcp-http", None),
            ("tcp-grpc-web", None),
            ("tcp-", None),
            ("tcp--x", None),
            ("tcp-Dubbo", None),
            ("tcp_dubbo", None),
            ("", None),
            (&format!("tcp-{}", "a".repeat(54)), None),
        ] {
            assert_eq!(protocol(name).ok().as_deref(), expected, "{name}");
        }
    }
}
