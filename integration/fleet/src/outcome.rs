//! What a scenario found: one JSON object for programs, a table for people.

use std::io::{Write as _, stdout};

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;

/// A scenario's figures; `None` where it has no such figure.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) agents: usize,
    pub(crate) groups: usize,
    pub(crate) handed_ms: Option<f64>,
    pub(crate) applied_p50_ms: Option<f64>,
    pub(crate) applied_p99_ms: Option<f64>,
    pub(crate) applied_max_ms: Option<f64>,
    pub(crate) raw_p99_ms: Option<f64>,
    pub(crate) raw_ratio: Option<f64>,
    pub(crate) bytes_per_agent: Option<f64>,
    pub(crate) server_rss_kb_per_stream: Option<f64>,
    pub(crate) server_cpu_us_per_agent: Option<f64>,
    pub(crate) full_sets: Option<u64>,
    pub(crate) resumed: Option<u64>,
    pub(crate) enrol_per_s: Option<f64>,
    pub(crate) converged_ms: Option<f64>,
    pub(crate) gap_p99_ms: Option<f64>,
    pub(crate) gap_max_ms: Option<f64>,
    pub(crate) handshakes_per_agent: Option<f64>,
    pub(crate) digests_equal: Option<bool>,
    #[serde(skip)]
    pub(crate) beside: Beside,
    /// What else a person wants to know: a name, a text.
    #[serde(skip)]
    pub(crate) notes: Vec<(String, String)>,
}

/// Figures for people and for the published tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beside {
    /// The largest over all changes of what has its median in the outcome.
    pub(crate) handed_max_ms: Option<f64>,
    pub(crate) p99_max_ms: Option<f64>,
    pub(crate) raw_p99_max_ms: Option<f64>,
    /// The processor time of the fleet itself, for each agent, as the server's is counted.
    pub(crate) fleet_cpu_us_per_agent: Option<f64>,
    /// The p99 of those who read, as a multiple of what it is without frozen readers.
    pub(crate) frozen_ratio: Option<f64>,
    /// The server's memory some time after, as a multiple of what it was before.
    pub(crate) memory_ratio: Option<f64>,
}

impl Outcome {
    /// One without figures.
    pub(crate) fn of(scenario: &'static str, agents: usize, groups: usize) -> Self {
        Self { scenario, agents, groups, ..Self::default() }
    }

    /// Adds a line for people.
    pub(crate) fn note(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.notes.push((name.into(), text.into()));
    }

    /// Prints it.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            return Ok(writeln!(stdout(), "{}", serde_json::to_string(self)?)?);
        }
        Ok(writeln!(stdout(), "{}", self.table())?)
    }

    fn table(&self) -> String {
        let number = |value: Option<f64>, unit: &str| value.map(|v| format!("{} {unit}", plain(v)));
        let count = |value: Option<u64>| value.map(|v| v.to_string());
        let rows = [
            ("readable and woken after", number(self.handed_ms, "ms")),
            ("applied, p50", number(self.applied_p50_ms, "ms")),
            ("applied, p99", number(self.applied_p99_ms, "ms")),
            ("applied, slowest", number(self.applied_max_ms, "ms")),
            ("raw TLS, p99", number(self.raw_p99_ms, "ms")),
            ("p99 to raw TLS", number(self.raw_ratio, "times")),
            ("TLS bytes per agent", number(self.bytes_per_agent, "bytes")),
            ("server memory per stream", number(self.server_rss_kb_per_stream, "KB")),
            ("server CPU per agent", number(self.server_cpu_us_per_agent, "µs")),
            ("full sets sent", count(self.full_sets)),
            ("streams resumed", count(self.resumed)),
            ("enrolled", number(self.enrol_per_s, "per second")),
            ("converged after", number(self.converged_ms, "ms")),
            ("without a stream, p99", number(self.gap_p99_ms, "ms")),
            ("without a stream, longest", number(self.gap_max_ms, "ms")),
            ("streams accepted per agent", number(self.handshakes_per_agent, "")),
            ("readable, slowest change", number(self.beside.handed_max_ms, "ms")),
            ("p99, slowest change", number(self.beside.p99_max_ms, "ms")),
            ("raw TLS p99, slowest", number(self.beside.raw_p99_max_ms, "ms")),
            ("p99 to that without frozen", number(self.beside.frozen_ratio, "times")),
            ("server memory to before", number(self.beside.memory_ratio, "times")),
            ("fleet's own CPU per agent", number(self.beside.fleet_cpu_us_per_agent, "µs")),
            ("digests equal", self.digests_equal.map(|yes| if yes { "yes" } else { "NO" }.into())),
        ];
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        let title = format!("{} agents, {} groups", self.agents, self.groups);
        table.set_header([self.scenario.to_owned(), title]);
        for (name, value) in rows {
            if let Some(value) = value {
                table.add_row([name.to_owned(), value]);
            }
        }
        for (name, text) in &self.notes {
            table.add_row([name, text]);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    }
}

/// Three digits that count.
pub(crate) fn plain(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// To a thousandth: what is behind it, no clock here could tell.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The value in the middle; of an even number, the mean of the two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_each_figure_once_and_null_where_there_is_none() {
        let mut outcome = Outcome { full_sets: Some(3), ..Outcome::of("idle", 7, 1) };
        outcome.note("a", "note");
        let text = serde_json::to_string(&outcome).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names = "scenario agents groups handed_ms applied_p50_ms applied_p99_ms applied_max_ms \
                     raw_p99_ms raw_ratio bytes_per_agent server_rss_kb_per_stream \
                     server_cpu_us_per_agent full_sets resumed enrol_per_s converged_ms gap_p99_ms \
                     gap_max_ms handshakes_per_agent digests_equal";
        let object = value.as_object().unwrap();
        assert_eq!(object.len(), names.split_whitespace().count(), "{text}");
        for name in names.split_whitespace() {
            assert!(object.contains_key(name), "{name}: {text}");
        }
        assert!(value["handed_ms"].is_null() && value["full_sets"] == 3, "{text}");
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
