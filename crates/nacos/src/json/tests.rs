use proptest::prelude::*;

use super::*;

fn name(group: &str, service: &str) -> Name {
    Name {
        group: group.into(),
        service: service.into(),
    }
}

fn host(ip: &str, port: u32) -> Host {
    Host {
        ip: ip.into(),
        port,
        weight: 1.0,
        healthy: true,
        enabled: true,
        ephemeral: true,
        cluster: "DEFAULT".into(),
        metadata: BTreeMap::new(),
    }
}

#[test]
fn names_with_their_group_or_beside_it() {
    for (service, group, expected) in [
        ("orders", Some("G"), name("G", "orders")),
        ("G@@orders", Some("G"), name("G", "orders")),
        ("G@@orders", None, name("G", "orders")),
        ("G@@orders", Some(""), name("G", "orders")),
        ("orders", None, name("DEFAULT_GROUP", "orders")),
        (
            "providers:org.Demo:1.0.0:",
            None,
            name("DEFAULT_GROUP", "providers:org.Demo:1.0.0:"),
        ),
    ] {
        assert_eq!(Name::read(service, group), expected);
    }
    assert_eq!(name("G", "orders").grouped(), "G@@orders");
}

/// As 2.2.4 answered over HTTP.
#[test]
fn a_service_of_nacos_2() {
    let body = br#"{"name":"DEFAULT_GROUP@@orders","groupName":"DEFAULT_GROUP","clusters":"","cacheMillis":10000,
        "hosts":[{"instanceId":"127.0.0.21#8080#HZ#DEFAULT_GROUP@@orders","ip":"127.0.0.21","port":8080,"weight":2.0,
        "healthy":true,"enabled":true,"ephemeral":false,"clusterName":"HZ","serviceName":"DEFAULT_GROUP@@orders",
        "metadata":{"version":"1.0","protocol":"http"},"instanceHeartBeatInterval":5000}],
        "lastRefTime":1795253542366,"checksum":"","allIPs":false,"reachProtectionThreshold":true,"valid":true}"#;
    let metadata = [("version", "1.0"), ("protocol", "http")];
    let expected = ServiceInfo {
        name: name("DEFAULT_GROUP", "orders"),
        hosts: vec![Host {
            weight: 2.0,
            ephemeral: false,
            cluster: "HZ".into(),
            metadata: metadata.map(|(k, v)| (k.into(), v.into())).into(),
            ..host("127.0.0.21", 8080)
        }],
        last_ref_time: 1_795_253_542_366,
        checksum: String::new(),
        protected: true,
    };
    assert_eq!(service(body, None).unwrap(), expected);
}

/// As 2.2.4 and 3.0.3 answered a subscription.
#[test]
fn both_spellings_of_all_ips() {
    for spelling in ["allIPs", "allIps"] {
        let body = format!(
            r#"{{"resultCode":200,"errorCode":0,"message":"success","serviceInfo":{{"name":"raw-svc",
            "groupName":"DEFAULT_GROUP","clusters":"","cacheMillis":10000,"hosts":[],"lastRefTime":1795252683972,
            "checksum":"","{spelling}":false,"reachProtectionThreshold":false,"valid":true}},"success":true}}"#
        );
        let service = service_in(body.as_bytes(), None).unwrap();
        assert_eq!(service.name, name("DEFAULT_GROUP", "raw-svc"));
        assert_eq!((service.hosts.len(), service.protected), (0, false));
    }
}

#[test]
fn what_is_absent_has_its_default() {
    let asked = name("G", "orders");
    for body in [
        r#"{}"#,
        r#"{"name":null,"hosts":null,"lastRefTime":null}"#,
        r#"{"lastRefTime":1e400,"checksum":null,"reachProtectionThreshold":null}"#,
    ] {
        let service = service(body.as_bytes(), Some(&asked)).unwrap();
        assert_eq!((&service.name, service.last_ref_time), (&asked, 0));
        assert!(service.hosts.is_empty() && !service.protected);
    }
    assert!(service(b"{}", None).is_err());
}

