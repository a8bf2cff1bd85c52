//! What is refused, and how a run ends that is ended.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::support::fleet;

/// Whatever is wrong is said before anything is started.
#[test]
fn mistakes_are_said() {
    for (arguments, expected, code) in [
        ("one-change --agents 1", "--agents 1: a fleet has at least 2", 1),
        ("churn --agents 10 --rate 100", "at most 5 changes a second", 1),
        ("enrol --server /nowhere", "/nowhere isn't there: build it", 1),
        ("enrol --context /nowhere", "--context /nowhere", 1),
        ("everything", "unrecognized subcommand", 2),
    ] {
        let output = fleet(arguments);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {err}");
        assert!(err.contains(expected), "{arguments}: {err}");
        assert!(output.stdout.is_empty(), "{arguments}");
    }
}

#[test]
fn more_agents_than_files_can_be_opened_are_refused() {
    let program = env!("CARGO_BIN_EXE_wattle-fleet");
    let script = format!("ulimit -n 1000 && exec {program} enrol --agents 1000");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("may have 400 of them") && err.contains("ulimit -Hn"), "{err}");
}

/// A run that is ended leaves no process and no file.
#[test]
fn an_interrupted_run_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_wattle-fleet"))
        .args(["idle", "--agents", "10"])
        .env("TMPDIR", folder.path())
        .spawn()
        .unwrap();
    let server = loop {
        assert!(run.try_wait().unwrap().is_none(), "it ended");
        let children = format!("/proc/{0}/task/{0}/children", run.id());
        let children = std::fs::read_to_string(children).unwrap();
        // The control plane and a worker.
        if let [server, _worker] = children.split_whitespace().collect::<Vec<_>>()[..] {
            break server.to_owned();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(folder.path().read_dir().unwrap().next().is_some());
    let killed = Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    assert!(killed.success() && run.wait().unwrap().code() == Some(1));
    assert!(folder.path().read_dir().unwrap().next().is_none());
    // It was killed, and the kernel may still be at it.
    let begin = Instant::now();
    while alive(&server) {
        assert!(begin.elapsed() < Duration::from_secs(10), "the control plane still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn alive(server: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).unwrap_or_default();
    status.contains("wattle-control") && !status.contains("zombie")
}
