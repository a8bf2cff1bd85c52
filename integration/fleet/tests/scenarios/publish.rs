//! The published set, a hundredth as large.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{beside, fleet};

#[test]
fn the_published_set_is_written_as_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let (page, failover) = (folder.path().join("page.md"), folder.path().join("failover.json"));
    let fault = r#"{"fault": "replica-killed", "packets": 900, "packets_lost": 0, "rehomed": 2,
        "rehome_p99_ms": 405.5, "full_sets": 0, "changes_lost": 0, "digests_equal": true}"#;
    std::fs::write(&failover, format!("[{fault}]")).unwrap();
    let (page, failover) = (&page, failover.display());
    let line = format!("publish --small --out {} --failover {failover}", page.display());
    let output = fleet(&line);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(page).unwrap();
    for part in [
        "**A try:",
        "## Targets",
        "| 20 | 20 |",
        "TLS bytes to each agent | ≤ 200 bytes |",
        "revision ",
        "| replica-killed | 0 of 900 | 2 | 406 | 0 | 0 | yes |",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("not measured"), "every target has its figure: {page}");
}

/// What was measured before and beside a run that fails is kept.
#[test]
fn a_failed_run_fails_the_set_and_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (page, server) = (folder.path().join("page.md"), folder.path().join("once"));
    // A control plane that starts once.
    let script = format!(
        "#!/bin/sh\nmkdir {}/used 2>&- || exit 1\nexec {} \"$@\"\n",
        folder.path().display(),
        beside("wattle-controlplane").display()
    );
    std::fs::write(&server, script).unwrap();
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
    let line = format!("publish --small --out {} --server {}", page.display(), server.display());
    let output = fleet(&line);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("16 of 17 runs failed: one-change --agents 20 --groups 10"), "{err}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("| 10 | 5 |"), "{page}");
    assert_eq!(page.matches("**The run failed**").count(), 16, "{page}");
    assert_eq!(page.matches("| **the run failed** |").count(), 20, "every target's: {page}");
}
