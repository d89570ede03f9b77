//! Objects for the comparison with the real validators: one for each value that is easily got wrong,
//! and mixtures of them. The same ones in every run.

use std::collections::BTreeMap;

use diolkos_istio::{
    Kind, Object, ObjectKey, Resolution, ServiceEntry, ServicePort, Spec, WorkloadEntry,
    WorkloadSelector,
};
use proptest::{
    collection::vec, option, prelude::*, sample::select, strategy::ValueTree as _,
    test_runner::TestRunner,
};

/// The namespace of all samples; it is there in a fresh cluster.
const NAMESPACE: &str = "default";
/// How many mixtures there are of each kind.
const MIXTURES: usize = 300;
/// One in so many picks of a mixture is a value that is easily got wrong.
const ODD: u32 = 12;

const NAMES: &[&str] = &[
    "",
    "a",
    "A.B",
    "1",
    "1.a",
    "a.1",
    "a.007",
    "a.+1",
    "a.99999999999999999999",
    "1.2.3.4",
    "::1",
    ".",
    "..",
    ".a",
    "a.",
    "a..",
    "a..b",
    "-a",
    "a-",
    "a_b",
    "a_b.c",
    "a:b",
    "a@b",
    "a b",
    "a/b",
    "é.fr",
    "xn--nxasmq6b.a",
    "*",
    "**",
    "*.",
    "*.a",
    "*a",
    "*a.b",
    "*-",
    "*-.a",
    "*-a.b",
    "*--a.b",
    "a*.b",
    "a.*",
    "a.*.b",
    "*.1",
    "a\n",
    "a\u{0}",
    "😀",
    "provider:com.acme.Api:1:g",
    "DEFAULT_GROUP@@svc",
];
const ADDRESSES: &[&str] = &[
    "",
    "10.0.0.1",
    "0.0.0.0",
    "::",
    "::1",
    "fe80::1%eth0",
    "fe80::1%",
    "fe80::1%a%b",
    "%eth0",
    "::ffff:10.0.0.1",
    "::ffff:10.0.0.1%z",
    "::ffff:010.0.0.1",
    "10.0.0",
    "10.0.0.256",
    "010.0.0.1",
    "10.0.0.1.",
    " 10.0.0.1",
    "10.0.0.1%eth0",
    "10.0.0.1:80",
    "[::1]",
    "1:2:3:4:5:6:7::",
    "1:2:3:4::5:6:7:8",
    "1:2:3:4:5:6:1.2.3.4",
    "1:2:3:4:5:6:7:8:9",
    "::00001",
    "1::2::3",
    ":1",
    "::1.2.3.4",
    "1.2.3.4::",
    "2001:DB8::1",
    "db.example.com",
    "*.a",
    "unix://",
    "unix:///",
    "unix:///run/a.sock",
    "unix:///dir/",
    "unix://rel",
    "unix://@a",
    "unix://@",
    "unix://@a/",
    "unix://..",
    "UNIX:///a",
    "10.0.0.0/8",
    "10.0.0.1/08",
    "10.0.0.1/+8",
    "10.0.0.1/-0",
    "10.0.0.1/0",
    "10.0.0.1/",
    "10.0.0.1/32",
    "10.0.0.1/33",
    "10.0.0.1/8/8",
    "::/128",
    "::/129",
    "::ffff:1.2.3.4/96",
    "fe80::1%e/64",
    "/8",
    "10.0/8",
    "::1%a/b",
    "a\n10.0.0.1",
];
const PORT_NAMES: &[&str] = &[
    "", "http", "HTTP-1", "1", "-", "a-", "a_b", "a.b", "é", "grpc",
];
const PORTS: &[u32] = &[0, 1, 80, 65535, 65536, u32::MAX];
const PROTOCOLS: &[&str] = &[
    "",
    "TCP",
    "tcp",
    "UDP",
    "GRPC",
    "gRPC-Web",
    "HTTP",
    "http_proxy",
    "http-proxy",
    "HTTP2",
    "https",
    "TLS",
    "Mongo",
    "redis",
    "MySQL",
    "HBONE",
    "DoubleHBONE",
    "doublehbone",
    "dubbo",
    " http",
    "UnsupportedProtocol",
];
const KEYS: &[&str] = &[
    "",
    "a",
    "A_b.c-1",
    "_a",
    "a-",
    "a b",
    "a/b",
    "/a",
    "a/",
    "a/b/c",
    "A.io/x",
    "a.io./x",
    "-a.io/x",
    "a_b/x",
    "é",
    "*",
    "diolkos.io/service",
];
const VALUES: &[&str] = &[
    "", "a", "A_b.c-1", "_a", "a-", "a b", "a/b", "é", "*", "a*", "a\n",
];
const ANNOTATIONS: &[&str] = &[
    "istio.io/dry-run",
    "internal.istio.io/webhook-always-reject",
    "internal.istio.io/parents",
    "internal.istio.io/parent-namespace",
    "networking.istio.io/exportTo",
];
const EXPORTS: &[&[&str]] = &[
    &[],
    &["."],
    &["*"],
    &["~"],
    &["a", "b"],
    &["a", "a"],
    &[".", "a"],
    &[".", "default"],
    &["default", "."],
    &[".", "."],
    &["*", "*"],
    &["*", "a"],
    &["a", "~"],
    &["~", "~"],
    &["*", "~"],
    &["NS"],
    &[""],
    &["a_b"],
    &["a.b"],
    &["**"],
];
const RESOLUTIONS: [Resolution; 4] = [
    Resolution::None,
    Resolution::Static,
    Resolution::Dns,
    Resolution::DnsRoundRobin,
];

