//! One file descriptor for each connection: how many a process may have decides how many processes
//! a fleet takes, and how large one can be.

use anyhow::{Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};

/// What a process has open besides connections.
const OTHERS: usize = 100;
/// What a control plane has open besides agents: connections that enrol among them.
const SERVERS_OTHERS: usize = 600;

/// Raises the soft limit to the hard one; how many connections this process may have.
pub(crate) fn raise() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where that isn't allowed, the limit is what it was.
    let _ = setrlimit(Resource::Nofile, limit);
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(now).unwrap_or(usize::MAX).saturating_sub(OTHERS)
}

/// How many processes so many agents take.
pub(crate) fn workers(agents: usize, wished: Option<usize>, own_server: bool) -> Result<usize> {
    workers_with(raise(), agents, wished, own_server)
}

fn workers_with(each: usize, agents: usize, wished: Option<usize>, own: bool) -> Result<usize> {
    let servers = (each + OTHERS).saturating_sub(SERVERS_OTHERS);
    if own && agents > servers {
        bail!(
            "--agents {agents}: the control plane holds all their streams in one process, and a \
             process here may have {servers} of them. Raise the hard limit of open files (ulimit \
             -Hn, as root), or take a control plane of several replicas with --context"
        );
    }
    let least = agents.div_ceil(each.max(1)).max(1);
    match wished {
        Some(wished) if wished < least => bail!(
            "--workers {wished}: a process here may have {each} connections, so {agents} agents \
             take at least {least} processes"
        ),
        Some(wished) => Ok(wished.min(agents.max(1))),
        None => Ok(least),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_processes_as_descriptors_ask_for() {
        assert_eq!(workers_with(900, 10, None, true).unwrap(), 1);
        assert_eq!(workers_with(900, 2000, None, false).unwrap(), 3);
        assert_eq!(workers_with(900, 10, Some(2), true).unwrap(), 2);
        assert_eq!(workers_with(900, 1, Some(4), true).unwrap(), 1);
        let error = workers_with(900, 2000, Some(2), false).unwrap_err().to_string();
        assert!(error.contains("at least 3"), "{error}");
        let error = workers_with(900, 2000, None, true).unwrap_err().to_string();
        assert!(error.contains("--context") && error.contains("ulimit"), "{error}");
    }
}
