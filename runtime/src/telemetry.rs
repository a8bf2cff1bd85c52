//! Logs: the one place that sets up where they go. Each program calls [`init`] once, first thing.
//!
//! A level is a promise: one peer's change is DEBUG, a session up or down INFO, what needs a person
//! WARN, we are broken ERROR. `WATTLE_LOG` filters (`wattle_agent=debug,info`).

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
    str::FromStr,
};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// The variable that filters logs.
pub const FILTER_VARIABLE: &str = "WATTLE_LOG";

/// Without it. The userspace device tells of each peer at INFO.
const DEFAULT_FILTER: &str = "info,gotatun=warn";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("log format {other:?}: expected \"text\" or \"json\"")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Sends logs to stderr, and says at DEBUG which program began. An error where the filter is
/// malformed or logs were set up before.
pub fn init(program: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = env::var(FILTER_VARIABLE).unwrap_or_else(|_| DEFAULT_FILTER.into());
    let filter =
        EnvFilter::try_new(filter).with_context(|| format!("reading {FILTER_VARIABLE}"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow!("setting up logs: {error}"))?;
    tracing::debug!(program, "begins");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_names() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