/// The samples, each with its own name.
pub(crate) fn samples() -> Vec<Object> {
    let mut specs: Vec<Spec> = Vec::new();
    specs.extend(services().into_iter().map(Spec::ServiceEntry));
    specs.extend(workloads().into_iter().map(Spec::WorkloadEntry));
    specs.extend(mixtures());
    let mut objects: Vec<_> = specs
        .into_iter()
        .enumerate()
        .map(|(index, spec)| named(&format!("sample-{index}"), spec))
        .collect();
    objects.extend(metadata());
    objects
}

fn named(name: &str, spec: Spec) -> Object {
    let kind = match spec {
        Spec::ServiceEntry(_) => Kind::ServiceEntry,
        Spec::WorkloadEntry(_) => Kind::WorkloadEntry,
    };
    Object {
        key: ObjectKey {
            kind,
            namespace: NAMESPACE.into(),
            name: name.into(),
        },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        spec,
    }
}

fn port(number: u32, name: &str, protocol: &str) -> ServicePort {
    ServicePort {
        number,
        name: name.into(),
        protocol: protocol.into(),
        target_port: 0,
    }
}

fn at(address: &str) -> WorkloadEntry {
    WorkloadEntry {
        address: address.into(),
        ..Default::default()
    }
}

/// A valid service entry.
fn service() -> ServiceEntry {
    ServiceEntry {
        hosts: vec!["a.example.com".into()],
        ports: vec![port(80, "http", "HTTP")],
        resolution: Resolution::Static.into(),
        endpoints: vec![at("10.0.0.1")],
        ..Default::default()
    }
}

/// Names at both sides of the limits on length.
fn long_names() -> Vec<String> {
    let labels = |count: usize| "a.".repeat(count);
    [62, 63, 64, 253, 254, 255, 256, 257]
        .into_iter()
        .map(|bytes| "a".repeat(bytes))
        .chain([62, 63].map(|bytes| format!("*{}", "a".repeat(bytes))))
        .chain([
            labels(127),
            labels(128),
            labels(127) + "a",
            labels(128) + "a",
            format!("{}/a", "a".repeat(253)),
            format!("{}/a", "a".repeat(254)),
        ])
        .collect()
}

fn with_long(values: &[&str]) -> Vec<String> {
    let mut all: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
    all.extend(long_names());
    all
}

/// The valid service entry, changed.
fn with(edit: impl FnOnce(&mut ServiceEntry)) -> ServiceEntry {
    let mut spec = service();
    edit(&mut spec);
    spec
}

fn services() -> Vec<ServiceEntry> {
    let mut all = vec![service(), ServiceEntry::default()];
    all.extend(RESOLUTIONS.into_iter().flat_map(resolved));
    all.extend(service_addresses());
    all.extend(ports());
    all.extend(exports());
    all.extend(selectors());
    all.extend(large());
    all
}

/// What the rules for a resolution look at.
fn resolved(resolution: Resolution) -> Vec<ServiceEntry> {
    let with = |edit: &dyn Fn(&mut ServiceEntry)| {
        with(|spec| {
            spec.resolution = resolution.into();
            edit(spec);
        })
    };
    let mut all = Vec::new();
    for host in with_long(NAMES) {
        all.push(with(&|spec| {
            spec.hosts = vec![host.clone()];
            spec.endpoints.clear();
        }));
    }
    for address in with_long(ADDRESSES) {
        all.push(with(&|spec| spec.endpoints = vec![at(&address)]));
    }
    for protocol in PROTOCOLS {
        all.push(with(&|spec| {
            spec.hosts.push("b".into());
            spec.endpoints.clear();
            spec.ports[0].protocol = (*protocol).into();
        }));
    }
    for count in [0, 1, 2, 3] {
        all.push(with(&|spec| {
            spec.endpoints = vec![at("10.0.0.1"); count];
            spec.addresses = vec!["10.1.0.0/16".into()];
        }));
    }
    all
}

