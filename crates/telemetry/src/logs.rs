//! The log on standard error.

use std::{env, io, io::IsTerminal as _, str::FromStr};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt as _};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for log stores.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!(
                "{text:?} is not a log format; use \"text\" or \"json\""
            )),
        }
    }
}

/// The log cannot be set up.
#[derive(thiserror::Error, Debug)]
pub enum LogError {
    /// The filter makes no sense.
    #[error(
        "log filter {filter:?}: {source}; write for example \"info\" or \"info,diolkos=debug\""
    )]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody set up a log already.
    #[error("the log is set up already")]
    AlreadySet,
}

/// Sends the log of the whole process to standard error. `filter` is in the syntax of
/// [`EnvFilter`], for example `info,diolkos_engine=debug`. Colours only on a terminal, and not where
/// `NO_COLOR` is set (<https://no-color.org>).
///
/// # Errors
/// The filter makes no sense, or this is the second call.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let colours = io::stderr().is_terminal() && !no_color(env::var_os("NO_COLOR"));
    let subscriber = subscriber(format, filter, colours, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)
}

/// The rule of no-color.org: set and not empty.
fn no_color(variable: Option<std::ffi::OsString>) -> bool {
    variable.is_some_and(|value| !value.is_empty())
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    colours: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry().with(filter);
    Ok(match format {
        LogFormat::Text => Box::new(registry.with(lines.with_ansi(colours))),
        LogFormat::Json => Box::new(registry.with(lines.json().flatten_event(true))),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, colours: bool) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(format, filter, colours, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(registry = "consul", "lost the registry");
            tracing::debug!("not of interest");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_lines_are_filtered_and_coloured_only_if_asked() {
        let plain = logged(LogFormat::Text, "info", false);
        assert_eq!(plain.lines().count(), 1, "{plain}");
        assert!(plain.contains("lost the registry registry=\"consul\""));
        assert!(!plain.contains('\u{1b}'));
        assert!(logged(LogFormat::Text, "info", true).contains('\u{1b}'));
    }

    #[test]
    fn json_lines_have_the_fields_at_the_top() {
        let line = logged(LogFormat::Json, "warn", true);
        assert!(line.starts_with('{') && line.ends_with("}\n"), "{line}");
        for part in [
            r#""level":"WARN""#,
            r#""message":"lost the registry""#,
            r#""registry":"consul""#,
        ] {
            assert!(line.contains(part), "{line} lacks {part}");
        }
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = subscriber(LogFormat::Text, "diolkos=loud", false, io::sink)
            .err()
            .unwrap();
        assert!(error.to_string().contains("diolkos=loud"), "{error}");
    }

    #[test]
    fn no_color_counts_where_it_is_not_empty() {
        assert!(!no_color(None));
        assert!(!no_color(Some("".into())));
        assert!(no_color(Some("1".into())));
    }

    #[test]
    fn formats_by_name() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert!("xml".parse::<LogFormat>().unwrap_err().contains("xml"));
    }
}
