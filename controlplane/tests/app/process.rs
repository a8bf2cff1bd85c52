//! The program as a process: its one line, its signals, its errors.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::folder;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattle-controlplane"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATTLE_")) {
        command.env_remove(name);
    }
    command
}

fn serve(data_dir: &Path) -> Child {
    program()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn ends(mut child: Child) -> (std::process::ExitStatus, String) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it doesn't end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap(), said)
}

#[test]
fn one_line_says_where_it_is_and_a_signal_ends_it() {
    let folder = folder();
    for (asked, again) in [("-TERM", false), ("-INT", true)] {
        let mut child = serve(folder.path());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.contains("listens on 127.0.0.1:"), "{line:?}");
        let command =
            format!("wattle --context {}/operator.json token create", folder.path().display());
        assert!(line.trim_end().ends_with(&command), "{line:?}");
        signal(&child, asked);
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing else on stdout");
        let (status, said) = ends(child);
        assert!(status.success(), "{said}");
        assert!(!said.contains("ERROR") && !said.contains("PRIVATE KEY"), "{said}");
        // The second time it has another port than the file of the first time says.
        assert_eq!(said.contains("correct control_planes in it"), again, "{said}");
    }
}

#[test]
fn mistakes_are_said_before_anything_is_made() {
    let folder = folder();
    let data_dir = folder.path().join("data");
    let file = folder.path().join("wattle.toml");
    std::fs::write(&file, "listne = '127.0.0.1:0'\n").unwrap();
    let output = program()
        .args(["serve", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(&data_dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("listne") && said.contains("wattle.toml"), "{said}");
    assert!(!data_dir.exists());
}

#[test]
fn admin_create_says_what_to_start() {
    let folder = folder();
    let output = program()
        .args(["admin", "create", "ann", "--data-dir"])
        .arg(folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("admin.sock") && said.contains("wattle-controlplane serve"), "{said}");
    assert!(!folder.path().join("ann.json").exists());
}
