//! One connection: reached, carried, and ended as ordered.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use socket2::SockRef;
use tokio::{net::TcpStream, select, sync::watch};

use crate::{
    Counts,
    fault::{Fault, Orders, Towards},
    pump::{Pump, swallow},
};

/// What one connection needs to know.
pub(crate) struct Link {
    client: IpAddr,
    orders: watch::Receiver<Orders>,
    counts: Arc<Counts>,
    /// Resets that were ordered before it was there.
    resets: u64,
}

/// Why a connection is over.
enum Over {
    /// Both sides have said all they had to.
    InOrder,
    /// By order, or because one side is gone.
    Reset,
}

impl Link {
    pub(crate) fn new(
        client: IpAddr,
        orders: watch::Receiver<Orders>,
        counts: Arc<Counts>,
    ) -> Self {
        let resets = orders.borrow().resets;
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self { client, orders, counts, resets }
    }

    /// Carries a connection to its end.
    pub(crate) async fn carry(
        self,
        mut client: TcpStream,
        reach: impl Future<Output = io::Result<TcpStream>>,
    ) {
        let mut end = self.orders.clone();
        if self.is_cut(&end.borrow()) {
            return reset(&client);
        }
        let reached = select! {
            // First, so that a server that has been reached is reset, too.
            biased;
            server = self.reach(&mut client, reach) => server,
            _ = end.wait_for(|orders| self.is_cut(orders)) => None,
        };
        let over = match reached {
            Some(mut server) => self.both_ways(&mut client, &mut server).await,
            None => Over::Reset,
        };
        if matches!(over, Over::Reset) {
            reset(&client);
        }
    }

    fn is_cut(&self, orders: &Orders) -> bool {
        orders.resets > self.resets || orders.of(self.client) == Fault::Cut
    }

    fn fault(&self) -> Fault {
        self.orders.borrow().of(self.client)
    }

    /// The server's end, if the client is to have one.
    async fn reach(
        &self,
        client: &mut TcpStream,
        reach: impl Future<Output = io::Result<TcpStream>>,
    ) -> Option<TcpStream> {
        if self.fault() == Fault::Swallow {
            self.lead_nowhere(client).await;
            return None;
        }
        // A frozen machine's kernel still accepts connections: the client's is open, and that is all.
        let mut orders = self.orders.clone();
        let moves = |orders: &Orders| !orders.of(self.client).stands_still();
        orders.wait_for(moves).await.ok()?;
        let server = reach.await.ok()?;
        client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).ok()?;
        Some(server)
    }

    async fn both_ways(&self, client: &mut TcpStream, server: &mut TcpStream) -> Over {
        let over = self.until_over(client, server).await;
        if matches!(over, Over::Reset) {
            reset(server);
        }
        over
    }

    async fn until_over(&self, client: &mut TcpStream, server: &mut TcpStream) -> Over {
        let mut end = self.orders.clone();
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let pump = |towards| Pump::new(towards, self.client, self.orders.clone(), &self.counts);
        let mut up = pump(Towards::Server);
        let mut down = pump(Towards::Client);
        let carried = async {
            tokio::try_join!(up.run(from_client, to_server), down.run(from_server, to_client))
        };
        let swallowed = select! {
            _ = end.wait_for(|orders| self.is_cut(orders)) => return Over::Reset,
            carried = carried => match carried {
                Ok((false, false)) => return Over::InOrder,
                Ok(_) => true,
                Err(_) => false,
            },
        };
        if swallowed { self.swallow_both(client, server).await } else { Over::Reset }
    }

    /// Until it ends, nothing arrives; then the connection is of no use.
    async fn swallow_both(&self, client: &mut TcpStream, server: &mut TcpStream) -> Over {
        let mut orders = self.orders.clone();
        select! {
            _ = orders.wait_for(|orders| orders.of(self.client) != Fault::Swallow) => {}
            _ = async { tokio::join!(swallow(client), swallow(server)) } => {}
        }
        Over::Reset
    }

    async fn lead_nowhere(&self, client: &mut TcpStream) {
        let mut orders = self.orders.clone();
        select! {
            _ = orders.wait_for(|orders| orders.of(self.client) != Fault::Swallow) => {}
            () = swallow(client) => {}
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Has the connection end with a reset instead of an end in order.
pub(crate) fn reset(stream: &TcpStream) {
    // An error means that it is gone.
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}