fn service_addresses() -> Vec<ServiceEntry> {
    // At both sides of the limit on their length.
    let long_zones = [57, 56].map(|bytes| format!("fe80::1%{}", "z".repeat(bytes)));
    with_long(ADDRESSES)
        .into_iter()
        .chain(long_zones)
        .map(|address| with(|spec| spec.addresses = vec![address]))
        .collect()
}

fn ports() -> Vec<ServiceEntry> {
    let mut all = Vec::new();
    for name in with_long(PORT_NAMES) {
        all.push(with(|spec| spec.ports[0].name.clone_from(&name)));
        all.push(with(|spec| {
            spec.ports[0].name.clone_from(&name);
            spec.endpoints[0].ports = [(name.clone(), 80)].into();
        }));
        all.push(with(|spec| spec.endpoints[0].ports = [(name, 80)].into()));
    }
    for number in PORTS {
        all.push(with(|spec| spec.ports[0].number = *number));
        all.push(with(|spec| spec.ports[0].target_port = *number));
        all.push(with(|spec| {
            spec.endpoints[0].ports = [("http".into(), *number)].into();
        }));
    }
    for protocol in with_long(PROTOCOLS) {
        all.push(with(|spec| spec.ports[0].protocol = protocol));
    }
    for (number, name) in [(80, "b"), (81, "http"), (80, "http"), (81, "b")] {
        for address in ["10.0.0.1", "unix:///run/a"] {
            all.push(with(|spec| {
                spec.ports.push(port(number, name, "HTTP"));
                spec.endpoints[0].address = address.into();
            }));
        }
    }
    all
}

fn exports() -> Vec<ServiceEntry> {
    EXPORTS
        .iter()
        .map(|list| {
            with(|spec| spec.export_to = list.iter().map(|entry| (*entry).into()).collect())
        })
        .collect()
}

fn selectors() -> Vec<ServiceEntry> {
    let selecting = |labels| {
        with(|spec| {
            spec.endpoints.clear();
            spec.workload_selector = Some(WorkloadSelector { labels });
        })
    };
    let mut all: Vec<_> = pairs()
        .into_iter()
        .map(|pair| selecting([pair].into()))
        .collect();
    all.extend(RESOLUTIONS.map(|resolution| {
        let mut spec = selecting(BTreeMap::new());
        spec.resolution = resolution.into();
        spec
    }));
    all.extend([256, 257].map(|count| {
        let labels = (0..count).map(|key| (format!("k{key}"), "v".into()));
        selecting(labels.collect())
    }));
    all.push(with(|spec| {
        spec.workload_selector = Some(WorkloadSelector::default());
    }));
    all
}

/// At both sides of the limits on numbers.
fn large() -> Vec<ServiceEntry> {
    let mut all = Vec::new();
    for count in [256, 257] {
        all.push(with(|spec| {
            spec.hosts = (0..count).map(|host| format!("h{host}")).collect();
        }));
        all.push(with(|spec| {
            spec.addresses = (0..count).map(|_| "10.0.0.1".into()).collect();
        }));
        all.push(with(|spec| {
            spec.ports = (1..=count)
                .map(|number| port(number, &format!("p{number}"), "HTTP"))
                .collect();
        }));
    }
    for count in [4096, 4097] {
        all.push(with(|spec| spec.endpoints = vec![at("10.0.0.1"); count]));
    }
    all
}

/// Every key with a plain value, every value under a plain key.
fn pairs() -> Vec<(String, String)> {
    let keys = with_long(KEYS).into_iter().map(|key| (key, "a".to_owned()));
    let values = with_long(VALUES)
        .into_iter()
        .map(|value| ("a".to_owned(), value));
    keys.chain(values).collect()
}

fn workloads() -> Vec<WorkloadEntry> {
    let mut all = vec![at("10.0.0.1")];
    for address in with_long(ADDRESSES).iter().chain(&with_long(NAMES)) {
        all.push(at(address));
        all.push(WorkloadEntry {
            network: "n".into(),
            ports: [("http".into(), 80)].into(),
            ..at(address)
        });
    }
    for name in with_long(PORT_NAMES) {
        all.push(WorkloadEntry {
            ports: [(name, 80)].into(),
            ..at("10.0.0.1")
        });
    }
    for pair in pairs() {
        all.push(WorkloadEntry {
            labels: [pair].into(),
            ..at("10.0.0.1")
        });
    }
    for length in [253, 254, 2048, 2049] {
        // Characters count, not bytes.
        let text = "é".repeat(length);
        all.push(WorkloadEntry {
            network: text.clone(),
            ..at("10.0.0.1")
        });
        all.push(WorkloadEntry {
            locality: text.clone(),
            ..at("10.0.0.1")
        });
        all.push(WorkloadEntry {
            service_account: text,
            ..at("10.0.0.1")
        });
    }
    for count in [128, 129, 256, 257] {
        all.push(WorkloadEntry {
            ports: (1..=count).map(|port| (format!("p{port}"), port)).collect(),
            ..at("10.0.0.1")
        });
        all.push(WorkloadEntry {
            labels: (0..count)
                .map(|key| (format!("k{key}"), "v".into()))
                .collect(),
            weight: u32::MAX,
            ..at("10.0.0.1")
        });
    }
    all
}

