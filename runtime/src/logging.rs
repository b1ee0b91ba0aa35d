//! One line per event on stderr, RFC 3339 in UTC; JSON when stderr is no terminal.

use std::io::IsTerminal;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;

/// How an event is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// A level (`info`) or directives (`info,holdfast_agent=debug`).
    pub filter: String,
    /// How an event is written.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            format: LogFormat::Auto,
        }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("log filter {filter:?} cannot be read: {detail}")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It was set up before.
    #[error("logging is already set up")]
    AlreadySet,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be auto, text or json".into()),
        }
    }
}

/// Starts logging for the whole process; only `main` calls it.
pub fn start(settings: &LogSettings) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| LoggingError::Filter {
        filter: settings.filter.clone(),
        detail: error.to_string(),
    })?;
    let terminal = std::io::stderr().is_terminal();
    let events = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let started = if json {
        events.json().flatten_event(true).try_init()
    } else {
        events.with_ansi(terminal).with_target(false).try_init()
    };
    started.map_err(|_| LoggingError::AlreadySet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        let settings = LogSettings {
            filter: "a=b=c".into(),
            ..LogSettings::default()
        };
        let error = start(&settings).unwrap_err().to_string();
        assert!(error.contains("a=b=c"), "{error}");
        assert!("yaml".parse::<LogFormat>().is_err());
    }
}
