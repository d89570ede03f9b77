use std::{cell::RefCell, collections::BTreeMap};

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Both forms of what one server answered, one right after the other.
const RECORDED: [(&str, &str); 2] = [
    (
        include_str!("../../tests/data/apps.json"),
        include_str!("../../tests/data/apps.xml"),
    ),
    (
        include_str!("../../tests/data/delta.json"),
        include_str!("../../tests/data/delta.xml"),
    ),
];

/// The head, and the instances with the names of their applications.
fn read(body: &str, format: Format) -> Result<(Head, Vec<(String, Value)>), DecodeError> {
    let seen = RefCell::new(Vec::new());
    let head = decode(body.as_bytes(), format, &mut |app, value| {
        seen.borrow_mut().push((app.to_owned(), value.clone()));
    })?;
    Ok((head, seen.into_inner()))
}

fn json(body: &Value) -> (Head, Vec<(String, Value)>) {
    read(&body.to_string(), Format::Json).unwrap()
}

fn xml(body: &str) -> Result<(Head, Vec<(String, Value)>), DecodeError> {
    read(body, Format::Xml)
}

/// All that is read of a record.
fn fields(value: &Value) -> impl PartialEq + std::fmt::Debug {
    let record = Record(value);
    let texts = [
        "instanceId",
        "hostName",
        "app",
        "ipAddr",
        "status",
        "vipAddress",
        "secureVipAddress",
        "actionType",
        "lastUpdatedTimestamp",
        "lastDirtyTimestamp",
    ];
    let pairs = |metadata: Metadata<'_>| -> BTreeMap<String, String> {
        let pairs = metadata.pairs();
        pairs.map(|(k, v)| (k.to_owned(), v.into_owned())).collect()
    };
    (
        texts.map(|field| record.text(field).into_owned()),
        record.port("port", false),
        record.port("securePort", true),
        pairs(record.metadata()),
        pairs(record.machine()),
    )
}

#[test]
fn json_and_xml_of_a_server_say_the_same() {
    for (as_json, as_xml) in RECORDED {
        let (head, instances) = read(as_json, Format::Json).unwrap();
        let (other_head, others) = xml(as_xml).unwrap();
        // Each form of a delta has a number of its own.
        assert_eq!((&head.hash, head.bad), (&other_head.hash, other_head.bad));
        assert!(other_head.version.is_some());
        assert!(head.hash.is_some() && head.version.is_some() && head.bad == 0);
        assert!(instances.len() >= 3);
        assert_eq!(instances.len(), others.len());
        for ((app, instance), (other_app, other)) in instances.iter().zip(&others) {
            assert_eq!(app, other_app);
            assert_eq!(fields(instance), fields(other));
        }
    }
    let (_, instances) = read(RECORDED[0].1, Format::Xml).unwrap();
    let (_, pay) = instances.iter().find(|(app, _)| app == "PAY").unwrap();
    let metadata = Record(pay).metadata();
    for (name, value) in [
        ("a_b", "x"),
        ("x$y", "z"),
        ("amp", "a<b&c\""),
        ("gRPC_port", "9090"),
    ] {
        assert_eq!(metadata.first(&[name]).as_deref(), Some(value), "{name}");
    }
    assert_eq!(
        metadata.first(&["empty", "version"]).as_deref(),
        Some("1.0")
    );
    assert_eq!(
        Record(pay)
            .machine()
            .first(&["availability-zone"])
            .as_deref(),
        Some("eu-west-1a")
    );
}

#[test]
fn lists_of_one_may_be_the_element_itself() {
    let instance = json!({"instanceId": "a"});
    for body in [
        json!({"name": "PAY", "instance": instance}),
        json!({"name": "PAY", "instance": [instance]}),
        json!([{"instance": [instance], "name": "PAY"}]),
        json!([{"name": {"$": "PAY"}, "instance": instance, "other": {}}, null, 3]),
    ] {
        let bad = if body.to_string().contains("null") {
            2
        } else {
            0
        };
        let body = json!({"applications": {"apps__hashcode": "UP_1_", "application": body}});
        let (head, instances) = json(&body);
        assert_eq!(instances, [("PAY".to_owned(), instance.clone())], "{body}");
        assert_eq!(
            head,
            Head {
                hash: Some("UP_1_".to_owned()),
                version: None,
                bad
            }
        );
    }
}

#[test]
fn nothing_is_an_answer_too() {
    for applications in [
        json!(null),
        json!({}),
        json!({"application": null}),
        json!({"application": ""}),
        json!({"application": []}),
        json!({"application": {"name": "PAY", "instance": null}}),
    ] {
        let (head, instances) = json(&json!({"applications": applications}));
        assert_eq!(
            (head, instances.len()),
            (Head::default(), 0),
            "{applications}"
        );
    }
    let (head, instances) = xml("<?xml version=\"1.0\"?>\n<applications/>").unwrap();
    assert_eq!((head, instances.len()), (Head::default(), 0));
    let (head, _) = xml("<applications><apps__hashcode></apps__hashcode></applications>").unwrap();
    assert_eq!(head.hash.as_deref(), Some(""));
}

