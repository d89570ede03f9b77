//! Tables for people, JSON and YAML for programs. Everything goes to standard output.

use std::io::{self, Write};

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use diolkos_console::{RegistryStatus, ServiceStatus};
use serde::Serialize;
use serde_json::Value;

use crate::cli::Output;

/// Writes `value` as the format asks, `table` for people.
pub(crate) fn show<T: Serialize + ?Sized>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let text = match output {
        Output::Table => table(value),
        Output::Json => serde_json::to_string_pretty(value)?,
        Output::Yaml => serde_saphyr::to_string(&value)?,
    };
    print(&text)
}

/// Writes a text. A reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
}

/// Tables end their lines with padding; nobody wants that in a file.
fn render(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

pub(crate) fn services(services: &[ServiceStatus]) -> String {
    if services.is_empty() {
        return "no services".to_owned();
    }
    let mut rows = table(&["HOST", "PORTS", "ENDPOINTS", "REGISTRY", "SERVICE", "NOTES"]);
    for service in services {
        let ports: Vec<_> = service.ports.iter().map(u32::to_string).collect();
        rows.add_row([
            if service.host.is_empty() {
                "-"
            } else {
                &service.host
            },
            &if ports.is_empty() {
                "-".to_owned()
            } else {
                ports.join(",")
            },
            &format!("{}/{}", service.endpoints, service.instances),
            &service.registry,
            &service.service,
            &notes(service),
        ]);
    }
    render(&rows)
}

fn notes(service: &ServiceStatus) -> String {
    let mut notes: Vec<String> = service.refusal.iter().cloned().collect();
    notes.extend(
        service
            .dropped
            .iter()
            .map(|(reason, count)| format!("{count} {reason}")),
    );
    notes.extend(service.advice.iter().cloned());
    if service.held > 0 {
        let why = service.hold.as_deref().unwrap_or("incomplete answer");
        notes.push(format!("{} held: {why}", service.held));
    }
    if let Some(since) = &service.empty_since {
        notes.push(format!("no instances since {since}"));
    }
    notes.join("; ")
}

pub(crate) fn registries(registries: &[RegistryStatus]) -> String {
    if registries.is_empty() {
        return "no registries".to_owned();
    }
    let shared = registries.iter().any(|registry| registry.holder.is_some());
    let mut header = vec![
        "NAME",
        "PHASE",
        "SERVICES",
        "ENDPOINTS",
        "REFUSED",
        "HELD",
        "COMPLETE",
        "SYNCED",
        "LAST CONTACT",
        "DETAIL",
    ];
    if shared {
        header.push("HOLDER");
    }
    let mut rows = table(&header);
    for registry in registries {
        let condition = |kind: &str| {
            let found = registry.conditions.iter().find(|c| c.kind == kind);
            found
                .map_or("-", |c| if c.status == "True" { "yes" } else { &c.reason })
                .to_owned()
        };
        let refused: usize = registry.refused.values().sum();
        let mut row = vec![
            registry.name.clone(),
            registry.phase.clone(),
            registry.services.to_string(),
            format!("{}/{}", registry.endpoints, registry.instances),
            refused.to_string(),
            registry.held_services.to_string(),
            condition("Complete"),
            condition("Synced"),
            registry
                .last_contact
                .clone()
                .unwrap_or_else(|| "never".to_owned()),
            registry.detail.clone(),
        ];
        if shared {
            let holder = registry.holder.as_ref();
            let holder = holder.and_then(|holder| holder.identity.clone());
            row.push(holder.unwrap_or_else(|| "nobody".to_owned()));
        }
        rows.add_row(row);
    }
    render(&rows)
}

/// What would be written, an object a line.
pub(crate) fn changes(changes: &[Changed]) -> String {
    if changes.is_empty() {
        return "nothing would change".to_owned();
    }
    let mut rows = table(&["CHANGE", "KIND", "NAMESPACE", "NAME"]);
    for change in changes {
        rows.add_row([change.change, change.kind, &change.namespace, &change.name]);
    }
    render(&rows)
}

/// One line of `diff`.
#[derive(Serialize)]
pub(crate) struct Changed {
    pub(crate) change: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// `explain`, for people: the record, the decisions, the objects.
pub(crate) fn explanations(found: &[diolkos_console::Explained]) -> String {
    found
        .iter()
        .map(explanation)
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn explanation(found: &diolkos_console::Explained) -> String {
    let mut out = heading(found);
    out.push("registry says".to_owned());
    out.extend(instances(&get(found, "record")));
    out.push("decisions".to_owned());
    out.push(decisions(&get(found, "decisions")));
    out.push("objects".to_owned());
    let mut rows = table(&["  OBJECT", "LAST WRITTEN", "RESULT"]);
    for written in &found.written {
        let at = written.at.clone().unwrap_or_else(|| "-".to_owned());
        rows.add_row([format!("  {}", written.object), at, written.result.clone()]);
    }
    out.push(render(&rows));
    out.join("\n")
}

fn get(found: &diolkos_console::Explained, key: &str) -> Value {
    found.explanation.get(key).cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The service, its host, and what is not as the registry says.
fn heading(found: &diolkos_console::Explained) -> Vec<String> {
    let get = |key| get(found, key);
    let service = text(&get("service"));
    let mut out = vec![format!("service   {service} (changed {})", found.changed)];
    out.push(match (get("host"), get("carried").as_bool()) {
        (Value::String(host), Some(true)) => format!("host      {host}"),
        (Value::String(host), _) => format!("host      {host} (not in the mesh)"),
        _ => "host      none (not in the mesh)".to_owned(),
    });
    if let Value::String(why) = get("refusal") {
        out.push(format!("refused   {why}"));
    }
    let held = get("held");
    let held: Vec<String> = held.as_array().into_iter().flatten().map(text).collect();
    if !held.is_empty() {
        let why = match get("hold") {
            Value::String(why) => why,
            _ => "the registry's answer was incomplete".to_owned(),
        };
        out.push(format!(
            "held      {} (the registry lacks them; {why})",
            held.join(", ")
        ));
    }
    if let Value::String(since) = get("emptySince") {
        out.push(format!(
            "empty     since {since}: the host stays with no endpoints until guard.emptyGrace is over"
        ));
    }
    if let Some(endpoints) = get("remembered").as_u64() {
        out.push(format!(
            "memory    the mesh held {endpoints} endpoints of it at the start, and no complete snapshot has accounted for them; its objects stay as they are"
        ));
    }
    out
}

/// What the registry says of each instance.
fn instances(record: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for instance in record["instances"].as_array().into_iter().flatten() {
        let mut line = format!(
            "  {}  {}",
            text(&instance["id"]),
            text(&instance["address"])
        );
        for port in instance["ports"].as_array().into_iter().flatten() {
            line.push_str(&format!(" {}", text(port)));
        }
        line.push_str(&format!("  {}", text(&instance["health"])));
        for key in ["version", "locality", "weight"] {
            if let Some(value) = instance.get(key) {
                line.push_str(&format!("  {key}={}", text(value)));
            }
        }
        for (key, value) in instance["labels"].as_object().into_iter().flatten() {
            line.push_str(&format!(" {key}={}", text(value)));
        }
        lines.push(line);
    }
    lines
}

fn decisions(decisions: &Value) -> String {
    let mut rows = table(&["  SUBJECT", "RULE", "DETAIL"]);
    for decision in decisions.as_array().into_iter().flatten() {
        let subject = match &decision["subject"] {
            Value::String(subject) => subject.clone(),
            other => text(&other["instance"]),
        };
        rows.add_row([
            format!("  {subject}"),
            text(&decision["reason"]),
            text(&decision["detail"]),
        ]);
    }
    render(&rows)
}
