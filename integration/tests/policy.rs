//! Policies from files to packets: the operator's `wattle`, a real control plane, real agents.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::Write as _,
    process::{Output, Stdio},
    time::Duration,
};

use wattle_integration::{Agent, Cluster, Settings, ping, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

const CLOSED: &str = "\
kind: Network
name: default
mode: closed
expect:
  - web-1 sees db-1
  - web-1 does not see laptop
---
kind: Policy
name: web-to-db
from: role=web
to: role in (db,cache)
";

struct Bench {
    cluster: Cluster,
}

impl Bench {
    /// `wattle` with `text` as its stdin.
    fn wattle(&self, arguments: &[&str], text: &str) -> Output {
        let mut child = self
            .cluster
            .control_plane
            .command(arguments)
            .unwrap()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What it prints, where its exit status is this one.
    fn prints(&self, code: i32, arguments: &[&str], text: &str) -> String {
        let output = self.wattle(arguments, text);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it complains of, and that it prints nothing.
    fn complains(&self, code: i32, arguments: &[&str], text: &str) -> String {
        let output = self.wattle(arguments, text);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn agent(&self, name: &str, labels: &[&str]) -> Agent {
        let arguments = [&["token", "create"], labels].concat();
        let token = self.cluster.control_plane.wattle(&arguments).unwrap();
        self.cluster.agent(name, token.trim()).unwrap()
    }
}

#[test]
fn what_files_declare_decides_who_reaches_whom() {
    let bench = Bench { cluster: Cluster::start(Settings::default()).unwrap() };
    let agents = [
        bench.agent("web-1", &["--label", "role=web"]),
        bench.agent("db-1", &["--label", "role=db"]),
        bench.agent("laptop", &[]),
    ];
    let [web, db, laptop] = &agents;
    web.wait_peers(&["db-1", "laptop"], LIMIT).unwrap();
    db.wait_peers(&["laptop", "web-1"], LIMIT).unwrap();
    laptop.wait_peers(&["db-1", "web-1"], LIMIT).unwrap();
    the_difference_is_shown_and_applied(&bench);

    web.wait_peers(&["db-1"], LIMIT).unwrap();
    db.wait_peers(&["web-1"], LIMIT).unwrap();
    laptop.wait_peers(&[], LIMIT).unwrap();
    let address = db.addresses().unwrap()[0];
    wait_until("a ping from web-1 to db-1", LIMIT, || {
        Ok(ping(web.host(), address, Duration::from_secs(1))?.then_some(()))
    })
    .unwrap();
    assert!(!ping(laptop.host(), address, Duration::from_secs(1)).unwrap());

    it_is_explained(&bench);
    what_get_writes_changes_nothing(&bench);
    a_label_lets_the_laptop_in(&bench);
    laptop.wait_peers(&["web-1"], LIMIT).unwrap();
    mistakes_of_the_file_and_of_the_fleet_are_told_at_their_places(&bench);

    let deleted = bench.prints(0, &["policy", "delete", "web-to-db", "--yes"], "");
    assert!(deleted.contains("2 pairs of nodes ceased to see each other"), "{deleted}");
    for agent in &agents {
        agent.wait_peers(&[], LIMIT).unwrap();
    }
    // Agents acknowledge at most once a second, unless somebody waits.
    wait_until("a status that tells of the last change", LIMIT, || {
        let status = bench.cluster.control_plane.wattle(&["status"])?;
        Ok(status.contains(": 3 of 3 applied\n").then_some(()))
    })
    .unwrap();
}

fn the_difference_is_shown_and_applied(bench: &Bench) {
    let difference = bench.prints(1, &["diff", "-f", "-"], CLOSED);
    for lines in ["-mode: mesh\n+mode: closed\n", "+++ policy default/web-to-db\n@@ -0,0 +1,5 @@\n"]
    {
        assert!(difference.contains(lines), "{difference}");
    }
    let (_, policy) = CLOSED.split_once("---\n").unwrap();
    let futile = bench.prints(0, &["apply", "-f", "-", "--dry-run"], policy);
    assert!(futile.contains("sight in default: as it was (it is a mesh: "), "{futile}");
    let dry = bench.prints(0, &["apply", "-f", "-", "--dry-run"], CLOSED);
    assert!(dry.contains("policy default/web-to-db created (dry run)\n"), "{dry}");
    assert!(dry.contains("pairs gained 0, lost 2; nodes changed 3\n"), "{dry}");
    assert!(dry.contains("NODE            GAINS  LOSES\ndefault/laptop  +0     -2\n"), "{dry}");

    let applied = bench.prints(0, &["apply", "-f", "-", "--wait", "--timeout", "60s"], CLOSED);
    assert!(applied.contains("network default updated\n"), "{applied}");
    assert!(applied.contains("sight in default: pairs gained 0, lost 2;"), "{applied}");
    assert!(applied.contains("concerned  3\napplied    3\n"), "{applied}");
    assert_eq!(bench.prints(0, &["diff", "-f", "-"], CLOSED), "");
}

fn it_is_explained(bench: &Bench) {
    let sees = bench.prints(0, &["why", "web-1", "db-1"], "");
    assert!(
        sees.contains(", by policy:\n  web-to-db: role=web and role in (cache,db)\n"),
        "{sees}"
    );
    // They have just pinged each other.
    wait_until("a handshake that both agents tell of", LIMIT, || {
        let told = bench.cluster.control_plane.json(&["why", "web-1", "db-1"])?;
        let tunnel = |end: &str, key: &str| told[end]["tunnel"][key].is_string();
        let shaken = |end| tunnel(end, "last_handshake") && tunnel(end, "endpoint");
        Ok((shaken("node") && shaken("other")).then_some(()))
    })
    .unwrap();
    let blind = bench.prints(0, &["why", "web-1", "laptop"], "");
    assert!(blind.starts_with("web-1 and laptop don't see each other"), "{blind}");
    assert!(blind.contains("It takes a policy with role=web on one side and id="), "{blind}");
}

fn what_get_writes_changes_nothing(bench: &Bench) {
    let everything = bench.prints(0, &["get", "all", "-o", "yaml"], "");
    assert_eq!(everything.matches("kind: ").count(), 5, "{everything}");
    assert_eq!(bench.prints(0, &["diff", "-f", "-"], &everything), "");
    let applied = bench.prints(0, &["apply", "-f", "-"], &everything);
    assert_eq!(applied.matches(" unchanged\n").count(), 5, "{applied}");
    assert_eq!(bench.prints(0, &["get", "all", "-o", "yaml"], ""), everything);
    let json = bench.prints(0, &["get", "all", "-o", "json"], "");
    assert_eq!(bench.prints(0, &["diff", "-f", "-"], &json), "");
}

fn a_label_lets_the_laptop_in(bench: &Bench) {
    let read = bench.prints(0, &["get", "node/laptop", "-o", "yaml"], "");
    let changed = read.replace("labels: {}\n", "labels: {role: cache}\n");
    let applied = bench.prints(0, &["apply", "-f", "-"], &changed);
    assert!(applied.starts_with("node default/laptop updated\n"), "{applied}");
    assert!(applied.contains("pairs gained 1, lost 0; nodes changed 2\n"), "{applied}");

    // What was read has been changed since.
    let stale = bench.complains(1, &["apply", "-f", "-"], &read.replace("{}", "{role: x}"));
    assert!(stale.contains("somebody else has changed"), "{stale}");
    assert!(stale.contains("\nstdin:5:11: revision: "), "{stale}");
}

fn mistakes_of_the_file_and_of_the_fleet_are_told_at_their_places(bench: &Bench) {
    let before = bench.prints(0, &["get", "all", "-o", "yaml"], "");
    let broken = "kind: Policy\nname: X\nfrom: a b\ntoo: ''\n";
    let said = bench.complains(1, &["apply", "-f", "-"], broken);
    for place in [
        "\nstdin:1:1: to is missing",
        "\nstdin:2:7: name: ",
        "\nstdin:3:7: from: ",
        "\nstdin:4:1: ",
    ] {
        assert!(said.contains(place), "{place}: {said}");
    }
    // What the fleet is lacking is told beside what is wrong with the file itself.
    let both = format!("{broken}---\nkind: Node\nname: db-2\nlabels: {{}}\n");
    let said = bench.complains(1, &["apply", "-f", "-"], &both);
    assert!(said.contains("\nstdin:4:1: "), "{said}");
    assert!(said.ends_with("\nstdin:7:7: name: network default has no node db-2\n"), "{said}");
    let unknown = "kind: Node\nname: db-2\nlabels: {}\n---\nkind: Policy\nname: x\nfrom: ''\nto: ''\n\
                   network: lab\n";
    let said = bench.complains(2, &["diff", "-f", "-"], unknown);
    assert!(said.contains("\nstdin:2:7: name: "), "{said}");
    assert!(said.contains("\nstdin:9:10: network: "), "{said}");

    let wished = "kind: Policy\nname: web-to-db\ndelete: true\nexpect:\n- web-1 sees db-1\n";
    let said = bench.complains(1, &["apply", "-f", "-"], wished);
    let unmet =
        "would hold:\nstdin:5:3: expected \"web-1 sees db-1\", but web-1 doesn't see db-1: ";
    assert!(said.contains(unmet), "{said}");
    assert_eq!(bench.prints(0, &["get", "all", "-o", "yaml"], ""), before);
}
