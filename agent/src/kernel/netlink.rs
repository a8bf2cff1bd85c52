//! A connection to the kernel's routing tables, with the task that reads it. It belongs to the
//! network namespace of the thread that opened it.

use std::io;

use rtnetlink::{Error, Handle};
use tokio::task::JoinHandle;

/// Ends its task when dropped.
pub(crate) struct Netlink {
    handle: Handle,
    reader: JoinHandle<()>,
}

impl Netlink {
    pub(crate) fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, reader: tokio::spawn(connection) })
    }

    /// With lists that the kernel filters: a host may have a million routes of which ours are two.
    pub(crate) fn connect_strict() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        Ok(Self { handle, reader: tokio::spawn(connection) })
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What the kernel answered, as an error of the system.
pub(crate) fn to_io(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
