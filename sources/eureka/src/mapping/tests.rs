use proptest::prelude::*;
use serde_json::json;

use super::*;

fn config() -> Config {
    Config {
        registry: "eureka".into(),
        addresses: Vec::new(),
        region: "".into(),
        statuses: ["UP".to_owned()].into(),
        user: None,
        tls: crate::TlsConfig::default(),
        poll: std::time::Duration::from_secs(1),
        settle: std::time::Duration::ZERO,
        select: Arc::new(|name| name != "hidden"),
    }
}

fn change_in(config: &Config, app: &str, value: &Value) -> Option<Change> {
    let mut interner = Interner::new();
    let mut mapper = Mapper {
        config,
        interner: &mut interner,
    };
    mapper.change(app, value)
}

fn change(value: &Value) -> Change {
    change_in(&config(), "PAY", value).unwrap()
}

fn instance(value: &Value) -> Instance {
    change(value).entry.instance.unwrap()
}

fn with_metadata(metadata: &Value) -> Instance {
    instance(&json!({"instanceId": "a", "status": "UP", "port": {"$": 80}, "metadata": metadata}))
}

fn service(values: &[Value]) -> Service {
    let config = config();
    let mut interner = Interner::new();
    let mut mapper = Mapper {
        config: &config,
        interner: &mut interner,
    };
    let changes = values
        .iter()
        .filter_map(|value| mapper.change("PAY", value));
    let entries: Vec<Entry> = changes.map(|change| change.entry).collect();
    mapper.service("pay", entries.iter())
}

fn ports(instance: &Instance) -> Vec<(&str, u32, &str)> {
    instance
        .ports
        .iter()
        .map(|port| {
            (
                &*port.name,
                port.number,
                port.protocol.as_deref().unwrap_or_default(),
            )
        })
        .collect()
}

#[test]
fn names_ids_and_addresses() {
    let full = change(&json!({
        "instanceId": "h1:pay:8080", "hostName": "h1", "ipAddr": "10.0.0.1", "app": "PAY",
        "lastUpdatedTimestamp": "7", "lastDirtyTimestamp": "6", "vipAddress": "Pay-API",
    }));
    assert_eq!(
        (&*full.app, &*full.id, full.deleted),
        ("pay", "h1:pay:8080", false)
    );
    assert_eq!((full.entry.updated, &*full.entry.status), (7, "UNKNOWN"));
    assert_eq!(&*full.entry.vips[0], "pay-api");
    assert_eq!(full.entry.instance.unwrap().address.to_string(), "10.0.0.1");

    let old =
        json!({"hostName": "h1", "app": "Cart", "port": {"$": "80"}, "lastDirtyTimestamp": 6});
    let old = change_in(&config(), "", &old).unwrap();
    assert_eq!(
        (&*old.app, &*old.id, old.entry.updated),
        ("cart", "h1:Cart:80", 6)
    );
    assert_eq!(old.entry.instance.unwrap().address.to_string(), "h1");

    for nobody in [json!({}), json!({"app": "A"}), json!({"port": {"$": 1}})] {
        assert_eq!(change_in(&config(), "PAY", &nobody), None, "{nobody}");
    }
    assert_eq!(change_in(&config(), " ", &json!({"instanceId": "a"})), None);
    assert!(change(&json!({"instanceId": "a", "actionType": "DELETED"})).deleted);
    let hidden = change_in(
        &config(),
        "HIDDEN",
        &json!({"instanceId": "a", "status": "UP"}),
    )
    .unwrap();
    assert_eq!(hidden.entry.instance, None, "not read, but counted");
}

#[test]
fn statuses() {
    for (status, health) in [
        ("UP", Health::Healthy),
        ("up", Health::Healthy),
        ("DOWN", Health::Unhealthy("down".into())),
        ("OUT_OF_SERVICE", Health::Unhealthy("out_of_service".into())),
        ("STARTING", Health::Unhealthy("starting".into())),
        ("", Health::Unhealthy("unknown".into())),
    ] {
        let value = json!({"instanceId": "a", "status": status});
        assert_eq!(instance(&value).health, health, "{status}");
    }
}

