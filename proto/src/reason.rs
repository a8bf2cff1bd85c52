//! Why a call was refused, for programs: a metadata entry of the status, where its code alone
//! would leave the caller in doubt.

/// The metadata entry's key.
pub const KEY: &str = "wattle-reason";

/// The calling node was deleted: it takes its link down and doesn't come back by itself.
pub const REMOVED: &str = "removed";

/// Nobody knows the calling node: the store was perhaps set back to before it enrolled. It keeps its
/// mesh until somebody decides.
pub const UNKNOWN: &str = "unknown";
