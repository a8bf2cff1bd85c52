//! Where and with what the figures were measured.

use std::{fs, process::Command, thread::available_parallelism};

/// The machine and the versions.
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) cores: usize,
    pub(super) processor: String,
    pub(super) memory_gb: f64,
    pub(super) kernel: String,
    pub(super) revision: String,
    pub(super) rustc: String,
}

impl Machine {
    /// This one.
    pub(super) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory = memory.and_then(|kb| kb.split_whitespace().next()?.parse::<f64>().ok());
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
            output.status.success().then_some(text)
        };
        let revision = said("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
        Self {
            date: jiff::Zoned::now().date().to_string(),
            cores: available_parallelism().map_or(0, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            memory_gb: memory.unwrap_or_default() / f64::from(1 << 20),
            kernel: said("uname", &["-sr"]).unwrap_or_else(unknown),
            revision: revision.unwrap_or_else(unknown),
            rustc: said("rustc", &["--version"]).unwrap_or_else(unknown),
        }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}
