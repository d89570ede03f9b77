//! The command line. One table: parser, help and completions come out of it.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Carries services from any registry into an Istio mesh.
///
/// Registries are described in `Registry` documents (`diolkos schema` prints their schema). With
/// `-f` they are read from files, without it from the cluster.
#[derive(Parser, Debug)]
#[command(
    name = "diolkos",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// How log lines look (they go to standard error)
    #[arg(long, global = true, value_enum, default_value_t = Logs::Text, env = "DIOLKOS_LOG_FORMAT")]
    pub(crate) log_format: Logs,
    /// Which log lines to show: a level or filters such as `info,diolkos_source_consul=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "DIOLKOS_LOG")]
    pub(crate) log: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  `diff`: something would change; `check`: a document is faulty; `explain`: nothing found
  2  the command line or a document is wrong
  3  it did not work: a registry, the API server or the running Diolkos cannot be reached";

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run: carry services over and keep them up to date
    Run(Run),
    /// Check documents without connecting to anything
    Check(Check),
    /// Read the registries once and print the objects
    Export(Export),
    /// Tell for a host, service, instance or address what the registry says and what came of it
    Explain(Explain),
    /// Show what `run` would write; exit code 1 if anything
    Diff(Diff),
    /// List the services and what became of them, from a running Diolkos
    Status(Ask),
    /// List the registries and how they are, from a running Diolkos
    Registries(Registries),
    /// Print the custom resource definitions
    Crds,
    /// Print the JSON schema of the documents, for editors
    Schema,
    /// Print the completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Read documents from this file or directory instead of the cluster (may be repeated)
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) files: Vec<PathBuf>,
    /// Where objects go: kubernetes, directory:PATH or stdout
    #[arg(long, value_name = "SINK", default_value = "kubernetes")]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Where the HTTP API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8630")]
    pub(crate) listen: SocketAddr,
    /// Stop when everything is written once
    #[arg(long)]
    pub(crate) once: bool,
    /// With --once: give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Keep the last good services of each registry in this directory, so that a restart can give them while the
    /// registry is down. Objects in Kubernetes or in a directory tell as much without it
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) replicas: Replicas,
}

/// Several of us.
#[derive(Args, Debug)]
pub(crate) struct Replicas {
    /// Share the registries out among replicas by Leases; auto: with the documents of the cluster, not with -f
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    pub(crate) leases: When,
    /// Where the Leases are; default: the namespace of the pod, or that of the kubeconfig's context
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,
    /// How long a replica may be silent before others take its registries
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = lease_seconds, hide_short_help = true)]
    pub(crate) lease_duration: Duration,
    /// What this replica is called; default: the name of the host. A random suffix is added
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_short_help = true)]
    pub(crate) replica: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Where it is of use
    Auto,
    /// Also with documents from files
    Always,
    /// This is the only one
    Never,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Files or directories with documents
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) read: Read,
    /// Where objects go: stdout or directory:PATH
    #[arg(long, value_name = "SINK", default_value = "stdout")]
    pub(crate) to: To,
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// A host, service, object, instance id or address
    pub(crate) query: String,
    /// Read the registries of these documents once, instead of asking a running Diolkos
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) files: Vec<PathBuf>,
    /// With -f: give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Args, Debug)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) read: Read,
    /// What to compare with: kubernetes or directory:PATH
    #[arg(long, value_name = "SINK", default_value = "kubernetes")]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Reading registries once.
#[derive(Args, Debug)]
pub(crate) struct Read {
    /// File or directory with documents (may be repeated)
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// Asking a running Diolkos.
#[derive(Args, Debug)]
pub(crate) struct Ask {
    /// The HTTP API of the running Diolkos
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8630",
        env = "DIOLKOS_SERVER"
    )]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Registries {
    #[command(subcommand)]
    pub(crate) action: Option<Action>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// What can be done about a registry.
#[derive(Subcommand, Debug)]
pub(crate) enum Action {
    /// Let the removals pass that are held back of a registry, instead of waiting for the end of the hold
    ///
    /// Every hold ends by itself when the registry goes on saying the same. In a cluster, a new value of the
    /// annotation diolkos.io/release on the Registry does this on all replicas.
    Release {
        /// The name of the Registry document
        name: String,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Cluster {
    /// The kubeconfig to use; default: $KUBECONFIG, ~/.kube/config, or the service account of the pod
    #[arg(long, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Format {
    /// How the answer looks
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Logs {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Where objects go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Kubernetes,
    Directory(PathBuf),
    Stdout,
}

impl To {
    /// Whether it tells what was written before.
    pub(crate) fn has_memory(&self) -> bool {
        match self {
            Self::Kubernetes | Self::Directory(_) => true,
            Self::Stdout => false,
        }
    }

    /// The sink's name, as in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Directory(_) => "directory",
            Self::Stdout => "stdout",
        }
    }
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            None if text == "stdout" => Ok(Self::Stdout),
            Some(("directory", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            _ => Err(format!(
                "'{text}' is not a sink; use kubernetes, directory:PATH or stdout"
            )),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("'{text}' is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text} seconds cannot be waited"))
}

/// Below two seconds the API server's own delays would end Leases.
fn lease_seconds(text: &str) -> Result<Duration, String> {
    let duration = seconds(text)?;
    if (2.0..=3600.0).contains(&duration.as_secs_f64()) {
        Ok(duration)
    } else {
        Err(format!("{text} is not between 2 and 3600 seconds"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_table_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sinks() {
        assert_eq!("kubernetes".parse(), Ok(To::Kubernetes));
        assert_eq!("directory:/a:b".parse(), Ok(To::Directory("/a:b".into())));
        assert!("directory:".parse::<To>().is_err());
        assert!("files".parse::<To>().is_err());
    }
}
