//! What this process may do to the network.

use std::fs;

/// The number of `CAP_NET_ADMIN`, the only one that the agent needs.
const NET_ADMIN: u32 = 12;

/// Whether this process has `CAP_NET_ADMIN`; taken for granted where the kernel doesn't say.
pub(crate) fn may_configure_networks() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).is_none_or(|all| all & (1 << NET_ADMIN) != 0)
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let status = "CapPrm:\t0000000000000000\nCapEff:\t0000000000001000\nCapBnd:\t0\n";
        assert_eq!(effective(status), Some(1 << NET_ADMIN));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
