//! From URLs to instances.

use diolkos_model::{Health, Weight};
use diolkos_source_dubbo::{Options, Variants};

use crate::support::{encode, ids, label, list, meta, only, options, providers, text};

fn lines(urls: &[&str]) -> String {
    text(&providers(options(), urls).snapshot())
}

#[test]
fn one_process_with_several_protocols_is_one_instance() {
    let service = only(&mut providers(
        options(),
        &[
            "tri://10.0.0.1:50051/a.B?application=x&version=1",
            "dubbo://10.0.0.1:20880/a.B?application=x&version=1",
            "dubbo://10.0.0.2:20880/a.B?application=x&version=1",
        ],
    ));
    assert_eq!(ids(&service), ["10.0.0.1:20880/:1", "10.0.0.2:20880/:1"]);
    let ports = |index: usize| -> Vec<_> {
        let ports = service.instances[index].ports.iter();
        ports
            .map(|p| (&*p.name, p.number, p.protocol.as_deref().unwrap()))
            .collect()
    };
    assert_eq!(
        ports(0),
        [("dubbo", 20880, "dubbo"), ("tri", 50051, "grpc")]
    );
    assert_eq!(ports(1), [("dubbo", 20880, "dubbo")]);
}

#[test]
fn processes_of_one_host_are_told_apart_by_pid() {
    let url = |scheme, port, pid| format!("{scheme}://10.0.0.1:{port}/a.B?application=x&pid={pid}");
    let urls = [
        url("dubbo", 20880, 1),
        url("tri", 50051, 1),
        url("dubbo", 20881, 2),
        url("tri", 50052, 2),
    ];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let service = only(&mut providers(options(), &urls));
    assert_eq!(ids(&service), ["10.0.0.1:20880", "10.0.0.1:20881"]);
    assert!(service.instances.iter().all(|i| i.ports.len() == 2));
    // Without, nothing says which belong together.
    let bare: Vec<&str> = urls
        .iter()
        .map(|url| url.split("&pid").next().unwrap())
        .collect();
    assert_eq!(only(&mut providers(options(), &bare)).instances.len(), 4);
}

#[test]
fn of_two_nodes_of_one_place_the_newer_counts() {
    let urls = [
        "dubbo://10.0.0.1:20880/a.B?timestamp=2&env=new",
        "dubbo://10.0.0.1:20880/a.B?timestamp=1&env=old",
    ];
    let service = only(&mut providers(options(), &urls));
    assert_eq!(service.instances.len(), 1);
    assert_eq!(label(&service.instances[0], "env"), Some("new"));
}

#[test]
fn weights() {
    let weights = |queries: &[&str]| -> Vec<Option<Weight>> {
        let urls: Vec<String> = queries
            .iter()
            .enumerate()
            .map(|(index, query)| format!("dubbo://10.0.0.{index}:20880/a.B?{query}"))
            .collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let service = only(&mut providers(options(), &urls));
        service.instances.iter().map(|i| i.weight).collect()
    };
    assert_eq!(weights(&["weight=100", ""]), [None, None]);
    assert_eq!(weights(&["weight=heavy", "weight="]), [None, None]);
    let whole = |weight| Some(Weight::whole(weight));
    assert_eq!(weights(&["weight=200", ""]), [whole(200), whole(100)]);
    assert_eq!(weights(&["weight=0", "weight=-5"]), [whole(0), whole(0)]);
    assert_eq!(weights(&["default.weight=50"]), [whole(50)]);
}

#[test]
fn switched_off_is_unhealthy() {
    for (query, word) in [
        ("enabled=false", Some("enabled=false")),
        ("disabled=true", Some("disabled=true")),
        ("disabled=false&enabled=false", None),
        ("deprecated=true", None),
        ("dynamic=false", None),
        ("enabled=", None),
    ] {
        let url = format!("dubbo://10.0.0.1:20880/a.B?{query}");
        let service = only(&mut providers(options(), &[&url]));
        let expected = word.map_or(Health::Healthy, |word| Health::Unhealthy(word.into()));
        assert_eq!(service.instances[0].health, expected, "{query}");
    }
}

#[test]
fn a_node_that_cannot_be_read_costs_itself_only() {
    let seen = lines(&["dubbo://10.0.0.1:20880/a.B", "rubbish"]);
    assert!(seen.contains("10.0.0.1:20880 at"), "{seen}");
    assert!(
        seen.contains("DOWN not a provider URL: it has no protocol"),
        "{seen}"
    );
    let hosts = Options {
        variants: Variants::Hosts,
        ..options()
    };
    let urls = ["dubbo://10.0.0.1:20880/a.B?version=1", "rubbish"];
    let service = only(&mut providers(hosts, &urls));
    assert_eq!(&*service.key.name, "a.B:1");
    assert_eq!(service.instances.len(), 2);
}

