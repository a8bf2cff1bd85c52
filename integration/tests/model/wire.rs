//! What lies between the agents and the control plane: a TCP proxy that can be cut, at once or in
//! the middle of what it carries, fall silent, or let nobody through.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// The proxy. Dropping it cuts everything.
pub(crate) struct Wire {
    /// Where agents connect.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _accepting: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// Where the control plane listens.
    target: Option<SocketAddr>,
    down: bool,
    connections: Vec<Connection>,
}

#[derive(Clone)]
struct Connection {
    fate: watch::Sender<Fate>,
    /// Bytes that still get through to the agent.
    left: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Silent,
    Cut,
}

impl Wire {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, state.clone()));
        Self { address, state, _accepting: accepting }
    }

    /// Where the control plane is now.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.state.lock().target = Some(target);
    }

    /// Lets nobody through, or everybody.
    pub(crate) fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// Cuts one connection of those there are, when it has carried so many more bytes to its agent.
    pub(crate) fn cut(&self, which: u64, after: u64) {
        if let Some(connection) = self.state.lock().pick(which) {
            connection.left.store(after, Ordering::Relaxed);
            if after == 0 {
                connection.fate.send_replace(Fate::Cut);
            }
        }
    }

    /// One connection carries nothing any more, and nobody is told.
    pub(crate) fn silence(&self, which: u64) {
        if let Some(connection) = self.state.lock().pick(which) {
            connection.fate.send_replace(Fate::Silent);
        }
    }

    /// Cuts every connection.
    pub(crate) fn cut_all(&self) {
        let connections = std::mem::take(&mut self.state.lock().connections);
        for connection in connections {
            connection.fate.send_replace(Fate::Cut);
        }
    }

    /// Connections that carried nothing are over.
    pub(crate) fn end_silence(&self) {
        let mut state = self.state.lock();
        let silent = |connection: &Connection| *connection.fate.borrow() == Fate::Silent;
        let over = state.connections.extract_if(.., |connection| silent(connection));
        for connection in over {
            connection.fate.send_replace(Fate::Cut);
        }
    }

    /// All is well again.
    pub(crate) fn mend(&self) {
        self.set_down(false);
        self.end_silence();
        for connection in &self.state.lock().connections {
            connection.left.store(u64::MAX, Ordering::Relaxed);
        }
    }
}

impl State {
    fn pick(&mut self, which: u64) -> Option<&Connection> {
        self.connections.retain(|connection| connection.fate.receiver_count() > 0);
        let count = self.connections.len() as u64;
        (count > 0).then(|| &self.connections[usize::try_from(which % count).unwrap()])
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut carrying = JoinSet::new();
    loop {
        let (agent, _) = listener.accept().await.unwrap();
        while carrying.try_join_next().is_some() {}
        let (fate, fates) = watch::channel(Fate::Open);
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let target = {
            let mut state = state.lock();
            let Some(target) = state.target.filter(|_| !state.down) else { continue };
            state.connections.push(Connection { fate, left: left.clone() });
            target
        };
        carrying.spawn(async move {
            let Ok(server) = TcpStream::connect(target).await else { return };
            let mut end = fates.clone();
            let (from_agent, to_agent) = agent.into_split();
            let (from_server, to_server) = server.into_split();
            let unlimited = Arc::new(AtomicU64::new(u64::MAX));
            tokio::select! {
                _ = end.wait_for(|fate| *fate == Fate::Cut) => {}
                _ = async {
                    tokio::try_join!(
                        pump(from_agent, to_server, fates.clone(), unlimited),
                        pump(from_server, to_agent, fates, left),
                    )
                } => {}
            }
        });
    }
}

/// Carries bytes until the end, which for the one who reads comes in the middle of anything.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fate: watch::Receiver<Fate>,
    left: Arc<AtomicU64>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let open = fate.wait_for(|fate| *fate != Fate::Silent).await;
        open.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        let room = left.load(Ordering::Relaxed);
        let carried = usize::try_from(room).map_or(read, |room| room.min(read));
        to.write_all(&buffer[..carried]).await?;
        if carried < read {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if room != u64::MAX {
            left.fetch_sub(carried as u64, Ordering::Relaxed);
        }
    }
}
