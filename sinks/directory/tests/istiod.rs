//! A real istiod reads what the sink writes.

#![allow(clippy::unwrap_used)] // as in all tests; clippy does not see that helpers are tests

use std::{collections::BTreeMap, fs, time::Duration};

use diolkos_istio::{
    Kind, Location, Object, ObjectKey, Resolution, ServiceEntry, ServicePort, Spec, WorkloadEntry,
    WorkloadSelector, label,
};
use diolkos_sink_api::{Change, Permit, Sink as _, Writer as _};
use diolkos_sink_directory::DirectorySink;
use diolkos_testkit::{Istiod, Kubernetes, eventually};

/// istiod looks at its directory every 100 ms and then waits for a pause in the changes.
const PATIENCE: Duration = Duration::from_secs(30);
const HOST: &str = "orders.service.consul";

fn object(kind: Kind, name: &str, spec: Spec) -> Object {
    Object {
        key: ObjectKey {
            kind,
            namespace: "prod".into(),
            name: name.into(),
        },
        labels: BTreeMap::from([
            (label::MANAGED_BY.to_owned(), label::MANAGER.to_owned()),
            (label::REGISTRY.to_owned(), "consul".to_owned()),
        ]),
        annotations: BTreeMap::from([("note".to_owned(), "yes: #1".to_owned())]),
        spec,
    }
}

/// With a label value that is a number to YAML, if it is not quoted.
fn instance(name: &str, address: &str) -> Object {
    let labels = [(label::SERVICE, "orders"), ("version", "1.10")];
    let spec = WorkloadEntry {
        address: address.to_owned(),
        ports: BTreeMap::from([("http".to_owned(), 8081)]),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..WorkloadEntry::default()
    };
    object(Kind::WorkloadEntry, name, Spec::WorkloadEntry(spec))
}

fn service() -> Object {
    let labels = BTreeMap::from([(label::SERVICE.to_owned(), "orders".to_owned())]);
    let spec = ServiceEntry {
        hosts: vec![HOST.to_owned()],
        ports: vec![ServicePort {
            number: 8080,
            protocol: "HTTP".into(),
            name: "http".into(),
            target_port: 0,
        }],
        location: Location::MeshInternal.into(),
        resolution: Resolution::Static.into(),
        workload_selector: Some(WorkloadSelector { labels }),
        ..ServiceEntry::default()
    };
    object(Kind::ServiceEntry, "orders", Spec::ServiceEntry(spec))
}

async fn apply(sink: &DirectorySink, change: Change) {
    let result = sink.writer().apply(change, &Permit::always()).await;
    assert!(result.is_ok(), "{result:?}");
}

async fn put(sink: &mut DirectorySink, object: Object) {
    let hash = object.content_hash();
    apply(sink, Change::Put { object, hash }).await;
}

/// Waits until istiod has these endpoints, as `address:port version`.
async fn expect(istiod: &Istiod, expected: &[&str]) {
    eventually(PATIENCE, "the endpoints of istiod", async || {
        let endpoints = istiod.endpoints(HOST).await.map_err(|e| e.to_string())?;
        let found: Vec<String> = endpoints
            .iter()
            .map(|e| {
                format!(
                    "{}:{} {}",
                    e.addresses[0], e.endpoint_port, e.labels["version"]
                )
            })
            .collect();
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn istiod_follows_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = DirectorySink::new(directory.path().to_owned());
    put(&mut sink, instance("orders-1", "10.0.0.1")).await;
    put(&mut sink, service()).await;
    // A crash of ours must not confuse istiod.
    fs::write(directory.path().join(".diolkos-dead.tmp"), "half: [").unwrap();

    let kubernetes = Kubernetes::start().await.unwrap();
    let istiod = Istiod::builder().config_dir(directory.path());
    let istiod = istiod.start(&kubernetes).await.unwrap();
    expect(&istiod, &["10.0.0.1:8081 1.10"]).await;

    put(&mut sink, instance("orders-2", "10.0.0.2")).await;
    expect(&istiod, &["10.0.0.1:8081 1.10", "10.0.0.2:8081 1.10"]).await;
    put(&mut sink, instance("orders-1", "10.0.0.9")).await;
    expect(&istiod, &["10.0.0.2:8081 1.10", "10.0.0.9:8081 1.10"]).await;
    apply(&sink, Change::Delete(instance("orders-2", "").key)).await;
    expect(&istiod, &["10.0.0.9:8081 1.10"]).await;
    assert!(istiod.hosts().await.unwrap().contains(&HOST.to_owned()));
}
