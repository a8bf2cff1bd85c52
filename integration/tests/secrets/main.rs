//! What is secret stays secret: real processes that log all they can, through a node's whole life,
//! and then a search of everything that they wrote and of every command line that was seen.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod needles;
mod process_list;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use needles::Needles;
use process_list::ProcessList;
use wattle_integration::{Agent, Cluster, Settings, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn secrets_are_in_no_log_no_output_and_no_process_list() {
    let seen = ProcessList::watch();
    // Certificates this short are renewed at once.
    let settings = Settings {
        control_plane: vec!["--certificate-lifetime".into(), "60s".into()],
        log: Some("trace".into()),
        ..Settings::default()
    };
    let cluster = Cluster::start(settings).unwrap();
    let (mut needles, mut outputs) = (Needles::default(), Outputs::default());
    let data = cluster.control_plane.data();
    needles.pem_in(&data.join("ca.key"));
    needles.pem_in(&data.join("operator.json"));

    let token = cluster.control_plane.token().unwrap();
    needles.token(&token);
    assert!(needles.found_in(token.as_bytes()).is_some(), "this search finds what it looks for");
    let agents = [cluster.agent("n1", &token).unwrap(), cluster.agent("n2", &token).unwrap()];
    agents[0].wait_peers(&["n2"], LIMIT).unwrap();
    for (generation, asked) in [
        (1, &["network", "update", "default", "--preshared-keys", "on"][..]),
        (2, &["network", "rotate-secret", "default"][..]),
    ] {
        outputs.of(cluster.control_plane.command(asked).unwrap());
        wait_until("preshared keys", LIMIT, || {
            let keys = &agents[0].status()?["preshared_keys"];
            Ok((keys["announced"] == generation && keys["peers"] == 1).then_some(()))
        })
        .unwrap();
    }
    wait_until("a renewed certificate", LIMIT, || {
        Ok(agents[0].log()?.contains("the certificate was renewed").then_some(()))
    })
    .unwrap();
    for agent in &agents {
        needles.identity(&agent.state().join("identity.json"));
    }
    assert!(needles.network_secrets() > 0, "no network's secret is looked for");
    let third = by_stdin(&cluster, &token, &mut outputs);
    needles.identity(&third.join("identity.json"));
    operate(&cluster, &agents, &mut needles, &mut outputs);

    outputs.of(agents[1].command(&["leave"]).unwrap());
    agents[0].wait_peers(&["n3"], LIMIT).unwrap();
    let store = fs::read(data.join("store.redb")).unwrap();
    assert_eq!(needles.token_found_in(&store), None, "the store keeps a hash alone");
    search(&cluster, &needles, &outputs, seen);
}

/// What operators and users of a machine do.
fn operate(cluster: &Cluster, agents: &[Agent], needles: &mut Needles, outputs: &mut Outputs) {
    let file = cluster.folder().join("ann.json");
    let path = file.display().to_string();
    for arguments in [
        &["operator", "create", "ann", "--role", "viewer", "--file", &path][..],
        &["operator", "list"],
        &["token", "list"],
        &["node", "list"],
        &["network", "get", "default"],
        &["get", "networks"],
        &["status"],
    ] {
        outputs.of(cluster.control_plane.command(arguments).unwrap());
        if arguments[1..].first() != Some(&"create") {
            let json = [arguments, &["-o", "json"]].concat();
            outputs.of(cluster.control_plane.command(&json).unwrap());
        }
    }
    needles.pem_in(&file);
    outputs.of(agents[0].command(&["status"]).unwrap());
    outputs.of(agents[0].command(&["status", "-o", "json"]).unwrap());
}

/// A machine whose token comes over stdin; its state directory.
fn by_stdin(cluster: &Cluster, token: &str, outputs: &mut Outputs) -> PathBuf {
    let (host, state) = (cluster.host("n3").unwrap(), cluster.folder().join("agent-n3"));
    let mut command = host.command(wattle_integration::binary("wattle-agent").unwrap());
    command.env("WATTLE_LOG", "trace").args(["join", "-", "--name", "n3", "--state-dir"]);
    outputs.of_with(command.arg(&state), token);
    state
}

/// All that commands have printed.
#[derive(Default)]
struct Outputs(Vec<u8>);

impl Outputs {
    fn of(&mut self, mut command: Command) {
        self.of_with(&mut command, "");
    }

    fn of_with(&mut self, command: &mut Command, input: &str) {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
        self.0.extend(output.stdout);
        self.0.extend(output.stderr);
    }
}

fn search(cluster: &Cluster, needles: &Needles, outputs: &Outputs, seen: ProcessList) {
    let files = fs::read_dir(cluster.folder()).unwrap().map(|file| file.unwrap().path());
    let logs: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    assert_eq!(logs.len(), 3, "{logs:?}");
    for log in &logs {
        let text = fs::read(log).unwrap();
        assert!(contains(&text, b"TRACE"), "{} doesn't say all it could", log.display());
        clean(needles, &text, log);
    }
    clean(needles, &outputs.0, Path::new("an output"));
    let lines = seen.end();
    for program in ["wattle-controlplane", "wattle-agent", "join", "leave"] {
        let found = lines.iter().any(|line| contains(line, program.as_bytes()));
        assert!(found, "{program} was never seen in the process list");
    }
    for line in &lines {
        clean(needles, line, Path::new("the process list"));
    }
}

fn clean(needles: &Needles, text: &[u8], place: &Path) {
    if let Some((what, at)) = needles.found_in(text) {
        let line = text[..at].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let before = String::from_utf8_lossy(line);
        panic!("{what} is in {}, after {before:?}", place.display());
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
