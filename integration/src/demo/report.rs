//! What the demo measured: `target/demo.json`.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use serde::Serialize;

/// What the demo measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Pairs of machines, in each direction and address family.
    pub(crate) pairs: usize,
    /// Of those: how many pings were answered.
    pub(crate) pairs_ok: usize,
    /// From starting `wattle-agent` on the fourth machine to its first answered ping.
    pub(crate) join_to_first_ping_ms: f64,
    /// From the commit of the fourth machine's enrolment to each agent's ack.
    pub(crate) commit_to_applied_ms: BTreeMap<String, f64>,
    /// From the delete command's start to the peer being gone from every device.
    pub(crate) delete_to_gone_ms: f64,
}

impl Figures {
    /// Writes them for machines.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }
}
