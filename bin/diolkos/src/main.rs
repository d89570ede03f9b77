//! `diolkos`: argument parsing, wiring, output. The only crate that knows all others.

#![forbid(unsafe_code)]

mod cli;
mod client;
mod cluster;
mod commands;
mod documents;
mod leases;
mod memory;
mod observe;
mod oneshot;
mod output;
mod run;
mod secrets;
mod sinks;
mod sources;
mod workloads;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::cli::{Cli, Logs};

/// How a command ended. See [`cli::EXIT_CODES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    /// `diff` found differences, `check` faults, `explain` nothing.
    Found,
    /// A document is wrong.
    Faulty,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            // Nothing can be said where standard output and error are closed.
            drop(error.print());
            return ExitCode::from(if asked { 0 } else { 2 });
        }
    };
    match start(cli) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Found) => ExitCode::from(1),
        Ok(Ended::Faulty) => ExitCode::from(2),
        Err(error) => {
            report(&error);
            ExitCode::from(3)
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<Ended> {
    // Only one provider for the whole process; another one cannot be installed before this line.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("the TLS provider is installed twice");
    }
    let long_running = matches!(cli.command, cli::Command::Run(_));
    let default = if long_running { "info" } else { "error" };
    let format = match cli.log_format {
        Logs::Text => diolkos_telemetry::LogFormat::Text,
        Logs::Json => diolkos_telemetry::LogFormat::Json,
    };
    diolkos_telemetry::init_logs(format, cli.log.as_deref().unwrap_or(default))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(commands::dispatch(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

#[allow(clippy::print_stderr)] // the one place where the program speaks about its own failure
fn report(error: &anyhow::Error) {
    eprintln!("diolkos: {error:#}");
}
