//! Every scenario, small, against the real control plane: what must be counted right whatever the
//! machine's speed. Times are for the benchmarks.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

fn fleet(arguments: &str) -> Output {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_wattle-fleet"));
    let server = program.with_file_name("wattle-controlplane");
    assert!(server.exists(), "{} is missing: run `make build` first", server.display());
    Command::new(program).args(arguments.split_whitespace()).arg("--json").output().unwrap()
}

/// The objects that a run prints.
fn run(arguments: &str) -> Vec<Value> {
    let output = fleet(arguments);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments}: {}\n{out}\n{err}", output.status);
    let figures: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for figures in &figures {
        assert_eq!(figures.as_object().unwrap().len(), 17, "{figures}");
    }
    figures
}

fn only(arguments: &str) -> Value {
    let mut all = run(arguments);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}"))
}

#[test]
fn one_change_reaches_everybody_in_few_bytes() {
    let seen = only("one-change --agents 60 --changes 3 --workers 2");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert!(number(&seen, "bytes_per_agent") <= 200.0, "{seen}");
    assert!(number(&seen, "bytes_per_agent") >= 100.0, "an entry has as many: {seen}");
    let applied = ["applied_p50_ms", "applied_p99_ms", "applied_max_ms"].map(|n| number(&seen, n));
    assert!(applied.is_sorted() && applied[0] > 0.0, "{seen}");
    assert!(number(&seen, "handed_ms") > 0.0 && number(&seen, "raw_p99_ms") > 0.0, "{seen}");
}

/// As many classes as groups, and all see all.
#[test]
fn groups_cost_a_change_nothing() {
    let seen = only("one-change --agents 40 --groups 20 --changes 2 --no-raw");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert!(number(&seen, "bytes_per_agent") <= 200.0, "{seen}");
    assert!(seen["raw_p99_ms"].is_null(), "{seen}");
}

#[test]
fn two_halves_see_each_other_and_cease_to() {
    let seen = only("policy-flip --agents 41 --rest 100ms");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert!(number(&seen, "converged_ms") > 0.0, "{seen}");
}

#[test]
fn churn_loses_no_change() {
    let seen = only("churn --agents 40 --rate 20 --duration 3s");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert!(number(&seen, "applied_max_ms") > 0.0, "{seen}");
}

#[test]
fn a_mesh_comes_from_nothing_with_one_full_set_each() {
    let seen = only("join --agents 50 --seed 7");
    assert_eq!(seen["digests_equal"], true, "{seen}");
    assert_eq!((&seen["full_sets"], &seen["resumed"]), (&50.into(), &0.into()), "{seen}");
    assert!(number(&seen, "converged_ms") > 0.0 && number(&seen, "enrol_per_s") > 0.0, "{seen}");
}

#[test]
fn who_comes_back_resumes_and_who_has_nothing_gets_everything() {
    let seen = run("reconnect --agents 50 --workers 2");
    let [with, without] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&with["full_sets"], &with["resumed"]), (&0.into(), &50.into()), "{with}");
    assert_eq!((&without["full_sets"], &without["resumed"]), (&50.into(), &0.into()), "{without}");
    // 50 entries of 100 bytes are 5,000.
    assert!(number(with, "bytes_per_agent") < number(without, "bytes_per_agent") - 4000.0);
    assert!(with["digests_equal"] == true && without["digests_equal"] == true, "{seen:?}");
}

#[test]
fn frozen_readers_lose_nothing() {
    let seen = only("slow-readers --agents 40 --runs 1 --changes 2");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&4.into(), &true.into()), "{seen}");
    assert!(number(&seen, "converged_ms") > 0.0, "{seen}");
}

#[test]
fn idle_streams_stay() {
    let seen = only("idle --agents 50 --duration 2s");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&50.into(), &true.into()), "{seen}");
    assert!(number(&seen, "server_rss_kb_per_stream") > 0.0, "{seen}");
}

#[test]
fn machines_enrol() {
    let seen = only("enrol --agents 50");
    assert!(number(&seen, "enrol_per_s") > 0.0 && seen["full_sets"].is_null(), "{seen}");
}

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

/// A control plane that runs already is left as it was found.
#[test]
fn a_run_against_another_control_plane_cleans_up() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_wattle-fleet"));
    let mut server = Command::new(program.with_file_name("wattle-controlplane"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let context = folder.path().join("operator.json");
    let seen = only(&format!("join --agents 20 --groups 3 --context {}", context.display()));
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&20.into(), &true.into()), "{seen}");
    assert!(seen["server_cpu_us_per_agent"].is_null(), "{seen}");
    let wattle = |arguments: &[&str]| {
        let mut command = Command::new(program.with_file_name("wattle"));
        let output = command.arg("--context").arg(&context).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let networks = wattle(&["network", "list"]);
    assert!(networks.contains("default") && !networks.contains("fleet-"), "{networks}");
    let status: Value = serde_json::from_str(&wattle(&["status", "-o", "json"])).unwrap();
    assert_eq!(status["nodes"], 0, "{status}");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn the_published_set_is_written_as_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    let output = fleet(&format!("publish --small --out {}", page.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(page).unwrap();
    for part in
        ["## Targets", "| 20 | 20 |", "TLS bytes to each agent | ≤ 200 bytes |", "revision "]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("not measured"), "every target has its figure: {page}");
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
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).unwrap_or_default();
    assert!(!status.contains("wattle-control") || status.contains("zombie"), "{status}");
}
