//! Large pages for the processes of a run. A change visits the memory of every stream once, and with
//! small pages much of that time goes into finding it.

/// As the control plane's systemd unit has it.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// The variable to start a process with; none where the caller has set it.
pub(crate) fn large() -> Option<(&'static str, &'static str)> {
    std::env::var_os(TUNABLES.0).is_none().then_some(TUNABLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_measures_what_the_unit_starts() {
        let unit = include_str!("../../../dist/systemd/wattle-controlplane.service");
        let line = format!("Environment={}={}", TUNABLES.0, TUNABLES.1);
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
}