#[test]
fn ports_in_use() {
    let ported = |port: Value, secure: Value, metadata: Value| {
        instance(&json!({
            "instanceId": "a", "port": port, "securePort": secure, "metadata": metadata,
        }))
    };
    let on = |number: u32| json!({"$": number, "@enabled": "true"});
    let off = |number: u32| json!({"$": number, "@enabled": "false"});
    for (port, secure, metadata, expected) in [
        (on(8080), off(443), json!({}), vec![("", 8080, "http")]),
        (
            on(8080),
            on(8443),
            json!({}),
            vec![("", 8080, "http"), ("secure", 8443, "https")],
        ),
        (
            off(8080),
            on(8443),
            json!({}),
            vec![("secure", 8443, "https")],
        ),
        (off(8080), off(8443), json!({}), vec![]),
        (json!(80), json!(443), json!({}), vec![("", 80, "http")]),
        (
            on(80),
            off(1),
            json!({"protocol": "GRPC"}),
            vec![("", 80, "grpc")],
        ),
        (
            on(80),
            off(1),
            json!({"gRPC_port": "9090"}),
            vec![("", 80, "http"), ("grpc", 9090, "grpc")],
        ),
        (
            on(80),
            off(1),
            json!({"gRPC.port": 9090}),
            vec![("", 80, "http"), ("grpc", 9090, "grpc")],
        ),
        (
            on(80),
            off(1),
            json!({"grpc.port": "no"}),
            vec![("", 80, "http")],
        ),
        (on(0), off(1), json!({}), vec![("", 0, "http")]),
        (
            json!({"$": -1}),
            json!({"$": 99_999_999_999_i64, "@enabled": true}),
            json!({}),
            vec![("", 0, "http"), ("secure", u32::MAX, "https")],
        ),
    ] {
        assert_eq!(ports(&ported(port, secure, metadata)), expected);
    }
}

#[test]
fn weights_and_versions() {
    for (text, weight) in [
        (json!("5"), Some(Weight::whole(5))),
        (json!(0.5), Some(Weight(500))),
        (json!("0"), Some(Weight(0))),
        (json!("-1"), None),
        (json!("NaN"), None),
        (json!("inf"), None),
        (json!("heavy"), None),
        (json!(""), None),
    ] {
        assert_eq!(
            with_metadata(&json!({"weight": text})).weight,
            weight,
            "{text}"
        );
    }
    let version = |metadata| with_metadata(&metadata).version;
    assert_eq!(version(json!({"version": " 1.2 "})).as_deref(), Some("1.2"));
    assert_eq!(
        version(json!({"app.version": "3", "version": ""})).as_deref(),
        Some("3")
    );
    assert_eq!(version(json!({})), None);
}

#[test]
fn localities() {
    let at = |region: &str, metadata: Value, machine: Value| {
        let config = Config {
            region: region.into(),
            ..config()
        };
        let value = json!({"instanceId": "a", "metadata": metadata, "dataCenterInfo": {"metadata": machine}});
        let locality = change_in(&config, "PAY", &value)
            .unwrap()
            .entry
            .instance
            .unwrap()
            .locality;
        (locality.region.to_string(), locality.zone.to_string())
    };
    let zone = |zone: &str| json!({"availability-zone": zone});
    for (region, metadata, machine, expected) in [
        ("", json!({}), json!({}), ("", "")),
        ("", json!({"zone": "z1"}), json!({}), ("", "z1")),
        (
            "",
            json!({"zone": "z1", "region": "r1"}),
            zone("eu-west-1a"),
            ("r1", "z1"),
        ),
        (
            "",
            json!({}),
            zone("eu-west-1a"),
            ("eu-west-1", "eu-west-1a"),
        ),
        (
            "",
            json!({}),
            zone("us-gov-west-1b"),
            ("us-gov-west-1", "us-gov-west-1b"),
        ),
        ("", json!({"zone": "rack-1a"}), json!({}), ("", "rack-1a")),
        ("", json!({}), zone("defaultZone"), ("", "defaultZone")),
        (
            "home",
            json!({"region": "r1"}),
            zone("eu-west-1a"),
            ("home", "eu-west-1a"),
        ),
    ] {
        let (r, z) = at(region, metadata, machine);
        assert_eq!((&*r, &*z), expected);
    }
}

