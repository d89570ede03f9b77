//! Which parameters become labels.
//!
//! Labels are for subsets and for people: what tells instances of one service apart. Parameters
//! that steer the framework, that change at every start (each change is a write and a new time
//! series), that are secret, or that the model has a place of its own for, are left out.

use diolkos_model::{Interner, Labels};

use crate::{Options, url::Parameters};

/// Never labels, by name.
const NEVER: &[&str] = &[
    // Of the model itself: the service's name, the version, the weight, the health.
    "interface",
    "version",
    "weight",
    "enabled",
    "disabled",
    "deprecated",
    "path",
    "protocol",
    "port",
    "category",
    "side",
    // Different at each start.
    "pid",
    "timestamp",
    "remote.timestamp",
    "anyhost",
    // Who logs in; see `is_secret` for more.
    "username",
    // What the framework does, and how it registers.
    "dubbo",
    "dynamic",
    "generic",
    "methods",
    "revision",
    "meta-v",
    "service.name",
    "service-name-mapping",
    "prefer.serialization",
    "preferred-protocol",
    "metadata-type",
    "metadata-service-port",
    "mapping-type",
    "register",
    "registry",
    "registry-type",
    "registry-cluster-type",
    "REGISTRY_CLUSTER",
    "registry_cluster",
    "file-cache",
    "background",
    "unloadClusterRelated",
    "export",
    "exporter.listener",
    "extension",
    "ext.protocol",
    "ssl-enabled",
    "application.version",
    "compiler",
    "logger",
    "monitor",
    "monitor.interval",
    "status",
    "scope",
    "id",
    "bean.name",
    "native",
    "ipv6",
    "is-server",
    // How calls are made.
    "accepts",
    "accesslog",
    "actives",
    "alive",
    "async",
    "backlog",
    "buffer",
    "cache",
    "callbacks",
    "charset",
    "check",
    "client",
    "cluster",
    "codec",
    "connect.timeout",
    "connections",
    "corethreads",
    "default",
    "delay",
    "dispatcher",
    "dispather",
    "document",
    "exchanger",
    "executes",
    "filter",
    "forks",
    "heartbeat",
    "heartbeat.timeout",
    "idle.timeout",
    "invoker.listener",
    "iothreads",
    "keep.alive",
    "keepalive",
    "lazy",
    "listener",
    "loadbalance",
    "local",
    "merger",
    "mock",
    "networker",
    "onconnect",
    "ondisconnect",
    "optimizer",
    "payload",
    "prompter",
    "proxy",
    "queues",
    "reconnect",
    "reference.filter",
    "retries",
    "router",
    "sent",
    "serialization",
    "serialize.check.status",
    "server",
    "service.filter",
    "sticky",
    "stub",
    "telnet",
    "threadname",
    "threadpool",
    "threads",
];

/// More of these, in which the interesting part of the name comes first or last.
const NEVER_STARTING: &[&str] = &[
    "aeraki_meta_",
    "bind.",
    "default.",
    "qos",
    "register-",
    "register.",
    "executor",
    "metrics",
    "dubbo.endpoints",
    "dubbo.metadata",
    "timeout",
    "transporter",
    "validation",
    "warmup",
];

/// Settings of single methods: `METHOD.NAME`.
const NEVER_ENDING: &[&str] = &[
    ".actives",
    ".async",
    ".cache",
    ".callback",
    ".deprecated",
    ".executes",
    ".loadbalance",
    ".merger",
    ".mock",
    ".retries",
    ".retry",
    ".return",
    ".sent",
    ".sticky",
    ".timeout",
    ".validation",
    ".weight",
];

/// Parameters of dubbo2istio's own that its policy of endpoints takes; the plan does not make
/// labels of them.
const OF_AERAKI: [&str; 2] = ["aeraki_meta_app_service_account", "aeraki_meta_locality"];

/// The labels of an instance with these parameters, of which the later ones win.
///
/// With [`Options::aeraki`], as dubbo2istio: every parameter, but `service`, `ip`, `port`, and
/// (unlike it) `pid`, `timestamp`, secrets, and the records of applications, which it does not
/// read; the version as `aeraki_meta_app_version` says, and the registry's name as `registryName`.
pub(crate) fn labels<'a>(
    options: &'a Options,
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
    version: Option<&'a str>,
    interner: &mut Interner,
) -> Labels {
    let kept = parameters.filter(|(name, value)| !value.is_empty() && is_kept(name, options));
    if !options.aeraki {
        return interner.labels(kept);
    }
    let version = version.map(|version| ("version", version));
    let registry = Some(("registryName", &*options.registry));
    interner.labels(kept.chain(version).chain(registry))
}

/// Whether a parameter of this name becomes a label.
pub(crate) fn is_kept(name: &str, options: &Options) -> bool {
    let kept = if options.aeraki {
        aeraki_keeps(name)
    } else {
        !NEVER.contains(&name)
            && !NEVER_STARTING.iter().any(|start| name.starts_with(start))
            && !NEVER_ENDING.iter().any(|end| name.ends_with(end))
    };
    kept && !is_secret(name)
}

/// Whether the value of a parameter or of metadata with this name may be a secret, which must not
/// become a label: `token`, `db.password`, `accessKey`, `secret-key`, ….
#[must_use]
pub fn is_secret(name: &str) -> bool {
    const SECRETS: [&str; 8] = [
        "accesskey",
        "apikey",
        "credential",
        "passwd",
        "password",
        "privatekey",
        "secret",
        "token",
    ];
    let letters = name.chars().filter(|c| !matches!(c, '-' | '_' | '.'));
    let name: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    SECRETS.iter().any(|secret| name.contains(secret))
}

fn aeraki_keeps(name: &str) -> bool {
    const NEVER: &[&str] = &["service", "ip", "port", "pid", "timestamp", "username"];
    const NEVER_STARTING: &[&str] = &["aeraki_meta_", "dubbo.endpoints", "dubbo.metadata"];
    OF_AERAKI.contains(&name)
        || !NEVER.contains(&name) && !NEVER_STARTING.iter().any(|start| name.starts_with(start))
}

/// The parameters of a URL as [`labels`] takes them.
pub(crate) fn pairs(parameters: &Parameters) -> impl Iterator<Item = (&str, &str)> {
    parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
}
