//! What `make demo-ha` has measured of faults, read from its file.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One fault and what it cost.
#[derive(Debug, Deserialize)]
pub(super) struct Failover {
    pub(super) fault: String,
    pub(super) packets: u64,
    pub(super) packets_lost: u64,
    pub(super) rehomed: u64,
    pub(super) rehome_p99_ms: Option<f64>,
    pub(super) full_sets: u64,
    pub(super) changes_lost: u64,
    pub(super) digests_equal: bool,
}

/// All of them.
pub(super) fn read(file: &Path) -> Result<Vec<Failover>> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("{}: run `make demo-ha` first", file.display()))?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_says_how_to_make_it() {
        let error = read(Path::new("/nowhere")).unwrap_err();
        assert!(format!("{error:#}").contains("make demo-ha"), "{error:#}");
    }
}