#[test]
fn secrets_are_no_labels() {
    let labels = with_metadata(&json!({
        "@class": "java.util.Collections$EmptyMap", "team": "shop", "zone": "z1", "empty": "",
        "user.name": "admin", "user.password": "p", "ApiKey": "k", "jwt-token": "t", "clientSecret": "s",
        "version": "1", "weight": "2", "gRPC_port": "1", "protocol": "grpc", "startup": "123",
        "nested": {"a": 1},
    }))
    .labels;
    let labels: Vec<_> = labels.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(labels, [("team", "shop"), ("zone", "z1")]);
}

#[test]
fn a_virtual_address_that_all_have_is_the_services() {
    let at =
        |id: &str, vip: &str| json!({"instanceId": id, "vipAddress": vip, "secureVipAddress": "s"});
    let meta = |values: &[Value]| {
        let service = service(values);
        let meta = service.meta.iter().map(|(k, v)| format!("{k}={v}"));
        meta.collect::<Vec<_>>()
    };
    let secure = "secureVipAddress=s";
    assert_eq!(
        meta(&[at("a", "Pay"), at("b", "pay")]),
        [secure, "vipAddress=pay"]
    );
    assert_eq!(
        meta(&[at("a", "pay.prod")]),
        [secure, "vipAddress=pay.prod"]
    );
    for other in [
        "",
        "cart",
        "pay,cart",
        "${vip}",
        "pay_",
        "-pay",
        "pay.",
        &"p".repeat(64),
    ] {
        assert_eq!(meta(&[at("a", other), at("b", "pay")]), [secure], "{other}");
        if other != "cart" {
            assert_eq!(meta(&[at("a", other)]), [secure], "{other}");
        }
    }
}

proptest! {
    /// A renewal changes nothing of a service.
    #[test]
    fn renewals_are_no_changes(first: u64, second: u64, dirty: u64) {
        let at = |time: u64| service(&[json!({
            "instanceId": "a", "status": "UP", "ipAddr": "10.0.0.1", "port": {"$": 80, "@enabled": "true"},
            "lastUpdatedTimestamp": time.to_string(), "lastDirtyTimestamp": dirty, "actionType": "MODIFIED",
            "leaseInfo": {"lastRenewalTimestamp": time, "evictionTimestamp": time / 2},
            "overriddenStatus": "UNKNOWN", "metadata": {"team": "shop"},
        })]);
        prop_assert_eq!(at(first).content_hash(), at(second).content_hash());
    }

    /// Whatever is registered: a name, an id, and labels without secrets.
    #[test]
    fn any_record_is_mapped_or_left_out(
        texts in proptest::collection::vec("[ -~äß]{0,12}", 6),
        metadata in proptest::collection::btree_map("[a-zA-Z.@$_-]{0,10}", "[ -~]{0,8}", 0..6),
        number: i64, updated: u64,
    ) {
        let value = json!({
            "instanceId": texts[0], "hostName": texts[1], "ipAddr": texts[2], "status": texts[3],
            "vipAddress": texts[4], "port": {"$": number, "@enabled": texts[5]},
            "metadata": metadata, "lastUpdatedTimestamp": updated,
        });
        let change = change_in(&config(), "PAY", &value);
        let named = !texts[0].trim().is_empty() || !texts[1].trim().is_empty();
        prop_assert_eq!(change.is_some(), named);
        if let Some(change) = change {
            prop_assert!(!change.id.is_empty());
            let instance = change.entry.instance.unwrap();
            prop_assert_eq!(&instance.id, &change.id);
            for (name, value) in instance.labels.iter() {
                prop_assert_eq!(metadata.get(&**name).map(String::as_str), Some(&**value));
                prop_assert!(!name.to_lowercase().contains("token"));
            }
        }
    }
}
