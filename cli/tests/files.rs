//! `wattle apply` and `wattle diff` as processes, where the files are wrong: all that is wrong is told
//! before a credential is looked for, and `diff` tells it apart from a difference.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn wattle(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wattle"))
        .args(arguments)
        .current_dir(folder)
        .env("WATTLE_CONTEXT", folder.join("nobody.json"))
        .output()
        .unwrap()
}

fn said(output: Output) -> (Option<i32>, String) {
    assert_eq!(output.stdout, b"");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn mistakes_in_several_files_are_told_together() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("one.yaml", "kind: Policy\nname: a\nfrom: ''\n");
    fs::create_dir(folder.path().join("more")).unwrap();
    write("more/b.yml", "kind: Policy\nname: a\nfrom: ''\nto: ''\n---\nkind: Polic\n");
    write("more/a.json", "{\"kind\": \"Node\",\n \"name\": \"x\",\n \"labels\": {\"a\": 1}}");
    write("more/notes.txt", "not for us");
    fs::write(folder.path().join("more/c.yaml"), b"a: 1\nb: \xc3\xa9\xff\n").unwrap();
    let expected = "error: nothing was changed, because there are mistakes:\n\
                    one.yaml:1:1: to is missing: expected a label selector such as role=web, or \
                    \"\" for every node\n\
                    more/a.json:3:18: labels.a: expected text, got the number 1: write \"1\"\n\
                    more/b.yml:6:7: unknown kind \"Polic\": did you mean Policy?\n\
                    more/c.yaml:2:5: not UTF-8, which a file of these has to be\n";
    for (command, code) in [("apply", 1), ("diff", 2)] {
        let output = wattle(folder.path(), &[command, "-f", "one.yaml", "-f", "more"]);
        assert_eq!(said(output), (Some(code), expected.to_owned()));
    }
}

#[test]
fn files_that_cant_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("empty.yaml"), "# nothing\n---\n").unwrap();
    for (file, expected) in [
        ("none.yaml", "error: none.yaml: No such file or directory"),
        ("empty.yaml", "error: there is nothing in these files"),
    ] {
        let (code, said) = said(wattle(folder.path(), &["apply", "-f", file]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.starts_with(expected), "{said}");
    }
    // A good file gets as far as the credential.
    fs::write(folder.path().join("good.yaml"), "kind: Network\nname: a\n").unwrap();
    let (_, said) = said(wattle(folder.path(), &["apply", "-f", "good.yaml"]));
    assert!(said.contains("nobody.json"), "{said}");
}

#[test]
fn only_get_writes_yaml() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = said(wattle(folder.path(), &["status", "-o", "yaml"]));
    assert_eq!(
        (code, said.as_str()),
        (Some(2), "error: only `wattle get` writes YAML: use -o json here\n")
    );
}
