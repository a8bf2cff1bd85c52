//! Every mistake in a file is told, each at its place.

use wattle_proto::admin::{Mode, resource::Kind};

use super::{read, wrong};

const GOOD: &str = "\
# The fleet's policy.
kind: Network
name: default
mode: closed
ipv4: 10.90.0.0/16
ipv6: \"\"
key_rotation: 30d
---
kind: Policy
name: web-to-db
from: role=web
to: role in (db,cache),site!=test
revision: 0
expect:
  - web-1 sees db-1
  - web-1 does not see laptop
  - web-1 doesn't see laptop-2
---
kind: Policy
network: lab
name: old
delete: true
---
- kind: Node
  name: db-1
  labels: {role: db, \"gpu\": \"true\"}
- {\"kind\": \"Node\", \"network\": \"lab\", \"name\": \"db-1\", \"labels\": {}, \"revision\": 12}
---
";

#[test]
fn a_good_file_is_read_whole() {
    let declared = read(GOOD).unwrap();
    let resources = declared.resources();
    assert_eq!(resources.len(), 5);
    let Some(Kind::Network(network)) = &resources[0].kind else { panic!("{resources:?}") };
    assert_eq!(
        (network.mode(), network.ipv4_range.as_deref()),
        (Mode::Closed, Some("10.90.0.0/16"))
    );
    assert_eq!(network.ipv6_range.as_deref(), Some(""));
    assert_eq!(network.key_rotation.map(|age| age.seconds), Some(30 * 86400));
    assert_eq!(resources[0].revision, None);
    let Some(Kind::Policy(policy)) = &resources[1].kind else { panic!("{resources:?}") };
    assert_eq!((policy.network.as_str(), policy.from.as_str()), ("default", "role=web"));
    assert_eq!(resources[1].revision, Some(0));
    assert!(resources[2].delete && !resources[1].delete);
    let Some(Kind::Labels(labels)) = &resources[3].kind else { panic!("{resources:?}") };
    assert_eq!(labels.labels["gpu"], "true");
    assert_eq!(resources[4].revision, Some(12));
    let expectations = declared.expectations();
    let told = expectations.iter().map(|e| (e.node.as_str(), e.sees, e.other.as_str()));
    let told: Vec<_> = told.collect();
    assert_eq!(
        told,
        [("web-1", true, "db-1"), ("web-1", false, "laptop"), ("web-1", false, "laptop-2")]
    );
    assert!(expectations.iter().all(|expectation| expectation.network == "default"));
}

#[test]
fn an_age_is_a_duration() {
    let network =
        |name: &str, age: &str| format!("kind: Network\nname: {name}\nkey_rotation: {age}\n");
    let file = [network("a", "30"), network("b", "soon"), network("c", "\"\"")].join("---\n");
    assert_eq!(
        wrong(&file),
        [
            "f:3:15: key_rotation: expected text, got the number 30: write \"30\"",
            "f:7:15: key_rotation: expected number at 0: write 90s, 24h or 7days",
        ]
    );
}

const MANY: &str = "\
kind: Network
name: Default
mode: close
ipv4: 10.90.1.0/16
ipv6: 5
mod: mesh
delete: true
---
kind: Policy
name: web-to-db
from: role=web
direction: in
form: role=web
name: again
to: {role: db, site: fra}
revision: soon
expect:
  - web-1 can see db-1
  - web-1 sees web-1
  - [a]
---
kind: Polcy
name: x
---
name: y
---
kind: Node
labels:
  role: true
  id: x
  a b: c
  zone: [a]
  role: web
expect: []
---
key: [
---
hello
---
kind: Policy
name: 7
network: lab_1
from: role near (a)
delete: maybe
expect: web-1 sees db-1
---
kind: Node
name: db-1
labels:
- role=db
";

#[test]
fn all_mistakes_are_told_at_once() {
    assert_eq!(
        wrong(MANY),
        [
            "f:2:7: name: \"Default\" is not a name: 1 to 63 of a-z, 0-9 and '-', beginning and \
             ending with a letter or digit",
            "f:3:7: mode: expected mesh or closed, got \"close\": did you mean closed?",
            "f:4:7: ipv4: 10.90.1.0/16 names an address inside the range: write 10.90.0.0/16",
            "f:5:7: ipv6: expected text, got the number 5: write \"5\"",
            "f:6:1: unknown key \"mod\": did you mean \"mode\"?",
            "f:7:1: delete: only a Policy can be deleted here: use `wattle network delete`",
            "f:12:1: direction: a policy has no direction: sight is symmetric, because WireGuard \
             needs each of two peers in the other's peer set; directions come with ports",
            "f:13:1: unknown key \"form\": did you mean \"from\"?",
            "f:14:1: \"name\" is already at line 10",
            "f:15:5: to: expected text such as role=db,site=fra, got a mapping",
            "f:16:11: revision: expected a whole number, got \"soon\"",
            "f:18:5: expect: \"web-1 can see db-1\": expected \"A sees B\" or \"A does not see B\", \
             where A and B are nodes' names or ids",
            "f:19:5: expect: web-1 twice: name two nodes",
            "f:20:5: expect: expected text, got a list",
            "f:22:7: unknown kind \"Polcy\": did you mean Policy?",
            "f:25:1: kind is missing: expected Network, Policy or Node",
            "f:27:1: name is missing: expected the name or the id of a node",
            "f:29:9: labels.role: expected text, got the truth value true: write \"true\"",
            "f:31:3: labels: label key \"a b\": 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.', '/', \
             beginning with a letter or digit",
            "f:32:9: labels.zone: expected text, got a list",
            "f:33:3: \"role\" is already at line 29",
            "f:34:1: expect: a Node has no expectations: write them in a Network or a Policy",
            "f:37:1: not YAML: while parsing a node, did not find expected node content",
            "f:38:1: expected a mapping with a kind, got \"hello\"",
            "f:40:1: to is missing: expected a label selector such as role=web, or \"\" for every node",
            "f:41:7: name: expected text, got the number 7: write \"7\"",
            "f:42:10: network: \"lab_1\" is not a name: 1 to 63 of a-z, 0-9 and '-', beginning and \
             ending with a letter or digit",
            "f:43:7: from: \"role near (a)\": expected key=value, key!=value, key in (a,b), key \
             notin (a,b), key, !key, id=<node id> or name=<fixed name>",
            "f:44:9: delete: expected true or false, got \"maybe\"",
            "f:45:9: expect: expected a list of texts such as \"web-1 sees db-1\", got \"web-1 sees \
             db-1\"",
            "f:50:3: labels: expected all of the node's labels, such as {role: db}, or {} for \
             none, got a list",
        ]
    );
}

#[test]
fn what_is_declared_twice_is_told_with_the_first_place() {
    let text = "\
kind: Policy
name: a
from: ''
to: ''
---
kind: Policy
network: default
name: a
delete: true
";
    assert_eq!(wrong(text), ["f:6:1: policy default/a is already declared at f:1:1"]);
}

#[test]
fn an_mtu_is_a_number_of_bytes_or_the_path_s() {
    let network = |mtu: &str| format!("kind: Network\nname: a\nmtu: {mtu}\n");
    for (text, bytes) in [("1380", 1380), ("auto", 0), ("\"auto\"", 0)] {
        let declared = read(&network(text)).unwrap();
        let Some(Kind::Network(spec)) = &declared.resources()[0].kind else { panic!("none") };
        assert_eq!(spec.mtu, Some(bytes), "{text}");
    }
    for (text, got) in [
        ("0", "the number 0"),
        ("\"1380\"", "\"1380\""),
        ("large", "\"large\""),
        ("1.5e3", "the number 1.5e3"),
        ("[1380]", "a list"),
        ("", "nothing"),
    ] {
        let expected =
            format!("f:3:6: mtu: expected auto or a number of bytes, such as 1380, got {got}");
        let told = wrong(&network(text));
        assert_eq!(told.len(), 1, "{text}: {told:?}");
        assert_eq!(told[0][told[0].find("mtu").unwrap()..], expected[7..], "{text}");
    }
    assert_eq!(wrong(&network("100")), ["f:3:6: mtu: 576 to 65455 bytes, got 100"]);
}

#[test]
fn an_unknown_word_near_none_is_told_what_there_is() {
    assert_eq!(
        wrong("kind: Deployment\n"),
        ["f:1:7: unknown kind \"Deployment\": expected Network, Policy or Node"]
    );
    assert_eq!(
        wrong("kind: Node\nname: a\nlabels: {}\nspec: {}\n<<: {}\n"),
        [
            "f:4:1: unknown key \"spec\": a Node has kind, network, name, labels, revision",
            "f:5:1: merge keys aren't read here: write the keys out",
        ]
    );
}

#[test]
fn anchors_are_read_and_told_where_they_are_used() {
    let declared = read("- kind: Policy\n  name: &n a\n  from: &s role=web\n  to: *s\n").unwrap();
    let Some(Kind::Policy(policy)) = &declared.resources()[0].kind else { panic!("no policy") };
    assert_eq!(policy.to, "role=web");
    assert_eq!(wrong("- &a [*a]\n"), ["f:1:7: an alias inside of what it stands for"]);
    assert!(wrong("- *b\n")[0].starts_with("f:1:3: not YAML: "), "{:?}", wrong("- *b\n"));
}

#[test]
fn words_that_only_other_programs_take_for_something_else_are_text() {
    for word in ["no", "on", "1.2.3", "0b1", "1_000", "inf", "2026-01-01", "0o9", "_", "a-"] {
        let text = format!("kind: Node\nname: a\nlabels: {{a: {word}}}\n");
        assert_eq!(wrong(&text), [""; 0], "{word}");
    }
    for number in ["1", "-1", "+1.5", "1e3", "0x1f", "0o17", ".5", ".inf", "1."] {
        let text = format!("kind: Node\nname: a\nlabels: {{a: {number}}}\n");
        let expected =
            format!("f:3:13: labels.a: expected text, got the number {number}: write \"{number}\"");
        assert_eq!(wrong(&text), [expected], "{number}");
    }
}