/// A value from `good`, seldom one from `odd`.
fn pick(
    good: &'static [&'static str],
    odd: &'static [&'static str],
) -> impl Strategy<Value = String> {
    prop_oneof![ODD => select(good), 1 => select(odd)].prop_map(str::to_owned)
}

fn pick_port() -> impl Strategy<Value = u32> {
    prop_oneof![ODD => 1..=65535_u32, 1 => select(PORTS)]
}

prop_compose! {
    fn any_workload()(
        address in pick(&["10.0.0.1", "::1", "10.0.0.2"], ADDRESSES),
        ports in proptest::collection::btree_map(pick(&["http", "grpc"], PORT_NAMES), pick_port(), 0..2),
        labels in proptest::collection::btree_map(pick(&["a", "b", "c.d/e"], KEYS), pick(&["v1", "v2"], VALUES), 0..3),
        network in select(&["", "n"][..]).prop_map(str::to_owned),
    ) -> WorkloadEntry {
        WorkloadEntry { address, ports, labels, network, ..Default::default() }
    }
}

prop_compose! {
    fn any_service()(
        hosts in vec(pick(&["a", "b.c", "*.d"], NAMES), 1..3),
        addresses in vec(pick(&["10.0.0.1", "10.0.0.0/8"], ADDRESSES), 0..2),
        ports in vec((pick_port(), pick(&["HTTP", "TLS", "GRPC"], PROTOCOLS), pick(&["http", "grpc", "x"], PORT_NAMES)), 0..4),
        location in 0..2,
        resolution in select(&RESOLUTIONS[..]),
        endpoints in vec(any_workload(), 0..3),
        export_to in select(EXPORTS),
        selector in option::weighted(0.2, Just(BTreeMap::from([("app".to_owned(), "a".to_owned())]))),
    ) -> ServiceEntry {
        ServiceEntry {
            hosts, addresses, location, resolution: resolution.into(), endpoints,
            ports: ports.into_iter().map(|(number, protocol, name)| port(number, &name, &protocol)).collect(),
            export_to: export_to.iter().map(|entry| (*entry).to_owned()).collect(),
            workload_selector: selector.map(|labels| WorkloadSelector { labels }),
            ..Default::default()
        }
    }
}

fn mixtures() -> Vec<Spec> {
    let mut runner = TestRunner::deterministic();
    let any = prop_oneof![
        any_service().prop_map(Spec::ServiceEntry),
        any_workload().prop_map(Spec::WorkloadEntry)
    ];
    (0..2 * MIXTURES)
        .map(|_| {
            any.new_tree(&mut runner)
                .expect("no filter can fail")
                .current()
        })
        .collect()
}

/// Objects with a valid spec whose metadata varies. A name is how a verdict is found: none is given
/// twice and none is empty.
fn metadata() -> Vec<Object> {
    let valid = |name: &str| named(name, Spec::WorkloadEntry(at("10.0.0.1")));
    let mut all: Vec<_> = ["A", "a_b", "a..b", "a.", "-a", "a.b-c.1"]
        .into_iter()
        .map(valid)
        .collect();
    all.extend([63, 64, 253, 254].map(|bytes| valid(&"n".repeat(bytes))));
    for (index, (key, value)) in pairs().into_iter().enumerate() {
        let mut labelled = valid(&format!("label-{index}"));
        labelled.labels = [(key.clone(), value.clone())].into();
        let mut annotated = valid(&format!("annotation-{index}"));
        annotated.annotations = [(key, value)].into();
        all.extend([labelled, annotated]);
    }
    for (index, key) in ANNOTATIONS.iter().enumerate() {
        let mut annotated = valid(&format!("reserved-{index}"));
        annotated.annotations = [((*key).to_owned(), "true".to_owned())].into();
        all.push(annotated);
    }
    for extra in [0, 1] {
        let mut annotated = valid(&format!("annotated-{extra}"));
        annotated.annotations = [("a".to_owned(), "x".repeat(256 * 1024 - 1 + extra))].into();
        all.push(annotated);
    }
    all
}