#[test]
fn what_makes_no_sense_counts_as_absent() {
    let value = json!({
        "instanceId": 7, "hostName": true, "ipAddr": [], "status": {"a": 1}, "app": null,
        "port": {"$": "8080", "@enabled": true}, "securePort": "8443",
        "metadata": "none", "dataCenterInfo": 3, "lastUpdatedTimestamp": "soon",
    });
    let record = Record(&value);
    assert_eq!(record.text("instanceId"), "7");
    assert_eq!(record.text("hostName"), "true");
    for field in ["ipAddr", "status", "app", "none"] {
        assert_eq!(record.text(field), "", "{field}");
    }
    assert_eq!(record.port("port", false), Some((8080, true)));
    assert_eq!(record.port("securePort", false), Some((8443, false)));
    assert_eq!(record.port("securePort", true), Some((8443, true)));
    assert_eq!(record.port("none", true), None);
    assert_eq!(record.time("lastUpdatedTimestamp"), 0);
    assert_eq!(
        record.metadata().pairs().count() + record.machine().pairs().count(),
        0
    );
}

#[test]
fn a_bad_instance_costs_itself_only() {
    let body = r#"{"applications": {"application": [
        {"name": "A", "instance": [3, {"instanceId": "a", "instanceId": "b"}, [], null]},
        {"name": "B", "instance": {"instanceId": "c"}}, "C"]}}"#;
    let (head, instances) = read(body, Format::Json).unwrap();
    let names: Vec<_> = instances.iter().map(|(app, _)| app.as_str()).collect();
    assert_eq!((names, head.bad), (vec!["A", "B"], 4));
}

#[test]
fn xml_that_could_do_harm_is_refused() {
    let wrap = |inside: &str| {
        format!(
            "<applications><application><instance>{inside}</instance></application></applications>"
        )
    };
    let deep = "<a>".repeat(100_000);
    for (body, problem) in [
        (
            "<!DOCTYPE a [<!ENTITY x \"y\">]><applications/>".to_owned(),
            "document type",
        ),
        (wrap("<app>&x;</app>"), "&x;"),
        (wrap(&deep), "deep"),
        (wrap("<app>").replace("</instance>", ""), ""),
        ("<applications><application>".to_owned(), "breaks off"),
        ("<html><body>Login</body></html>".to_owned(), "<html>"),
        (String::new(), "no elements"),
    ] {
        let error = xml(&body).unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
    let body = wrap("<app>&#65;<![CDATA[<]]>&amp;<!-- c --></app><p enabled=\"true\">8&#x30;</p>");
    let (_, instances) = xml(&body).unwrap();
    assert_eq!(Record(&instances[0].1).text("app"), "A<&");
    assert_eq!(Record(&instances[0].1).port("p", false), Some((80, true)));
}

#[test]
fn json_that_is_not_eurekas_is_refused() {
    for body in [
        "",
        "{}",
        "[]",
        "{\"error\": 1}",
        "{\"applications\": 3}",
        "<applications/>",
    ] {
        let error = read(body, Format::Json).unwrap_err();
        assert!(matches!(error, DecodeError::Json(_)), "{body}");
    }
    let deep = format!(
        "{{\"applications\":{{\"application\":{{\"instance\":{}}}}}}}",
        "[".repeat(100_000)
    );
    read(&deep, Format::Json).unwrap_err();
}

#[test]
fn formats() {
    for (content_type, format) in [
        ("application/json", Some(Format::Json)),
        ("application/json;charset=UTF-8", Some(Format::Json)),
        (
            "application/vnd.spring-boot.actuator.v3+json",
            Some(Format::Json),
        ),
        ("application/xml", Some(Format::Xml)),
        ("text/xml; charset=utf-8", Some(Format::Xml)),
        ("text/html", None),
        ("application/xhtml+xml", None),
        ("", None),
    ] {
        assert_eq!(Format::of(content_type).ok(), format, "{content_type}");
    }
}

proptest! {
    /// Any content, written as either form, is read back.
    #[test]
    fn what_is_written_is_read(
        names in proptest::collection::btree_map("[a-zA-Z][a-zA-Z0-9._$-]{0,8}", "[ -~äß\\n]{1,12}", 0..6),
        port: u16, enabled: bool,
    ) {
        let instance = json!({
            "instanceId": "a", "metadata": names, "port": {"$": port, "@enabled": enabled.to_string()},
        });
        let body = json!({"applications": {"application": [{"name": "A", "instance": [instance]}]}});
        let (_, from_json) = json(&body);
        let metadata: String = names.iter().map(|(name, value)| {
            let name = name.replace('_', "__").replace('$', "_-");
            format!("<{name}>{}</{name}>", quick_xml::escape::escape(value.as_str()))
        }).collect();
        let body = format!(
            "<applications><application><name>A</name><instance><instanceId>a</instanceId>\
             <metadata>{metadata}</metadata><port enabled=\"{enabled}\">{port}</port>\
             </instance></application></applications>"
        );
        let (_, from_xml) = xml(&body).unwrap();
        prop_assert_eq!(fields(&from_json[0].1), fields(&from_xml[0].1));
        let read: BTreeMap<String, String> = Record(&from_xml[0].1).metadata().pairs()
            .map(|(k, v)| (k.to_owned(), v.into_owned())).collect();
        prop_assert_eq!(read, names);
    }

    #[test]
    fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::decode_for_fuzz(&body);
    }

    /// Answers with pieces out of place.
    #[test]
    fn any_splices_are_survived(which in 0usize..2, xml: bool, from in 0usize..4000, to in 0usize..4000, length in 0usize..60) {
        let body = if xml { RECORDED[which].1 } else { RECORDED[which].0 };
        let mut bytes = body.as_bytes().to_vec();
        let (from, to) = (from % bytes.len(), to % bytes.len());
        let piece: Vec<u8> = bytes[from..(from + length).min(body.len())].to_vec();
        let end = (to + length / 2).min(bytes.len());
        bytes.splice(to..end, piece);
        crate::decode_for_fuzz(&bytes);
    }
}
