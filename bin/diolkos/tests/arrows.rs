//! Which crate may know which: the one-way flow, held over `cargo metadata`.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// What each crate may depend on, of our own crates and of those that must stay in few places.
const ALLOWED: &[(&str, &[&str])] = &[
    ("diolkos-model", &[]),
    ("diolkos-guard", &["diolkos-model"]),
    ("diolkos-istio", &["diolkos-model"]),
    ("diolkos-snapshot", &["diolkos-model"]),
    ("diolkos-plan", &["diolkos-istio", "diolkos-model"]),
    (
        "diolkos-engine",
        &[
            "diolkos-guard",
            "diolkos-istio",
            "diolkos-model",
            "diolkos-plan",
            "diolkos-source-api",
        ],
    ),
    // The CRD derive of `kube`, without its client.
    (
        "diolkos-api",
        &[
            "diolkos-guard",
            "diolkos-istio",
            "diolkos-plan",
            "kube",
            "k8s-openapi",
        ],
    ),
    ("diolkos-net", &[]),
    (
        "diolkos-kube-ext",
        &["diolkos-model", "kube", "k8s-openapi"],
    ),
    ("diolkos-telemetry", &[]),
    ("diolkos-source-api", &["diolkos-guard", "diolkos-model"]),
    (
        "diolkos-source-consul",
        &["diolkos-model", "diolkos-net", "diolkos-source-api"],
    ),
    (
        "diolkos-source-file",
        &["diolkos-model", "diolkos-source-api"],
    ),
    ("diolkos-nacos", &["diolkos-net"]),
    ("diolkos-zk", &["diolkos-net"]),
    ("diolkos-source-dubbo", &["diolkos-model"]),
    (
        "diolkos-source-zookeeper",
        &[
            "diolkos-model",
            "diolkos-net",
            "diolkos-source-api",
            "diolkos-source-dubbo",
            "diolkos-zk",
        ],
    ),
    (
        "diolkos-source-etcd",
        &[
            "diolkos-model",
            "diolkos-net",
            "diolkos-source-api",
            "diolkos-source-dubbo",
        ],
    ),
    (
        "diolkos-source-eureka",
        &["diolkos-model", "diolkos-net", "diolkos-source-api"],
    ),
    (
        "diolkos-source-nacos",
        &[
            "diolkos-model",
            "diolkos-nacos",
            "diolkos-net",
            "diolkos-source-api",
            "diolkos-source-dubbo",
        ],
    ),
    (
        "diolkos-sink-api",
        &["diolkos-istio", "diolkos-model", "diolkos-plan"],
    ),
    (
        "diolkos-sink-kubernetes",
        &[
            "diolkos-istio",
            "diolkos-kube-ext",
            "diolkos-model",
            "diolkos-sink-api",
            "kube",
            "k8s-openapi",
        ],
    ),
    (
        "diolkos-sink-directory",
        &["diolkos-istio", "diolkos-model", "diolkos-sink-api"],
    ),
    (
        "diolkos-console",
        &[
            "diolkos-engine",
            "diolkos-istio",
            "diolkos-model",
            "diolkos-plan",
            "diolkos-sink-api",
            "diolkos-source-api",
        ],
    ),
];

/// Outside of the crates above and the tests, nobody may depend on these.
const CONFINED: &[&str] = &["kube", "k8s-openapi"];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata answers JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let of_interest = |d: &&Value| {
                // Tests may know more: the planner for objects to write, the test kit for servers.
                let name = d["name"].as_str().unwrap_or_default();
                d["kind"].is_null() && (name.starts_with("diolkos") || CONFINED.contains(&name))
            };
            let mut names: Vec<_> = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(of_interest)
                .map(|d| text(&d["name"]))
                .collect();
            names.sort();
            names.dedup();
            (text(&package["name"]), names)
        })
        .collect()
}

#[test]
fn the_arrows_point_one_way() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let free = ["diolkos", "diolkos-fuzz", "diolkos-testkit"];
    for (package, dependencies) in dependencies() {
        if free.contains(&package.as_str()) {
            let confined: Vec<_> = dependencies
                .iter()
                .filter(|d| CONFINED.contains(&d.as_str()))
                .collect();
            assert!(
                confined.is_empty(),
                "{package} must not depend on {confined:?}"
            );
            continue;
        }
        let allowed = allowed
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} is new: say in this test what it may depend on"));
        for dependency in dependencies {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{package} must not depend on {dependency}"
            );
        }
    }
}
