//! Runs the program.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

/// A binary of `make build`.
pub(crate) fn beside(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_wattle-fleet")).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `make build` first", path.display());
    path
}

pub(crate) fn fleet(arguments: &str) -> Output {
    beside("wattle-controlplane");
    Command::new(env!("CARGO_BIN_EXE_wattle-fleet"))
        .args(arguments.split_whitespace())
        .arg("--json")
        .output()
        .unwrap()
}

/// The objects that a run prints.
pub(crate) fn run(arguments: &str) -> Vec<Value> {
    let output = fleet(arguments);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments}: {}\n{out}\n{err}", output.status);
    let figures: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for figures in &figures {
        assert_eq!(figures.as_object().unwrap().len(), 20, "{figures}");
    }
    figures
}

pub(crate) fn only(arguments: &str) -> Value {
    let mut all = run(arguments);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

pub(crate) fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}"))
}
