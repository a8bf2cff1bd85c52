//! Runs against a control plane that runs already.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::support::{beside, only};

/// A control plane that runs already, with its metrics.
struct Other {
    server: Child,
    context: PathBuf,
    metrics: String,
    _folder: tempfile::TempDir,
}

impl Other {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut server = Command::new(beside("wattle-controlplane"))
            .args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        let said = log.lines().find(|line| line.contains("metrics are at")).unwrap();
        let metrics = said.rsplit_once("address=").unwrap().1.to_owned();
        let context = folder.path().join("data/operator.json");
        Self { server, context, metrics, _folder: folder }
    }

    fn run(&self, arguments: &str) -> Value {
        only(&format!("{arguments} --context {}", self.context.display()))
    }

    fn wattle(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(beside("wattle"));
        let output = command.arg("--context").arg(&self.context).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn counter(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {page}")).trim().parse().unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn a_run_against_another_control_plane_cleans_up() {
    let other = Other::start();
    let seen = other.run("join --agents 20 --groups 3");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&20.into(), &true.into()), "{seen}");
    assert!(seen["server_cpu_us_per_agent"].is_null(), "{seen}");
    let networks = other.wattle(&["network", "list"]);
    assert!(networks.contains("default") && !networks.contains("fleet-"), "{networks}");
    let status: Value = serde_json::from_str(&other.wattle(&["status", "-o", "json"])).unwrap();
    assert_eq!(status["nodes"], 0, "{status}");
}

/// Whatever the number of agents and groups.
#[test]
fn a_change_is_encoded_once_for_all() {
    let other = Other::start();
    for arguments in ["--agents 20", "--agents 60", "--agents 60 --groups 20"] {
        let before = other.counter("wattle_encodes_total");
        let seen = other.run(&format!("one-change --no-raw --changes 2 {arguments}"));
        assert_eq!(seen["digests_equal"], true, "{seen}");
        let encodes = other.counter("wattle_encodes_total") - before;
        // The full set with which all begin, the change that isn't counted, and the two.
        assert_eq!(encodes, 4, "{arguments}");
    }
}
