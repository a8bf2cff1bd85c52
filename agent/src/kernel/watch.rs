//! The kernel's word that something about links, addresses, routes or rules has changed. It says so
//! of these at once; of WireGuard's peers it doesn't, they have to be looked at.

use std::io;

use bytes::BytesMut;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
        route::{RouteAttribute, RouteMessage},
    },
    sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
    },
};

use super::KernelError;

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// The kernel puts several messages into one piece of at most this size.
const PIECE: usize = 32 * 1024;

/// What changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Noticed {
    /// This agent's link, or a rule.
    pub(crate) device: bool,
    /// Another link or address, or a default route.
    pub(crate) host: bool,
}

/// Listens to the kernel. It queues what isn't read up to its socket's buffer, then says only that
/// something was lost, which stands for everything.
pub(crate) struct Watch {
    socket: TokioSocket,
    interface: String,
    index: Option<u32>,
    buffer: BytesMut,
}

impl Watch {
    /// What changes from now on. `interface` is this agent's own.
    pub(crate) fn open(interface: &str) -> Result<Self, KernelError> {
        let failed = |error| KernelError::system(interface, "listening to the kernel", error);
        let socket = subscribe().map_err(failed)?;
        let index = nix::net::if_::if_nametoindex(interface).ok();
        Ok(Self {
            socket,
            interface: interface.to_owned(),
            index,
            buffer: BytesMut::with_capacity(PIECE),
        })
    }

    /// Waits for the next change that concerns us.
    pub(crate) async fn next(&mut self) -> io::Result<Noticed> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(PIECE);
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    return Ok(Noticed { device: true, host: true });
                }
                Err(error) => return Err(error),
            }
            let noticed = self.read();
            if noticed != Noticed::default() {
                return Ok(noticed);
            }
        }
    }

    fn read(&mut self) -> Noticed {
        let mut noticed = Noticed::default();
        let piece = std::mem::take(&mut self.buffer);
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
                // Of a kernel that knows more than we do: worth a look.
                noticed = Noticed { device: true, host: true };
                break;
            };
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                let one = self.meaning(&message);
                noticed.device |= one.device;
                noticed.host |= one.host;
            }
        }
        self.buffer = piece;
        noticed
    }

    fn meaning(&mut self, message: &RouteNetlinkMessage) -> Noticed {
        let device = Noticed { device: true, host: false };
        let host = Noticed { device: false, host: true };
        let ours = match message {
            RouteNetlinkMessage::NewLink(link) => self.is_ours(link),
            RouteNetlinkMessage::DelLink(link) => Some(link.header.index) == self.index,
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                Some(address.header.index) == self.index
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => true,
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                let into_the_link = self.index.is_some() && interface_of(route) == self.index;
                let default = route.header.destination_prefix_length == 0;
                return Noticed { device: into_the_link, host: default && !into_the_link };
            }
            _ => return Noticed::default(),
        };
        if ours { device } else { host }
    }

    /// A link that is made anew has the same name and another index.
    fn is_ours(&mut self, link: &LinkMessage) -> bool {
        let named = link.attributes.iter().any(
            |attribute| matches!(attribute, LinkAttribute::IfName(name) if *name == self.interface),
        );
        if named {
            self.index = Some(link.header.index);
        }
        named || Some(link.header.index) == self.index
    }
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let groups = GROUPS.iter().fold(0, |all, group| all | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

fn interface_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}
