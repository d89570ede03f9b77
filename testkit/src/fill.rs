//! Many services at once.

use anyhow::Result;
use serde_json::{Value, json};

use crate::Consul;

/// Operations that Consul takes in one transaction.
const TRANSACTION: usize = 64;
/// The nodes that the services lie on.
const NODES: usize = 50;

/// The port that [`fill`] gives every instance.
pub const PORT: u16 = 8080;

/// Registers `svc-0` to `svc-{services - 1}` with that many instances each, on 50 nodes, each with a passing check,
/// version `v0` or `v1` and protocol `http`.
///
/// # Errors
/// When Consul refuses.
pub async fn fill(consul: &Consul, services: usize, instances: usize) -> Result<()> {
    let nodes = (0..NODES).map(|n| json!({"Node": {"Verb": "set", "Node": {"Node": format!("node-{n}"), "Address": "10.0.0.1"}}}));
    let all =
        (0..services).flat_map(|service| (0..instances).map(move |instance| (service, instance)));
    let operations: Vec<Value> = nodes
        .chain(all.flat_map(|(s, i)| register(s, i, PORT)))
        .collect();
    for part in operations.chunks(TRANSACTION) {
        consul.put("/v1/txn", Some(&json!(part))).await?;
    }
    Ok(())
}

/// Registers one instance of those that [`fill`] registers again, at another port.
///
/// # Errors
/// When Consul refuses.
pub async fn move_port(consul: &Consul, service: usize, instance: usize, port: u16) -> Result<()> {
    consul
        .put("/v1/txn", Some(&json!(register(service, instance, port))))
        .await?;
    Ok(())
}

fn register(service: usize, instance: usize, port: u16) -> [Value; 2] {
    let node = format!("node-{}", service % NODES);
    let id = format!("svc-{service}-{instance}");
    let address = format!(
        "10.{}.{}.{}",
        instance + 1,
        service / 250,
        service % 250 + 1
    );
    [
        json!({"Service": {"Verb": "set", "Node": node, "Service": {
            "ID": id, "Service": format!("svc-{service}"), "Address": address, "Port": port,
            "Meta": {"version": format!("v{}", instance % 2), "protocol": "http"}}}}),
        json!({"Check": {"Verb": "set", "Check": {
            "Node": node, "CheckID": format!("{id}-ttl"), "Name": "ttl", "Status": "passing", "ServiceID": id}}}),
    ]
}
