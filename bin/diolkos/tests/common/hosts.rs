//! What hosts look like in the mesh: their ServiceEntries with the WorkloadEntries that these select.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use diolkos_testkit::Kubernetes;
use serde_json::{Value, json};

/// The label by which ServiceEntries select their WorkloadEntries.
const OWN: &str = "diolkos.io/service";

/// The objects of a kind in a namespace.
pub async fn objects(kubernetes: &Kubernetes, namespace: &str, kind: &str) -> Result<Vec<Value>> {
    let path = format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}");
    let list = kubernetes.get(&path).await?;
    list["items"].as_array().cloned().context("no list")
}

/// The hosts of a namespace: the ports of each, and its endpoints by address.
pub async fn hosts(kubernetes: &Kubernetes, namespace: &str) -> Result<Value> {
    let entries = objects(kubernetes, namespace, "serviceentries").await?;
    let workloads = objects(kubernetes, namespace, "workloadentries").await?;
    hosts_of(&entries, &workloads)
}

/// The hosts of these ServiceEntries with these WorkloadEntries.
pub fn hosts_of(entries: &[Value], workloads: &[Value]) -> Result<Value> {
    let mut hosts = serde_json::Map::new();
    for entry in entries {
        let spec = &entry["spec"];
        let host = spec["hosts"][0].as_str().context("no host")?;
        let selector = &spec["workloadSelector"]["labels"][OWN];
        let selected = workloads.iter().map(|w| &w["spec"]);
        let selected = selected.filter(|w| !selector.is_null() && w["labels"][OWN] == *selector);
        let inline = spec["endpoints"].as_array().into_iter().flatten();
        let endpoints: BTreeMap<_, _> = selected.chain(inline).map(endpoint).collect();
        let ports = spec["ports"].as_array().into_iter().flatten();
        let ports: Vec<String> = ports.map(port).collect();
        let found = json!({"ports": ports, "endpoints": endpoints});
        hosts.insert(host.to_owned(), found);
    }
    Ok(hosts.into())
}

fn port(port: &Value) -> String {
    let text = |key: &str| port[key].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", text("name"), port["number"], text("protocol"))
}

fn endpoint(spec: &Value) -> (String, Value) {
    let mut labels = spec["labels"].clone();
    if let Some(labels) = labels.as_object_mut() {
        labels.remove(OWN);
    }
    let mut found = json!({"labels": labels, "ports": spec["ports"]});
    for key in ["weight", "locality"] {
        if !spec[key].is_null() {
            found[key] = spec[key].clone();
        }
    }
    let address = spec["address"].as_str().unwrap_or_default();
    (address.to_owned(), found)
}
