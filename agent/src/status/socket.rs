//! The local socket: one line of question, one JSON document of answer, for root alone.

use std::{
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::stat::{Mode, fchmod};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    select,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Sources;

/// Connections served at once; the next ones wait in the kernel's queue.
const CONNECTIONS: usize = 8;
/// Who connects and asks nothing is hung up on.
const QUESTION: Duration = Duration::from_secs(5);
/// Longer than a leave takes when no control plane answers.
const ANSWER: Duration = Duration::from_secs(60);
/// No question is longer.
const LONGEST_QUESTION: u64 = 64;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// How the agent stands.
    Status,
    /// To leave the network.
    Leave {
        /// Even if the control plane can't be told.
        force: bool,
    },
}

/// The answer to `leave`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Why it didn't work; absent where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Somebody asks the running agent to leave.
#[derive(Debug)]
pub(crate) struct Leave {
    /// Even if the control plane can't be told.
    pub(crate) force: bool,
    /// Whether it worked.
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// Where the agent is asked. Dropping it takes the path away, so that nobody asks a dead one.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Whoever starts next removes it all the same.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens where the agent will be asked. Whoever holds the state directory's lock owns the path:
/// a socket that is there is a dead agent's.
pub(crate) fn listen(path: &Path) -> io::Result<Listener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the socket's own mode: nobody else can connect, not even for a moment.
    fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(16)?;
    socket.set_nonblocking(true)?;
    let socket = UnixListener::from_std(socket.into())?;
    Ok(Listener { socket, path: path.to_owned() })
}

/// Answers until the program ends, then finishes the answers begun.
pub(crate) async fn serve(
    listener: Listener,
    sources: Sources,
    leave: mpsc::Sender<Leave>,
    ended: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let answering = TaskTracker::new();
    loop {
        let accepted = select! {
            () = ended.cancelled() => break,
            accepted = async {
                let permit = room.clone().acquire_owned().await;
                (permit, listener.socket.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(permit), Ok((stream, _))) => {
                let (sources, leave) = (sources.clone(), leave.clone());
                answering.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = answer(stream, &sources, &leave).await {
                        tracing::debug!(%error, "a local question");
                    }
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "the local socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            (Err(_), _) => break,
        }
    }
    answering.close();
    answering.wait().await;
}

async fn answer(
    stream: UnixStream,
    sources: &Sources,
    leave: &mpsc::Sender<Leave>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut question = String::new();
    let mut limited = (&mut stream).take(LONGEST_QUESTION);
    timeout(QUESTION, limited.read_line(&mut question)).await??;
    let answer = match Asked::parse(question.trim()) {
        Some(Asked::Status) => serde_json::to_string(&sources.document().await)?,
        Some(Asked::Leave { force }) => {
            let (sender, answer) = oneshot::channel();
            let asked = leave.send(Leave { force, answer: sender }).await;
            let left = match (asked, answer.await) {
                (Ok(()), Ok(left)) => left,
                _ => Err("the agent is stopping".into()),
            };
            serde_json::to_string(&Reply { error: left.err() })?
        }
        None => serde_json::to_string(&Reply { error: Some("unknown question".into()) })?,
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Asks the agent at `path`; `None` where none runs.
pub(crate) async fn ask(path: &Path, asked: Asked) -> io::Result<Option<String>> {
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let exchange = async {
        stream.write_all(format!("{}\n", asked.as_str()).as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(Some(answer))
    };
    timeout(ANSWER, exchange).await?
}

impl Asked {
    const ALL: [Self; 3] =
        [Self::Status, Self::Leave { force: false }, Self::Leave { force: true }];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Leave { force: false } => "leave",
            Self::Leave { force: true } => "leave --force",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|asked| asked.as_str() == text)
    }
}