#[test]
fn what_is_no_provider_is_passed_over() {
    let urls = [
        "consumer://10.0.0.5/a.B?side=consumer",
        "empty://10.0.0.5/a.B",
        "route://0.0.0.0/a.B",
        "override://0.0.0.0/a.B?weight=5",
    ];
    assert_eq!(lines(&urls), "");
}

#[test]
fn labels_are_what_tells_instances_apart() {
    let url = "dubbo://10.0.0.1:20880/a.B?anyhost=true&application=shop&bind.ip=10.0.0.1&deprecated=false\
        &dubbo=2.0.2&dynamic=true&env=prod&generic=false&group=g&interface=a.B&methods=x&pid=4&release=3.3.5\
        &region=cn&zone=cn-1&revision=1&say.timeout=3&say.retries=0&loadbalance=random&qos.enable=false\
        &service-name-mapping=true&side=provider&timeout=10&timestamp=5&token=secret&version=2&weight=7\
        &dubbo.tag=gray&owner=me&aeraki_meta_locality=r/z/s";
    let service = only(&mut providers(options(), &[url]));
    let instance = &service.instances[0];
    let labels: Vec<String> = instance
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        labels,
        [
            "application=shop",
            "dubbo.tag=gray",
            "env=prod",
            "group=g",
            "owner=me",
            "region=cn",
            "release=3.3.5",
            "zone=cn-1"
        ]
    );
    assert_eq!(
        (&*instance.locality.region, &*instance.locality.zone),
        ("cn", "cn-1")
    );
    assert_eq!(instance.version.as_deref(), Some("2"));
}

#[test]
fn as_dubbo2istio_the_parameters_of_aeraki_count() {
    let url = "dubbo://10.0.0.1:20880/a.B?interface=a.B&version=1.0&service=s&methods=x&pid=1\
        &aeraki_meta_app_version=v2&aeraki_meta_app_service_account=sa&aeraki_meta_locality=r%2Fz%2Fs\
        &aeraki_meta_app_namespace=shop&region=cn";
    let aeraki = Options {
        aeraki: true,
        variants: Variants::Hosts,
        ..options()
    };
    let service = only(&mut providers(aeraki, &[url]));
    assert_eq!(meta(&service, "dubboHost"), Some("a.b-1-0"));
    assert_eq!(meta(&service, "dubboNamespace"), Some("shop"));
    let instance = &service.instances[0];
    assert_eq!(instance.version.as_deref(), Some("v2"));
    assert_eq!(&*instance.locality.sub_zone, "s");
    for (name, value) in [
        ("version", Some("v2")),
        ("registryName", Some("zk")),
        ("methods", Some("x")),
        ("region", Some("cn")),
        ("aeraki_meta_app_service_account", Some("sa")),
        ("aeraki_meta_locality", Some("r/z/s")),
        ("aeraki_meta_app_namespace", None),
        ("service", None),
        ("pid", None),
    ] {
        assert_eq!(label(instance, name), value, "{name}");
    }
}

#[test]
fn variants_are_labels_or_services() {
    let urls = [
        "dubbo://10.0.0.1:20880/a.B",
        "dubbo://10.0.0.1:20880/a.B?group=Gray&version=2.0.0",
    ];
    let service = only(&mut providers(options(), &urls));
    assert_eq!(
        ids(&service),
        ["10.0.0.1:20880", "10.0.0.1:20880/Gray/:2.0.0"]
    );
    assert_eq!(meta(&service, "version"), None);
    let hosts = Options {
        variants: Variants::Hosts,
        ..options()
    };
    let services = providers(hosts, &urls).snapshot();
    let seen: Vec<_> = services
        .iter()
        .map(|s| {
            (
                s.key.to_string(),
                meta(s, "dubboHost").unwrap(),
                meta(s, "group"),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("zk/a.B".to_owned(), "a.b", None),
            (
                "zk/Gray/a.B:2.0.0".to_owned(),
                "a.b-gray-2-0-0",
                Some("Gray")
            ),
        ]
    );
}

#[test]
fn lists_are_told_whole_or_by_child() {
    let url = |host: u8| encode(&format!("dubbo://10.0.0.{host}:20880/a.B"));
    let mut catalog = providers(options(), &["dubbo://10.0.0.1:20880/a.B"]);
    assert_eq!(catalog.take_changes().len(), 1);
    catalog.set_children(&list("a.B"), vec![url(1)]);
    assert!(catalog.take_changes().is_empty(), "the same list");
    catalog.add_child(&list("a.B"), &url(2));
    catalog.add_child(&list("a.B"), &url(2));
    assert_eq!(catalog.take_changes().len(), 1);
    catalog.set_children(&list("a.B"), vec![url(3), url(2)]);
    assert_eq!(
        ids(&only(&mut catalog)),
        ["10.0.0.2:20880", "10.0.0.3:20880"]
    );
    assert!(catalog.take_changes().is_empty(), "a snapshot tells");
    catalog.set_children(&list("a.B"), Vec::new());
    assert_eq!(catalog.take_changes().len(), 1);
}
