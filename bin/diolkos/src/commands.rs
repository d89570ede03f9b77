//! One function a command.

use clap::CommandFactory;
use diolkos_console::{Explained, RegistryStatus, Released, ServiceStatus};

use crate::{
    Ended,
    cli::{Action, Ask, Check, Cli, Command, Diff, Explain, Export, To},
    client, documents, oneshot,
    output::{self, Changed},
    run, sinks,
};

pub(crate) async fn dispatch(command: Command) -> anyhow::Result<Ended> {
    match command {
        Command::Run(options) => Box::pin(run::run(options)).await,
        Command::Check(options) => check(&options),
        Command::Export(options) => Box::pin(export(options)).await,
        Command::Explain(options) => Box::pin(explain(options)).await,
        Command::Diff(options) => Box::pin(diff(options)).await,
        Command::Status(ask) => status(&ask).await,
        Command::Registries(options) => match options.action {
            None => registries(&options.ask).await,
            Some(Action::Release { name, ask }) => release(&name, &ask).await,
        },
        Command::Crds => output::print(&diolkos_api::crds()).map(|()| Ended::Well),
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&diolkos_api::json_schema())?;
            output::print(&schema).map(|()| Ended::Well)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "diolkos", &mut script);
            output::print(&String::from_utf8(script)?).map(|()| Ended::Well)
        }
    }
}

fn check(options: &Check) -> anyhow::Result<Ended> {
    let (registries, faults) = documents::load(&options.paths);
    let checked = documents::Checked::new(&registries, &faults);
    output::show(options.format.output, &checked, documents::Checked::table)?;
    Ok(if faults.is_empty() {
        Ended::Well
    } else {
        Ended::Found
    })
}

async fn export(options: Export) -> anyhow::Result<Ended> {
    let Some(registries) = documents::load_or_report(&options.read.files)? else {
        return Ok(Ended::Faulty);
    };
    let synced = oneshot::sync(&registries, options.read.timeout).await?;
    match options.to {
        To::Stdout => {
            let objects = synced.objects();
            let mut text = Vec::new();
            diolkos_sink_directory::write_stream(&objects, &mut text)?;
            output::print(&String::from_utf8(text)?)?;
        }
        To::Directory(path) => {
            let ledger = sinks::write_once(&path, synced.desired(), options.read.timeout).await?;
            sinks::report_failures(&ledger, &registries)?;
        }
        To::Kubernetes => anyhow::bail!("`export` does not write to a cluster; use `run --once`"),
    }
    Ok(Ended::Well)
}

async fn explain(options: Explain) -> anyhow::Result<Ended> {
    let Explain {
        query,
        files,
        timeout,
        ask,
    } = options;
    let found: Option<Vec<Explained>> = if files.is_empty() {
        client::get(&ask.server, "/api/v1/explain", &[("host", &query)]).await?
    } else {
        let Some(registries) = documents::load_or_report(&files)? else {
            return Ok(Ended::Faulty);
        };
        let synced = oneshot::sync(&registries, timeout).await?;
        Some(synced.observer().explain(&query)?)
    };
    let found = found.unwrap_or_default();
    if found.is_empty() {
        tracing::error!(
            query,
            "no registry has anything by that name; `diolkos status` lists all services"
        );
        return Ok(Ended::Found);
    }
    output::show(ask.format.output, &found, |found| {
        output::explanations(found)
    })?;
    Ok(Ended::Well)
}

async fn diff(options: Diff) -> anyhow::Result<Ended> {
    let Some(registries) = documents::load_or_report(&options.read.files)? else {
        return Ok(Ended::Faulty);
    };
    let synced = oneshot::sync(&registries, options.read.timeout).await?;
    let preview = sinks::preview(&options.to, &options.cluster, synced.desired()).await?;
    let changes: Vec<Changed> = preview
        .into_iter()
        .map(|(key, change)| Changed {
            change,
            kind: key.kind.name(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        })
        .collect();
    output::show(options.format.output, changes.as_slice(), output::changes)?;
    Ok(if changes.is_empty() {
        Ended::Well
    } else {
        Ended::Found
    })
}

async fn status(ask: &Ask) -> anyhow::Result<Ended> {
    let services: Vec<ServiceStatus> = client::get(&ask.server, "/api/v1/services", &[])
        .await?
        .unwrap_or_default();
    output::show(ask.format.output, services.as_slice(), output::services)?;
    Ok(Ended::Well)
}

async fn registries(ask: &Ask) -> anyhow::Result<Ended> {
    let registries: Vec<RegistryStatus> = client::get(&ask.server, "/api/v1/registries", &[])
        .await?
        .unwrap_or_default();
    output::show(ask.format.output, registries.as_slice(), output::registries)?;
    Ok(Ended::Well)
}

async fn release(name: &str, ask: &Ask) -> anyhow::Result<Ended> {
    let path = format!("/api/v1/registries/{name}/release");
    let Some(released): Option<Released> = client::post(&ask.server, &path).await? else {
        tracing::error!(
            name,
            "there is no registry of that name; `diolkos registries` lists all"
        );
        return Ok(Ended::Found);
    };
    output::show(ask.format.output, &released, |released| {
        let Released {
            services,
            instances,
        } = released;
        match (services, instances) {
            (0, 0) => format!("nothing of {name} was held back"),
            _ => format!("released: {services} services, {instances} instances of {name}"),
        }
    })?;
    Ok(Ended::Well)
}
