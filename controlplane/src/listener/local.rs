//! The local socket: whoever may open the file is trusted as the machine's administrator.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixListener, time::sleep};

use super::{Connections, Handler, connection};
use crate::access::PeerInfo;

/// Wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound local socket; its file goes with it.
pub struct LocalListener {
    unix: UnixListener,
    path: PathBuf,
}

impl LocalListener {
    /// Binds the socket, for its owner alone. A file that a killed process has left is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        let staged = staged(path);
        for old in [path, &staged] {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Bound under another name first: under its own it is private from the start.
        let unix = UnixListener::bind(&staged)?;
        fs::set_permissions(&staged, Permissions::from_mode(0o600))?;
        fs::rename(&staged, path)?;
        Ok(Self { unix, path: path.to_owned() })
    }

    /// Accepts and serves connections until nobody is accepted any more.
    pub fn serve(self, connections: &Connections, handler: Handler) {
        let closed = connections.closed.clone();
        let accepted = connections.clone();
        connections.spawn(async move {
            closed.run_until_cancelled(self.accept_all(accepted, handler)).await;
        });
    }

    async fn accept_all(&self, connections: Connections, handler: Handler) {
        loop {
            match self.unix.accept().await {
                Ok((stream, _)) => {
                    let (peer, handler) = (PeerInfo::local(), handler.clone());
                    connections.spawn_connection(connection::serve(
                        connections.clone(),
                        stream,
                        peer,
                        handler,
                    ));
                }
                Err(error) => {
                    tracing::warn!(%error, "local connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        // The next start removes what is left.
        let _ = fs::remove_file(&self.path);
    }
}

fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}
