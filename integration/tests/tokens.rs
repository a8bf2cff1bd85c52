//! Join tokens that a real control plane turns away, through the real `wattle-agent join`: how it
//! ends, what it says, and that it leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::Write as _,
    process::{Output, Stdio},
    thread::sleep,
    time::Duration,
};

use wattle_integration::{Cluster, Host, Settings, binary};
use wattle_model::{Fingerprint, JoinToken, TokenSecret};

struct Bench {
    cluster: Cluster,
    host: Host,
}

impl Bench {
    fn new() -> Self {
        let cluster = Cluster::start(Settings::default()).unwrap();
        let host = cluster.host("n1").unwrap();
        Self { cluster, host }
    }

    fn token(&self, arguments: &[&str]) -> JoinToken {
        let create = [&["token", "create"], arguments].concat();
        self.cluster.control_plane.wattle(&create).unwrap().parse().unwrap()
    }

    /// Joins as a machine named `state`.
    fn join(&self, token: &JoinToken, state: &str) -> Output {
        let mut child = self
            .host
            .command(binary("wattle-agent").unwrap())
            .args(["join", "-", "--name", state, "--state-dir"])
            .arg(self.cluster.folder().join(state))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(token.expose().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Demands that a machine is turned away with these words, and nothing has come of it anywhere.
    fn refused(&self, token: &JoinToken, words: &str) {
        let nodes = || self.cluster.control_plane.json(&["node", "list"]).unwrap();
        let tokens = || self.cluster.control_plane.json(&["token", "list"]).unwrap();
        let before = (nodes(), tokens());
        let output = self.join(token, "refused");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        assert!(!said.contains(&token.expose()[40..60]), "the token is repeated: {said}");
        assert_eq!(output.stdout, b"");
        let kept = fs::read_dir(self.cluster.folder().join("refused")).unwrap();
        let kept: Vec<_> = kept.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(kept, ["lock"], "{words}: something is left");
        assert_eq!((nodes(), tokens()), before);
    }
}

#[test]
fn a_token_that_does_not_hold_is_refused_in_its_own_words() {
    let bench = Bench::new();
    let short = bench.token(&["--ttl", "1s"]);
    // Before anything is compared: lists say that it has expired, too.
    sleep(Duration::from_millis(1100));
    bench.refused(&short, "token_id: the join token has expired");

    let used = bench.token(&["--uses", "1"]);
    let joined = bench.join(&used, "first");
    let said = String::from_utf8(joined.stdout).unwrap();
    assert!(said.starts_with("joined network default as first (10.90.0.1, "), "{said}");
    bench.refused(&used, "token_id: the join token is used up: all its uses are taken");

    let revoked = bench.token(&["--uses", "0"]);
    let id = revoked.id.to_string();
    bench.cluster.control_plane.wattle(&["token", "revoke", &id]).unwrap();
    bench.refused(&revoked, "token_id: the join token was revoked");

    let good = bench.token(&["--uses", "1"]);
    let guessed = JoinToken { secret: TokenSecret::new([1; 32]), ..good.clone() };
    bench.refused(&guessed, "token_secret: the join token is not valid here");
    let elsewhere = JoinToken { pin: Fingerprint::new([3; 32]), ..good.clone() };
    bench.refused(&elsewhere, "not the one this token was made for");
    let nowhere = JoinToken { addresses: vec!["192.168.77.1:1".into()], ..good.clone() };
    bench.refused(&nowhere, "no control plane could be reached: 192.168.77.1:1: ");

    // All of that has taken nothing from it.
    assert!(bench.join(&good, "second").status.success());
}
