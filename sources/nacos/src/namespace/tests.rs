use diolkos_source_dubbo::{Discovery, Options, Variants};

use super::*;
use crate::{Groups, Services, Transport};

fn config() -> Config {
    Config {
        registry: "r".into(),
        client: diolkos_nacos::Config {
            addresses: vec!["http://127.0.0.1:8848/nacos".to_owned()],
            grpc_offset: 1000,
            auth: None,
            tls: diolkos_net::TlsConfig::default(),
        },
        namespaces: vec!["dev".to_owned()],
        groups: Groups::All,
        clusters: Vec::new(),
        transport: Transport::Auto,
        services: Services::All,
        dubbo: Options {
            registry: "r".into(),
            variants: Variants::Labels,
            discovery: Discovery::Both,
            dubbo_protocol: "dubbo".into(),
            aeraki: false,
        },
        settle: std::time::Duration::ZERO,
        select: Arc::new(|_| true),
    }
}

fn name(service: &str) -> Name {
    Name {
        group: "DEFAULT_GROUP".into(),
        service: service.into(),
    }
}

/// With so many instances.
fn info(service: &str, time: i64, instances: u32) -> ServiceInfo {
    let host = |number: u32| Host {
        ip: format!("10.0.0.{number}"),
        port: 80,
        weight: 1.0,
        healthy: true,
        enabled: true,
        ephemeral: true,
        cluster: "DEFAULT".to_owned(),
        metadata: BTreeMap::new(),
    };
    ServiceInfo {
        name: name(service),
        hosts: (1..=instances).map(host).collect(),
        last_ref_time: time,
        checksum: String::new(),
        protected: false,
    }
}

fn answer(info: ServiceInfo) -> Result<Answer, Error> {
    Ok(Answer {
        info,
        health: None,
        doubt: None,
    })
}

fn listing(services: &[&str]) -> Listing {
    Listing {
        names: services.iter().map(|service| name(service)).collect(),
        torn: None,
        certain: true,
    }
}

/// A namespace with one service, that has so many instances since then.
fn following(time: i64, instances: u32) -> Namespace {
    let mut namespace = Namespace::new(&config(), "dev");
    namespace.begin();
    namespace.listed(listing(&["a"]), true);
    let ask = namespace.next_ask().unwrap();
    assert!(ask.subscribe);
    assert_eq!(
        namespace.answered(&ask, answer(info("a", time, instances))),
        None
    );
    assert!(namespace.is_idle());
    namespace
}

/// How many instances the service has by now.
fn instances(namespace: &mut Namespace) -> Option<usize> {
    let services = namespace.directory.snapshot();
    let service = services.iter().find(|service| &*service.key.name == "a")?;
    Some(service.instances.len())
}

#[test]
fn an_older_push_is_not_taken_and_the_service_is_asked_for() {
    let mut namespace = following(100, 1);
    namespace.pushed(&info("a", 120, 2));
    assert_eq!(instances(&mut namespace), Some(2));
    namespace.pushed(&info("a", 110, 1));
    assert_eq!(instances(&mut namespace), Some(2));
    let ask = namespace.next_ask().unwrap();
    assert!(!ask.subscribe);
    namespace.answered(&ask, answer(info("a", 130, 3)));
    assert_eq!(instances(&mut namespace), Some(3));
    assert!(namespace.is_idle());
}

#[test]
fn of_two_pushes_of_one_time_the_later_counts() {
    let mut namespace = following(100, 1);
    namespace.pushed(&info("a", 100, 2));
    assert_eq!(instances(&mut namespace), Some(2));
    assert!(namespace.is_idle());
}

#[test]
fn a_clock_that_was_set_back_costs_one_question() {
    let mut namespace = following(1_000, 1);
    namespace.pushed(&info("a", 10, 2));
    let ask = namespace.next_ask().unwrap();
    namespace.answered(&ask, answer(info("a", 11, 2)));
    assert_eq!(instances(&mut namespace), Some(2));
    namespace.pushed(&info("a", 12, 3));
    assert_eq!(instances(&mut namespace), Some(3));
    assert!(namespace.is_idle());
}

#[test]
fn an_answer_that_a_newer_push_overtook_does_not_count() {
    let mut namespace = following(100, 1);
    namespace.sweep();
    let ask = namespace.next_ask().unwrap();
    namespace.pushed(&info("a", 120, 2));
    namespace.answered(&ask, answer(info("a", 110, 1)));
    assert_eq!(instances(&mut namespace), Some(2));
    let ask = namespace.next_ask().unwrap();
    namespace.answered(&ask, answer(info("a", 119, 3)));
    assert_eq!(instances(&mut namespace), Some(3));
}

#[test]
fn an_older_push_during_a_question_makes_another_one() {
    let mut namespace = following(100, 1);
    namespace.sweep();
    let ask = namespace.next_ask().unwrap();
    namespace.pushed(&info("a", 90, 2));
    namespace.answered(&ask, answer(info("a", 100, 1)));
    let ask = namespace.next_ask().unwrap();
    namespace.answered(&ask, answer(info("a", 91, 2)));
    assert_eq!(instances(&mut namespace), Some(2));
    assert!(namespace.is_idle());
}

