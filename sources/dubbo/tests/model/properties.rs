//! What holds for every registry and every way to tell of it.

use std::collections::BTreeMap;

use diolkos_model::{Service, ServiceKey};
use diolkos_source_dubbo::{Catalog, Change, Options, Place, Variants};
use proptest::prelude::*;

use crate::support::{APPLICATIONS, ROOT, Tree, encode, options};

/// A node that may be there, with what it may hold.
type Node = (String, Vec<String>);

/// Everything that there can be: enough to have nodes that meet.
fn pool() -> Vec<Node> {
    let mut pool = lists();
    pool.extend(applications());
    let item = |side: &str, rest: &str| format!("configs: [{{side: {side}, {rest}}}]");
    for (key, scope) in [
        ("a.B", "service"),
        ("a.B:1:g", "service"),
        ("shop", "application"),
    ] {
        let texts = [
            item("provider", "parameters: {weight: 3}"),
            item("consumer", "parameters: {disabled: true}"),
            "{".into(),
        ];
        let texts = texts.map(|text| format!("scope: {scope}\n{text}")).to_vec();
        pool.push((format!("/dubbo/config/dubbo/{key}.configurators"), texts));
    }
    pool
}

fn lists() -> Vec<Node> {
    let mut names = Vec::new();
    for (scheme, port) in [("dubbo", 20880), ("tri", 20880), ("tri", 50051)] {
        for query in [
            "application=shop",
            "application=shop&timestamp=5&pid=1",
            "application=shop&group=g&version=1&timestamp=7&weight=5",
            "application=bank&disabled=true&aeraki_meta_app_namespace=x",
        ] {
            names.push(format!(
                "providers/{}",
                encode(&format!("{scheme}://10.0.0.1:{port}/a.B?{query}"))
            ));
        }
    }
    names.push("providers/rubbish".into());
    for url in [
        "override://0.0.0.0/a.B?weight=8",
        "override://10.0.0.1:20880/a.B?disabled=true",
        "absent://0.0.0.0/a.B?weight=9",
    ] {
        names.push(format!("configurators/{}", encode(url)));
    }
    let paths = names.iter().flat_map(|name| {
        let path = |interface| format!("{ROOT}/{interface}/{name}");
        [path("a.B"), path("a.C")]
    });
    paths.map(|path| (path, vec![String::new()])).collect()
}

fn applications() -> Vec<Node> {
    let record = |host: u8, storage: &str, revision: &str| {
        let endpoints = r#"[{\"port\":20880,\"protocol\":\"dubbo\"}]"#;
        format!(
            r#"{{"address":"10.0.0.{host}","port":20880,"payload":{{"metadata":{{"dubbo.endpoints":"{endpoints}",
            "dubbo.metadata.storage-type":"{storage}","dubbo.metadata.revision":"{revision}"}}}}}}"#
        )
    };
    let mut pool = Vec::new();
    for host in [1, 2] {
        let records = [
            record(host, "local", "r1"),
            record(host, "remote", "r1"),
            record(host, "remote", "r2"),
            "{".into(),
        ];
        pool.push((format!("{APPLICATIONS}/shop/{host}"), records.to_vec()));
    }
    let service = |name: &str| {
        format!(
            r#""{name}":{{"name":"{name}","protocol":"dubbo","params":{{"version":"1","group":"g"}}}}"#
        )
    };
    for revision in ["r1", "r2"] {
        let texts = [
            format!("{{\"services\":{{{}}}}}", service("a.B")),
            format!("{{\"services\":{{{},{}}}}}", service("a.B"), service("a.C")),
            "{".into(),
        ];
        pool.push((format!("{ROOT}/metadata/shop/{revision}"), texts.to_vec()));
    }
    for interface in ["a.B", "a.C"] {
        let mappings = ["shop".into(), "bank,shop".into(), String::new()];
        pool.push((format!("{ROOT}/mapping/{interface}"), mappings.to_vec()));
        for variant in ["", "/1/g"] {
            let path = format!("{ROOT}/metadata/{interface}{variant}/provider/shop");
            let texts = [
                r#"{"parameters":{"version":"1"}}"#,
                r#"{"parameters":{"register-mode":"interface"}}"#,
            ];
            pool.push((path, texts.map(String::from).to_vec()));
        }
    }
    pool
}

