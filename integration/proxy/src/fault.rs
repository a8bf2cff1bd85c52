//! What can happen to a connection.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Towards {
    /// To whoever has connected to the proxy.
    Client,
    /// To whom the proxy leads.
    Server,
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing: bytes pass.
    #[default]
    Pass,
    /// It is reset, and so is every new one: what a dead process looks like.
    Cut,
    /// It is reset once so many more bytes have come to the client: in the middle of anything.
    CutAfter(u64),
    /// Every byte takes so much longer.
    Delay(Duration),
    /// One direction ends in order, and the other goes on. What was closed stays so.
    HalfClose(Towards),
    /// Everything is read and nothing arrives; nobody is told. New connections are accepted and
    /// lead nowhere. When this ends, what it has happened to is reset: bytes are missing in it.
    Swallow,
    /// Nothing is read and nothing written, as if the machine at the other end were frozen. When this
    /// ends, it goes on as if nothing had been.
    Stall,
    /// At most so many bytes a second, in each direction of each connection.
    Throttle(u32),
}

impl Fault {
    /// Whether bytes are neither read nor written.
    pub(crate) const fn stands_still(self) -> bool {
        matches!(self, Self::Stall)
    }

    /// How much later bytes are written than they were read.
    pub(crate) const fn delay(self) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }
}

/// What all connections and those of some clients meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    pub(crate) all: Fault,
    of: BTreeMap<IpAddr, Fault>,
    /// Grows when all connections are to be reset.
    pub(crate) resets: u64,
}

impl Orders {
    pub(crate) fn set_for(&mut self, client: IpAddr, fault: Option<Fault>) {
        match fault {
            Some(fault) => drop(self.of.insert(client, fault)),
            None => drop(self.of.remove(&client)),
        }
    }

    pub(crate) fn of(&self, client: IpAddr) -> Fault {
        self.of.get(&client).copied().unwrap_or(self.all)
    }
}