#[test]
fn a_service_that_one_list_lacks_stays() {
    let mut namespace = following(100, 1);
    namespace.listed(listing(&[]), false);
    assert!(namespace.is_idle());
    assert!(namespace.lacks());
    namespace.listed(listing(&["a"]), false);
    namespace.listed(listing(&[]), false);
    assert!(namespace.is_idle());
    assert_eq!(instances(&mut namespace), Some(1));
}

#[test]
fn a_service_that_two_lists_lack_is_gone_if_it_is_empty() {
    let mut namespace = following(100, 1);
    namespace.listed(listing(&[]), false);
    namespace.listed(listing(&[]), false);
    let ask = namespace.next_ask().unwrap();
    assert!(!ask.subscribe);
    let gone = namespace.answered(&ask, answer(info("a", 110, 0)));
    assert_eq!(gone, Some(name("a")));
    assert_eq!(instances(&mut namespace), None);
    // Until the subscription has ended it does not come back.
    namespace.pushed(&info("a", 120, 1));
    namespace.listed(listing(&["a"]), false);
    assert!(namespace.is_idle());
    namespace.left(&name("a"));
    namespace.listed(listing(&["a"]), false);
    assert!(namespace.next_ask().unwrap().subscribe);
}

#[test]
fn a_service_that_two_lists_lack_stays_if_it_has_instances() {
    let mut namespace = following(100, 1);
    namespace.listed(listing(&[]), false);
    namespace.listed(listing(&[]), false);
    let ask = namespace.next_ask().unwrap();
    assert_eq!(namespace.answered(&ask, answer(info("a", 110, 1))), None);
    assert_eq!(instances(&mut namespace), Some(1));
    assert!(namespace.is_idle());
}

#[test]
fn a_torn_list_lacks_nothing() {
    let mut namespace = following(100, 1);
    for _ in 0..3 {
        let torn = Listing {
            torn: Some("torn".into()),
            ..listing(&[])
        };
        namespace.listed(torn, false);
    }
    assert!(namespace.is_idle());
    assert_eq!(namespace.complaint().as_deref(), Some("torn"));
    namespace.listed(listing(&["a"]), false);
    assert_eq!(namespace.complaint(), None);
}

#[test]
fn the_first_list_of_a_connection_is_enough_to_ask() {
    let mut namespace = following(100, 1);
    namespace.begin();
    namespace.listed(listing(&[]), true);
    let ask = namespace.next_ask().unwrap();
    assert!(!ask.subscribe);
    assert_eq!(namespace.answered(&ask, answer(info("a", 1, 0))), None);
    assert_eq!(instances(&mut namespace), None);
    assert_eq!(namespace.len(), 0);
}

#[test]
fn what_cannot_be_read_stays_and_is_asked_for_again() {
    let mut namespace = following(100, 2);
    namespace.sweep();
    let ask = namespace.next_ask().unwrap();
    namespace.answered(&ask, Err(Error::Refused("no".to_owned())));
    assert_eq!(instances(&mut namespace), Some(2));
    let complaint = namespace.complaint().unwrap();
    assert_eq!(&*complaint, "DEFAULT_GROUP@@a cannot be read: no");
    namespace.retry();
    let ask = namespace.next_ask().unwrap();
    namespace.answered(&ask, answer(info("a", 100, 1)));
    assert_eq!(namespace.complaint(), None);
    assert_eq!(instances(&mut namespace), Some(1));
}

#[test]
fn a_push_at_the_protection_threshold_only_makes_a_question() {
    let mut namespace = following(100, 2);
    let mut protected = info("a", 120, 1);
    protected.protected = true;
    namespace.pushed(&protected);
    assert_eq!(instances(&mut namespace), Some(2));
    assert!(!namespace.is_idle());
}

#[test]
fn a_hint_that_a_service_went_counts_as_one_list() {
    let mut namespace = following(100, 1);
    namespace.deleted(&name("a"));
    let ask = namespace.next_ask().unwrap();
    assert_eq!(namespace.answered(&ask, answer(info("a", 110, 0))), None);
    assert_eq!(instances(&mut namespace), Some(0));
    namespace.listed(listing(&[]), false);
    let ask = namespace.next_ask().unwrap();
    let gone = namespace.answered(&ask, answer(info("a", 110, 0)));
    assert_eq!(gone, Some(name("a")));
}

#[test]
fn reasons_are_in_one_line_and_not_too_many() {
    let reasons: Vec<Arc<str>> = ["a", "b", "c", "d", "e"].map(Into::into).to_vec();
    assert_eq!(joined(reasons.iter().take(0)), None);
    let few = joined(reasons.iter().take(2)).unwrap();
    assert_eq!(&*few, "a; b");
    assert_eq!(&*joined(reasons.iter()).unwrap(), "a; b; c; and 2 more");
}

#[test]
fn a_service_that_comes_back_while_it_is_left_is_followed_again() {
    let mut namespace = following(100, 1);
    namespace.listed(listing(&[]), false);
    namespace.listed(listing(&[]), false);
    let ask = namespace.next_ask().unwrap();
    let gone = namespace.answered(&ask, answer(info("a", 110, 0)));
    assert_eq!(gone, Some(name("a")));
    namespace.added(&name("a"));
    assert!(namespace.is_idle());
    namespace.left(&name("a"));
    assert!(namespace.next_ask().unwrap().subscribe);
}
