//! A TCP proxy that does to connections what networks do: cuts, delays, half-closes, swallows,
//! stalls and throttles them, as it is told while it runs. Tests put it between agents and replicas
//! and between replicas and etcd; it knows nothing of what it carries.
//!
//! Memory is bounded: a connection holds at most [`HELD`] bytes for each direction, and beyond
//! [`CONNECTIONS`] connections new ones are reset.

mod fault;
mod link;
mod pump;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub use self::fault::{Fault, Towards};
use self::{fault::Orders, link::Link};

/// What a connection may hold for each direction; beyond it, it isn't read from.
pub const HELD: usize = 64 << 10;
/// Connections at a time.
pub const CONNECTIONS: usize = 4096;

/// A running proxy. Dropping it ends its connections and frees its address.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    counts: Arc<Counts>,
    _accepting: JoinSet<()>,
}

/// What it has carried.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) open: AtomicUsize,
    pub(crate) accepted: AtomicU64,
    pub(crate) to_client: AtomicU64,
    pub(crate) to_server: AtomicU64,
}

impl Proxy {
    /// Listens on `listen` and leads to `upstream`. Runs on the runtime that it is called on.
    pub async fn start(listen: SocketAddr, upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let (address, counts) = (listener.local_addr()?, Arc::<Counts>::default());
        let (orders, followed) = watch::channel(Orders::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream, followed, counts.clone()));
        Ok(Self { address, orders, counts, _accepting: accepting })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this happens to every connection, and to every new one, but those of clients
    /// with an order of their own.
    pub fn set(&self, fault: Fault) {
        self.orders.send_modify(|orders| orders.all = fault);
    }

    /// From now on this happens to the connections from one address; `None`: what happens to all.
    pub fn set_for(&self, client: IpAddr, fault: Option<Fault>) {
        self.orders.send_modify(|orders| orders.set_for(client, fault));
    }

    /// Resets every connection once; new ones meet what was ordered.
    pub fn reset(&self) {
        self.orders.send_modify(|orders| orders.resets += 1);
    }

    /// Connections there are now.
    pub fn connections(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Connections there have been.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Bytes that have been carried in one direction.
    pub fn carried(&self, towards: Towards) -> u64 {
        self.counts.of(towards).load(Ordering::Relaxed)
    }
}

impl Counts {
    pub(crate) const fn of(&self, towards: Towards) -> &AtomicU64 {
        match towards {
            Towards::Client => &self.to_client,
            Towards::Server => &self.to_server,
        }
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    orders: watch::Receiver<Orders>,
    counts: Arc<Counts>,
) {
    let mut links = JoinSet::new();
    loop {
        while links.try_join_next().is_some() {}
        // Out of file descriptors, or the client has gone already: neither ends the proxy.
        let Ok((client, from)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        if links.len() >= CONNECTIONS {
            link::reset(&client);
            continue;
        }
        let link = Link::new(from.ip(), orders.clone(), counts.clone());
        links.spawn(link.carry(client, async move { TcpStream::connect(upstream).await }));
    }
}
