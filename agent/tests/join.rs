//! `wattle-agent join` as a process, with tokens that can't be read: what it says, how it ends, and
//! that it leaves nothing behind. Tokens that a control plane refuses are in `integration/`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use wattle_model::{Fingerprint, JoinToken, TokenId, TokenSecret};

const DAMAGED: &str = "the join token is damaged or cut short: copy the whole of it";
const FOREIGN: &str = "not a Wattle join token: it should begin with \"wattle1_\"";

/// A token for a port that nobody listens on.
fn token() -> String {
    let token = JoinToken {
        id: TokenId::new([1; 8]),
        secret: TokenSecret::new([0xa5; 32]),
        pin: Fingerprint::new([3; 32]),
        addresses: vec!["127.0.0.1:1".into()],
    };
    token.expose()
}

fn join(state: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattle-agent"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATTLE_")) {
        command.env_remove(name);
    }
    let mut child = command
        .env("WATTLE_LOG", "trace")
        .arg("join")
        .args(arguments)
        .arg("--state-dir")
        .arg(state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Demands a refusal with these words, without the token in it and without a trace on disk.
fn refused(arguments: &[&str], input: &str, words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let output = join(&state, arguments, input);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}: {said}");
    assert!(said.contains(words), "{words}: {said}");
    assert_eq!(output.stdout, b"");
    assert!(!state.exists(), "{words}: something is left");
    for given in arguments.iter().copied().chain([input]).filter(|given| given.len() > 20) {
        assert!(!said.contains(&given[given.len() / 2..]), "the token is repeated: {said}");
    }
}

#[test]
fn a_token_cut_short_or_garbled_is_refused_wherever_it_comes_from() {
    let token = token();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let file_argument = file.display().to_string();
    let middle = token.len() / 2;
    let garbled = format!("{}{}{}", &token[..middle], "AAAA", &token[middle + 4..]);
    for (text, words) in [
        (&token[..token.len() - 1], DAMAGED),
        (&token[..middle], DAMAGED),
        (&token["wattle1_".len()..], FOREIGN),
        (&garbled, DAMAGED),
        (&format!("{token} {token}"), DAMAGED),
        (&format!("{token}="), DAMAGED),
        ("wattle1_", DAMAGED),
        ("wattle2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", FOREIGN),
        ("bm90IGEgdG9rZW4gYXQgYWxsLCBidXQgYSBzZWNyZXQ", FOREIGN),
    ] {
        refused(&[text], "", words);
        refused(&["-"], text, words);
        refused(&["--token-file", "-"], text, words);
        fs::write(&file, text).unwrap();
        refused(&["--token-file", &file_argument], "", words);
    }
}

#[test]
fn no_token_says_how_to_give_one() {
    refused(&[], "", "give it with --token-file FILE");
    refused(&["-"], "\n", "the join token is empty");
    refused(&["--token-file", "/nowhere/token"], "", "reading the token from /nowhere/token");
}

/// Read whole, with the line's end that files have; then nobody answers, and no key is kept.
#[test]
fn a_control_plane_that_isnt_there_is_named_and_no_key_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let output = join(&state, &["-"], &format!("{}\n", token()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no control plane could be reached: 127.0.0.1:1: "), "{said}");
    let kept = fs::read_dir(&state).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(kept.collect::<Vec<_>>(), ["lock"]);
}