#[test]
fn a_bad_host_does_not_cost_its_siblings() {
    let body = br#"{"name":"orders","hosts":[
        {"ip":"10.0.0.1","port":80},
        {"ip":"10.0.0.2"}, {"port":80}, null, 7, "text", [],
        {"ip":"10.0.0.2","port":-1}, {"ip":"10.0.0.2","port":1e400}, {"ip":"10.0.0.2","port":"80"},
        {"ip":"10.0.0.2","port":99999999999999999999},
        {"ip":"10.0.0.2","port":80,"weight":"NaN"}, {"ip":"10.0.0.2","port":80,"metadata":"text"},
        {"ip":"10.0.0.3","port":99999,"weight":null,"healthy":null,"clusterName":"",
         "metadata":{"text":"a","null":null,"number":1,"list":["b"]}}]}"#;
    let metadata = [("text", "a"), ("number", "1"), ("list", r#"["b"]"#)];
    let odd = Host {
        metadata: metadata.map(|(k, v)| (k.into(), v.into())).into(),
        ..host("10.0.0.3", 99_999)
    };
    assert_eq!(
        service(body, None).unwrap().hosts,
        [host("10.0.0.1", 80), odd]
    );
}

/// As 2.2.4 and 3.0.3 answered.
#[test]
fn lists_of_all_versions() {
    let (grpc, v1) = (
        br#"{"resultCode":200,"errorCode":0,"count":1,"serviceNames":["raw-svc"],"success":true}"#,
        br#"{"count":1,"doms":["raw-svc"]}"#,
    );
    for body in [&grpc[..], v1] {
        let page = service_names(body).unwrap();
        assert_eq!((page.total, &*page.items), (1, &["raw-svc".into()][..]));
    }
    let v1 = br#"{"count":2,"serviceList":[{"name":"orders2","groupName":"G2","clusterCount":1,"ipCount":1,
        "healthyInstanceCount":1,"triggerFlag":"false"},{"name":"orders","groupName":"DEFAULT_GROUP"}]}"#;
    let expected = [name("G2", "orders2"), name("DEFAULT_GROUP", "orders")];
    assert_eq!(catalog(v1).unwrap().items, expected);
    let v3 = br#"{"code":0,"message":"success","data":{"totalCount":1,"pageNumber":1,"pagesAvailable":1,
        "pageItems":[{"name":"raw-svc","groupName":"DEFAULT_GROUP","clusterCount":0,"ipCount":0}]}}"#;
    let page = catalog(data(v3).unwrap().unwrap()).unwrap();
    assert_eq!(page.items, [name("DEFAULT_GROUP", "raw-svc")]);
    // An error of the server is no empty list.
    assert!(service_names(br#"{"timestamp":"now","status":500}"#).is_err());
    assert_eq!(service_names(br#"{"doms":[]}"#).unwrap().total, 0);
}

/// As 2.2.4 answered.
#[test]
fn configuration_items() {
    let body = br#"{"totalCount":1,"pageNumber":1,"pagesAvailable":1,"pageItems":[{"id":"1098167389175943168",
        "dataId":"org.apache.dubbo.demo.DemoService","group":"mapping","content":"demo-nacos-inst,demo-nacos",
        "md5":null,"encryptedDataKey":"","tenant":"","appName":"","type":null}]}"#;
    let page = configs(body).unwrap();
    let item = &page.items[0];
    assert_eq!(item.data_id, "org.apache.dubbo.demo.DemoService");
    assert_eq!(item.content.as_deref(), Some("demo-nacos-inst,demo-nacos"));
    assert_eq!(
        content(br#"{"content":"a"}"#).unwrap().as_deref(),
        Some("a")
    );
    assert_eq!(content(b"null").unwrap(), None);
}

#[test]
fn errors_in_words() {
    let refused =
        br#"{"code":20004,"message":"resource not found","data":"service G@@a is not found!"}"#;
    assert_eq!(
        data(refused).unwrap(),
        Err("resource not found (code 20004)".to_owned())
    );
    assert_eq!(
        message(refused).as_deref(),
        Some("resource not found: service G@@a is not found!")
    );
    let spring = br#"{"timestamp":"2026-11-21T09:20:37.951+00:00","status":403,"error":"Forbidden",
        "message":"user not found!","path":"/nacos/v1/ns/service/list"}"#;
    assert_eq!(message(spring).as_deref(), Some("user not found!"));
    assert_eq!(message(b"caused: user"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(data: Vec<u8>) {
        crate::decode_for_fuzz(&data);
    }

    /// Documents that are nearly right, cut and changed.
    #[test]
    fn broken_documents_are_decoded_without_a_panic(
        port in any::<i128>(),
        weight in any::<f64>(),
        key in ".*",
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let entry = serde_json::json!({"ip": key, "metadata": {&*key: key}, "serviceKey": key});
        let text = format!(
            r#"{{"name":"a","count":{port},"requestId":"1","serviceInfo":{{"name":"b","lastRefTime":{port},
            "hosts":[{{"ip":"c","port":{port},"weight":{weight}}},{entry}]}},"contexts":[{entry}]}}"#
        );
        let mut bytes = text.into_bytes();
        crate::decode_for_fuzz(&bytes);
        let (at, to) = flip;
        let at = at.index(bytes.len());
        bytes[at] = to;
        crate::decode_for_fuzz(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        crate::decode_for_fuzz(&bytes);
    }
}
