//! One file descriptor for each agent: the limit that shells give, 1,024, is soon reached.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::debug!(limit = limit.current, "file descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of file descriptors stays as it is"),
    }
}