/// One step: a node, what it holds from now on, and whether the whole list is told or the change.
type Step = (usize, Option<usize>, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nodes = pool().len();
    prop::collection::vec(
        (0..nodes, prop::option::of(0..4usize), any::<bool>()),
        0..60,
    )
}

/// Takes one step in the tree and tells of it.
fn step(tree: &mut Tree, catalog: &mut Catalog, pool: &[Node], (node, content, whole): Step) {
    let (path, contents) = &pool[node];
    match content.map(|content| &contents[content % contents.len()]) {
        Some(content) => tree.0.insert(path.clone(), content.clone()),
        None => tree.0.remove(path),
    };
    if let Some((list, name)) = Place::of_child(ROOT, APPLICATIONS, path) {
        match (whole, tree.0.contains_key(path)) {
            (true, _) => catalog.set_children(&list, tree.children(&list)),
            (false, true) => catalog.add_child(&list, &name),
            (false, false) => catalog.remove_child(&list, &name),
        }
    } else if whole && path.starts_with(APPLICATIONS) {
        catalog.set_instances("shop", tree.instances("shop"));
    } else {
        tree.tell_data(catalog, path);
    }
    tree.answer(catalog);
}

fn follow(known: &mut BTreeMap<ServiceKey, Service>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Upsert(service) => {
                assert!(!service.instances.is_empty());
                known.insert(service.key.clone(), service);
            }
            Change::Remove(key) => assert!(known.remove(&key).is_some(), "{key} was told"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// However a state came about, it makes the same services; and who follows the changes has
    /// them too.
    #[test]
    fn only_the_state_counts(steps in steps(), hosts: bool, aeraki: bool) {
        let variants = if hosts { Variants::Hosts } else { Variants::Labels };
        let options = Options { variants, aeraki, ..options() };
        let pool = pool();
        let mut tree = Tree::default();
        let mut catalog = Catalog::new(options.clone());
        let mut known = BTreeMap::new();
        for (index, one) in steps.into_iter().enumerate() {
            step(&mut tree, &mut catalog, &pool, one);
            if index % 5 == 0 {
                follow(&mut known, catalog.take_changes());
            }
        }
        follow(&mut known, catalog.take_changes());
        prop_assert!(catalog.take_changes().is_empty());
        let expected = tree.catalog(options).snapshot();
        let keys: Vec<_> = expected.iter().map(|service| &service.key).collect();
        prop_assert_eq!(catalog.snapshot(), expected.clone(), "{:?}", keys);
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|service| (service.key.clone(), service)).collect();
        prop_assert_eq!(known, expected);
    }

    /// Each provider that is registered by its interface is in exactly one instance of its
    /// interface's services.
    #[test]
    fn nothing_is_lost_and_nothing_twice(ports in prop::collection::btree_set(1u32..9, 1..8), hosts in 1u8..4, protocols in prop::collection::vec("(dubbo|tri|rest)", 8)) {
        let mut catalog = Catalog::new(options());
        for host in 0..hosts {
            for port in &ports {
                let protocol = &protocols[*port as usize % protocols.len()];
                let url = format!("{protocol}://10.0.0.{host}:{port}/a.B?pid={}", port % 3);
                catalog.add_child(&crate::support::list("a.B"), &encode(&url));
            }
        }
        let service = crate::support::only(&mut catalog);
        let seen = service.instances.iter().flat_map(|i| i.ports.iter().map(|p| (i.address.clone(), p.number)));
        let mut seen: Vec<_> = seen.collect();
        seen.sort();
        let expected: Vec<_> = (0..hosts)
            .flat_map(|host| ports.iter().map(move |port| (format!("10.0.0.{host}").parse().unwrap(), *port)))
            .collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn nothing_panics(path in "/(dubbo|services)(/[a-z%:.]{0,6}){0,4}", odd in any::<String>(), data in any::<Vec<u8>>()) {
        let mut catalog = Catalog::new(options());
        for place in [Place::parse(ROOT, APPLICATIONS, &path), Place::of_child(ROOT, APPLICATIONS, &path).map(|c| c.0)] {
            let Some(place) = place else { continue };
            catalog.add_child(&place, &odd);
            catalog.set_children(&place, vec![odd.clone(), String::from_utf8_lossy(&data).into()]);
            catalog.set_data(&place, Some(data.clone().into()));
        }
        catalog.wanted();
        catalog.take_changes();
        let services = catalog.snapshot();
        prop_assert!(services.iter().all(|service| !service.instances.is_empty()));
    }
}
