//! What to do to the data plane, as values that can be printed, in the order to do them.

use std::net::SocketAddr;

use ipnet::IpNet;
use wattle_model::{PresharedKey, PublicKey};

use crate::{Route, Rule};

/// One change of the device. The kernel hop executes them in order and adds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Set the link's MTU.
    SetMtu(u32),
    /// Listen on another UDP port.
    SetListenPort(u16),
    /// Mark the packets that the tunnel itself sends.
    SetMark(u32),
    /// Take an address from the link.
    RemoveAddress(IpNet),
    /// Give the link an address.
    AddAddress(IpNet),
    /// Bring the link up.
    SetUp,
    /// Route a prefix into the link.
    AddRoute(Route),
    /// Take a route of ours away.
    RemoveRoute(Route),
    /// Add a policy-routing rule.
    AddRule(Rule),
    /// Take a rule of ours away.
    RemoveRule(Rule),
    /// Make or change a peer.
    SetPeer(SetPeer),
    /// Remove a peer.
    RemovePeer {
        /// Which.
        key: PublicKey,
    },
}

/// A peer to make or change; what it leaves out stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPeer {
    /// Which.
    pub key: PublicKey,
    /// It isn't there yet. If false and it is gone meanwhile, nothing happens, or the operation
    /// fails: an update never brings back a peer that somebody removed.
    pub create: bool,
    /// What to do with its prefixes.
    pub prefixes: Prefixes,
    /// Where to send to from now on.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; 0 sends none.
    pub keepalive: Option<u16>,
    /// The preshared key of its next handshake; [`PresharedKey::NONE`] takes away what it has. A session
    /// that is there goes on with what it was made with.
    pub preshared: Option<PresharedKey>,
}

impl SetPeer {
    /// Changes a peer's keepalives, and nothing else.
    pub const fn keepalive(key: PublicKey, seconds: u16) -> Self {
        Self {
            key,
            create: false,
            prefixes: Prefixes::Keep,
            endpoint: None,
            keepalive: Some(seconds),
            preshared: None,
        }
    }
}

/// What to do with a peer's prefixes. Whichever a peer is given leaves whoever had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefixes {
    /// They are right.
    Keep,
    /// Give it these as well. It is the only form that never leaves a moment without one of the
    /// prefixes that the peer keeps.
    Add(Vec<IpNet>),
    /// These are all.
    Replace(Vec<IpNet>),
}
